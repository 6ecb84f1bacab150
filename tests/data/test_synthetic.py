# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trulysparse.data import make_classification
from trulysparse.errors import ConfigError


def test_defaults_have_the_shape_of_madelon() -> None:
    d = make_classification()
    assert (d.n_train, d.n_test, d.n_features, d.n_classes) == (2000, 600, 500, 2)
    assert d.X_train.dtype == np.float32
    assert 0.4 < d.y_train.mean() < 0.6


def test_five_directions_and_fifteen_combinations_of_them() -> None:
    d = make_classification(n_features=20, flip_y=0.0)
    assert np.linalg.matrix_rank(d.X_train.astype(np.float64), tol=1e-2) == 5


def test_seed_decides_the_data() -> None:
    a, b, c = (make_classification(n_samples=50, seed=s) for s in (3, 3, 2**63 + 4))
    np.testing.assert_array_equal(a.X_train, b.X_train)
    assert not np.array_equal(a.X_train, c.X_train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_clusters_per_class": 17}, "make_classification: .*2\\*\\*n_informative"),
        ({"n_features": 10}, "make_classification: "),
        ({"n_samples": 3, "test_fraction": 0.1}, "one part without samples"),
        ({"test_fraction": 0}, "between 0 and 1"),
    ],
)
def test_numbers_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classification(**arguments)
