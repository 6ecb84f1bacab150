# SPDX-License-Identifier: BSD-3-Clause
"""The dense baseline has the parameters of the sparse network, as nearly as whole neurons allow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.errors import ConfigError
from trulysparse.model import small_dense_sizes


def _parameters(sizes: tuple[int, ...]) -> int:
    return sum(a * b + b for a, b in pairwise(sizes))


@given(st.lists(st.integers(1, 300), min_size=3, max_size=6), st.integers(1, 200_000))
def test_small_dense_is_the_widest_network_within_the_budget(sizes: list[int], parameters: int) -> None:
    small = small_dense_sizes(sizes, parameters)
    assert small[0] == sizes[0]
    assert small[-1] == sizes[-1]
    assert all(1 <= n <= m for n, m in zip(small, sizes, strict=True))
    narrowest = (sizes[0], *(1 for _ in sizes[1:-1]), sizes[-1])
    assert _parameters(small) <= max(parameters, _parameters(narrowest))
    if small != tuple(sizes):
        # one neuron more everywhere is more than the next wider scaling has
        wider = (small[0], *(min(n + 1, m) for n, m in zip(small[1:-1], sizes[1:-1], strict=True)), small[-1])
        assert _parameters(wider) > parameters


def test_small_dense_matches_a_sparse_network() -> None:
    sparse = ts.SparseMLP((784, 300, 100, 10), density=0.05)
    small = ts.small_dense((784, 300, 100, 10), density=0.05, activation="relu", seed=3)
    assert small.connections == sum(a * b for a, b in pairwise(small.sizes))
    ratio = (small.connections + sum(small.sizes[1:])) / (sparse.connections + sum(sparse.sizes[1:]))
    assert 0.9 < ratio <= 1.0


@pytest.mark.parametrize("given_both", [{}, {"density": 0.1, "parameters": 5}])
def test_small_dense_needs_one_measure(given_both: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="either density or parameters"):
        ts.small_dense((4, 3, 2), **given_both)


def test_small_dense_needs_a_hidden_layer() -> None:
    with pytest.raises(ConfigError, match="no hidden layer"):
        ts.small_dense((4, 2), density=0.5)
