# SPDX-License-Identifier: BSD-3-Clause
"""Training one network in several processes, over MPI."""

from trulysparse.parallel.report import ParallelReport
from trulysparse.parallel.serverless import AllReduce, Decentralized
from trulysparse.parallel.strategies import PARALLEL, TRANSPORTS, WASAP, WASSP, Parallel, get_parallel

__all__ = [
    "PARALLEL",
    "TRANSPORTS",
    "WASAP",
    "WASSP",
    "AllReduce",
    "Decentralized",
    "Parallel",
    "ParallelReport",
    "get_parallel",
]
