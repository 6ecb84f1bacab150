# SPDX-License-Identifier: BSD-3-Clause
"""The gradient of a layer's weights, those that do not exist included, without ever holding it as a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import DivergenceError
from trulysparse.model import Pattern, SparseLayer

__all__ = ["LayerGradient"]

F32 = NDArray[np.float32]
Cells = NDArray[np.uint64]


@dataclass(frozen=True)
class LayerGradient:
    """dL/dW of one layer as the two factors whose product it is: G[i, j] = sum over the batch of x[i] dy[j].

    Attributes
    ----------
    layer : SparseLayer
    x : ndarray of float32, shape (n_in, ld)
        What the layer took in, feature-major.
    dy : ndarray of float32, shape (n_out, ld)
        dL/dz of the layer, L the mean loss over the batch; padding is zero.
    threads : int
    closed : ndarray of bool, shape (n_out,), or None
        Target neurons that may get no new connections.
    """

    layer: SparseLayer
    x: F32
    dy: F32
    threads: int
    closed: NDArray[np.bool_] | None = None

    def existing(self) -> F32:
        """Return the gradient of the connections that exist, float32 (nnz,) in pattern order."""
        gradient = _kernels.aligned_empty(self.layer.nnz)
        sink = _kernels.sink_store(gradient)
        _kernels.backward(self.layer.view, self.dy, self.x, None, sink=sink, threads=self.threads)
        return gradient

    def at(self, cells: Cells) -> F32:
        """Return the gradient at any cells ``row * n_out + column``, float32 (len(cells),)."""
        return _kernels.gradient_at(*self.layer.pattern.shape, cells, self.x, self.dy, self.threads)

    def top_missing(self, count: int, mask: NDArray[np.bool_] | None = None) -> tuple[Cells, F32]:
        """Return the `count` missing cells of largest |gradient|, exactly; of equal ones the first.

        Parameters
        ----------
        count
            How many; all missing cells if there are fewer.
        mask
            bool (nnz,): connections where it is False count as missing, as after a drop.

        Returns
        -------
        cells : ndarray of uint64
            Ascending.
        gradients : ndarray of float32
            Theirs.

        Raises
        ------
        DivergenceError
            If a gradient is not a number.
        """
        pattern, dy = self.layer.pattern, self.dy
        if self.closed is not None:
            pattern, columns = open_part(pattern, mask, self.closed, self.threads)
            mask, dy = None, _rows(dy, columns)
        try:
            cells, gradients = _kernels.top_missing_gradients(
                *pattern.shape, pattern.row_ptr, pattern.col_idx, mask, self.x, dy, count, self.threads
            )
        except _kernels.NotFiniteError as error:
            raise DivergenceError(
                f"layer {self.layer.index} cannot be evolved: {error}; training diverged, try a smaller learning rate"
            ) from error
        if self.closed is not None:
            cells = widen_cells(cells, columns, self.layer.n_out)
        return cells, gradients


def _rows(array: F32, rows: NDArray[np.int32]) -> F32:
    chosen = _kernels.aligned_empty((rows.size, array.shape[1]))
    np.take(array, rows, axis=0, out=chosen)
    return chosen


def open_part(
    pattern: Pattern, mask: NDArray[np.bool_] | None, closed: NDArray[np.bool_], threads: int
) -> tuple[Pattern, NDArray[np.int32]]:
    """Return what survives of a pattern in the columns that are not closed, and which columns these are."""
    columns = np.flatnonzero(~closed).astype(np.int32)
    if mask is not None:
        pattern, _ = pattern.keep(mask, threads=threads)
    return pattern.select(None, columns, threads=threads)[0], columns


def widen_cells(cells: Cells, columns: NDArray[np.int32], n_out: int) -> Cells:
    """Return cells of a matrix that has only some columns as cells of the whole one of `n_out` columns."""
    row, column = np.divmod(cells, np.uint64(columns.size))
    return row * np.uint64(n_out) + columns.astype(np.uint64)[column.astype(np.int64)]
