# SPDX-License-Identifier: BSD-3-Clause
"""Training on several processes at once, over MPI."""
