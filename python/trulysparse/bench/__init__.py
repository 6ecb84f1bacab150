# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark: kernels and whole epochs against what this machine can do, and against every rival.

Each case checks its result before it is timed, contestants take turns in one process, and what cannot run is named.
"""
