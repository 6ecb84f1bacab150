# SPDX-License-Identifier: BSD-3-Clause
"""What every rule owes to the run it is part of: counts, exact ends, clear refusals, the best network at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.engine import TrainState, evolve_network, snapshot_network
from trulysparse.errors import ConfigError, ScheduleWarning, ShapeError
from trulysparse.model.progress import Progress

MIDDLE = Progress(40, 4.0, 10, 10)


def _data(n: int = 256) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, n)
    return (rng.normal(size=(4, 20))[y] + rng.normal(size=(n, 20))).astype(np.float32), y


def _net(**more: Any) -> ts.SparseMLP:
    return ts.SparseMLP((20, 30, 30, 4), **{"density": 0.3, "seed": 0} | more)


def _trainer(net: ts.SparseMLP, rule: ts.Topology, **more: Any) -> ts.Trainer:
    return ts.Trainer(net, topology=rule, **{"batch_size": 16, "progress": False, "threads": 1} | more)


KEEPING: dict[str, Callable[[], ts.Topology]] = {
    "set": lambda: ts.SET(0.4, layers="all"),
    "set, by magnitude": lambda: ts.SET(0.4, drop="magnitude", layers="all", new_weights="zeros"),
    "rigl": lambda: ts.RigL(0.4),
    "rigl, sampled": lambda: ts.RigL(0.4, search="sampled", new_weights="init"),
    "mest": lambda: ts.MEST(0.3),
    "mest, by gradient": lambda: ts.MEST(0.3, gradient_weight=2.0),
}
MOVING: dict[str, Callable[[], ts.Topology]] = {
    "set, global": lambda: ts.SET(0.4, drop="magnitude", ranking="global", layers="all"),
    "rigl, global": lambda: ts.RigL(0.4, ranking="global"),
    "rigl, global, sampled": lambda: ts.RigL(0.4, ranking="global", search="sampled"),
    "snfs": lambda: ts.SNFS(0.4),
    "dsr": lambda: ts.DSR(0.1, threshold=0.1),
}
SHRINKING: dict[str, Callable[[], ts.Topology]] = {
    "gmp": lambda: ts.GMP(0.05),
    "gmp, global": lambda: ts.GMP(0.05, scope="global"),
    "granet": lambda: ts.GraNet(0.05),
    "snip": lambda: ts.SNIP(0.05),
    "snip, by layer": lambda: ts.SNIP(0.05, scope="layer"),
}


@pytest.mark.parametrize("name", [*KEEPING, *MOVING, *SHRINKING])
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 24), min_size=3, max_size=4),
    density=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32),
)
def test_an_evolution_keeps_its_promises(name: str, sizes: list[int], density: float, seed: int) -> None:
    rule = (KEEPING | MOVING | SHRINKING)[name]()
    net = ts.SparseMLP(sizes, density=ts.Uniform(density), seed=seed % 97)
    state = TrainState.fresh(net, ts.SGD(), rule)
    rng = np.random.default_rng(seed)
    before, gradients = [], {}
    for layer, slots in zip(net.layers, state.weight_slots, strict=True):
        layer.values[...] = rng.normal(size=layer.nnz)
        slots["velocity"][...] = rng.normal(size=layer.nnz)
        before.append(
            dict(zip(layer.pattern.cells().tolist(), zip(layer.values, slots["velocity"], strict=True), strict=True))
        )
        x, dy = (_kernels.aligned_zeros((n, 16)) for n in (layer.n_in, layer.n_out))
        x[...], dy[...] = rng.normal(size=x.shape), rng.normal(size=dy.shape)
        gradients[layer.index] = ts.LayerGradient(layer, x, dy, 1)
        if rule.observes:
            rule.observe(gradients[layer.index], state.rule, True)
    total = net.connections
    evolve_network(
        net, state, topology=rule, pruning=None, seed=seed, threads=1, progress=MIDDLE, lr=0.1, gradients=gradients
    )
    for layer, slots, old in zip(net.layers, state.weight_slots, before, strict=True):
        cells = layer.pattern.cells()
        assert (np.diff(cells.astype(np.int64)) > 0).all()
        assert cells.size == 0 or cells[-1] < layer.n_in * layer.n_out
        assert slots["velocity"].size == layer.values.size == cells.size
        if name in KEEPING:
            assert layer.nnz == len(old)
        stayed = 0
        for cell, value, velocity in zip(cells.tolist(), layer.values, slots["velocity"], strict=True):
            if cell in old and old[cell] == (value, velocity):
                stayed += 1
            elif cell in old:  # dropped, and drawn anew by a rule that forgets
                assert velocity == 0 or name == "snfs"
                assert name in {**KEEPING, **MOVING}
        assert stayed >= min(len(old), layer.nnz) - int(0.5 * len(old)) - 2 or name in {**MOVING, **SHRINKING}
    if name in {**KEEPING, **MOVING}:
        assert net.connections == total
    else:
        assert net.connections < total or total < 30  # each layer keeps a connection


def test_global_ranking_is_the_dense_one_over_all_layers() -> None:
    net = ts.SparseMLP((12, 14, 10, 5), density=0.3, seed=3)
    rule = ts.RigL(0.4, ranking="global", schedule="constant")
    state = TrainState.fresh(net, ts.SGD(), rule)
    rng = np.random.default_rng(5)
    gradients, dense_w, dense_g, exists = {}, [], [], []
    for layer in net.layers:
        layer.values[...] = rng.normal(size=layer.nnz)
        x, dy = (_kernels.aligned_zeros((n, 16)) for n in (layer.n_in, layer.n_out))
        x[...], dy[...] = rng.normal(size=x.shape), rng.normal(size=dy.shape)
        gradients[layer.index] = ts.LayerGradient(layer, x, dy, 1)
        dense_w.append(layer.weights.toarray().ravel())
        dense_g.append((x.astype(np.float64) @ dy.T.astype(np.float64)).ravel())
        exists.append(layer.pattern.to_dense().ravel())
    w, g, there = (np.concatenate(parts) for parts in (dense_w, dense_g, exists))
    count = int(0.4 * there.sum())
    smallest = np.argsort(np.where(there, np.abs(w), np.inf))[:count]
    kept = there.copy()
    kept[smallest] = False
    grown = np.argsort(np.where(kept, -1.0, np.abs(g)))[::-1][:count]
    kept[grown] = True
    evolve_network(
        net, state, topology=rule, pruning=None, seed=0, threads=1, progress=MIDDLE, lr=0.1, gradients=gradients
    )
    now = np.concatenate([layer.pattern.to_dense().ravel() for layer in net.layers])
    assert np.array_equal(now, kept)


def test_global_ranking_needs_magnitudes() -> None:
    with pytest.raises(ConfigError, match="drop='magnitude'"):
        ts.SET(0.3, ranking="global")
    with pytest.raises(ConfigError, match="ranking must be one of layer, global"):
        ts.RigL(ranking="globl")


@pytest.mark.parametrize("rule", [ts.SNFS(update_every=3, unit="steps"), ts.RigL(update_every=3)], ids=lambda r: r.name)
def test_gradients_of_stored_bfloat16_serve_rules_too(rule: ts.Topology) -> None:
    X, y = _data()
    for sizes in ((20, 30, 30, 4), (20, 17, 9, 4), (20, 64, 4)):
        net = ts.SparseMLP(sizes, density=0.3, seed=0)
        before = net.connections
        trainer = _trainer(net, rule, activation_dtype="bfloat16", optimizer=ts.SGD(lr=0.05))
        history = trainer.fit(X, y, epochs=3)
        assert trainer.state.evolutions >= 8 and net.connections == before
        assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize(
    ("rule", "batch_size"),
    [
        (ts.RigL(update_every=1), 16),
        (ts.RigL(update_every=1, unit="epochs", end=1.0), 256),
        (ts.GraNet(0.1, update_every=1), 16),
        (ts.MEST(gradient_weight=1.0, update_every=1, unit="steps"), 16),
    ],
    ids=repr,
)
def test_a_rule_that_would_take_every_batch_is_refused(rule: ts.Topology, batch_size: int) -> None:
    X, y = _data()
    with pytest.raises(ConfigError, match="leave none to train on"):
        _trainer(_net(), rule, batch_size=batch_size).fit(X, y, epochs=8)


@pytest.mark.parametrize("rule", [ts.RigL(), ts.DSR(), ts.MEST(), ts.GMP(0.1)], ids=lambda r: r.name)
def test_a_rule_that_will_not_act_in_a_short_run_says_so(rule: ts.Topology) -> None:
    X, y = _data()
    with pytest.warns(ScheduleWarning, match="update_every"):
        _trainer(_net(), rule).fit(X, y, epochs=3)


@pytest.mark.parametrize(("end", "last"), [(0.55, 54), (0.56, 55), (0.07, 6), (0.28, 27), (0.57, 56), (1.0, 99)])
def test_updates_end_where_they_are_said_to(end: float, last: int) -> None:
    rule = ts.SET(0.3, update_every=1, unit="steps", end=end)
    due = [step for step in range(100) if rule.due(Progress(step, step / 10, 10, 10))]
    assert due == list(range(1, last + 1))
    begins = [s for s in range(100) if ts.GMP(0.1, start=0.07, update_every=1).due(Progress(s, s / 10, 10, 10))]
    assert begins[0] == 7


@pytest.mark.parametrize(("milestones", "epochs"), [((0.9,), 3), ((0.5, 0.99), 5)])
def test_soft_mest_ends_at_its_target_in_any_run(milestones: tuple[float, ...], epochs: int) -> None:
    X, y = _data(16)
    net = _net()
    before = net.connections
    _trainer(net, ts.MEST(0.3, soft=True, update_every=1, milestones=milestones)).fit(X, y, epochs=epochs)
    assert net.connections == before


@pytest.mark.parametrize(
    "rule",
    [ts.GMP(0.1, update_every=4), ts.GraNet(0.1, update_every=4), ts.MEST(0.3, soft=True, update_every=1)],
    ids=lambda r: r.name,
)
def test_the_best_network_is_looked_for_at_the_final_density_only(rule: ts.Topology, tmp_path: Any) -> None:
    X, y = _data()
    net = _net(density=0.3 if rule.name == "mest" else 1.0)
    wanted = net.connections if rule.name == "mest" else round(0.1 * (600 + 900 + 120))
    stopping = ts.EarlyStopping(monitor="val_loss", patience=50)
    best = ts.BestModel(tmp_path / "best.safetensors", monitor="val_loss")
    # a learning rate so large that early epochs look best
    trainer = _trainer(net, rule, optimizer=ts.SGD(lr=0.2), callbacks=[stopping, best])
    trainer.fit(X, y, epochs=8, validation=(X, y))
    assert net.connections == wanted
    assert ts.load(tmp_path / "best.safetensors").connections == wanted
    assert stopping.best_epoch is not None and stopping.best_epoch >= 6


def test_a_run_cut_before_its_final_density_says_so() -> None:
    X, y = _data()
    stop = ts.LambdaCallback(on_epoch_end=lambda trainer, row: trainer.stop("enough") if row["epoch"] == 5 else None)
    trainer = _trainer(_net(density=1.0), ts.GMP(0.1, update_every=4), callbacks=stop)
    trainer.fit(X, y, epochs=20)
    with pytest.warns(ScheduleWarning, match="cut to 6 epochs"):
        trainer.fit(X, y, epochs=6)


def test_snfs_goes_on_after_a_larger_network_was_put_back() -> None:
    X, y = _data()
    kept: list[Any] = []

    class PutBack(ts.Callback):
        def on_epoch_end(self, trainer: ts.Trainer, row: Any) -> None:
            if row["epoch"] == 1:
                kept.append(snapshot_network(trainer.net))
            if row["epoch"] == 4:
                trainer.restore(kept[0])

    net = _net()
    pruning = ts.ImportancePruning(20, start=0, period=1, compact=True)
    trainer = _trainer(net, ts.SNFS(0.3), pruning=pruning, callbacks=PutBack())
    history = trainer.fit(X, y, epochs=7)
    assert np.isfinite(history.loss).all() and len(history) == 7


def test_dsr_refuses_to_replace_more_than_there_is() -> None:
    X, y = _data()
    with pytest.raises(ConfigError, match="prune_count 5,000 is not below the 486 connections"):
        _trainer(_net(), ts.DSR(prune_count=5000)).fit(X, y, epochs=1)


def test_set_refuses_two_ways_to_drop() -> None:
    with pytest.raises(ConfigError, match="leave out drop='magnitude'"):
        ts.SET(compat="wasap", drop="magnitude")


@pytest.mark.parametrize(
    ("delta", "error", "words"),
    [
        (lambda n: ts.TopologyDelta(np.ones(n)), TypeError, "mask must be a one-dimensional array of bool"),
        (
            lambda n: ts.TopologyDelta(np.ones(3, bool)),
            ShapeError,
            "mask must have .* entries, one a connection, got 3",
        ),
        (lambda n: ts.TopologyDelta(None, [1, 2]), TypeError, "grown must be .* uint64, got list"),
        (
            lambda n: ts.TopologyDelta(np.zeros(n, bool), np.array([1], np.uint64), np.zeros(1)),
            TypeError,
            "values must be .* float32, got float64",
        ),
        (
            lambda n: ts.TopologyDelta(
                np.zeros(n, bool), np.array([1], np.uint64), None, {"velosity": np.zeros(1, np.float32)}
            ),
            ConfigError,
            "did you mean 'velocity'",
        ),
    ],
)
def test_a_wrong_delta_is_refused_in_words_of_the_rule(delta: Any, error: type[Exception], words: str) -> None:
    class Wrong(ts.Topology):
        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta:
            made: ts.TopologyDelta = delta(layer.nnz)
            return made

    X, y = _data()
    with pytest.raises(error, match=f"Wrong, layer 0: the delta's .*{words}|{words}"):
        _trainer(_net(), Wrong()).fit(X, y, epochs=2)
