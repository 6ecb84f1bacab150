# SPDX-License-Identifier: BSD-3-Clause
"""Training by many processes over MPI."""
