# SPDX-License-Identifier: BSD-3-Clause
"""SNFS: against a dense statement of the rule in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.topology import LayerGradient, RuleState, Signals


def _rng_state(net: ts.SparseMLP, seed: int) -> RuleState:
    rng = np.random.default_rng(seed)
    return RuleState(
        tensors={
            f"momentum.{layer.index}": rng.normal(size=(layer.n_in, layer.n_out)).astype(np.float32)
            for layer in net.layers
        }
    )


@given(seed=st.integers(0, 100), fraction=st.floats(0, 1), redistribute=st.booleans())
def test_each_change_is_what_the_dense_rule_says(seed: int, fraction: float, redistribute: bool) -> None:
    net = ts.SparseMLP((20, 15, 10, 4), density=0.3, seed=seed)
    state = _rng_state(net, seed)
    signals = Signals(seed, 0, 1, progress=Progress(10, 1.0, 10, 10), lr=0.1, state=state)
    rule = ts.SNFS(fraction, redistribute=redistribute, schedule="constant")
    before, after = net.connections, 0
    for layer, delta in rule.plan(net.layers, signals):
        count = int(fraction * layer.nnz)
        if delta is None:
            after += layer.nnz
            continue
        momentum = state.tensors[f"momentum.{layer.index}"].ravel()
        cells = layer.pattern.cells()
        survivors = np.delete(cells, np.argsort(np.abs(layer.values), kind="stable")[:count])
        n_grown = int(delta.mask.sum()) + delta.grown.size - survivors.size
        missing = np.setdiff1d(np.arange(momentum.size), survivors)
        best = missing[np.argsort(-np.abs(momentum[missing]), kind="stable")[:n_grown]]
        now = np.sort(np.concatenate([cells[delta.mask], delta.grown]))
        np.testing.assert_array_equal(now, np.sort(np.concatenate([survivors, best])))
        np.testing.assert_array_equal(delta.values, 0)
        np.testing.assert_array_equal(delta.slots["m"], momentum[delta.grown.astype(int)])
        np.testing.assert_allclose(delta.slots["velocity"], -momentum[delta.grown.astype(int)], rtol=1e-6)
        after += now.size
        if not redistribute:
            assert now.size == layer.nnz
    assert after == before


def test_momentum_smooths_the_gradient_of_missing_weights_too_and_micro_batches_add_up() -> None:
    net = ts.SparseMLP((20, 15, 4), density=0.3, seed=0)
    layer, rng, rule, state = net.layers[0], np.random.default_rng(0), ts.SNFS(momentum=0.8), RuleState()
    expected = np.zeros((20, 15))
    for first in (True, True, False):
        x, dy = (_kernels.aligned_zeros((n, 16)) for n in (20, 15))
        x[:], dy[:] = rng.normal(size=x.shape), rng.normal(size=dy.shape)
        rule.observe(LayerGradient(layer, x, dy, 1), state, first)
        expected = (0.8 if first else 1.0) * expected + 0.2 * x.astype(float) @ dy.T
    np.testing.assert_allclose(state.tensors["momentum.0"], expected, rtol=1e-4, atol=1e-5)


def test_dense_arrays_beyond_the_memory_are_refused_with_the_arithmetic() -> None:
    net = ts.SparseMLP((20, 15, 4), density=0.3, seed=0)
    ts.SNFS(memory=4 * (20 * 15 + 15 * 4)).check(net)
    with pytest.raises(ConfigError, match=r"4 bytes x \(20 x 15 \+ 15 x 4\) = 1,440 bytes.*RigL"):
        ts.SNFS(memory=1439).check(net)


def test_flops_count_a_dense_weight_gradient() -> None:
    assert ts.SNFS().training_flops(10.0, 100.0) == 120.0


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"redistribute": 1}, {"memory": 0}, {"drop_fraction": 2}])
def test_bad_settings_are_errors(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ts.SNFS(**bad)
