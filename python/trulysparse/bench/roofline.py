# SPDX-License-Identifier: BSD-3-Clause
"""What this machine can do at most: multiply-adds, bytes from each cache, and rows in the order of connections."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.bench.machine import Caches, read_caches

__all__ = ["MachineRoofs", "Roofline"]

_ROW_BYTES = (64, 128, 256, 512)
_AHEAD = (0, 8, 24, 64)
_READS = 1 << 16  # rows of one probe


class ProbeError(AssertionError):
    """A probe did not compute what it should: its time means nothing."""


@dataclass(frozen=True)
class MachineRoofs:
    """The roofs of one thread count, best of several runs each.

    Attributes
    ----------
    threads : int
    fma_gflops : float
        Multiply-adds in registers, two flops each.
    l1_gbs, l2_gbs, l3_gbs, dram_gbs : float
        Reading in order, GB/s; each thread from its own half of the cache.
    random_rows_gbs : dict of str to float
        Reading rows of so many bytes in random order from memory beyond all caches.
    """

    threads: int
    fma_gflops: float
    l1_gbs: float
    l2_gbs: float
    l3_gbs: float
    dram_gbs: float
    random_rows_gbs: dict[str, float]

    def record(self) -> dict[str, Any]:
        """Return what a JSON line holds."""
        return {"benchmark": "roofline", **asdict(self)}


class Roofline:
    """Measures roofs when they are asked for, once each.

    Parameters
    ----------
    caches : Caches, optional
        Sizes of the caches; default what the system reports.
    seconds : float, optional
        Time of one run of a probe.
    runs : int, optional
        Runs of which the best counts.
    memory_bytes : int, optional
        What counts as memory; default eight times the last cache, at most 256 MiB.
    """

    def __init__(
        self,
        caches: Caches | None = None,
        *,
        seconds: float = 0.01,
        runs: int = 4,
        memory_bytes: int | None = None,
    ) -> None:
        self.caches = read_caches() if caches is None else caches
        self.seconds = seconds
        self.runs = runs
        self.memory_bytes = min(8 * self.caches.l3, 256 << 20) if memory_bytes is None else memory_bytes
        self._memory: NDArray[np.float32] | None = None
        self._reads: dict[tuple[int, int], float] = {}
        self._rows: dict[tuple[int, int, int, str], float] = {}
        self._machine: dict[int, MachineRoofs] = {}

    def machine(self, threads: int) -> MachineRoofs:
        """Return the roofs of `threads` threads."""
        if threads not in self._machine:
            c = self.caches
            self._machine[threads] = MachineRoofs(
                threads=threads,
                fma_gflops=self.fma_gflops(threads),
                l1_gbs=self.read_gbs(c.l1 // 2 * threads, threads),
                l2_gbs=self.read_gbs(c.l2 // 2 * threads, threads),
                l3_gbs=self.read_gbs(c.l3 // 2, threads),
                dram_gbs=self.read_gbs(self.memory_bytes, threads),
                random_rows_gbs={
                    str(size): self.rows_gbs(self.memory_bytes // size, size, threads) for size in _ROW_BYTES
                },
            )
        return self._machine[threads]

    def fma_gflops(self, threads: int) -> float:
        """Measure fused multiply-adds that need no memory."""

        def run(rounds: int) -> int:
            flops, total = _kernels.probe_fma(rounds, 1.0, 1.0, threads)
            if total != flops / 2:
                raise ProbeError(f"the multiply-add probe counted {total:.0f} instead of {flops / 2:.0f}")
            return flops

        return self._best(run, 1 << 16)

    def read_gbs(self, n_bytes: int, threads: int) -> float:
        """Measure reading `n_bytes` in order, over and over, every thread its own part."""
        key = (n_bytes, threads)
        if key not in self._reads:
            memory = self._floats(n_bytes // 4)

            def run(passes: int) -> int:
                total = _kernels.probe_read(memory, passes, threads)
                if total != passes * memory.size:
                    raise ProbeError(f"the reading probe summed {total:.0f} instead of {passes * memory.size}")
                return passes * memory.nbytes

            self._reads[key] = self._best(run, 1)
        return self._reads[key]

    def rows_gbs(
        self, rows: int, row_bytes: int, threads: int, order: NDArray[np.int32] | None = None, name: str = "random"
    ) -> float:
        """Measure reading rows one by one, with the prefetch distance that suits best.

        Parameters
        ----------
        rows : int
            Rows that there are.
        row_bytes : int
            64 times a power of two.
        threads : int
        order : ndarray of int32, optional
            Which rows, one after the other; default random ones.
        name : str, optional
            Tells one order from another: a measurement is made once.
        """
        key = (rows, row_bytes, threads, name)
        if key not in self._rows:
            width = row_bytes // 4
            matrix = self._floats(rows * width).reshape(rows, width)
            if order is None:
                order = np.random.default_rng(0).integers(rows, size=max(_READS, rows), dtype=np.int32)
            some = np.ascontiguousarray(order[: 8 * _READS])

            def probe(ahead: int) -> Callable[[int], int]:
                def run(repeats: int) -> int:
                    for _ in range(repeats):
                        total = _kernels.probe_rows(matrix, some, ahead, threads)
                        if total != some.size * width:
                            raise ProbeError(f"the row probe summed {total:.0f} instead of {some.size * width}")
                    return repeats * some.size * row_bytes

                return run

            self._rows[key] = max(self._best(probe(ahead), 1) for ahead in _AHEAD)
        return self._rows[key]

    def stream_gbs(self, n_bytes: int, threads: int) -> float:
        """Return the reading bandwidth of the cache (or memory) that holds `n_bytes` shared among the threads."""
        machine = self.machine(threads)
        for size, gbs in (
            (self.caches.l1 * threads, machine.l1_gbs),
            (self.caches.l2 * threads, machine.l2_gbs),
            (self.caches.l3, machine.l3_gbs),
        ):
            if n_bytes <= size:
                return gbs
        return machine.dram_gbs

    def level(self, n_bytes: int) -> str:
        """Return which cache holds so many bytes that every thread reads."""
        c = self.caches
        return "L1" if n_bytes <= c.l1 else "L2" if n_bytes <= c.l2 else "L3" if n_bytes <= c.l3 else "memory"

    def _floats(self, n: int) -> NDArray[np.float32]:
        """Return n ones; all callers share them."""
        if self._memory is None or self._memory.size < n:
            self._memory = _kernels.aligned_empty(n)
            self._memory.fill(1.0)
        return self._memory[:n]

    def _best(self, run: Callable[[int], int], amount: int) -> float:
        """Return the best rate in 1e9 a second of ``run(amount)``, with as large an amount as fills the time."""
        seconds = self._seconds(run, amount)[0]
        for _ in range(3):  # the first runs are too short to tell
            if seconds >= self.seconds / 2:
                break
            amount = min(amount * 1000, math.ceil(amount * self.seconds / max(seconds, 1e-7)))
            seconds = self._seconds(run, amount)[0]
        rates = []
        for _ in range(self.runs):
            seconds, work = self._seconds(run, amount)
            rates.append(work / seconds / 1e9)
        return max(rates)

    def _seconds(self, run: Callable[[int], int], amount: int) -> tuple[float, int]:
        started = time.perf_counter()
        work = run(amount)
        return time.perf_counter() - started, work
