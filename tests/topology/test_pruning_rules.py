# SPDX-License-Identifier: BSD-3-Clause
"""SNIP, GMP and GraNet: how many connections are left and when, which ones, and that runs can be stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.engine import TrainState, evolve_network
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model.progress import Progress
from trulysparse.topology import RuleState, Signals, get_topology, globally_smallest

SIZES = (20, 24, 16, 4)
CELLS = 20 * 24 + 24 * 16 + 16 * 4


def _data(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, n)
    return (rng.normal(size=(4, 20))[y] * 1.5 + rng.normal(size=(n, 20))).astype(np.float32), y


def _trainer(topology: ts.Topology, density: float = 1.0, **arguments: Any) -> ts.Trainer:
    defaults = {"batch_size": 20, "seed": 3, "standardize": False, "progress": False, "threads": 2}
    net = ts.SparseMLP(SIZES, density=density, dropout=0.2, seed=0)
    return ts.Trainer(net, topology=topology, **(defaults | arguments))


def _bits(net: ts.SparseMLP) -> list[bytes]:
    return [a.tobytes() for layer in net.layers for a in (layer.pattern.cells(), layer.values, layer.bias)]


def _gradients(net: ts.SparseMLP, seed: int = 0) -> dict[int, ts.LayerGradient]:
    gradients = {}
    for layer in net.layers:
        rng = np.random.default_rng([seed, layer.index])
        x, dy = (_kernels.aligned_empty((n, 32)) for n in (layer.n_in, layer.n_out))
        x[...] = rng.normal(size=x.shape)
        dy[...] = rng.normal(size=dy.shape)
        gradients[layer.index] = ts.LayerGradient(layer, x, dy, 2)
    return gradients


def _scores(net: ts.SparseMLP, gradients: dict[int, ts.LayerGradient]) -> list[np.ndarray]:
    return [np.abs(gradients[layer.index].existing() * layer.values) for layer in net.layers]


def _evolve(net: ts.SparseMLP, rule: ts.Topology, step: int = 0, total: int = 100, **more: Any) -> TrainState:
    state = more.pop("state", None) or TrainState.fresh(net, ts.SGD())
    progress = Progress(step, step / 10, 10, total // 10)
    evolve_network(net, state, topology=rule, pruning=None, seed=0, threads=2, progress=progress, **more)
    return state


def test_snip_keeps_the_connections_of_largest_gradient_times_weight_over_all_layers() -> None:
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    gradients = _gradients(net)
    scores = _scores(net, gradients)
    weights = [layer.values.copy() for layer in net.layers]
    keep = round(0.2 * CELLS)
    ranked = np.sort(np.concatenate(scores))
    threshold = ranked[-keep]
    assert ranked[-keep - 1] < threshold
    _evolve(net, ts.SNIP(0.2), gradients=gradients)
    assert net.connections == keep
    for layer, score, old in zip(net.layers, scores, weights, strict=True):
        np.testing.assert_array_equal(layer.pattern.cells(), np.flatnonzero(score >= threshold))
        np.testing.assert_array_equal(layer.values, old[score >= threshold])


@pytest.mark.parametrize("name", ["erk", "uniform"])
def test_snip_by_layer_keeps_the_densities_of_the_distribution(name: str) -> None:
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    gradients = _gradients(net)
    scores = _scores(net, gradients)
    rule = ts.SNIP(0.3, scope="layer", distribution=name)
    _evolve(net, rule, gradients=gradients)
    counts = {"erk": ts.ERK(0.3), "uniform": ts.Uniform(0.3)}[name].expected_connections(SIZES)
    assert [layer.nnz for layer in net.layers] == counts
    for layer, score in zip(net.layers, scores, strict=True):
        assert set(layer.pattern.cells().tolist()) == set(np.argsort(-score)[: layer.nnz].tolist())


def test_snip_leaves_no_layer_empty_and_the_count_exact() -> None:
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    net.layers[1].values[:] *= 1e-12
    gradients = _gradients(net)
    best = int(np.argmax(_scores(net, gradients)[1]))
    _evolve(net, ts.SNIP(0.1), gradients=gradients)
    assert net.connections == round(0.1 * CELLS)
    assert net.layers[1].pattern.cells().tolist() == [best]


def test_snip_acts_once_before_the_first_step_and_its_batch_moves_no_weight() -> None:
    rule = ts.SNIP(0.2)
    assert [s for s in range(60) if rule.due(Progress(s, s / 10, 10, 6))] == [0]
    X, y = _data()
    trainer = _trainer(rule)
    start = [layer.values.copy() for layer in trainer.net.layers]
    patterns: list[list[bytes]] = []

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            patterns.append([layer.pattern.cells().tobytes() for layer in trainer.net.layers])
            if step == 1:
                for layer, old in zip(trainer.net.layers, start, strict=True):
                    np.testing.assert_array_equal(layer.values, old[layer.pattern.cells()])
                    assert not layer.bias.any()

    trainer.callbacks.append(Watch())
    history = trainer.fit(X, y, epochs=4)
    assert len(patterns) == 40 and all(p == patterns[0] for p in patterns)
    assert history.connections == [round(0.2 * CELLS)] * 4
    assert any((layer.bias != 0).any() for layer in trainer.net.layers)
    assert history.loss[-1] < history.loss[0]


RULES: dict[str, Any] = {
    "snip": lambda: ts.SNIP(0.2),
    "gmp": lambda: ts.GMP(0.2, update_every=7),
    "gmp erk": lambda: ts.GMP(0.2, update_every=7, scope="erk", start=0.1),
    "gmp global": lambda: ts.GMP(0.2, update_every=7, scope="global"),
    "granet": lambda: ts.GraNet(0.2, update_every=7),
}


@pytest.mark.parametrize("name", RULES)
def test_a_network_no_denser_than_the_target_is_refused(name: str) -> None:
    X, y = _data()
    for density in (0.1, 0.2):
        with pytest.raises(ConfigError, match=r"not below the density .* density=1\.0"):
            _trainer(RULES[name](), density).fit(X, y, epochs=1)
    _trainer(RULES[name](), 0.25).fit(X, y, epochs=1)
    with pytest.raises(ConfigError, match="layers='all'"):
        ts.GMP(0.1, layers="hidden").check(ts.SparseMLP((5, 4), density=1.0))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("stop", [1, 8, 17])
def test_a_run_interrupted_in_mid_epoch_goes_on_bit_for_bit(name: str, stop: int, tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer(RULES[name]())
    whole.fit(X, y, epochs=4)

    class Stop(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    first = _trainer(RULES[name](), checkpoint=tmp_path, callbacks=[Stop()])
    with pytest.raises(ts.TrainingInterrupted):
        first.fit(X, y, epochs=4)
    second = ts.Trainer.resume(tmp_path, progress=False)
    assert second.state.step == stop and second.state.rule.numbers == first.state.rule.numbers
    second.fit(X, y)
    assert _bits(second.net) == _bits(whole.net)


@pytest.mark.parametrize("name", RULES)
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    X, y = _data()
    runs = []
    for threads in (1, 2, 7):
        trainer = _trainer(RULES[name](), threads=threads)
        trainer.fit(X, y, epochs=3)
        runs.append(_bits(trainer.net))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("name", RULES)
def test_the_final_count_is_exact_and_no_update_makes_the_network_denser(name: str) -> None:
    X, y = _data()
    seen: list[int] = []

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            seen.append(trainer.net.connections)

    trainer = _trainer(RULES[name](), callbacks=[Watch()])
    trainer.fit(X, y, epochs=4)
    counts = [layer.nnz for layer in trainer.net.layers]
    if name == "gmp":
        assert counts == [round(0.2 * layer.n_in * layer.n_out) for layer in trainer.net.layers]
    elif name == "gmp erk":
        assert counts == ts.ERK(0.2).expected_connections(SIZES)
    else:
        assert sum(counts) == round(0.2 * CELLS)
    assert (np.diff(seen) <= 0).all()
    if name == "snip":
        assert set(seen) == {sum(counts)}
    else:
        assert len(set(seen)) >= 5  # at first, after 7, 14, 21 and 28 steps, and the end at 30 or as good as there


def test_gradual_pruning_is_due_at_whole_intervals_and_at_the_end() -> None:
    rule = ts.GMP(0.1, start=0.2, end=0.75, update_every=10)
    assert [s for s in range(100) if rule.due(Progress(s, s / 10, 10, 10))] == [20, 30, 40, 50, 60, 70, 75]
    assert [s for s in range(60) if ts.GMP(0.1, end=1.0).due(Progress(s, s / 10, 10, 6))] == [59]
    assert ts.GMP(0.1).due(Progress(0, 0.0, 1, 1))
    once = ts.GMP(0.1, start=0.5, end=0.5, update_every=10)
    assert [s for s in range(100) if once.due(Progress(s, s / 10, 10, 10))] == [50]
    epochs = ts.GMP(0.1, end=0.8, update_every=3, unit="epochs")
    assert [s for s in range(100) if epochs.due(Progress(s, s / 10, 10, 10))] == [30, 60, 80]


def test_the_density_falls_as_the_cubic_of_zhu_and_gupta() -> None:
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    rule, state = ts.GMP(0.1, start=0.2, end=0.7, update_every=10, scope="global"), None
    for step in range(20, 80, 10):
        state = _evolve(net, rule, step, state=state)
        density = 0.1 + 0.9 * (1 - min(1.0, (step - 20) / 50)) ** 3
        assert net.connections == round(density * CELLS)
    assert state is not None and state.rule.numbers["initial_densities"] == [1.0, 1.0, 1.0]


def test_gmp_drops_the_smallest_magnitudes() -> None:
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    old = [layer.values.copy() for layer in net.layers]
    _evolve(net, ts.GMP(0.25), 99)
    for layer, weights in zip(net.layers, old, strict=True):
        count = round(0.25 * weights.size)
        assert set(layer.pattern.cells().tolist()) == set(np.argsort(-np.abs(weights))[:count].tolist())
    net = ts.SparseMLP(SIZES, density=1.0, seed=0)
    _evolve(net, ts.GMP(0.25, scope="global"), 99)
    threshold = np.sort(np.abs(np.concatenate(old)))[-round(0.25 * CELLS)]
    for layer, weights in zip(net.layers, old, strict=True):
        np.testing.assert_array_equal(layer.pattern.cells(), np.flatnonzero(np.abs(weights) >= threshold))


def test_gmp_leaves_a_layer_that_is_sparser_already() -> None:
    patterns = [np.ones((20, 24), bool), np.zeros((24, 16), bool), np.ones((16, 4), bool)]
    patterns[1][0, :5] = True
    net = ts.SparseMLP(SIZES, density=ts.Given(patterns), seed=0)
    _evolve(net, ts.GMP(0.1), 99)
    assert [layer.nnz for layer in net.layers] == [48, 5, 6]


@given(density=st.floats(0.001, 1), final=st.floats(0.001, 1), step=st.integers(0, 99), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_gradual_rules_never_grow_never_empty_a_layer_and_keep_weights(
    density: float, final: float, step: int, seed: int
) -> None:
    for make in (lambda: ts.GMP(final), lambda: ts.GMP(final, scope="global"), lambda: ts.GraNet(final)):
        net = ts.SparseMLP(SIZES, density=density, seed=seed)
        before = [dict(zip(n.pattern.cells().tolist(), n.values.tolist(), strict=True)) for n in net.layers]
        _evolve(net, make(), step, gradients=_gradients(net, seed))
        for layer, old in zip(net.layers, before, strict=True):
            cells = layer.pattern.cells()
            assert min(len(old), 1) <= layer.nnz <= len(old) and np.unique(cells).size == layer.nnz
            for cell, weight in zip(cells.tolist(), layer.values.tolist(), strict=True):
                assert weight == old.get(cell, 0.0)


def test_granet_prunes_globally_then_replaces_the_weakest_by_the_steepest() -> None:
    net = ts.SparseMLP(SIZES, density=0.5, seed=0)
    gradients = _gradients(net)
    rule = ts.GraNet(0.1, end=1.0, drop_fraction=0.5, schedule="constant")
    signals = Signals(0, 0, 2, progress=Progress(40, 4.0, 10, 10), gradients=gradients, state=RuleState())
    total = round((0.1 + (net.connections / CELLS - 0.1) * 0.6**3) * CELLS)
    every = np.abs(np.concatenate([layer.values for layer in net.layers]))
    threshold = np.sort(every)[-total]
    kept_in_all, grown_in_all = 0, 0
    for layer, delta in rule.plan(net.layers, signals):
        weights, cells = np.abs(layer.values), layer.pattern.cells()
        kept = int((weights >= threshold).sum())
        kept_in_all += kept
        again = kept // 2
        survivors = cells[np.argsort(-weights)[: kept - again]]
        source = gradients[layer.index]
        dense = np.abs(source.x.astype(np.float64) @ source.dy.astype(np.float64).T).reshape(-1)
        dense[survivors] = -1
        order = np.argsort(-dense)
        assert dense[order[again - 1]] - dense[order[again]] > 1e-5
        assert delta is not None and delta.mask is not None and delta.values is not None
        after = set(cells[delta.mask].tolist()) | set(delta.grown.tolist())
        assert after == set(survivors.tolist()) | set(order[:again].tolist())
        grown_in_all += delta.grown.size
        assert not delta.values.any() and not np.isin(delta.grown, cells[delta.mask]).any()
    assert kept_in_all == total and grown_in_all > 0


def test_granet_update_takes_the_place_of_a_weight_update() -> None:
    X, y = _data()
    biases: dict[int, list[bytes]] = {}

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            biases[step] = [layer.bias.tobytes() for layer in trainer.net.layers]

    _trainer(ts.GraNet(0.2, update_every=4), callbacks=[Watch()]).fit(X, y, epochs=1)
    assert biases[5] == biases[4] and biases[6] != biases[5]


def test_ranking_over_all_layers_takes_the_first_of_equals_and_can_spare_one_of_each() -> None:
    net = ts.SparseMLP((3, 2, 2), density=1.0, seed=0)
    scores = [np.ones(6, np.float32), np.array([3, 1, -2, 0], np.float32)]
    first, second = globally_smallest(scores, 3, net.layers, 1)
    assert first.tolist() == [False] * 2 + [True] * 4 and second.tolist() == [True, True, True, False]
    first, second = globally_smallest(scores, 8, net.layers, 1)
    assert not first.any()
    first, second = globally_smallest(scores, 8, net.layers, 1, keep_one=True)
    assert first.tolist() == [True] + [False] * 5 and second.tolist() == [True, False, False, False]
    scores[0][2] = np.nan
    with pytest.raises(DivergenceError, match="layer 0"):
        globally_smallest(scores, 3, net.layers, 1)


def test_settings_are_checked_and_come_back_from_a_configuration() -> None:
    with pytest.raises(ConfigError, match="did you mean 'global'"):
        ts.SNIP(scope="globl")
    with pytest.raises(ConfigError, match="did you mean 'uniform'"):
        ts.GMP(scope="unifrom")
    with pytest.raises(ConfigError, match="start"):
        ts.GMP(start=0.9, end=0.5)
    with pytest.raises(ConfigError, match=r"density 0\.5, but density is 0\.1"):
        ts.SNIP(0.1, distribution=ts.Uniform(0.5))
    with pytest.raises(ConfigError, match="density"):
        ts.SNIP(0.1, distribution=ts.ErdosRenyi(5))
    assert ts.SNIP(0.5, distribution=ts.Uniform(0.5)).distribution == {"name": "uniform", "dense_first": False}
    for bad in (0.0, 1.1, True):
        with pytest.raises(ConfigError, match="density"):
            ts.GraNet(bad)
    for rule in (
        ts.SNIP(0.05, scope="layer", distribution={"name": "uniform", "dense_first": True}),
        ts.SNIP(0.1, scope="layer", distribution=ts.ERK(0.1, power=0.5)),
        ts.GMP(0.2, start=0.1, scope="erk"),
        ts.GraNet(0.2, schedule=ts.LinearDrop(0.1)),
    ):
        assert get_topology(rule.to_config()).to_config() == rule.to_config()


def test_training_flops_average_over_the_run() -> None:
    assert ts.SNIP(0.1).training_flops(10.0, 100.0) == 30.0
    # the mean of (1 - t)^3 is a quarter: 0.2 dense, 0.4 on the way, 0.4 at the end
    average = 0.2 * 100 + 0.4 * (10 + 90 / 4) + 0.4 * 10
    assert ts.GMP(0.1, start=0.2, end=0.6).training_flops(10.0, 100.0) == pytest.approx(3 * average)
    granet = ts.GraNet(0.1, start=0.2, end=0.6, update_every=100)
    assert granet.training_flops(10.0, 100.0) == pytest.approx((302 * average + 100) / 101)
