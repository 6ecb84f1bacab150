# SPDX-License-Identifier: BSD-3-Clause
"""The paper's tables on this machine: which runs they take, the runs, and what came out beside the paper's figures."""
