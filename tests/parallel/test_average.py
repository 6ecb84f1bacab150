# SPDX-License-Identifier: BSD-3-Clause
"""Several networks averaged over all their connections, and sparse again (eq. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from trulysparse.model import Pattern
from trulysparse.parallel.average import average_layers, without_surplus

Masks = list[NDArray[np.bool_]]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
MASKS = SHAPES.flatmap(lambda shape: st.lists(hnp.arrays(np.bool_, shape), min_size=1, max_size=5))


def draw(mask: NDArray[np.bool_], seed: int, zeros: float = 0.0) -> tuple[Pattern, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    pattern = Pattern.from_dense(mask)
    values = rng.normal(size=pattern.nnz).astype(np.float32)
    values[rng.random(pattern.nnz) < zeros] = 0.0
    return pattern, values


def dense(pattern: Pattern, values: NDArray[np.float32]) -> NDArray[np.float64]:
    return pattern.to_scipy(values).toarray().astype(np.float64)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_average_of_identical_networks_is_the_network(count: int) -> None:
    pattern, values = draw(np.random.default_rng(0).random((40, 30)) < 0.2, 1, zeros=0.1)
    values[::7] *= np.float32(1e-30)
    values[1::7] *= np.float32(1e38)  # a float32 sum of such overflows
    together, mean = average_layers([pattern] * count, [values] * count, pattern.nnz, 1)
    assert together == pattern
    assert mean.tobytes() == values.tobytes()


@given(MASKS, st.integers(0, 2**32), st.integers(0, 60))
def test_averaging_is_that_of_dense_matrices(masks: Masks, seed: int, most: int) -> None:
    layers = [draw(mask, seed + k, zeros=0.2) for k, mask in enumerate(masks)]
    expected = sum(dense(*layer) for layer in layers) / len(layers)  # absent counts as 0: divided by K
    pattern, values = average_layers([p for p, _ in layers], [v for _, v in layers], most, 1)
    union = np.logical_or.reduce(masks)
    kept = pattern.to_dense()
    assert not (kept & ~union).any()
    assert pattern.nnz == min(most, union.sum())  # exactly the surplus goes
    np.testing.assert_allclose(dense(pattern, values), expected * kept, rtol=1e-6, atol=1e-7)

    gone = union & ~kept
    if gone.any() and (expected[kept] == 0).any():
        assert not expected[gone].any()  # zeros first
    for sign in (1, -1):
        there, dropped = sign * expected[kept], sign * expected[gone]
        if (there > 0).any() and (dropped > 0).any():
            assert dropped.max() <= there[there > 0].min() * (1 + 1e-6)


def test_signs_lose_by_their_shares() -> None:
    values = np.concatenate([np.arange(1, 61), -np.arange(1, 21), np.zeros(5)]).astype(np.float32)
    mask = without_surplus(values, 5 + 20, 1)
    assert mask is not None
    assert not mask[-5:].any()
    assert np.flatnonzero(~mask[:60]).tolist() == list(range(15))  # 60 of 80
    assert np.flatnonzero(~mask[60:80]).tolist() == list(range(5))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(1, 120))
def test_exactly_the_surplus_goes(positive: int, negative: int, zeros: int, surplus: int) -> None:
    values = np.concatenate([np.ones(positive), -np.ones(negative), np.zeros(zeros)]).astype(np.float32)
    values = np.random.default_rng(positive).permutation(values)
    surplus = min(surplus, values.size)
    mask = without_surplus(values, surplus, 1)
    if surplus == 0:
        assert mask is None
        return
    assert mask is not None
    assert np.count_nonzero(~mask) == surplus
    assert np.count_nonzero(values[~mask] == 0) == min(zeros, surplus)
    if surplus > zeros:
        lost = np.count_nonzero(values[~mask] > 0)
        assert abs(lost - (surplus - zeros) * positive / (positive + negative)) <= 1


@pytest.mark.parametrize("surplus", [0, -1, -100])
def test_without_a_surplus_nothing_goes(surplus: int) -> None:
    assert without_surplus(np.zeros(3, np.float32), surplus, 1) is None


def test_fewer_connections_than_allowed_all_stay() -> None:
    layers: list[Any] = [draw(np.eye(4, dtype=bool), 0), draw(np.eye(4, k=1, dtype=bool), 1)]
    pattern, values = average_layers([p for p, _ in layers], [v for _, v in layers], 100, 1)
    assert pattern.nnz == values.size == 7
