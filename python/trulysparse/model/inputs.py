# SPDX-License-Identifier: BSD-3-Clause
"""Samples as users have them: checked once, never copied as a whole, scaled batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import DataError, ShapeError

__all__ = ["FEATURE_DTYPES", "InputScaling", "Inputs"]

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

FEATURE_DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float32", "float64")
_BLOCK_BYTES = 8 << 20
_F32_MAX = float(np.finfo(np.float32).max)
_F32_TINY = float(np.finfo(np.float32).tiny)


def _is_sparse(X: object) -> bool:
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def _as_matrix(X: Any, where: str) -> Any:
    """Return X as a 2-D ndarray or canonical SciPy CSR of a supported dtype; raise otherwise."""
    sparse = _is_sparse(X)
    if sparse and X.format != "csr":
        raise TypeError(f"{where} is sparse in {X.format!r} format, only CSR is read row by row; pass {where}.tocsr()")
    if not sparse:
        try:
            X = np.asarray(X)
        except ValueError as error:
            raise ShapeError(f"{where} is not a rectangular array: {error}") from None
    if X.dtype.name not in FEATURE_DTYPES or not X.dtype.isnative:
        cure = "np.uint8" if X.dtype == np.bool_ else "np.float32"
        raise TypeError(
            f"{where} has dtype {X.dtype}, allowed are {', '.join(FEATURE_DTYPES)}; pass {where}.astype({cure})"
        )
    if X.ndim != 2:
        cure = f"; for one sample pass {where}[None, :]" if X.ndim == 1 else f"; pass {where}.reshape(len({where}), -1)"
        raise ShapeError(f"{where} must have shape (samples, features), got {X.shape}{cure if X.ndim else ''}")
    if X.shape[0] == 0:
        raise DataError(f"{where} has no samples (shape {X.shape}); at least one is needed")
    if sparse:
        if not X.has_canonical_format:
            raise DataError(f"{where} holds unsorted or duplicate entries; call {where}.sum_duplicates() first")
        if X.nnz and not (X.indices.min() >= 0 and X.indices.max() < X.shape[1]):
            raise DataError(
                f"{where} has column indices outside 0 to {X.shape[1] - 1}; it was built or changed wrongly"
            )
    elif any(stride % X.itemsize for stride in X.strides):
        raise TypeError(f"{where} is a view whose strides are not whole elements; pass np.ascontiguousarray({where})")
    return X


def _matching(X: Any, n_features: int, where: str) -> Any:
    X = _as_matrix(X, where)
    if X.shape[1] != n_features:
        raise ShapeError(
            f"the network expects {n_features} features but {where} has {X.shape[1]} (array of shape "
            f"{X.shape}); "
            "did the columns change since training?"
        )
    return X


def _row_blocks(X: Array) -> range:
    return range(0, len(X), _rows_a_block(X))


def _rows_a_block(X: Array) -> int:
    return max(1, _BLOCK_BYTES // (8 * max(1, int(X.shape[1]))))


def _usable(values: Array) -> npt.NDArray[np.bool_]:
    return np.abs(values) <= _F32_MAX  # False for NaN too


def _check_finite(X: Any, where: str) -> None:
    """Raise DataError for floats that float32 cannot hold, block by block: X may be larger than memory."""
    if X.dtype.kind != "f":
        return
    count, first = 0, None
    if _is_sparse(X):
        for start in range(0, X.nnz, _BLOCK_BYTES // 8):
            bad = np.flatnonzero(~_usable(X.data[start : start + _BLOCK_BYTES // 8]))
            if len(bad) and first is None:
                k = start + int(bad[0])
                row = int(np.searchsorted(X.indptr, k, side="right")) - 1
                first = row, int(X.indices[k]), X.data[k]
            count += len(bad)
    else:
        rows = _rows_a_block(X)
        for start in _row_blocks(X):
            usable = _usable(X[start : start + rows])
            if usable.all():
                continue
            if first is None:
                row, column = (int(i) for i in np.unravel_index(int(np.argmin(usable)), usable.shape))
                first = start + row, column, X[start + row, column]
            count += usable.size - int(np.count_nonzero(usable))
    if first is not None:
        row, column, value = first
        raise DataError(
            f"{where} holds {count} value{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} NaN, "
            "infinite or too "
            f"large for 32-bit floats; the first is {value} at row {row}, column {column}; remove or replace "
            "them, for "
            f"example with np.nan_to_num or scikit-learn's SimpleImputer"
        )


class InputScaling:
    """Standardisation of features, applied batch by batch: ``(x - shift) * factor``.

    Parameters
    ----------
    shift
        (n_features,), taken as float32.
    factor
        (n_features,), positive, taken as float32.

    Raises
    ------
    ShapeError
        The two are not of one length.
    DataError
        A value that is not finite, or a factor that is not positive.
    """

    __slots__ = ("factor", "shift")

    shift: F32
    factor: F32

    def __init__(self, shift: npt.ArrayLike, factor: npt.ArrayLike) -> None:
        with np.errstate(over="ignore"):
            self.shift = np.array(shift, dtype=np.float32)
            self.factor = np.array(factor, dtype=np.float32)
        if self.shift.ndim != 1 or self.shift.shape != self.factor.shape:
            raise ShapeError(
                f"shift and factor must both have shape (n_features,), got {self.shift.shape} and {self.factor.shape}"
            )
        if not np.isfinite(self.shift).all() or not np.isfinite(self.factor).all() or not (self.factor > 0).all():
            raise DataError("shift must be finite and factor finite and positive, in 32-bit floats, for every feature")
        self.shift.setflags(write=False)
        self.factor.setflags(write=False)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.shift)

    @property
    def centred(self) -> bool:
        """True if any feature is shifted; such a scaling cannot be applied to sparse input."""
        return bool(self.shift.any())

    def __repr__(self) -> str:
        return f"InputScaling(n_features={self.n_features}, centred={self.centred})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InputScaling):
            return NotImplemented
        return np.array_equal(self.shift, other.shift) and np.array_equal(self.factor, other.factor)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def fit(
        cls,
        X: Any,
        *,
        centred: bool | None = None,
        rows: npt.NDArray[np.int64] | None = None,
        where: str = "X",
        common: bool = False,
        changed: Callable[[npt.NDArray[np.int64]], Array] | None = None,
    ) -> InputScaling:
        """Measure mean and (population) standard deviation of every feature, block by block in float64.

        Constant features get factor 1.

        Parameters
        ----------
        X
            The training samples, (samples, features), dense or SciPy CSR.
        centred
            Whether to subtract the mean. None: yes for dense `X`, no for CSR, which would not stay sparse.
        rows
            Only these samples; None: all.
        where
            What to call `X` in messages.
        common
            One mean and one deviation for the values of all features together, as for the pixels of an image, whose
            differences in spread then stay.
        changed
            Returns the samples of some rows as training will see them, where that is not as they stand in `X`.

        Raises
        ------
        DataError
            No samples, values that are not finite, or `centred=True` with CSR.
        """
        X = _as_matrix(X, where)
        _check_finite(X, where)
        sparse = _is_sparse(X)
        if sparse and centred:
            raise DataError(
                f"{where} is sparse and cannot be centred without becoming dense; use centred=False or "
                f"{where}.toarray()"
            )
        mean, variance, constant = (
            _sparse_moments(X if rows is None else X[rows]) if sparse else _dense_moments(X, rows, changed)
        )
        if common:
            overall = mean.mean()
            variance = np.full_like(variance, (variance + (mean - overall) ** 2).mean())
            constant = np.full_like(constant, constant.all() and mean.min() == mean.max())
            mean = np.full_like(mean, overall)
        deviation = np.sqrt(variance)
        constant |= (deviation < _F32_TINY) | (deviation > _F32_MAX)
        factor = np.divide(1.0, deviation, out=np.ones_like(deviation), where=~constant)
        shift = np.zeros_like(mean) if sparse or centred is False else mean
        return cls(shift, factor)


def _dense_moments(
    X: Array,
    chosen: npt.NDArray[np.int64] | None = None,
    changed: Callable[[npt.NDArray[np.int64]], Array] | None = None,
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    n_features, rows = X.shape[1], _rows_a_block(X)
    if changed is not None and chosen is None:
        chosen = np.arange(len(X))
    seen, mean, squares = 0, np.zeros(n_features), np.zeros(n_features)
    low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    for start in range(0, len(X) if chosen is None else chosen.size, rows):
        if chosen is None:
            block = X[start : start + rows].astype(np.float64)
        else:
            some = chosen[start : start + rows]
            block = (X[some] if changed is None else changed(some)).astype(np.float64)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        block_mean = block.mean(axis=0)
        block -= block_mean
        squares += np.einsum("ij,ij->j", block, block)
        # merge two groups' means and squared deviations (Chan, Golub & LeVeque 1983)
        total = seen + len(block)
        step = block_mean - mean
        squares += step**2 * (seen * len(block) / total)
        mean += step * (len(block) / total)
        seen = total
    return mean, squares / seen, low == high


def _sparse_moments(X: Any) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    n, n_features = X.shape
    size = _BLOCK_BYTES // 8
    blocks = [slice(start, start + size) for start in range(0, X.nnz, size)]
    stored, total = np.zeros(n_features, dtype=np.int64), np.zeros(n_features)
    low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    for block in blocks:
        columns, values = X.indices[block], X.data[block].astype(np.float64)
        stored += np.bincount(columns, minlength=n_features)
        total += np.bincount(columns, weights=values, minlength=n_features)
        np.minimum.at(low, columns, values)
        np.maximum.at(high, columns, values)
    implicit = stored < n
    low[implicit] = np.minimum(low[implicit], 0.0)
    high[implicit] = np.maximum(high[implicit], 0.0)
    mean = total / n
    squares = (n - stored) * mean**2
    for block in blocks:
        columns = X.indices[block]
        values = X.data[block] - mean[columns]
        squares += np.bincount(columns, weights=values * values, minlength=n_features)
    return mean, squares / n, low == high


class Inputs:
    """Samples of a data set, checked once, from which batches are loaded.

    Parameters
    ----------
    X
        (samples, features): a dense array of dtype uint8, int8, uint16, int16, int32, int64, float32 or
        float64 with any strides (memory-mapped too), or a SciPy CSR matrix or array. Kept as it is, not
        copied.
    n_features
        What the network expects.
    scaling
        Applied to every batch; None: samples are taken as they are.
    where
        What to call `X` in messages.

    Raises
    ------
    ShapeError
        Another number of features, or not two-dimensional.
    DataError
        No samples; NaN or infinite values; CSR with a scaling that centres.
    TypeError
        Another dtype, or another sparse format.
    """

    n_samples: int
    n_features: int

    def __init__(self, X: Any, n_features: int, scaling: InputScaling | None = None, where: str = "X") -> None:
        X = _matching(X, n_features, where)
        if scaling is not None and scaling.n_features != n_features:
            raise ShapeError(
                f"the input scaling is for {scaling.n_features} features, the network expects {n_features}"
            )
        self._sparse = _is_sparse(X)
        if self._sparse and scaling is not None and scaling.centred:
            raise DataError(
                f"{where} is sparse, but the network's input scaling was fitted on dense samples and "
                "subtracts their mean; "
                f"pass {where}.toarray(), or fit the scaling on CSR or with centred=False"
            )
        _check_finite(X, where)
        self.X = X
        self.n_samples = int(X.shape[0])
        self.n_features = int(n_features)
        self.scaling = scaling

    @staticmethod
    def count(X: Any, n_features: int, where: str = "X") -> int:
        """Return the number of samples of `X`, after every check but that of the values."""
        return int(_matching(X, n_features, where).shape[0])

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        kind = "CSR" if self._sparse else "dense"
        return f"Inputs({kind} {self.X.dtype} {self.X.shape}, scaling={self.scaling!r})"

    def load(self, rows: npt.NDArray[np.int64], out: F32, threads: int) -> None:
        """Gather, transpose and scale samples: ``out[f, b] = (X[rows[b], f] - shift[f]) * factor[f]``.

        Parameters
        ----------
        rows
            int64 (batch,).
        out
            float32 (n_features, ld); columns beyond the batch become zero.
        threads
            At least 1.
        """
        if self._sparse:
            X, factor = self.X, None if self.scaling is None else self.scaling.factor
            _kernels.load_csr(X.data, X.indices, X.indptr, rows, self.n_features, out, factor, threads)
        else:
            self._load_dense(self.X, rows, out, threads)

    def _load_dense(self, X: Array, rows: npt.NDArray[np.int64], out: F32, threads: int) -> None:
        shift = None if self.scaling is None else self.scaling.shift
        factor = None if self.scaling is None else self.scaling.factor
        _kernels.load_dense(X, rows, out, shift, factor, threads)

    def load_training(
        self, rows: npt.NDArray[np.int64], out: F32, threads: int, *, seed: int, step: int, column: int = 0
    ) -> None:
        """Load samples to train on: as `load` does, unless samples are changed at random.

        Parameters
        ----------
        rows, out, threads
            As in `load`.
        seed, step
            What changes are drawn from: the seed and the training step.
        column
            Place of the first of these samples in the whole batch of the step.
        """
        self.load(rows, out, threads)

    def prepare(self, rows: npt.NDArray[np.int64], *, seed: int, step: int) -> None:
        """Hear of the batch `rows` of a later training step; samples that stay as they are need no preparation."""

    def close(self) -> None:
        """End what `prepare` began."""
