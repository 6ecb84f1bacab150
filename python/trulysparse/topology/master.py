# SPDX-License-Identifier: BSD-3-Clause
"""The weights of all cells of a layer, present or not: as an array, or as their first draw and what changed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels

__all__ = ["DenseMaster", "LazyMaster", "Master", "find", "top"]

F32 = NDArray[np.float32]
Cells = NDArray[np.uint64]
Mask = NDArray[np.bool_]
Draw = Callable[[Cells], F32]
"""Gives cells their first values, each a function of its cell alone."""

_BLOCK_CELLS = 1 << 20
_SPARE = 3  # spare cells that one enumeration brings, in multiples of what was asked for


def find(among: Cells, cells: Cells) -> tuple[NDArray[np.int64], Mask]:
    """Return where `cells` stand in the ascending `among`, and whether they do (else the place means nothing)."""
    if not among.size:
        return np.zeros(cells.size, np.int64), np.zeros(cells.size, np.bool_)
    place = np.minimum(np.searchsorted(among, cells), among.size - 1)
    return place, among[place] == cells


def top(values: F32, count: int, threads: int) -> Mask:
    """Mark the `count` values of largest magnitude; of equal ones the first."""
    if count >= values.size:
        return np.ones(values.size, np.bool_)
    # the kernel drops the first of equal ones: seen from behind, it keeps them
    backwards = np.ascontiguousarray(values[::-1])
    return np.ascontiguousarray(_kernels.drop_smallest(backwards, values.size - count, threads)[::-1])


def _strongest(blocks: Iterable[tuple[int, F32]], count: int, threads: int) -> tuple[Cells, F32]:
    """Return the `count` cells of largest magnitude, ascending, from blocks of values in the order of their cells.

    NaN marks cells that do not count. It takes memory for two blocks and about `count` cells, twice.
    """
    cells, values = np.empty(0, np.uint64), np.empty(0, np.float32)
    limit = np.float32(-1.0)
    waiting: list[tuple[Cells, F32]] = []
    held = 0
    if count == 0:
        return cells, values
    for start, block in blocks:
        chosen = np.flatnonzero(np.abs(block) > limit)
        waiting.append((chosen.astype(np.uint64) + np.uint64(start), block[chosen]))
        held += chosen.size
        if held >= 2 * count:
            cells, values = _best(waiting, count, threads)
            waiting, held = [(cells, values)], count
            limit = np.abs(values).min()  # a later cell that equals the last one comes after it
    return _best(waiting, count, threads)


def _best(parts: list[tuple[Cells, F32]], count: int, threads: int) -> tuple[Cells, F32]:
    cells, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    kept = np.flatnonzero(top(values, count, threads))
    return cells[kept], values[kept]


class Master(Protocol):
    """The weights of all cells of a layer."""

    def write(self, cells: Cells, values: F32) -> None:
        """Set the weights of some cells (ascending, distinct)."""

    def at(self, cells: Cells) -> F32:
        """Return the weights of some cells (ascending, distinct)."""

    def strongest(self, count: int) -> tuple[Cells, F32]:
        """Return the `count` cells of largest |weight|, ascending, and their weights; of equal ones the first."""


@dataclass
class DenseMaster:
    """All weights as an array, in memory or mapped from a file.

    Attributes
    ----------
    array : ndarray of float32, shape (n_in * n_out,)
    threads : int
    """

    array: F32
    threads: int

    def write(self, cells: Cells, values: F32) -> None:
        self.array[cells] = values

    def at(self, cells: Cells) -> F32:
        return np.asarray(self.array[cells])

    def strongest(self, count: int) -> tuple[Cells, F32]:
        starts = range(0, self.array.size, _BLOCK_CELLS)
        blocks = ((start, np.asarray(self.array[start : start + _BLOCK_CELLS])) for start in starts)
        return _strongest(blocks, count, self.threads)


@dataclass
class LazyMaster:
    """The first draw of all cells, which is computed and not stored, and the weights of those that were ever written.

    Of the cells never written the strongest ones are kept at hand, so that not every search has to draw all cells:
    `spare` holds every such cell that ranks at or above `limit`, by magnitude, then by cell.

    Attributes
    ----------
    n_cells : int
    draw : callable
        Gives any cells their first weights.
    threads : int
    cells, values : ndarray of uint64, ndarray of float32
        Cells ever written, ascending, and their weights.
    spare_cells, spare_values : ndarray of uint64, ndarray of float32
        The strongest of the others, ascending.
    limit : tuple of float and int
        Magnitude and cell of the weakest spare when they were drawn.
    """

    n_cells: int
    draw: Draw
    threads: int
    cells: Cells = field(default_factory=lambda: np.empty(0, np.uint64))
    values: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    spare_cells: Cells = field(default_factory=lambda: np.empty(0, np.uint64))
    spare_values: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    limit: tuple[float, int] = (np.inf, 0)

    def write(self, cells: Cells, values: F32) -> None:
        place, known = find(self.cells, cells)
        self.values[place[known]] = values[known]
        new = cells[~known]
        if new.size:
            where = np.searchsorted(self.cells, new)
            self.cells = np.insert(self.cells, where, new)
            self.values = np.insert(self.values, where, values[~known])
            left = ~find(new, self.spare_cells)[1]
            self.spare_cells, self.spare_values = self.spare_cells[left], self.spare_values[left]

    def at(self, cells: Cells) -> F32:
        values = self.draw(cells)
        place, known = find(self.cells, cells)
        values[known] = self.values[place[known]]
        return values

    def strongest(self, count: int) -> tuple[Cells, F32]:
        cells, values = self._known_strongest(count)
        if not self._exact(cells, values, count):
            self._draw_spare(count)
            cells, values = self._known_strongest(count)
        return cells, values

    def _known_strongest(self, count: int) -> tuple[Cells, F32]:
        cells = np.concatenate([self.cells, self.spare_cells])
        order = np.argsort(cells, kind="stable")  # two ascending runs: a merge
        values = np.concatenate([self.values, self.spare_values])[order]
        kept = np.flatnonzero(top(values, count, self.threads))
        return cells[order[kept]], values[kept]

    def _exact(self, cells: Cells, values: F32, count: int) -> bool:
        """Whether no cell that is not at hand can rank above the weakest of these."""
        magnitude, cell = self.limit
        if count == 0 or magnitude < 0:
            return True
        if cells.size < count:
            return False
        size = np.abs(values)
        weakest = size.min()
        return bool(weakest > magnitude or (weakest == magnitude and int(cells[size == weakest][-1]) <= cell))

    def _draw_spare(self, count: int) -> None:
        wanted = _SPARE * count
        cells, values = _strongest(self._untouched(), wanted, self.threads)
        self.spare_cells, self.spare_values = cells, values
        if cells.size < wanted:
            self.limit = (-1.0, 0)  # these are all there are
        else:
            size = np.abs(values)
            weakest = size.min()
            self.limit = (float(weakest), int(cells[size == weakest][-1]))

    def _untouched(self) -> Iterator[tuple[int, F32]]:
        """Yield the first draw of all cells, block by block, NaN for those that were written."""
        for start in range(0, self.n_cells, _BLOCK_CELLS):
            stop = min(start + _BLOCK_CELLS, self.n_cells)
            values = self.draw(np.arange(start, stop, dtype=np.uint64))
            first, last = np.searchsorted(self.cells, np.array([start, stop], np.uint64))
            values[(self.cells[first:last] - np.uint64(start)).astype(np.int64)] = np.nan
            yield start, values
