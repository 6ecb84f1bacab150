# SPDX-License-Identifier: BSD-3-Clause
"""What rules are put together from: which connections to drop, and how the dropped and the grown make a change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import DivergenceError
from trulysparse.model import SparseLayer
from trulysparse.topology.base import TopologyDelta

__all__ = ["drop_by_sign", "globally_smallest", "rewire", "smallest", "smallest_magnitude"]

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Cells = NDArray[np.uint64]


def smallest(scores: F32, count: int, layer: SparseLayer, threads: int) -> Mask:
    """Mark the survivors when the `count` connections of smallest |score| are dropped; of equal ones the first go.

    Parameters
    ----------
    scores : ndarray of float32, shape (nnz,)
    count : int
    layer : SparseLayer
        Named in the error.
    threads : int

    Returns
    -------
    ndarray of bool, shape (nnz,)
        True for survivors.

    Raises
    ------
    DivergenceError
        If a score is NaN.
    """
    try:
        return _kernels.drop_smallest(scores, min(count, scores.size), threads)
    except ValueError as error:
        raise _diverged(layer, error) from error


def smallest_magnitude(layer: SparseLayer, count: int, threads: int) -> Mask:
    """Mark the survivors when the `count` weights of smallest magnitude are dropped; see `smallest`."""
    return smallest(layer.values, count, layer, threads)


def globally_smallest(
    scores: Sequence[F32], count: int, layers: Sequence[SparseLayer], threads: int, *, keep_one: bool = False
) -> list[Mask]:
    """Mark the survivors, layer by layer, when the `count` smallest |scores| of all layers together are dropped.

    It takes 5 bytes a connection for the time of the call. With `keep_one` no layer loses all: its largest score
    stays, and the next smallest of the others goes instead, where there is one.

    Raises
    ------
    DivergenceError
        If a score is NaN.
    """
    for layer, some in zip(layers, scores, strict=True):
        if np.isnan(some).any():
            raise _diverged(layer, "its scores hold NaN")
    every = np.concatenate(scores) if scores else np.empty(0, np.float32)
    bounds = np.cumsum([some.size for some in scores])[:-1]
    if keep_one:
        parts = [part for part in np.split(every, bounds) if part.size]
        for part in parts:
            part[np.argmax(np.abs(part))] = np.inf
        count = min(count, every.size - len(parts))
    mask = _kernels.drop_smallest(every, min(count, every.size), threads)
    return [np.ascontiguousarray(part) for part in np.split(mask, bounds)]


def drop_by_sign(layer: SparseLayer, fraction: float, threads: int) -> tuple[Mask, int]:
    """Mark the survivors when `fraction` of each sign's smallest weights, and every zero, are dropped.

    Returns
    -------
    mask : ndarray of bool, shape (nnz,)
        True for survivors.
    dropped : int
        round(fraction * positives) + round(fraction * negatives) + zeros, halves rounded up.

    Raises
    ------
    DivergenceError
        If a weight is NaN.
    """
    try:
        positive, negative, _ = _kernels.count_signs(layer.values, threads)
    except ValueError as error:
        raise _diverged(layer, error) from error
    k_positive, k_negative = (math.floor(fraction * n + 0.5) for n in (positive, negative))
    return _kernels.drop_by_sign(layer.values, k_positive, k_negative, True, threads)


def rewire(layer: SparseLayer, mask: Mask, grown: Cells, values: F32 | None = None) -> TopologyDelta:
    """Make a change of survivors and new cells; one that is dropped and grown at once stays as it is.

    Such a connection keeps its weight and its optimizer state (Evci et al. 2020, the authors' code).

    Parameters
    ----------
    layer : SparseLayer
    mask : ndarray of bool, shape (nnz,)
        True for survivors; changed.
    grown : ndarray of uint64
        Sorted, distinct cells, none among the survivors.
    values : ndarray of float32, shape (len(grown),), optional
        Their weights; None draws them from the layer's initial distribution.
    """
    pattern = layer.pattern
    dropped = np.flatnonzero(~mask)
    rows = np.searchsorted(pattern.row_ptr, dropped, side="right") - 1
    cells = rows.astype(np.uint64) * np.uint64(pattern.n_out) + pattern.col_idx[dropped].astype(np.uint64)
    place = np.minimum(np.searchsorted(cells, grown), max(cells.size - 1, 0))
    again = cells[place] == grown if cells.size else np.zeros(grown.size, np.bool_)
    mask[dropped[place[again]]] = True
    return TopologyDelta(mask, grown[~again], None if values is None else np.ascontiguousarray(values[~again]))


def _diverged(layer: SparseLayer, why: object) -> DivergenceError:
    return DivergenceError(
        f"layer {layer.index} cannot be evolved: {why}; training diverged, try a smaller learning rate"
    )
