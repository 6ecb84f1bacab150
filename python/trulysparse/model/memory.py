# SPDX-License-Identifier: BSD-3-Clause
"""Whether a network fits into this machine, said before anything is allocated."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from trulysparse.errors import ConfigError
from trulysparse.model.registry import check_integer, nearest

__all__ = ["available_bytes", "check_fits", "parse_bytes"]

_UNITS = {"B": 1, "kB": 1000, "KB": 1000, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{prefix}iB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)
}

# What a network is made of before anything is done with it. Of a connection: weight and column. Of a neuron: where its
# connections begin (8 bytes in a layer of 2^31 connections or more) and a bias.
_CONNECTION_BYTES = 8
_POINTER_BYTES = (4, 8)
_BIAS_BYTES = 4
_WIDE = 2**31


def available_bytes() -> int | None:
    """Return the memory that this process may still take, or None where the system does not say."""
    found = [limit for limit in (_meminfo(), _address_space(), _cgroup()) if limit is not None]
    return min(found) if found else None


def check_fits(sizes: Sequence[int], connections: Sequence[float]) -> None:
    """Raise ConfigError, with the arithmetic, if a network of these sizes cannot be held.

    Parameters
    ----------
    sizes
        Neurons of every layer, inputs first.
    connections
        Expected connections of every layer.
    """
    wide = [count >= _WIDE for count in connections]
    for_connections = _CONNECTION_BYTES * sum(connections)
    ends = zip(sizes, sizes[1:], wide, strict=False)
    for_neurons = sum(n_in * _POINTER_BYTES[w] + n_out * _BIAS_BYTES for n_in, n_out, w in ends)
    needed, available = for_connections + for_neurons, available_bytes()
    if available is not None and needed > available:
        total = sum(connections)
        raise ConfigError(
            f"a network of sizes {tuple(sizes)} with about {total:,.0f} connections needs {_gib(needed)} "
            f"({_gib(for_connections)} for connections, {_gib(for_neurons)} for pointers and biases, training besides) "
            f"but {_gib(available)} are available; use fewer neurons or a smaller epsilon or density"
        )


def parse_bytes(size: object, name: str = "memory_budget") -> int:
    """Return the number of bytes that `size` stands for.

    Parameters
    ----------
    size
        A whole number of bytes, or a number with a unit: ``"20GiB"`` (2^30 each), ``"8 GB"`` (10^9 each).
    name
        What to call it in messages.

    Raises
    ------
    ConfigError
        Not a positive size, or a unit that is unknown or could mean two things.
    """
    if not isinstance(size, str):
        return check_integer(size, name, low=1)
    allowed = f"{name} must be a number of bytes, or a size such as '20GiB' or '8 GB', got {size!r}"
    match = re.fullmatch(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", size)
    if match is None:
        raise ConfigError(allowed)
    number, unit = match.groups()
    if unit in ("K", "k", "M", "G", "T"):
        unit = unit.upper()
        raise ConfigError(f"{allowed}; write {unit}iB (powers of 1024) or {unit}B (powers of 1000)")
    if unit and unit not in _UNITS:
        raise ConfigError(f"{allowed}; units are {', '.join(_UNITS)}{nearest(unit, _UNITS)}")
    n_bytes = float(number) * _UNITS[unit or "B"]
    if not (math.isfinite(n_bytes) and n_bytes >= 1):
        raise ConfigError(f"{allowed}; it must be at least one byte")
    return int(n_bytes)


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _address_space() -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return None
    return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def _cgroup() -> int | None:
    """Return what a container's limit (cgroup v2) leaves."""
    try:
        folder = Path("/sys/fs/cgroup")
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
