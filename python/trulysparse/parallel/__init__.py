# SPDX-License-Identifier: BSD-3-Clause
"""Training one network in several processes, over MPI."""

from trulysparse.parallel.report import ParallelReport
from trulysparse.parallel.strategies import PARALLEL, WASAP, WASSP, Parallel, get_parallel

__all__ = ["PARALLEL", "WASAP", "WASSP", "Parallel", "ParallelReport", "get_parallel"]
