# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trulysparse.data import validation_split
from trulysparse.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(1000, 0.1, 100), (7, 0.5, 4), (2, 0.01, 1), (2, 0.99, 1), (3, 1 / 3, 1)]
)
def test_every_row_is_in_exactly_one_part(n: int, fraction: float, held_out: int) -> None:
    train, validation = validation_split(n, fraction, seed=4)
    assert validation.size == held_out
    assert train.dtype == validation.dtype == np.int64
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(n))


def test_seed_decides_the_split() -> None:
    a, b, c = (validation_split(100, 0.3, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.0, float("nan"), True, "0.1", None])
def test_bad_fraction(fraction: Any) -> None:
    with pytest.raises(ConfigError, match="validation fraction"):
        validation_split(10, fraction, seed=0)


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2"):
        validation_split(1, 0.5, seed=0)
