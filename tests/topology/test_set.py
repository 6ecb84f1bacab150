# SPDX-License-Identifier: BSD-3-Clause
"""SET: exact counts, nothing duplicated, survivors untouched, new connections fresh (spec conformance 2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.engine import TrainState, apply_delta, evolve_network
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.topology import Signals, get_topology
from trulysparse.topology.set import wasap_cutoffs


def _net(seed: int = 0, epsilon: float = 5) -> ts.SparseMLP:
    return ts.SparseMLP((40, 30, 20, 5), epsilon=epsilon, init="normal", seed=seed)


def _state(net: ts.SparseMLP) -> TrainState:
    state = TrainState.fresh(net, ts.SGD())
    for slots in state.weight_slots:
        slots["velocity"][:] = 1.0 + np.arange(slots["velocity"].size)
    return state


def _cells(layer: ts.SparseLayer) -> np.ndarray:
    return layer.pattern.cells()


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_drop_counts_are_exact_for_each_sign(fraction: float) -> None:
    layer = _net().layers[0]
    layer.values[:3] = 0.0
    positive, negative = int((layer.values > 0).sum()), int((layer.values < 0).sum())
    delta = ts.SET(fraction).evolve(layer, Signals(0, 0, 1), 0)
    gone = layer.values[~delta.mask]
    assert (gone > 0).sum() == math.floor(fraction * positive + 0.5)
    assert (gone < 0).sum() == math.floor(fraction * negative + 0.5)
    assert (gone == 0).sum() == 3
    kept = layer.values[delta.mask]
    for sign in (1, -1):
        if (sign * gone > 0).any() and (sign * kept > 0).any():
            assert (sign * gone).max() <= (sign * kept)[sign * kept > 0].min()


def test_evolve_keeps_nnz_of_every_layer() -> None:
    net = _net()
    before = [layer.nnz for layer in net.layers]
    state = _state(net)
    for _ in range(20):
        evolve_network(net, state, topology=ts.SET(0.3), pruning=None, seed=3, threads=2)
        assert [layer.nnz for layer in net.layers] == before
        for layer in net.layers:
            cells = _cells(layer)
            assert (np.diff(cells.astype(np.int64)) > 0).all()
            assert cells.max(initial=0) < layer.n_in * layer.n_out
    assert state.evolutions == 20


def test_evolve_leaves_the_output_matrix_alone_unless_asked() -> None:
    for layers, changes in (("hidden", False), ("all", True)):
        net = ts.SparseMLP((40, 30, 20), epsilon=5, seed=0)
        before = _cells(net.layers[-1]).copy()
        evolve_network(net, _state(net), topology=ts.SET(0.3, layers=layers), pruning=None, seed=0, threads=1)
        assert (not np.array_equal(before, _cells(net.layers[-1]))) == changes


def test_survivors_keep_weight_and_momentum_and_new_ones_start_without() -> None:
    net = _net()
    state = _state(net)
    layer = net.layers[0]
    old_weight = dict(zip(_cells(layer).tolist(), layer.values.tolist(), strict=True))
    old_momentum = dict(zip(_cells(layer).tolist(), state.weight_slots[0]["velocity"].tolist(), strict=True))
    signals = Signals(7, 0, 1)
    delta = ts.SET(0.3).evolve(layer, signals, 0)
    survivors = set(_cells(layer)[delta.mask].tolist())
    assert not survivors & set(delta.grown.tolist())
    apply_delta(layer, state.weight_slots[0], delta, seed=7, evolution=0)
    for cell, weight, momentum in zip(
        _cells(layer).tolist(), layer.values.tolist(), state.weight_slots[0]["velocity"].tolist(), strict=True
    ):
        if cell in survivors:
            assert (weight, momentum) == (old_weight[cell], old_momentum[cell])
        else:
            assert momentum == 0.0
            assert weight != 0.0


def test_regrown_weights_follow_the_initial_distribution() -> None:
    net = ts.SparseMLP((600, 500, 10), epsilon=50, init="he_uniform", seed=0)
    layer = net.layers[0]
    delta = ts.SET(0.5).evolve(layer, Signals(0, 0, 1), 0)
    values = layer.draw_grown(delta.grown, seed=0, step=0)
    limit = math.sqrt(6 / 600)
    assert np.abs(values).max() <= limit
    assert abs(values.mean()) < 4 * limit / math.sqrt(3 * values.size)
    assert abs(values.var() / (limit**2 / 3) - 1) < 0.05


def test_successive_evolutions_draw_differently() -> None:
    layer = _net().layers[0]
    first = ts.SET(0.3).evolve(layer, Signals(0, 0, 1), 0)
    second = ts.SET(0.3).evolve(layer, Signals(0, 1, 1), 0)
    assert not np.array_equal(first.grown, second.grown)


@pytest.mark.parametrize("threads", [2, 7])
def test_evolution_is_the_same_for_any_thread_count(threads: int) -> None:
    results = []
    for n in (1, threads):
        net = ts.SparseMLP((300, 400, 300, 5), epsilon=20, seed=0)
        evolve_network(net, _state(net), topology=ts.SET(0.3), pruning=None, seed=0, threads=n)
        results.append([(_cells(layer).tobytes(), layer.values.tobytes()) for layer in net.layers])
    assert results[0] == results[1]


def test_nan_weights_raise_instead_of_being_sorted() -> None:
    layer = _net().layers[0]
    layer.values[5] = np.nan
    for rule in (ts.SET(0.3), ts.SET(0.3, compat="wasap")):
        with pytest.raises(DivergenceError, match="smaller learning rate"):
            rule.evolve(layer, Signals(0, 0, 1), 0)


def test_a_full_layer_can_be_evolved() -> None:
    net = ts.SparseMLP((6, 5, 4, 3), density=1.0, seed=0)
    before = [layer.nnz for layer in net.layers]
    evolve_network(net, _state(net), topology=ts.SET(0.3), pruning=None, seed=0, threads=1)
    assert [layer.nnz for layer in net.layers] == before


@pytest.mark.parametrize(
    ("n", "fraction", "removed"), [(1000, 0.3, 302), (10, 0.3, 5), (1, 0.3, 1), (2, 0.3, 2), (1000, 0.0, 2)]
)
def test_compat_wasap_removes_what_the_paper_code_removes(n: int, fraction: float, removed: int) -> None:
    half = np.arange(1, n // 2 + 1, dtype=np.float32)
    values = np.concatenate([-half, half]) if n > 1 else np.ones(1, np.float32)
    # Distinct magnitudes, so that only one value is nearest zero.
    values = np.where(values > 0, values + np.float32(0.25), values)
    mask = wasap_cutoffs(np.random.default_rng(0).permutation(values), fraction)
    assert n - mask.sum() == removed


def test_compat_wasap_counts_ties_of_opposite_sign_as_nearest() -> None:
    values = np.array([2, -0.5, 3, -3, 0.5, -2], np.float32)
    # Sorted -3 -2 -.5 | .5 2 3: p = 2, q = 4, so below v[1] = -2 or above v[4] = 2 survives.
    np.testing.assert_array_equal(wasap_cutoffs(values, 0.3), [False, False, True, True, False, False])


def test_compat_wasap_keeps_the_number_of_connections() -> None:
    net = _net()
    before = [layer.nnz for layer in net.layers]
    rule = ts.SET(0.3, compat="wasap")
    evolve_network(net, _state(net), topology=rule, pruning=None, seed=0, threads=1)
    assert [layer.nnz for layer in net.layers] == before


@given(fraction=st.floats(0, 1), epsilon=st.floats(0.5, 12), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
@pytest.mark.filterwarnings("ignore::trulysparse.errors.DensityWarning")
def test_evolve_never_duplicates_or_loses_a_connection(fraction: float, epsilon: float, seed: int) -> None:
    net = _net(seed, epsilon)
    before = [layer.nnz for layer in net.layers]
    evolve_network(net, _state(net), topology=ts.SET(fraction), pruning=None, seed=seed, threads=1)
    for layer, count in zip(net.layers, before, strict=True):
        assert np.unique(_cells(layer)).size == count


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'static'"):
        get_topology("sttaic")
    with pytest.raises(ConfigError, match="drop_fracton"):
        get_topology({"name": "set", "drop_fracton": 0.3})


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, "a lot", True])
def test_a_drop_fraction_out_of_range_is_an_error(value: object) -> None:
    with pytest.raises(ConfigError, match="drop_fraction must be a number in"):
        ts.SET(value)


def test_config_round_trip() -> None:
    rule = ts.SET(0.2, layers="all", compat="wasap")
    assert get_topology(rule.to_config()).to_config() == rule.to_config()
    assert repr(rule) == "SET(drop_fraction=0.2, layers='all', compat='wasap')"
