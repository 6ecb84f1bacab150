# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import numpy as np
import pytest

from trulysparse.data import load_digits
from trulysparse.errors import ConfigError


def test_every_digit_is_in_exactly_one_part() -> None:
    from sklearn import datasets

    source = datasets.load_digits()
    d = load_digits()
    assert (d.X_train.dtype, d.n_features, d.n_classes, d.n_train + d.n_test) == (np.uint8, 64, 10, 1797)
    assert d.y_test is not None
    rows = np.column_stack([np.vstack([d.X_train, d.X_test]), np.concatenate([d.y_train, d.y_test])])
    expected = np.column_stack([source.data, source.target]).astype(int)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_classes_are_split_evenly(fraction: float) -> None:
    d = load_digits(test_fraction=fraction)
    assert d.y_test is not None
    train, test = np.bincount(d.y_train), np.bincount(d.y_test)
    np.testing.assert_array_equal(test, np.round(fraction * (train + test)))


def test_seed_decides_the_split() -> None:
    a, b, c = load_digits(), load_digits(seed=0), load_digits(seed=1)
    np.testing.assert_array_equal(a.X_test, b.X_test)
    assert not np.array_equal(a.X_test, c.X_test)


def test_bad_fraction() -> None:
    with pytest.raises(ConfigError, match=r"test_fraction=1\.5"):
        load_digits(test_fraction=1.5)
