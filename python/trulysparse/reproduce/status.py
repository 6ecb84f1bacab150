# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees while many cases run: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from trulysparse.reproduce.files import Progress
from trulysparse.trainer.progress import format_seconds

__all__ = ["Running", "StatusLine"]

_PLAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """A case that runs: what it is, its work in any unit, how far it is."""

    label: str
    seed: int
    work: float
    progress: Progress | None

    @property
    def part(self) -> float:
        """How much of it is done, from 0 to 1."""
        return 0.0 if self.progress is None else min(1.0, self.progress.epoch / self.progress.epochs)

    def __str__(self) -> str:
        where = "starting" if self.progress is None else f"{self.progress.epoch}/{self.progress.epochs}"
        return f"{self.label} seed {self.seed}: {where}"


class StatusLine:
    """Reports on standard error.

    Parameters
    ----------
    total, done : int
        Cases.
    work : float
        Of those that are to run.
    quiet : bool
        Say nothing.
    stream : file, optional
    clock : callable
        Returns seconds; for tests.
    """

    def __init__(
        self,
        total: int,
        done: int,
        work: float,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done, self._left = total, done, work
        self._quiet, self._out, self._clock = quiet, sys.stderr if stream is None else stream, clock
        self._live = not quiet and self._out.isatty()
        self._started, self._last = clock(), -float("inf")
        self._worked = 0.0
        self._begun: dict[tuple[str, int], float] = {}
        self._shown = False
        if done and not quiet:
            self._print(f"{done} of {total} results are there already")

    def show(self, running: Sequence[Running]) -> None:
        """Say what runs."""
        if self._quiet or not running:
            return
        now = self._clock()
        for each in running:
            self._begun.setdefault((each.label, each.seed), each.part)
        if now - self._last < (0.25 if self._live else _PLAIN_SECONDS):
            return
        self._last = now
        text = f"{self._done}/{self._total} done; {'; '.join(str(each) for each in running)}"
        left = self._seconds_left(running, now)
        if left is not None:
            text += f"; about {format_seconds(left)} left"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._out.write("\r\x1b[K" + text[: max(20, width)])
            self._out.flush()
            self._shown = True
        else:
            self._print(text)

    def end(self, label: str, work: float, what: str, *, seed: int | None = None, part: float = 1.0) -> None:
        """Say that a case has ended, and how; `part` of it was done (a run that fails early tells little of speed)."""
        self._done += 1
        self._left -= work
        key = (label, seed or 0)
        self._worked += work * max(0.0, part - self._begun.pop(key, 1.0))
        if not self._quiet:
            self._print(f"[{self._done}/{self._total}] {label}{'' if seed is None else f' seed {seed}'}: {what}")

    def say(self, text: str) -> None:
        """Say something else."""
        if not self._quiet:
            self._print(text)

    def close(self) -> None:
        """End the live line."""
        if self._shown:
            self._out.write("\n")
            self._out.flush()
            self._shown = False

    def _seconds_left(self, running: Sequence[Running], now: float) -> float | None:
        """Return the time to the end if work goes on as fast as so far; None before anything is known."""
        worked, left = self._worked, self._left
        for each in running:
            worked += each.work * (each.part - self._begun[each.label, each.seed])
            left -= each.work * each.part
        return (now - self._started) * left / worked if worked > 0 else None

    def _print(self, text: str) -> None:
        self._out.write(("\r\x1b[K" if self._shown else "") + text + "\n")
        self._out.flush()
        self._shown = False
