# SPDX-License-Identifier: BSD-3-Clause
"""A data set: training and test samples with their labels or targets, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError, DataError, ShapeError
from trulysparse.model.inputs import FEATURE_DTYPES

if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix

    Features: TypeAlias = NDArray[Any] | csr_array[Any] | csr_matrix[Any]

TASKS = ("classification", "regression")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples to train on and, as a rule, samples to test on.

    Nothing is copied or converted; memory-mapped arrays stay on disk. That features are finite is checked by
    the network that takes them, in the pass that standardises them.

    Parameters
    ----------
    name : str
        What to call it in messages and files.
    X_train : ndarray or SciPy CSR, shape (n_train, n_features)
        One row a sample; uint8, int8, uint16, int16, int32, int64, float32 or float64.
    y_train : ndarray, shape (n_train,) or (n_train, n_outputs)
        Class labels as integers from 0, or real targets.
    X_test, y_test : as above, or both None
        The test part.
    task : {None, "classification", "regression"}
        None infers it: integer labels are classes, real targets a regression. Real targets that are all whole
        numbers could mean either, so that they must be named.

    Attributes
    ----------
    n_train, n_test : int
        Samples of each part.
    n_features : int
    n_classes : int or None
        Largest label of either part plus 1; None for a regression.

    Raises
    ------
    ShapeError
        If row or feature counts disagree or an array has the wrong number of dimensions.
    DataError
        If a part is empty, a dtype cannot be trained on, or labels or targets are not usable.
    """

    name: str
    X_train: Features
    y_train: NDArray[Any]
    X_test: Features | None = None
    y_test: NDArray[Any] | None = None
    task: str | None = None
    n_features: int = field(init=False)
    n_classes: int | None = field(init=False)

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise ConfigError(f"{self.name}: task={self.task!r} is unknown; use {' or '.join(map(repr, TASKS))}")
        if (self.X_test is None) != (self.y_test is None):
            got, lacks = ("y_test", "X_test") if self.X_test is None else ("X_test", "y_test")
            raise DataError(f"{self.name}: {got} is given without {lacks}; give both parts of the test set or neither")
        _check_features(self.X_train, f"{self.name}: X_train")
        _check_rows(self.X_train, self.y_train, self.name, "train")
        if self.X_test is not None and self.y_test is not None:
            _check_features(self.X_test, f"{self.name}: X_test")
            _check_rows(self.X_test, self.y_test, self.name, "test")
            if self.X_test.shape[1] != self.X_train.shape[1]:
                raise ShapeError(
                    f"{self.name}: X_train has {self.X_train.shape[1]} features but X_test has "
                    f"{self.X_test.shape[1]}; were both made with the same columns?"
                )
            if self.y_test.shape[1:] != self.y_train.shape[1:]:
                raise ShapeError(
                    f"{self.name}: y_train has shape {self.y_train.shape} but y_test has "
                    f"{self.y_test.shape}; both need the same number of targets a sample"
                )
        task = _infer_task(self.y_train, f"{self.name}: y_train") if self.task is None else self.task
        check = _check_labels if task == "classification" else _check_targets
        check(self.y_train, f"{self.name}: y_train")
        if self.y_test is not None:
            check(self.y_test, f"{self.name}: y_test")
        classes = None
        if task == "classification":
            classes = 1 + max(int(y.max()) for y in (self.y_train, self.y_test) if y is not None)
        for key, value in (
            ("task", task),
            ("n_features", int(self.X_train.shape[1])),
            ("n_classes", classes),
        ):
            object.__setattr__(self, key, value)

    @property
    def n_train(self) -> int:
        """Training samples."""
        return int(self.X_train.shape[0])

    @property
    def n_test(self) -> int:
        """Test samples, 0 without a test part."""
        return 0 if self.X_test is None else int(self.X_test.shape[0])

    @property
    def n_outputs(self) -> int:
        """Outputs a network for it has: one a class, or one a target."""
        if self.n_classes is not None:
            return self.n_classes
        return 1 if self.y_train.ndim == 1 else int(self.y_train.shape[1])

    def __repr__(self) -> str:
        what = f"{self.n_classes} classes" if self.n_classes is not None else f"{self.n_outputs} targets"
        kind = "" if isinstance(self.X_train, np.ndarray) else "sparse "
        return (
            f"Dataset({self.name!r}: {self.n_train:,} training and {self.n_test:,} test samples x "
            f"{self.n_features:,} {kind}{self.X_train.dtype} features, {what})"
        )


def _check_features(X: Features, where: str) -> None:
    if not (isinstance(X, np.ndarray) or getattr(X, "format", None) == "csr"):
        raise DataError(
            f"{where} is a {type(X).__name__}, not a NumPy array or SciPy CSR matrix; "
            "use np.asarray(X), or X.tocsr() for another sparse format"
        )
    if X.ndim != 2:
        cure = f"; flatten each sample with {where.split()[-1]}.reshape(len(X), -1)" if X.ndim > 2 else ""
        raise ShapeError(f"{where} has {X.ndim} dimensions {X.shape}, expected 2 (samples, features){cure}")
    if 0 in X.shape:
        raise DataError(f"{where} is empty: its shape is {X.shape}, and at least one sample and feature is needed")
    if X.dtype.name not in FEATURE_DTYPES or not X.dtype.isnative:
        raise DataError(
            f"{where} has dtype {X.dtype!r}, allowed are {', '.join(FEATURE_DTYPES)} in the machine's "
            "byte order; convert it with .astype(np.float32)"
        )


def _check_rows(X: Features, y: NDArray[Any], name: str, part: str) -> None:
    if not isinstance(y, np.ndarray):
        raise DataError(f"{name}: y_{part} is a {type(y).__name__}, not a NumPy array; use np.asarray(y)")
    if y.ndim not in (1, 2):
        raise ShapeError(f"{name}: y_{part} has shape {y.shape}, expected (samples,) or (samples, targets)")
    if y.shape[0] != X.shape[0]:
        raise ShapeError(
            f"{name}: X_{part} has {X.shape[0]} rows but y_{part} has {y.shape[0]}; a sample has one label"
        )


def _infer_task(y: NDArray[Any], where: str) -> str:
    if y.dtype.kind == "f":
        if y.ndim == 1 and bool(np.all(y == np.floor(y))):
            raise DataError(
                f"{where} holds whole numbers as {y.dtype}, which may be classes or targets; "
                'convert class labels with .astype(int), or pass task="regression"'
            )
        return "regression"
    return "classification"


def _check_labels(y: NDArray[Any], where: str) -> None:
    if y.dtype.kind not in "iu":
        cure = {
            "f": ".astype(int) if they are whole numbers",
            "b": ".astype(int)",
            "U": "np.unique(y, return_inverse=True)[1]",
            "S": "np.unique(y, return_inverse=True)[1]",
            "O": "np.unique(y, return_inverse=True)[1]",
        }.get(y.dtype.kind, ".astype(int)")
        raise DataError(f"{where}: class labels must be integers from 0, got dtype {y.dtype}; convert them with {cure}")
    if y.ndim != 1:
        raise ShapeError(
            f"{where} has shape {y.shape}, class labels need (samples,); "
            "use .argmax(axis=1) for one-hot rows or .ravel() for a single column"
        )
    lowest = int(y.min())
    if lowest < 0:
        raise DataError(
            f"{where}: class labels count from 0, but the smallest is {lowest}; "
            "renumber them with np.unique(y, return_inverse=True)[1]"
        )


def _check_targets(y: NDArray[Any], where: str) -> None:
    if y.dtype.kind not in "fiu":
        raise DataError(f"{where}: regression targets must be numbers, got dtype {y.dtype}")
    if y.ndim == 2 and y.shape[1] == 0:
        raise ShapeError(f"{where} has shape {y.shape}: at least one target a sample is needed")
    bad = int(np.count_nonzero(~np.isfinite(y)))
    if bad:
        first = np.argwhere(~np.isfinite(y))[0]
        raise DataError(
            f"{where}: {bad} of {y.size} targets are NaN or infinite, the first in row {first[0]}; "
            "remove those samples or fill the gaps"
        )
