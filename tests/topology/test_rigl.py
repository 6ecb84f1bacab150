# SPDX-License-Identifier: BSD-3-Clause
"""RigL: what goes, what comes, what stays untouched, when; and that runs can be stopped and split."""

from __future__ import annotations

import math
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
from trulysparse.engine import TrainState, apply_delta, evolve_network
from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.topology import Signals, get_topology
from trulysparse.topology.criteria import rewire

SIZES = (20, 24, 16, 4)
ALWAYS = Progress(10, 1.0, 10, 1000)  # so early in a run that the cosine is still 1 up to 1e-6


def _net(density: float = 0.3, seed: int = 0) -> ts.SparseMLP:
    return ts.SparseMLP(SIZES, density=density, seed=seed)


def _gradient(layer: ts.SparseLayer, seed: int = 0, batch: int = 32) -> ts.LayerGradient:
    rng = np.random.default_rng([seed, layer.index])
    x, dy = (_kernels.aligned_empty((n, batch)) for n in (layer.n_in, layer.n_out))
    x[...] = rng.normal(size=x.shape)
    dy[...] = rng.normal(size=dy.shape)
    return ts.LayerGradient(layer, x, dy, 2)


def _dense(gradient: ts.LayerGradient) -> np.ndarray:
    return (gradient.x.astype(np.float64) @ gradient.dy.astype(np.float64).T).reshape(-1)


def _signals(net: ts.SparseMLP, **more: Any) -> Signals:
    return Signals(
        0, 0, 2, **{"progress": ALWAYS, "gradients": {layer.index: _gradient(layer) for layer in net.layers}} | more
    )


def _data(n: int = 200, constant: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, n)
    X = (rng.normal(size=(4, 20))[y] * 1.5 + rng.normal(size=(n, 20))).astype(np.float32)
    X[:, :constant] = 0
    return X, y


def _trainer(topology: ts.Topology | None = None, **arguments: Any) -> ts.Trainer:
    defaults = {"batch_size": 20, "seed": 3, "standardize": False, "progress": False, "threads": 2}
    net = ts.SparseMLP(SIZES, density=0.3, dropout=0.2, seed=0)
    return ts.Trainer(net, topology=topology or ts.RigL(update_every=4), **(defaults | arguments))


def _bits(net: ts.SparseMLP) -> list[bytes]:
    return [a.tobytes() for layer in net.layers for a in (layer.pattern.cells(), layer.values, layer.bias)]


def test_the_weakest_go_and_the_steepest_of_those_that_do_not_survive_come() -> None:
    net = _net()
    for layer in net.layers[:2]:
        count = int(0.3 * layer.nnz)
        gradient = _gradient(layer)
        cells = layer.pattern.cells()
        order = np.argsort(np.abs(layer.values), kind="stable")
        survivors = set(cells[order[count:]].tolist())
        dense = np.abs(_dense(gradient))
        free = [c for c in range(dense.size) if c not in survivors]
        best = sorted(free, key=lambda c: -dense[c])[: count + 1]
        assert dense[best[count - 1]] - dense[best[count]] > 1e-4
        delta = ts.RigL(0.3, schedule="constant").evolve(layer, _signals(net), 10)
        assert delta is not None and delta.mask is not None
        after = set(cells[delta.mask].tolist()) | set(delta.grown.tolist())
        assert after == survivors | set(best[:count])
        assert len(after) == layer.nnz == delta.mask.sum() + delta.grown.size
        np.testing.assert_array_equal(delta.values, np.zeros(delta.grown.size, np.float32))


@given(density=st.floats(0.02, 1), fraction=st.floats(0, 1), seed=st.integers(0, 99), sampled=st.booleans())
@settings(max_examples=25)
def test_counts_are_kept_nothing_is_doubled_and_survivors_stay_as_they_were(
    density: float, fraction: float, seed: int, sampled: bool
) -> None:
    net = _net(density, seed)
    state = TrainState.fresh(net, ts.SGD())
    before = []
    for layer, slots in zip(net.layers, state.weight_slots, strict=True):
        slots["velocity"][:] = 1 + np.arange(layer.nnz)
        pairs = zip(layer.values.tolist(), slots["velocity"].tolist(), strict=True)
        before.append(dict(zip(layer.pattern.cells().tolist(), pairs, strict=True)))
    rule = ts.RigL(fraction, search="sampled" if sampled else "exact")
    gradients = {layer.index: _gradient(layer, seed) for layer in net.layers}
    done = evolve_network(
        net, state, topology=rule, pruning=None, seed=seed, threads=2, progress=ALWAYS, gradients=gradients
    )
    for layer, slots, old in zip(net.layers, state.weight_slots, before, strict=True):
        cells = layer.pattern.cells()
        assert layer.nnz == len(old) == np.unique(cells).size
        pairs = zip(layer.values.tolist(), slots["velocity"].tolist(), strict=True)
        for cell, pair in zip(cells.tolist(), pairs, strict=True):
            assert pair == old.get(cell, (0.0, 0.0))
    assert all(change.dropped == change.grown for change in done.changes)


def test_new_weights_can_be_drawn_or_one_gradient_step() -> None:
    net = _net()
    layer = net.layers[0]
    drawn = ts.RigL(new_weights="init").evolve(layer, _signals(net), 10)
    assert drawn is not None and drawn.values is None and drawn.grown.size
    stepped = ts.RigL(new_weights="gradient").evolve(layer, _signals(net, lr=0.5), 10)
    assert stepped is not None and stepped.values is not None
    np.testing.assert_allclose(stepped.values, -0.5 * _dense(_gradient(layer))[stepped.grown], rtol=1e-4)


def test_a_connection_dropped_and_grown_at_once_keeps_weight_and_velocity() -> None:
    net = _net()
    layer = net.layers[0]
    slots = {"velocity": np.arange(layer.nnz, dtype=np.float32)}
    mask = np.ones(layer.nnz, np.bool_)
    mask[[2, 5, 9]] = False
    cells = layer.pattern.cells()
    free = np.setdiff1d(np.arange(layer.n_in * layer.n_out, dtype=np.uint64), cells)[:2]
    grown = np.sort(np.append(free, cells[5]))
    weight = layer.values[5]
    delta = rewire(layer, mask, grown, np.zeros(3, np.float32))
    np.testing.assert_array_equal(delta.grown, free)
    apply_delta(layer, slots, delta, seed=0, evolution=0)
    place = int(np.flatnonzero(layer.pattern.cells() == cells[5])[0])
    assert layer.values[place] == weight != 0 and slots["velocity"][place] == 5
    assert not np.isin(cells[[2, 9]], layer.pattern.cells()).any()


def test_full_layers_and_updates_of_nothing_change_nothing() -> None:
    net = _net(1.0)
    assert all(ts.RigL().evolve(layer, _signals(net), 10) is None for layer in net.layers)
    net = _net()
    assert all(ts.RigL(0.0).evolve(layer, _signals(net), 10) is None for layer in net.layers)
    assert ts.RigL(0.3).evolve(net.layers[0], _signals(net), 10) is not None


def test_updates_come_at_whole_intervals_until_three_quarters_of_the_run() -> None:
    rule = ts.RigL()
    due = [s for s in range(1000) if rule.due(Progress(s, s / 50, 50, 20))]
    assert due == [100, 200, 300, 400, 500, 600, 700]
    assert [s for s in range(400) if rule.due(Progress(s, s / 50, 50, 8))] == [100, 200]  # 300 is the end


def test_the_fraction_falls_as_a_cosine() -> None:
    for step in (0, 100, 375, 700):
        expected = 0.3 / 2 * (1 + math.cos(math.pi * step / 750))
        assert ts.RigL(0.3).fraction(Progress(step, 0.0, 50, 20)) == pytest.approx(expected, abs=1e-12)


def test_an_update_takes_the_place_of_the_weight_update_of_its_batch() -> None:
    X, y = _data()
    seen: dict[int, Any] = {}

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            layers = [
                dict(zip(layer.pattern.cells().tolist(), layer.values.tolist(), strict=True))
                for layer in trainer.net.layers
            ]
            seen[step] = layers, [layer.bias.copy() for layer in trainer.net.layers]

    _trainer(callbacks=[Watch()]).fit(X, y, epochs=1)
    before, after = seen[4], seen[5]
    changed = 0
    for old, new in zip(before[0], after[0], strict=True):
        assert all(new[cell] == old.get(cell, 0.0) for cell in new)
        changed += len(new.keys() - old.keys())
    assert changed > 0
    for old_bias, new_bias in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(old_bias, new_bias)
    assert any((a != b).any() for a, b in zip(seen[5][1], seen[6][1], strict=True))


def test_inputs_that_are_always_zero_get_no_new_connections() -> None:
    X, y = _data(constant=6)
    trainer = _trainer(ts.RigL(0.5, update_every=3, layers="hidden"))
    before = set(trainer.net.layers[0].pattern.cells().tolist())
    trainer.fit(X, y, epochs=6)
    after = set(trainer.net.layers[0].pattern.cells().tolist())
    new = np.array(sorted(after - before))
    assert new.size and (new // SIZES[1] >= 6).all()


def test_sampled_search_takes_the_best_of_what_it_drew_among_the_missing() -> None:
    net = _net()
    layer = net.layers[0]
    signals = _signals(net)
    count = 20
    mask = np.ones(layer.nnz, np.bool_)
    mask[:count] = False
    drawn = signals.draw_missing(layer, layer.pattern, 60, mask)
    grown, gradient = ts.RigL(search="sampled", candidates=3)._sampled(layer, signals, count, mask)
    dense = _dense(_gradient(layer))
    assert np.isin(grown, drawn).all() and not np.isin(grown, layer.pattern.cells()[mask]).any()
    left = np.setdiff1d(drawn, grown)
    assert np.abs(dense[grown]).min() > np.abs(dense[left]).max() and (np.diff(grown.astype(np.int64)) > 0).all()
    np.testing.assert_allclose(gradient, dense[grown], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("search", ["exact", "sampled"])
def test_any_number_of_threads_gives_the_same_bits(search: str) -> None:
    X, y = _data()
    runs = []
    for threads in (1, 2, 7):
        trainer = _trainer(ts.RigL(update_every=4, search=search), threads=threads)
        start = _bits(trainer.net)[0]
        trainer.fit(X, y, epochs=3)
        assert _bits(trainer.net)[0] != start
        runs.append(_bits(trainer.net))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("stop", [3, 4, 5, 17])
def test_a_run_interrupted_in_mid_epoch_goes_on_bit_for_bit(stop: int, tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer()
    whole.fit(X, y, epochs=4)

    class Stop(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    first = _trainer(checkpoint=tmp_path, callbacks=[Stop()])
    with pytest.raises(ts.TrainingInterrupted):
        first.fit(X, y, epochs=4)
    assert first.state.step == stop
    second = ts.Trainer.resume(tmp_path, progress=False, callbacks=[])
    second.fit(X, y)
    assert _bits(second.net) == _bits(whole.net) and second.history.loss == whole.history.loss


@pytest.mark.parametrize("arguments", [{"micro_batch": 16}, {"activation_dtype": "bfloat16"}])
def test_micro_batches_and_bfloat16_train_with_rigl(arguments: dict[str, Any]) -> None:
    X, y = _data()
    trainer = _trainer(batch_size=40, **arguments)
    connections, pattern = trainer.net.connections, _bits(trainer.net)[0]
    history = trainer.fit(X, y, epochs=8)
    assert history.loss[-1] < history.loss[0] and trainer.net.connections == connections
    assert _bits(trainer.net)[0] != pattern


def test_the_gradient_of_micro_batches_is_that_of_the_whole_batch() -> None:
    X, y = _data()
    got: list[dict[int, np.ndarray]] = []

    @ts.register_topology("test_rigl_probe")
    class Probe(ts.Topology):
        wants_gradient = True

        def due(self, progress: Progress) -> bool:
            return progress.step == 0

        def evolve(self, layer: ts.SparseLayer, signals: Signals, step: int) -> None:
            every = np.arange(layer.n_in * layer.n_out, dtype=np.uint64)
            gradient = signals.gradient(layer)
            got[-1][layer.index] = gradient.at(every)
            existing = gradient.existing()
            np.testing.assert_allclose(existing, gradient.at(layer.pattern.cells()), rtol=1e-4, atol=1e-6)

    for micro_batch in (None, 16):
        got.append({})
        _trainer(Probe(layers="all"), batch_size=40, micro_batch=micro_batch).fit(X, y, epochs=1)
    assert sorted(got[0]) == sorted(got[1]) == [0, 1, 2]
    for index in got[0]:
        assert np.abs(got[0][index]).max() > 1e-3
        np.testing.assert_allclose(got[0][index], got[1][index], rtol=1e-4, atol=1e-6)


def test_neurons_closed_to_new_connections_get_none() -> None:
    net = _net()
    layer = net.layers[0]
    closed = np.zeros(layer.n_out, np.bool_)
    closed[::2] = True
    mask = np.ones(layer.nnz, np.bool_)
    mask[::3] = False
    drawn = Signals(0, 0, 1, closed={0: closed}).draw_missing(layer, layer.pattern, 30, mask)
    source = _gradient(layer)
    cells, values = ts.LayerGradient(layer, source.x, source.dy, 1, closed).top_missing(30, mask)
    kept = layer.pattern.cells()[mask]
    for some in (drawn, cells):
        assert some.size == np.unique(some).size == 30
        assert not closed[(some % layer.n_out).astype(int)].any() and not np.isin(some, kept).any()
    dense = _dense(source)
    free = [c for c in range(dense.size) if not closed[c % layer.n_out] and c not in set(kept.tolist())]
    best = sorted(free, key=lambda c: -abs(dense[c]))[:31]
    assert abs(dense[best[29]]) - abs(dense[best[30]]) > 1e-4
    assert sorted(best[:30]) == cells.tolist()
    np.testing.assert_allclose(values, dense[cells], rtol=1e-4, atol=1e-4)
    room = len(free)
    all_of_them = Signals(0, 0, 1, closed={0: closed}).draw_missing(layer, layer.pattern, room + 50, mask)
    assert sorted(all_of_them.tolist()) == free


def test_a_gradient_that_was_not_asked_for_is_a_clear_error() -> None:
    net = _net()
    with pytest.raises(ConfigError, match="wants_gradient"):
        Signals(0, 0, 1).gradient(net.layers[0])


def test_settings_are_checked_and_come_back_from_a_configuration() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sampled'"):
        ts.RigL(search="sampeld")
    with pytest.raises(ConfigError, match="did you mean 'gradient'"):
        ts.RigL(new_weights="gradeint")
    with pytest.raises(ConfigError, match="candidates"):
        ts.RigL(candidates=0.5)
    rule = ts.RigL(0.2, schedule=ts.LinearDrop(0.1), search="sampled", update_every=7)
    assert get_topology(rule.to_config()).to_config() == rule.to_config()


def test_training_flops_are_those_of_the_paper() -> None:
    assert ts.RigL(update_every=100).training_flops(10.0, 100.0) == pytest.approx((3000 + 20 + 100) / 101)
    assert ts.RigL(search="sampled").training_flops(10.0, 100.0) == 30.0
