# SPDX-License-Identifier: BSD-3-Clause
"""Time and memory of the phases of a long run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trulysparse._memory import process_memory

__all__ = ["Meter", "Phase"]

_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Phase:
    """What a phase took.

    Attributes
    ----------
    name : str
    seconds : float
    held_bytes, peak_bytes : int or None
        Memory at its end and at its height, less what the process had at the start and less pages of mapped files,
        which the system may take back; None where the system does not say.
    planned_bytes : int or None
        What the plan has for its height.
    """

    name: str
    seconds: float = 0.0
    held_bytes: int | None = None
    peak_bytes: int | None = None
    planned_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it in plain values."""
        return asdict(self)


class Meter:
    """Measures phases one after the other, from a first look at the process's memory on.

    Attributes
    ----------
    phases : list of Phase
    by_phase : bool
        Whether the system let the highest memory be measured for each phase; else it is the highest so far.
    """

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.by_phase = self._forget_peak()
        self._start = process_memory()

    @contextmanager
    def phase(self, name: str, planned_bytes: int | None = None) -> Iterator[Phase]:
        """Measure what is done inside."""
        measured = Phase(name, planned_bytes=planned_bytes)
        self._forget_peak()
        started = time.perf_counter()
        yield measured
        measured.seconds = time.perf_counter() - started
        measured.held_bytes, measured.peak_bytes = self._taken("now"), self._taken("peak")
        self.phases.append(measured)

    @property
    def peak_bytes(self) -> int | None:
        """The highest memory of all phases."""
        peaks = [phase.peak_bytes for phase in self.phases if phase.peak_bytes is not None]
        return max(peaks, default=None)

    def _taken(self, which: str) -> int | None:
        memory = process_memory()
        if not (memory and self._start):
            return None
        return max(0, memory[which] - self._start["now"] - max(0, memory["rss_file"] - self._start["rss_file"]))

    @staticmethod
    def _forget_peak() -> bool:
        """Let the system count the highest memory anew; return whether it does."""
        try:
            _CLEAR.write_text("5", encoding="ascii")
        except OSError:
            return False
        return True
