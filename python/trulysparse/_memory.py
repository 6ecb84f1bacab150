# SPDX-License-Identifier: BSD-3-Clause
"""How much memory this process has."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["peak_bytes", "process_memory"]

_STATUS = Path("/proc/self/status")
_FIELDS = {"VmRSS": "now", "VmHWM": "peak", "RssAnon": "rss_anon", "RssFile": "rss_file", "RssShmem": "rss_shmem"}


def process_memory() -> dict[str, int]:
    """Return what this process holds, in bytes; empty where the system has no ``/proc``.

    Returns
    -------
    dict of str to int
        ``now``, the sum of ``rss_anon``, ``rss_file`` and ``rss_shmem``; and ``peak``, the most that it was so far.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {_FIELDS[name]: int(value.split()[0]) * 1024 for name, _, value in fields if name in _FIELDS}


def peak_bytes() -> int:
    """Return the most memory that this program has had, in bytes.

    Not ``ru_maxrss`` where Linux tells it: that is handed on over exec, and counts what the starting program had.
    """
    peak = process_memory().get("peak")
    if peak is not None:
        return peak
    import resource

    # kilobytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
