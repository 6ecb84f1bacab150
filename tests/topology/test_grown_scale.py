# SPDX-License-Identifier: BSD-3-Clause
"""The size of grown weights: an evolution leaves the signal of a layer as strong as it was, if asked to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine, TrainState, evolve_network
from trulysparse.errors import ConfigError
from trulysparse.model import Inputs
from trulysparse.topology import get_topology


def _net() -> ts.SparseMLP:
    return ts.SparseMLP((500, 400, 300, 5), epsilon=8, init=ts.HeUniform("sparse"), seed=0)


def _squares(net: ts.SparseMLP) -> np.ndarray:
    return np.array([np.sum(layer.values.astype(np.float64) ** 2) for layer in net.layers])


def _evolve(net: ts.SparseMLP, rule: Any, times: int = 1, state: TrainState | None = None) -> None:
    state = TrainState.fresh(net, ts.SGD()) if state is None else state
    for _ in range(times):
        evolve_network(net, state, topology=rule, pruning=None, seed=3, threads=2)


@pytest.mark.parametrize("more", [{}, {"drop": "magnitude"}, {"compat": "wasap"}], ids=["sign", "magnitude", "wasap"])
def test_match_keeps_the_sum_of_squares_over_twenty_evolutions(more: dict[str, Any]) -> None:
    matched, paper = _net(), _net()
    start = _squares(matched)
    cells = matched.layers[0].pattern.cells()
    _evolve(matched, ts.SET(0.3, grown_scale="match", **more), times=20)
    _evolve(paper, ts.SET(0.3, **more), times=20)
    assert not np.isin(matched.layers[0].pattern.cells(), cells).all()
    np.testing.assert_allclose(_squares(matched), start, rtol=1e-5)
    assert (_squares(paper)[:2] > 1.5 * start[:2]).all()  # the output layer does not evolve


def test_match_also_holds_where_layers_exchange_connections() -> None:
    net = _net()
    state = TrainState.fresh(net, ts.SGD())
    before, nnz = _squares(net), [layer.nnz for layer in net.layers]
    _evolve(net, ts.SET(0.3, drop="magnitude", ranking="global", grown_scale="match"), state=state)
    assert [layer.nnz for layer in net.layers] != nnz
    np.testing.assert_allclose(_squares(net), before, rtol=1e-5)


def test_the_first_evolution_raises_the_power_as_derived() -> None:
    # the smallest 30 % of uniform weights hold 0.3^3 of the power; redrawn they hold 0.3 of it, or s^2 times that
    for scale, factor in ((1.0, 1 - 0.027 + 0.3), (0.3, 1.0), (0.0, 1 - 0.027), (2.0, 1 - 0.027 + 1.2)):
        net = ts.SparseMLP((2000, 2000, 2), epsilon=20, init=ts.HeUniform(), seed=0)
        before = _squares(net)[0]
        _evolve(net, ts.SET(0.3, grown_scale=scale))
        assert _squares(net)[0] / before == pytest.approx(factor, rel=0.01)


def test_survivors_and_cells_are_those_of_the_default() -> None:
    matched, paper = _net(), _net()
    _evolve(matched, ts.SET(0.3, grown_scale="match"))
    _evolve(paper, ts.SET(0.3))
    for a, b, old in zip(matched.layers[:2], paper.layers, _net().layers, strict=False):
        assert np.array_equal(a.pattern.cells(), b.pattern.cells())
        same = a.values == b.values
        assert 0.65 < same.mean() < 0.75
        assert np.isin(a.pattern.cells()[same], old.pattern.cells()).all()
        ratios = a.values[~same].astype(float) / b.values[~same]  # one factor for the layer
        assert 0.1 < ratios[0] < 0.9
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    found = []
    for threads in (1, 2, 7):
        net = _net()
        state = TrainState.fresh(net, ts.SGD())
        rule = ts.SET(0.3, grown_scale="match")
        evolve_network(net, state, topology=rule, pruning=None, seed=3, threads=threads)
        found.append([layer.values.tobytes() for layer in net.layers])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_rigl_matches_drawn_weights(ranking: str) -> None:
    net = _net()
    rule = ts.RigL(0.3, schedule="constant", new_weights="init", grown_scale="match", ranking=ranking)
    engine = Engine(net, ts.SGD(), seed=1, threads=2, topology=rule)
    X = np.random.default_rng(0).normal(size=(16, 500)).astype(np.float32)
    before, cells = _squares(net), [layer.pattern.cells() for layer in net.layers]
    _, _, gradients = engine.measure_batch(Inputs(X, 500, None, "X"), np.arange(16, dtype=np.int32) % 5, np.arange(16))
    evolve_network(net, engine.state, topology=rule, pruning=None, seed=3, threads=2, gradients=gradients)
    assert not np.isin(net.layers[0].pattern.cells(), cells[0]).all()
    np.testing.assert_allclose(_squares(net), before, rtol=1e-5)


def test_a_layer_that_loses_only_zeros_grows_zeros() -> None:
    net = _net()
    net.layers[0].values[:100] = 0.0
    _evolve(net, ts.SET(0.0, grown_scale="match"))
    assert np.isfinite(net.layers[0].values).all()
    assert (net.layers[0].values == 0).sum() == 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ts.SET(grown_scale="mach"), "SET's grown_scale must be a number or 'match', got 'mach'"),
        (lambda: ts.SET(grown_scale=-1), "SET's grown_scale"),
        (lambda: ts.SET(new_weights="zeros", grown_scale=0.5), "new_weights='zeros' draws none"),
        (lambda: ts.RigL(grown_scale="match"), "set new_weights='init'"),
    ],
)
def test_bad_scales_are_errors(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_configurations_come_back() -> None:
    for rule in (ts.SET(0.3, grown_scale="match"), ts.SET(0.3, grown_scale=0.5)):
        assert get_topology(rule.to_config()).to_config() == rule.to_config()
    assert repr(ts.SET(0.3)) == "SET()"


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(1.0, 0.973 / np.sqrt(1.273)), ("match", 0.973), (0.0, np.sqrt(0.973))],
    ids=["full", "match", "zeros"],
)
def test_an_evolution_keeps_the_correlation_of_sums_that_was_derived(scale: Any, expected: float) -> None:
    net = ts.SparseMLP((2000, 2000, 2), epsilon=20, init=ts.HeUniform(), seed=0)
    x = np.random.default_rng(0).normal(size=(64, 2000))
    before = (x @ net.layers[0].weights).ravel()
    _evolve(net, ts.SET(0.3, grown_scale=scale))
    after = (x @ net.layers[0].weights).ravel()
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(expected, abs=0.01)
