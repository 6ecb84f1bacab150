# SPDX-License-Identifier: BSD-3-Clause
"""Timing contestants in alternation, so that a noisy neighbour hits them all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Timing", "alternate", "settle", "thread_limit"]

_LONG_CALL_SECONDS = 0.02
_SLOW_CALL_SECONDS = 0.4
_POLL_SECONDS = 0.006  # longer than a tick, at which the system adds up what threads on other cores used
_WARM_SECONDS = 0.008


@dataclass(frozen=True)
class Timing:
    """Seconds a call, of some turns.

    Attributes
    ----------
    samples : tuple of float
        Mean seconds a call of each turn, in the order they were taken.
    calls : int
        Calls of one turn.
    """

    samples: tuple[float, ...]
    calls: int

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile; both the sample itself if there is only one."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high

    def scaled(self, factor: float) -> Timing:
        """Return the timing of `factor` calls as one."""
        return Timing(tuple(sample * factor for sample in self.samples), self.calls)

    def record(self) -> dict[str, Any]:
        """Return what a JSON line holds."""
        low, high = self.quartiles
        return {"seconds": self.median, "quartiles": [low, high], "samples": len(self.samples), "calls": self.calls}


def settle(limit_seconds: float = 0.25) -> None:
    """Wait until no thread of this process computes: OpenMP's keep spinning for a while after their last work."""
    deadline = time.perf_counter() + limit_seconds
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(_POLL_SECONDS)
        if time.process_time() - before < _POLL_SECONDS / 8:
            return


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Make the OpenMP runtimes, BLAS libraries and PyTorch of this process use `threads` threads."""
    import sys

    from threadpoolctl import threadpool_limits

    torch, mkl = sys.modules.get("torch"), sys.modules.get("sparse_dot_mkl")
    before = torch.get_num_threads() if torch is not None else 0
    with threadpool_limits(limits=threads):
        if torch is not None:
            torch.set_num_threads(threads)
        if mkl is not None:
            mkl.mkl_set_num_threads(threads)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def alternate(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int = 5,
    most: int = 200,
    turn_seconds: float = 0.01,
) -> dict[str, Timing]:
    """Time several contestants, turn by turn.

    A turn waits until the threads of the one before have gone to sleep, calls untimed for some milliseconds (unless a
    call is long), then as often as fills `turn_seconds`: a thread that slept may take that long to get a core of its
    own, which a program that computes without a pause never sees.

    Parameters
    ----------
    calls : mapping of str to callable
        The contestants; each was called before.
    seconds : float
        Time for each contestant, more where `least` turns need it.
    least, most : int
        Bounds of the number of turns; a call that takes 0.4 s has two.
    turn_seconds : float
        Least length of a turn.

    Returns
    -------
    dict of str to Timing
        In the order of `calls`.
    """
    lengths: dict[str, float] = {}
    for name, call in calls.items():
        settle()
        lengths[name] = _timed(call, 1)
    repeats = {name: max(1, math.ceil(turn_seconds / max(length, 1e-7))) for name, length in lengths.items()}
    turns = {name: min(most, max(least, int(seconds / (length * repeats[name])))) for name, length in lengths.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for name, length in lengths.items():
        if length >= _SLOW_CALL_SECONDS:  # two turns are enough for what takes so long, and one was just made
            samples[name].append(length)
            turns[name] = min(turns[name], 1)
    rounds = max(turns.values(), default=0)
    for number in range(rounds):
        for name, call in calls.items():
            # the turns of a contestant that has fewer are spread over all rounds
            if (number + 1) * turns[name] // rounds == number * turns[name] // rounds:
                continue
            settle()
            if lengths[name] < _LONG_CALL_SECONDS:
                _timed(call, max(1, math.ceil(_WARM_SECONDS / max(lengths[name], 1e-7))))
            samples[name].append(_timed(call, repeats[name]))
    return {name: Timing(tuple(samples[name]), repeats[name]) for name in calls}


def _timed(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats
