# SPDX-License-Identifier: BSD-3-Clause
"""What every measurement writes beside its figures: which machine, when, which commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trulysparse import _kernels

_CACHE_DIRECTORY = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Caches:
    """Bytes of a core's data caches; the last one may be shared.

    The defaults are a common server's, for systems that do not say.
    """

    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 32 << 20


def read_caches(directory: Path = _CACHE_DIRECTORY) -> Caches:
    """Return the cache sizes that Linux reports for the first core."""
    found: dict[str, int] = {}
    for index in sorted(directory.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and level in "123":
            found[f"l{level}"] = int(size.rstrip("KMG")) * _UNITS.get(size[-1], 1)
    return Caches(**found)


def provenance(commit: str | None = None) -> dict[str, Any]:
    """Return machine, date, versions and commit.

    Parameters
    ----------
    commit : str, optional
        What the installed package was built from; default: asks git, if the package is a checkout's own source.
    """
    caches = read_caches()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": source_commit(Path(__file__).parents[1]) if commit is None else commit,
        "trulysparse": _kernels.build_info()["version"],
        "isa": _kernels.isa(),
        "cores": _kernels.default_threads(),
        "cpu": cpu_name(),
        "caches": f"L1 {caches.l1 >> 10} KiB, L2 {caches.l2 >> 10} KiB, L3 {caches.l3 >> 20} MiB",
        "python": platform.python_version(),
    }


class Neighbours:
    """Says how many cores other programs used: a figure from a busy machine is worth little."""

    def __init__(self) -> None:
        self._last = self._now()

    def cores(self) -> float | None:
        """Return the cores that others used on average since the last call; None where Linux's counts are absent."""
        before, self._last = self._last, self._now()
        if before is None or self._last is None or self._last[0] <= before[0]:
            return None
        seconds, busy = (now - then for now, then in zip(self._last, before, strict=True))
        return round(max(0.0, busy / seconds), 3)

    @staticmethod
    def _now() -> tuple[float, float] | None:
        """Return seconds on the clock, and seconds that the cores spent on other processes."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = (int(field) for field in fields[:8])
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        total = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), total - mine


def source_commit(directory: Path) -> str | None:
    """Return the commit that the files of `directory` come from, "+changes" if they differ from it; None if unknown."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True)

    try:
        if not git("ls-files", "--", ".").stdout:  # not tracked: an installed package inside a checkout, for example
            return None
        root = git("rev-parse", "--show-toplevel").stdout.strip()
        head = git("rev-parse", "--short", "HEAD").stdout.strip()
        changed = git("status", "--porcelain", "--", f"{root}/python", f"{root}/cpp").stdout.strip()
    except OSError:
        return None
    return head + ("+changes" if changed else "")


def cpu_name() -> str:
    """Return the processor's name, and its family and model where the name says little (virtual machines)."""
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    name = facts.get("model name", platform.processor() or platform.machine())
    return f"{name} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
