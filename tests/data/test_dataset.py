# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from trulysparse.data import Dataset
from trulysparse.errors import ConfigError, DataError, ShapeError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 2, 1, 0])


def test_classification_is_inferred_from_integer_labels() -> None:
    d = Dataset("toy", X, Y, X[:2], Y[:2])
    assert (d.task, d.n_classes, d.n_features, d.n_outputs, d.n_train, d.n_test) == (
        "classification",
        3,
        3,
        3,
        4,
        2,
    )
    assert d.X_train is X
    assert repr(d) == "Dataset('toy': 4 training and 2 test samples x 3 float32 features, 3 classes)"


def test_classes_are_counted_over_both_parts() -> None:
    assert Dataset("toy", X, Y, X, np.array([0, 1, 4, 0])).n_classes == 5


@pytest.mark.parametrize(("shape", "outputs"), [((4,), 1), ((4, 2), 2)])
def test_regression_is_inferred_from_real_targets(shape: tuple[int, ...], outputs: int) -> None:
    d = Dataset("toy", X, np.full(shape, 0.5))
    assert (d.task, d.n_classes, d.n_outputs, d.n_test) == ("regression", None, outputs, 0)


def test_whole_numbers_as_targets_need_the_task() -> None:
    with pytest.raises(DataError, match=r"\.astype\(int\), or pass task=\"regression\""):
        Dataset("toy", X, Y.astype(float))
    assert Dataset("toy", X, Y.astype(float), task="regression").task == "regression"


def test_sparse_features_are_kept() -> None:
    S = scipy.sparse.csr_array(X)
    d = Dataset("toy", S, Y)
    assert d.X_train is S
    assert "sparse float32" in repr(d)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "clustering"}, ConfigError, "'classification' or 'regression'"),
        ({"X_test": X}, DataError, "X_test is given without y_test"),
        ({"y_test": Y}, DataError, "y_test is given without X_test"),
        ({"X_train": X.tolist()}, DataError, "is a list, not a NumPy array"),
        ({"X_train": scipy.sparse.csc_array(X)}, DataError, r"X\.tocsr\(\)"),
        ({"X_train": X.reshape(2, 2, 3)}, ShapeError, r"X_train\.reshape\(len\(X\), -1\)"),
        ({"X_train": X[:0], "y_train": Y[:0]}, DataError, "X_train is empty"),
        ({"X_train": X[:, :0]}, DataError, "X_train is empty"),
        ({"X_train": X.astype(object)}, DataError, r"dtype.*astype\(np\.float32\)"),
        ({"X_train": X.astype(np.float16)}, DataError, "float16"),
        ({"X_train": X.astype(">f4")}, DataError, "byte order"),
        ({"y_train": Y[:3]}, ShapeError, "X_train has 4 rows but y_train has 3"),
        ({"y_train": Y.tolist()}, DataError, r"np\.asarray\(y\)"),
        ({"y_train": Y.reshape(4, 1, 1)}, ShapeError, "expected \\(samples,\\)"),
        ({"y_train": Y.reshape(4, 1)}, ShapeError, r"\.ravel\(\)"),
        ({"y_train": np.array(["a", "b", "a", "b"])}, DataError, "return_inverse=True"),
        ({"y_train": Y > 0}, DataError, r"dtype bool.*\.astype\(int\)"),
        ({"y_train": Y - 1}, DataError, "the smallest is -1"),
        ({"y_train": Y + 0.5, "task": "classification"}, DataError, "must be integers"),
        ({"y_train": np.array([0.5, np.nan, 1.0, np.inf])}, DataError, "2 of 4 targets.*the first in row 1"),
        ({"y_train": np.zeros((4, 0))}, ShapeError, "at least one target"),
        ({"X_test": X[:, :2], "y_test": Y}, ShapeError, "3 features but X_test has 2"),
        ({"X_test": X, "y_test": Y.reshape(4, 1)}, ShapeError, "same number of targets"),
    ],
)
def test_bad_data_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Dataset("toy", **({"X_train": X, "y_train": Y} | arguments))
