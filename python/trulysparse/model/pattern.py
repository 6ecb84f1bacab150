# SPDX-License-Identifier: BSD-3-Clause
"""The connections of one layer, and the operations of which every change of topology is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import PatternError, ShapeError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Pattern"]

Array = npt.NDArray[Any]


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array


class Pattern:
    """Which connections a layer has, as sorted CSR: rows are source neurons, columns are targets. Immutable.

    Parameters
    ----------
    n_in, n_out
        Numbers of source and target neurons.
    row_ptr
        int32 or int64, shape (n_in + 1,): where the connections of each source begin.
    col_idx
        int32, shape (nnz,): target of each connection, strictly ascending within a source.
    validate
        True: check the content, and copy arrays that could still be written to. False: the arrays come from a
        kernel and are taken over as they are.

    Raises
    ------
    PatternError
        Unsorted, duplicate or out of range columns, or a `row_ptr` that does not fit.
    TypeError
        An array of another dtype or not contiguous.
    """

    __slots__ = ("__weakref__", "_borrowed", "_transposed", "col_idx", "n_in", "n_out", "row_ptr")

    n_in: int
    n_out: int
    row_ptr: Array
    col_idx: npt.NDArray[np.int32]

    def __init__(self, n_in: int, n_out: int, row_ptr: Array, col_idx: Array, *, validate: bool = True) -> None:
        if validate:
            _kernels.validate_pattern(n_in, n_out, row_ptr, col_idx)
            row_ptr = row_ptr.copy() if row_ptr.flags.writeable else row_ptr
            col_idx = col_idx.copy() if col_idx.flags.writeable else col_idx
        self.n_in = int(n_in)
        self.n_out = int(n_out)
        self.row_ptr = _frozen(row_ptr)
        self.col_idx = _frozen(col_idx)
        self._transposed: tuple[Array, Array, Array | None] | None = None
        self._borrowed = False

    @classmethod
    def over(cls, n_in: int, n_out: int, row_ptr: Array, col_idx: Array, transposed: tuple[Array, ...]) -> Pattern:
        """Make a pattern of arrays that their owner will write to again; `lasting` copies what must outlive that."""
        pattern = cls(n_in, n_out, row_ptr, col_idx, validate=False)
        col_ptr, row_idx, perm = (_frozen(array) for array in transposed)
        pattern._transposed = col_ptr, row_idx, perm
        pattern._borrowed = True
        return pattern

    def own(self) -> None:
        """Copy what lies in memory that is about to change or to go: whoever kept the pattern keeps it as it was."""
        if self._borrowed:
            copy = self.lasting()
            self.row_ptr, self.col_idx, self._transposed = copy.row_ptr, copy.col_idx, copy._transposed
            self._borrowed = False

    def lasting(self) -> Pattern:
        """Return the pattern, or a copy if it lies in memory that will be written to again."""
        if not self._borrowed:
            return self
        copy = Pattern(self.n_in, self.n_out, self.row_ptr.copy(), self.col_idx.copy(), validate=False)
        if self._transposed is not None:
            col_ptr, row_idx, perm = self._transposed
            permuted = None if perm is None else _frozen(perm.copy())
            copy._transposed = _frozen(col_ptr.copy()), _frozen(row_idx.copy()), permuted
        return copy

    @property
    def shape(self) -> tuple[int, int]:
        """(n_in, n_out)."""
        return self.n_in, self.n_out

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return len(self.col_idx)

    @property
    def density(self) -> float:
        """Connections as a part of all cells; 0 if there are no cells."""
        cells = self.n_in * self.n_out
        return self.nnz / cells if cells else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of `row_ptr` and `col_idx`."""
        return self.row_ptr.nbytes + self.col_idx.nbytes

    @property
    def transposed(self) -> tuple[Array, Array, Array]:
        """The second index ``(col_ptr, row_idx, perm)``: connections by (target, source), computed once.

        ``perm[k]`` is where the k-th of them stands in pattern order.
        """
        return self.transpose()

    def transpose(self, threads: int | None = None) -> tuple[Array, Array, Array]:
        """`transposed`, computed on the given number of threads if it has not been yet."""
        if self._transposed is None or self._transposed[2] is None:
            col_ptr, row_idx, perm = _kernels.transpose(*self._csr(), threads=threads)
            self._transposed = _frozen(col_ptr), _frozen(row_idx), _frozen(perm)
        col_ptr, row_idx, permuted = self._transposed
        assert permuted is not None
        return col_ptr, row_idx, permuted

    def transpose_values(self, values: Array, threads: int | None = None) -> tuple[Array, Array, Array]:
        """Return ``(col_ptr, row_idx, values)``: the second index, and `values` (float32, (nnz,)) in its order."""
        return _kernels.transpose_values(*self._csr(), values, threads=threads)

    def second_index(self, threads: int | None = None) -> tuple[Array, Array]:
        """Return ``(col_ptr, row_idx)`` of `transposed`; the permutation is let go, or never kept."""
        col_ptr, row_idx, _ = self.transpose(threads) if self._transposed is None else self._transposed
        if not self._borrowed:
            self._transposed = col_ptr, row_idx, None
        return col_ptr, row_idx

    def forget_second_index(self) -> None:
        """Let go of `transposed`; it is computed again when it is asked for."""
        if not self._borrowed:
            self._transposed = None

    @property
    def held_bytes(self) -> int:
        """Bytes of all arrays that the pattern holds now: `nbytes`, and the second index as far as it is there."""
        index = () if self._transposed is None else self._transposed
        return self.nbytes + sum(array.nbytes for array in index if array is not None)

    def __repr__(self) -> str:
        return f"Pattern({self.n_in}, {self.n_out}, nnz={self.nnz}, density={self.density:.4g})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.row_ptr, other.row_ptr)
            and np.array_equal(self.col_idx, other.col_idx)
        )

    __hash__ = None  # type: ignore[assignment]

    def _csr(self) -> tuple[int, int, Array, Array]:
        return self.n_in, self.n_out, self.row_ptr, self.col_idx

    @classmethod
    def from_scipy(cls, matrix: Any) -> Pattern:
        """Make a pattern of the stored entries (explicit zeros too) of a SciPy sparse matrix or array.

        Raises
        ------
        PatternError
            Duplicate entries, or indices out of range.
        """
        csr = matrix.tocsr()
        if not csr.has_sorted_indices:
            csr = csr.sorted_indices()
        n_in, n_out = (int(n) for n in csr.shape)
        limit = np.iinfo(np.int32).max
        if max(n_in, n_out) > limit:
            raise PatternError(f"a layer can have at most {limit} neurons on a side, the matrix is {n_in} x {n_out}")
        offset = _kernels.offset_dtype(len(csr.indices))
        return cls(n_in, n_out, csr.indptr.astype(offset), csr.indices.astype(np.int32))

    @classmethod
    def from_dense(cls, mask: Array) -> Pattern:
        """Make a pattern of the True cells of a boolean array of shape (n_in, n_out).

        Raises
        ------
        TypeError
            `mask` is not boolean.
        ShapeError
            `mask` is not two-dimensional.
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise TypeError(f"a dense pattern must be a boolean array, got dtype {mask.dtype}; pass for example W != 0")
        if mask.ndim != 2:
            raise ShapeError(f"a dense pattern must have shape (n_in, n_out), got {mask.shape}")
        n_in, n_out = mask.shape
        counts = np.count_nonzero(mask, axis=1)
        row_ptr = np.zeros(n_in + 1, dtype=_kernels.offset_dtype(int(counts.sum())))
        np.cumsum(counts, out=row_ptr[1:])
        col_idx = np.nonzero(mask)[1].astype(np.int32)
        return cls(n_in, n_out, row_ptr, col_idx, validate=False)

    @classmethod
    def from_cells(cls, n_in: int, n_out: int, cells: Array, threads: int | None = None) -> Pattern:
        """Make a pattern of sorted, distinct linear cells (uint64, ``source * n_out + target``)."""
        return cls(n_in, n_out, *_kernels.from_cells(n_in, n_out, cells, threads=threads), validate=False)

    def to_scipy(self, values: Array) -> csr_array[Any, tuple[int, int]]:
        """Return a SciPy CSR array (n_in, n_out) over `values` (nnz,) in pattern order; nothing is copied.

        Raises
        ------
        ShapeError
            `values` does not have one entry a connection.
        """
        from scipy.sparse import csr_array

        if np.shape(values) != (self.nnz,):
            raise ShapeError(f"values must have shape ({self.nnz},), one a connection, got {np.shape(values)}")
        lasting = self.lasting()
        matrix = csr_array((values, lasting.col_idx, lasting.row_ptr), shape=self.shape)
        matrix.has_canonical_format = True
        return matrix

    def to_dense(self) -> npt.NDArray[np.bool_]:
        """Return a boolean array of shape (n_in, n_out), True where a connection is."""
        mask = np.zeros(self.shape, dtype=np.bool_)
        mask[self.sources(), self.col_idx] = True
        return mask

    def sources(self) -> npt.NDArray[np.int32]:
        """Return the source neuron of each connection, int32 (nnz,)."""
        return np.repeat(np.arange(self.n_in, dtype=np.int32), np.diff(self.row_ptr))

    def cells(self) -> npt.NDArray[np.uint64]:
        """Return the cells ``source * n_out + target`` of the connections, uint64 (nnz,), ascending."""
        starts = np.arange(self.n_in, dtype=np.uint64) * np.uint64(self.n_out)
        cells = np.repeat(starts, np.diff(self.row_ptr))
        cells += self.col_idx.astype(np.uint64)
        return cells

    def in_degree(self) -> npt.NDArray[np.int64]:
        """Return the number of incoming connections of each target, int64 (n_out,)."""
        if self._transposed is not None:
            return np.diff(self._transposed[0]).astype(np.int64)
        return _kernels.in_degree(*self._csr())

    def out_degree(self) -> npt.NDArray[np.int64]:
        """Return the number of outgoing connections of each source, int64 (n_in,)."""
        return np.diff(self.row_ptr).astype(np.int64)

    def keep(
        self, mask: npt.NDArray[np.bool_], arrays: Sequence[Array] = (), *, threads: int | None = None
    ) -> tuple[Pattern, list[Array]]:
        """Keep the connections where `mask` (bool, (nnz,)) is True, and their entries of every array.

        Returns
        -------
        pattern : Pattern
        arrays : list of ndarray
            New float32 arrays in the order of the new pattern.
        """
        row_ptr, col_idx, carried = _kernels.keep(*self._csr(), mask, list(arrays), threads=threads)
        return Pattern(self.n_in, self.n_out, row_ptr, col_idx, validate=False), carried

    def rewire(
        self,
        mask: npt.NDArray[np.bool_] | None,
        grown: Array,
        arrays: Sequence[Array] = (),
        fills: Sequence[Array | None] | None = None,
        *,
        threads: int | None = None,
    ) -> tuple[Pattern, list[Array]]:
        """Drop where `mask` is False and add `grown`, in one pass.

        Parameters
        ----------
        mask
            bool (nnz,), True = keep; None keeps all.
        grown
            uint64, sorted and distinct cells, none of them among those kept.
        arrays
            float32 arrays (nnz,) carried along.
        fills
            For each array the values of the grown cells in the order of `grown`, or None for zeros.

        Raises
        ------
        PatternError
            `grown` is unsorted, out of range, or holds a cell that is kept.
        """
        fills = [None] * len(arrays) if fills is None else list(fills)
        row_ptr, col_idx, carried = _kernels.rewire(*self._csr(), mask, grown, list(arrays), fills, threads=threads)
        return Pattern(self.n_in, self.n_out, row_ptr, col_idx, validate=False), carried

    @staticmethod
    def unite(
        patterns: Sequence[Pattern],
        arrays: Sequence[Sequence[Array]] | None = None,
        *,
        divisor: float = 1.0,
        threads: int | None = None,
    ) -> tuple[Pattern, list[Array]]:
        """Unite patterns of one shape; ``arrays[k][a]`` are summed over k where connections coincide.

        Parameters
        ----------
        patterns
            At least one.
        arrays
            For each pattern its float32 arrays (nnz,), as many for every one; None: no arrays.
        divisor
            Sums are made in double, in the order of k, and divided by this, before they are rounded once. With the
            number of patterns it gives their mean, in which a connection that some lack counts as 0 there; the mean of
            equal arrays is that array, bit for bit (denormals count as 0).

        Raises
        ------
        ShapeError
            No pattern at all, or patterns of different shapes.
        PatternError
            `divisor` is not a finite number above 0.
        """
        shapes = {p.shape for p in patterns}
        if len(shapes) != 1:
            raise ShapeError(f"unite takes patterns of one shape, got {sorted(shapes) or 'none'}")
        n_in, n_out = shapes.pop()
        carried_in = [[] for _ in patterns] if arrays is None else [list(a) for a in arrays]
        # the merge works on one offset type: the widest given
        offset = np.result_type(*(p.row_ptr.dtype for p in patterns))
        csr = [(p.row_ptr.astype(offset, copy=False), p.col_idx) for p in patterns]
        row_ptr, col_idx, carried = _kernels.unite(n_in, n_out, csr, carried_in, threads=threads, divisor=divisor)
        return Pattern(n_in, n_out, row_ptr, col_idx, validate=False), carried

    def carry(
        self,
        onto: Pattern,
        arrays: Sequence[Array],
        *,
        out: Sequence[Array] | None = None,
        threads: int | None = None,
    ) -> list[Array]:
        """Bring arrays in the order of this pattern into the order of another: RetainValidUpdates.

        An update that was computed on an older topology keeps what it says of connections that still exist; the rest is
        dropped, and new connections get 0 (WASAP-SGD, arXiv:2102.01732).

        Parameters
        ----------
        onto
            A pattern of the same shape.
        arrays
            float32, shape (nnz,) each.
        out
            float32 arrays (onto.nnz,) to write to, one for each of `arrays` and apart from all of them; None
            allocates new ones.

        Returns
        -------
        list of ndarray
            `out`, or the new arrays: for each connection of `onto` the entry of the same cell, 0 where this pattern
            lacks it.

        Raises
        ------
        ShapeError
            `onto` has another shape, or an array another length.
        """
        if onto.shape != self.shape:
            raise ShapeError(f"arrays of a pattern {self.shape} cannot be carried onto one of shape {onto.shape}")
        # the merge works on one offset type: the wider one
        offset = np.result_type(self.row_ptr.dtype, onto.row_ptr.dtype)
        row_ptr, onto_row_ptr = (p.row_ptr.astype(offset, copy=False) for p in (self, onto))
        return _kernels.carry(
            *self.shape, row_ptr, self.col_idx, onto_row_ptr, onto.col_idx, arrays, out, threads=threads
        )

    def select(
        self,
        rows: Array | None,
        cols: Array | None,
        arrays: Sequence[Array] = (),
        *,
        threads: int | None = None,
    ) -> tuple[Pattern, list[Array]]:
        """Keep only some sources and targets; the result has their counts as its shape.

        Parameters
        ----------
        rows, cols
            int32, ascending; None = all.
        """
        row_ptr, col_idx, carried = _kernels.select(*self._csr(), rows, cols, list(arrays), threads=threads)
        n_in = self.n_in if rows is None else len(rows)
        n_out = self.n_out if cols is None else len(cols)
        return Pattern(n_in, n_out, row_ptr, col_idx, validate=False), carried

    def draw_missing(
        self,
        count: int,
        *,
        seed: int,
        purpose: str,
        layer: int,
        step: int,
        mask: npt.NDArray[np.bool_] | None = None,
        threads: int | None = None,
    ) -> npt.NDArray[np.uint64]:
        """Draw `count` distinct cells uniformly from those the pattern does not have, sorted.

        Parameters
        ----------
        mask
            bool (nnz,): connections where it is False count as gone, as after `keep`.

        Raises
        ------
        PatternError
            There are fewer free cells.
        """
        return _kernels.draw_missing(
            *self._csr(), count, seed=seed, purpose=purpose, layer=layer, step=step, mask=mask, threads=threads
        )
