# SPDX-License-Identifier: BSD-3-Clause
"""Top-KAST against a masked dense reference, and what it promises about sets, gradients, state and memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import trulysparse as ts
from trulysparse.cli import main
from trulysparse.engine import evolve_network, snapshot_network
from trulysparse.errors import CheckpointError, ConfigError, DivergenceError
from trulysparse.model.progress import Progress
from trulysparse.topology import Exploration, TopKAST, master, top_kast
from trulysparse.topology.master import DenseMaster, LazyMaster

Array = NDArray[Any]
SIZES = (12, 16, 9, 4)
SAMPLES = 32

rng = np.random.default_rng(5)
X = rng.normal(size=(SAMPLES, SIZES[0])).astype(np.float32)
y = rng.integers(0, SIZES[-1], SAMPLES)


def _trainer(
    rule: TopKAST, *, sizes: tuple[int, ...] = SIZES, density: float = 0.25, init: Any = "he_uniform", **arguments: Any
) -> ts.Trainer:
    net = ts.SparseMLP(sizes, density=density, init=init, seed=3)
    defaults: dict[str, Any] = {
        "optimizer": ts.SGD(lr=0.1, momentum=0.9),
        "batch_size": SAMPLES,
        "standardize": False,
        "progress": False,
        "threads": 2,
    }
    return ts.Trainer(net, topology=rule, **(defaults | arguments))


def _fit(trainer: ts.Trainer, epochs: int) -> ts.Trainer:
    trainer.fit(X, y, epochs=epochs)
    return trainer


def _scatter(layer: ts.SparseLayer, values: Array | None = None) -> Array:
    """Return values of a layer as a dense matrix, NaN where there is no connection."""
    dense = np.full(layer.n_in * layer.n_out, np.nan, np.float32)
    dense[layer.pattern.cells()] = layer.values if values is None else values
    return dense.reshape(layer.n_in, layer.n_out)


def _everything(trainer: ts.Trainer) -> dict[str, bytes]:
    """Return the bits of network, explored connections, optimizer state."""
    found = {}
    for layer in trainer.net.layers:
        i = layer.index
        explored = trainer.state.exploring[i].layer
        found[f"a{i}"] = layer.pattern.cells().tobytes() + layer.values.tobytes() + layer.bias.tobytes()
        found[f"c{i}"] = explored.pattern.cells().tobytes() + explored.values.tobytes()
        for name, array in trainer.state.weight_slots[i].items():
            found[f"a{i}.{name}"] = array.tobytes()
            found[f"c{i}.{name}"] = trainer.state.exploring[i].slots[name].tobytes()
    return found


def _theta(trainer: ts.Trainer, index: int) -> Array:
    """Return theta of all cells: the master, and above it what is being trained."""
    layer = trainer.net.layers[index]
    tensors = trainer.state.rule.tensors
    cells = np.arange(layer.n_in * layer.n_out, dtype=np.uint64)
    if f"theta.{index}" in tensors:
        theta = np.array(tensors[f"theta.{index}"])
    else:
        scale = trainer.state.rule.numbers[f"scale.{index}"]
        theta = layer.initializer.draw_at(
            cells, n_out=layer.n_out, scale=scale, seed=trainer.net.seed, layer=index, threads=1
        )
        theta[tensors[f"cells.{index}"]] = tensors[f"values.{index}"]
    for some in (layer, trainer.state.exploring[index].layer):
        theta[some.pattern.cells()] = some.values
    return theta


class _Reference:
    """Algorithm 9.2 on dense float64 matrices: ReLU, softmax cross-entropy, SGD with momentum or Adam."""

    def __init__(self, net: ts.SparseMLP, rule: TopKAST, optimizer: ts.SGD | ts.Adam) -> None:
        full = ts.SparseMLP(net.sizes, density=1.0, seed=net.seed)
        self.theta = [layer.values.reshape(layer.n_in, layer.n_out).astype(np.float64) for layer in full.layers]
        self.bias = [np.zeros(n) for n in net.sizes[1:]]
        self.sizes_a = [layer.nnz for layer in net.layers]
        self.sizes_b = rule.backward_counts(net.layers)
        self.rule, self.optimizer = rule, optimizer
        names = optimizer.slots
        self.slots = [{name: np.zeros_like(theta) for name in names} for theta in self.theta]
        self.bias_slots = [{name: np.zeros_like(bias) for name in names} for bias in self.bias]
        self.a = self.b = [np.zeros(theta.shape, bool) for theta in self.theta]
        self.steps = 0

    def refresh(self) -> None:
        before = self.b
        self.a, self.b = [], []
        for theta, size_a, size_b in zip(self.theta, self.sizes_a, self.sizes_b, strict=True):
            order = np.argsort(-np.abs(theta.ravel()), kind="stable")
            for sets, size in ((self.a, size_a), (self.b, size_b)):
                chosen = np.zeros(theta.size, bool)
                chosen[order[:size]] = True
                sets.append(chosen.reshape(theta.shape))
        for slots, was, now in zip(self.slots, before, self.b, strict=True):
            for array in slots.values():
                array[~(was & now)] = 0

    def _move(self, w: Array, g: Array, slots: dict[str, Array], where: Array) -> None:
        o = self.optimizer
        if isinstance(o, ts.SGD):
            v = o.momentum * slots["velocity"] - o.lr * g
            slots["velocity"][where] = v[where]
            w[where] += v[where]
            return
        m = o.betas[0] * slots["m"] + (1 - o.betas[0]) * g
        v = o.betas[1] * slots["v"] + (1 - o.betas[1]) * g**2
        slots["m"][where], slots["v"][where] = m[where], v[where]
        age = self.steps
        if "age" in slots:
            slots["age"][where] += 1
            age = np.maximum(slots["age"], 1)
        corrected = m / (1 - o.betas[0] ** age), v / (1 - o.betas[1] ** age)
        w[where] -= (o.lr * corrected[0] / (np.sqrt(corrected[1]) + o.eps))[where]

    def gradients(self) -> tuple[list[Array], list[Array]]:
        """Return dL/dW of all cells and dL/db; forward pass and dL/dx use A only."""
        alpha = [np.where(a, theta, 0) for a, theta in zip(self.a, self.theta, strict=True)]
        taken, sums = [X.astype(np.float64)], []
        for w, b in zip(alpha, self.bias, strict=True):
            sums.append(taken[-1] @ w + b)
            taken.append(np.maximum(sums[-1], 0))
        z = sums[-1]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        delta = (p - np.eye(SIZES[-1])[y]) / SAMPLES
        dw, db = [], []
        for i in range(len(alpha) - 1, -1, -1):
            dw.insert(0, taken[i].T @ delta)
            db.insert(0, delta.sum(axis=0))
            if i:
                delta = (delta @ alpha[i].T) * (sums[i - 1] >= 0)  # the library's derivative at 0 is 1
        return dw, db

    def step(self) -> None:
        if self.steps % self.rule.refresh_every == 0:
            self.refresh()
        self.steps += 1
        dw, db = self.gradients()
        c = self.rule.regularizer
        for i, theta in enumerate(self.theta):
            density = self.sizes_a[i] / theta.size
            g = dw[i] + np.where(self.a[i], c * theta, c / density * theta)
            self._move(theta, g, self.slots[i], self.b[i])
            self._move(self.bias[i], db[i], self.bias_slots[i], np.ones(self.bias[i].shape, bool))


@pytest.mark.parametrize("regularizer", [0.0, 0.05])
@pytest.mark.parametrize("refresh_every", [1, 3])
@pytest.mark.parametrize(
    "optimizer",
    [
        ts.SGD(lr=0.3, momentum=0.0),
        ts.SGD(lr=0.1, momentum=0.9),
        ts.Adam(lr=0.01),
        ts.Adam(lr=0.01, bias_correction="connection"),
    ],
    ids=repr,
)
def test_a_run_equals_the_masked_dense_reference(
    optimizer: ts.SGD | ts.Adam, refresh_every: int, regularizer: float
) -> None:
    rule = TopKAST(0.5, refresh_every=refresh_every, regularizer=regularizer)
    trainer = _trainer(rule, optimizer=optimizer)
    reference = _Reference(trainer.net, rule, optimizer)
    first_cells = trainer.net.layers[0].pattern.cells()
    for step in range(1, 16):
        _fit(trainer, step)
        reference.step()
        for i, layer in enumerate(trainer.net.layers):
            a = _scatter(layer)
            exploration = trainer.state.exploring[i]
            c = _scatter(exploration.layer)
            np.testing.assert_array_equal(~np.isnan(a), reference.a[i])
            np.testing.assert_array_equal(~np.isnan(c), reference.b[i] & ~reference.a[i])
            np.testing.assert_allclose(a[reference.a[i]], reference.theta[i][reference.a[i]], rtol=1e-4, atol=1e-5)
            others = reference.b[i] & ~reference.a[i]
            np.testing.assert_allclose(c[others], reference.theta[i][others], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(layer.bias, reference.bias[i], rtol=1e-4, atol=1e-5)
            for name in optimizer.slots:
                wanted = reference.slots[i][name]
                kept = _scatter(layer, trainer.state.weight_slots[i][name])
                np.testing.assert_allclose(kept[reference.a[i]], wanted[reference.a[i]], rtol=2e-3, atol=1e-6)
                kept = _scatter(exploration.layer, exploration.slots[name])
                np.testing.assert_allclose(kept[others], wanted[others], rtol=2e-3, atol=1e-6)
    assert not np.array_equal(trainer.net.layers[0].pattern.cells(), first_cells)


def test_outputs_and_gradients_of_activations_use_the_forward_set_only() -> None:
    ends = []
    for factor in (1.0, 1000.0):
        trainer = _fit(_trainer(TopKAST(0.6, regularizer=0.0)), 2)
        for exploration in trainer.state.exploring.values():
            exploration.layer.values[...] *= np.float32(factor)
        _fit(trainer, 3)
        ends.append(trainer)
    one, other = ends
    assert one.history.loss == other.history.loss
    for i, layer in enumerate(one.net.layers):
        assert layer.values.tobytes() == other.net.layers[i].values.tobytes()
        assert layer.bias.tobytes() == other.net.layers[i].bias.tobytes()
        mine, theirs = (t.state.exploring[i].slots["velocity"] for t in ends)
        assert mine.size and mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("activation_dtype", ["float32", "bfloat16"])
def test_explored_connections_get_the_dense_gradient_which_is_not_zero(activation_dtype: str) -> None:
    rule = TopKAST(0.6, regularizer=0.0)
    trainer = _trainer(rule, optimizer=ts.SGD(lr=1.0, momentum=0.0), activation_dtype=activation_dtype)
    reference = _Reference(trainer.net, rule, ts.SGD())
    reference.refresh()
    dense, _ = reference.gradients()
    _fit(trainer, 1)
    exact = activation_dtype == "float32"
    for i in range(len(trainer.net.layers)):
        before = reference.theta[i].ravel()
        explored = trainer.state.exploring[i].layer
        cells = explored.pattern.cells()
        moved = before[cells] - explored.values
        np.testing.assert_allclose(moved, dense[i].ravel()[cells], rtol=1e-3, atol=1e-6 if exact else 1e-2)
        assert np.count_nonzero(np.abs(moved) > 1e-4) > 0.5 * cells.size > 0


@pytest.mark.parametrize("form", ["dense", "lazy"])
@pytest.mark.parametrize("optimizer", [ts.SGD(lr=0.3), ts.Adam(lr=0.05, weight_decay=0.1)], ids=repr)
def test_weights_outside_the_backward_set_keep_their_bits(optimizer: ts.Optimizer, form: str) -> None:
    trainer = _fit(_trainer(TopKAST(0.4, refresh_every=2, master=form), optimizer=optimizer), 1)
    left = 0
    for step in range(1, 12):
        before, cells = [], []
        for layer in trainer.net.layers:
            before.append(_theta(trainer, layer.index))
            cells.append(
                np.concatenate([layer.pattern.cells(), trainer.state.exploring[layer.index].layer.pattern.cells()])
            )
        _fit(trainer, 1 + step)
        for layer in trainer.net.layers:
            trained = np.concatenate(
                [layer.pattern.cells(), trainer.state.exploring[layer.index].layer.pattern.cells()]
            )
            outside = np.ones(layer.n_in * layer.n_out, bool)
            outside[trained] = False
            after = _theta(trainer, layer.index)
            assert outside.any() or layer.density > 0.5
            assert before[layer.index][outside].tobytes() == after[outside].tobytes()
            left += np.setdiff1d(cells[layer.index], trained).size
    assert left > 0


def test_optimizer_state_follows_a_refresh() -> None:
    trainer = _fit(_trainer(TopKAST(0.5, refresh_every=4), optimizer=ts.SGD(lr=0.5)), 4)
    seen = dict.fromkeys(("A to A", "A to C", "C to A", "C to C", "new"), 0)

    def where(net: ts.SparseMLP, i: int) -> dict[int, tuple[str, float]]:
        found = {}
        for kind, layer, slots in (
            ("A", net.layers[i], trainer.state.weight_slots[i]),
            ("C", trainer.state.exploring[i].layer, trainer.state.exploring[i].slots),
        ):
            found |= {int(c): (kind, float(v)) for c, v in zip(layer.pattern.cells(), slots["velocity"], strict=True)}
        return found

    for _ in range(4):
        for layer in trainer.net.layers:
            layer.values[...] *= rng.uniform(0.2, 1.5, layer.nnz).astype(np.float32)
        before = [where(trainer.net, i) for i in range(3)]
        evolve_network(trainer.net, trainer.state, topology=trainer.topology, pruning=None, seed=0, threads=2)
        for i in range(3):
            for cell, (kind, velocity) in where(trainer.net, i).items():
                if cell in before[i]:
                    assert velocity == before[i][cell][1]
                    seen[f"{before[i][cell][0]} to {kind}"] += 1
                else:
                    assert velocity == 0
                    seen["new"] += 1
        for slots in (*trainer.state.weight_slots, *(e.slots for e in trainer.state.exploring.values())):
            slots["velocity"][...] = rng.normal(size=slots["velocity"].size)
    assert all(seen.values()), seen


def test_the_first_sets_are_the_strongest_first_weights_of_the_full_network() -> None:
    trainer = _fit(_trainer(TopKAST(0.5), optimizer=ts.SGD(lr=1e-30)), 1)
    full = ts.SparseMLP(SIZES, density=1.0, seed=3)
    for layer, dense in zip(trainer.net.layers, full.layers, strict=True):
        order = np.argsort(-np.abs(dense.values), kind="stable")
        cells = np.sort(order[: layer.nnz])
        np.testing.assert_array_equal(layer.pattern.cells(), cells)
        np.testing.assert_array_equal(layer.values, dense.values[cells])


def test_sparse_fan_in_scales_all_first_weights_alike() -> None:
    init = ts.HeUniform(fan_in="sparse")
    trainer = _trainer(TopKAST(0.5), optimizer=ts.SGD(lr=1e-30), init=init)
    scales = [float(np.median(init.scale(layer.pattern))) for layer in trainer.net.layers]
    _fit(trainer, 1)
    for layer, scale in zip(trainer.net.layers, scales, strict=True):
        cells = np.arange(layer.n_in * layer.n_out, dtype=np.uint64)
        theta = init.draw_at(cells, n_out=layer.n_out, scale=scale, seed=3, layer=layer.index)
        strongest = np.sort(np.argsort(-np.abs(theta), kind="stable")[: layer.nnz])
        np.testing.assert_array_equal(layer.pattern.cells(), strongest)
        np.testing.assert_array_equal(layer.values, theta[strongest])


@pytest.mark.parametrize("form", ["dense", "lazy"])
def test_a_network_that_was_trained_before_keeps_its_weights(form: str) -> None:
    trainer = _trainer(TopKAST(0.5, master=form), optimizer=ts.SGD(lr=1e-30))
    before = []
    for layer in trainer.net.layers:
        layer.values[...] = rng.choice([-3.0, 3.0], layer.nnz).astype(np.float32)  # above every first weight
        before.append((layer.pattern, layer.values.copy()))
    _fit(trainer, 1)
    for layer, (pattern, values) in zip(trainer.net.layers, before, strict=True):
        assert layer.pattern == pattern
        np.testing.assert_array_equal(layer.values, values)


def test_counts_are_exact_and_stay() -> None:
    rule = TopKAST(0.5, refresh_every=1)
    trainer = _trainer(rule)
    wanted = [layer.nnz for layer in trainer.net.layers]
    both = rule.backward_counts(trainer.net.layers)
    assert abs(sum(both) - 0.5 * sum(layer.n_in * layer.n_out for layer in trainer.net.layers)) <= 2
    for step in range(1, 6):
        _fit(trainer, step)
        assert [layer.nnz for layer in trainer.net.layers] == wanted
        explored = [trainer.state.exploring[i].nnz for i in range(3)]
        assert [a + c for a, c in zip(wanted, explored, strict=True)] == both
        for i, layer in enumerate(trainer.net.layers):
            assert not np.intersect1d(layer.pattern.cells(), trainer.state.exploring[i].layer.pattern.cells()).size


def _draw_of(values: Array) -> Callable[[Array], Array]:
    return lambda cells: values[cells].copy()


@given(st.data())
def test_a_search_is_exact_with_ties_by_cell(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    first = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), np.float32)
    block, spare = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(master, "_BLOCK_CELLS", block)
        patch.setattr(master, "_SPARE", spare)
        truth = first.copy()
        forms = [DenseMaster(first.copy(), 1), LazyMaster(n, _draw_of(first), 1)]
        for _ in range(4):
            some = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), np.uint64)
            values = np.array(
                data.draw(st.lists(st.integers(-4, 4), min_size=some.size, max_size=some.size)), np.float32
            )
            truth[some] = values
            count = data.draw(st.integers(0, n))
            wanted = np.sort(np.argsort(-np.abs(truth), kind="stable")[:count])
            for form in forms:
                form.write(some, values)
                cells, found = form.strongest(count)
                np.testing.assert_array_equal(cells, wanted)
                np.testing.assert_array_equal(found, truth[wanted])
                asked = np.arange(n, dtype=np.uint64)
                np.testing.assert_array_equal(form.at(asked), truth)


@pytest.mark.parametrize("choice", ["top", "random"])
@pytest.mark.parametrize("init", ["he_uniform", ts.HeUniform(fan_in="sparse"), "normal"], ids=str)
def test_lazy_weights_equal_dense_ones_bit_for_bit(choice: str, init: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "_BLOCK_CELLS", 50)
    monkeypatch.setattr(top_kast, "_FILL_CELLS", 70)
    searches = []
    draw_spare = LazyMaster._draw_spare
    monkeypatch.setattr(LazyMaster, "_draw_spare", lambda self, n: (searches.append(n), draw_spare(self, n))[1])
    ends = []
    for form in ("dense", "lazy"):
        rule = TopKAST(0.15, refresh_every=1, regularizer=0.5, choice=choice, master=form)
        trainer = _trainer(rule, density=0.05, init=init, optimizer=ts.SGD(lr=0.2, momentum=0.5))
        bits = [_everything(_fit(trainer, step)) for step in range(1, 25)]
        assert rule.master_used == trainer.state.rule.numbers["master"] == form
        ends.append(bits)
    assert ends[0] == ends[1]
    assert len({b["a0"] for b in ends[0]}) == 24
    assert len(searches) > 3 if choice == "top" else searches  # once more than the first search of each layer
    lazy = trainer.state.rule.tensors
    assert "theta.0" not in lazy and lazy["cells.0"].size < 12 * 16


@pytest.mark.parametrize("form", ["dense", "lazy", "mapped"])
@pytest.mark.parametrize("choice", ["top", "random"])
@pytest.mark.parametrize("init", ["he_uniform", ts.HeUniform(fan_in="sparse")], ids=str)
def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(
    form: str, choice: str, init: Any, tmp_path: Path
) -> None:
    place: dict[str, Any] = {"master": form}
    if form == "mapped":
        place = {"master_dir": str(tmp_path)}

    def make(epochs: int) -> ts.Trainer:
        rule = TopKAST(0.4, refresh_every=3, regularizer=0.02, choice=choice, **place)
        return _fit(_trainer(rule, init=init, batch_size=8, checkpoint=tmp_path / "c.safetensors"), epochs)

    whole = make(7)
    make(2)  # 8 steps: between two refreshes
    resumed = ts.Trainer.resume(tmp_path / "c.safetensors", progress=False, threads=1)
    resumed.fit(X, y, epochs=7)
    assert _everything(resumed) == _everything(whole)
    assert resumed.history.loss == whole.history.loss
    remembered, wanted = resumed.state.rule, whole.state.rule
    assert remembered.numbers == wanted.numbers and remembered.tensors.keys() == wanted.tensors.keys()
    for name, array in wanted.tensors.items():
        np.testing.assert_array_equal(remembered.tensors[name], array)
    if form == "mapped":
        assert isinstance(resumed.state.rule.tensors["theta.0"], np.memmap)


def test_weights_mapped_from_a_file_give_the_same_bits_and_take_no_memory(tmp_path: Path) -> None:
    rule = TopKAST(0.4, refresh_every=2, master_dir=str(tmp_path))
    mapped = _fit(_trainer(rule), 6)
    plain = _fit(_trainer(TopKAST(0.4, refresh_every=2, master="dense")), 6)
    assert _everything(mapped) == _everything(plain)
    held, other = mapped.state.memory(mapped.net), plain.state.memory(plain.net)
    assert held["rule"] == 0 and held["rule_files"] == other["rule"] > 0
    sizes = [layer.n_in * layer.n_out * 4 for layer in mapped.net.layers if layer.density < 1]
    assert sorted(file.stat().st_size for file in tmp_path.glob("*.f32")) == sorted(sizes)
    stored = np.fromfile(tmp_path / "top_kast_0.f32", np.float32)
    np.testing.assert_array_equal(stored, plain.state.rule.tensors["theta.0"])


def test_a_damaged_exploration_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    from trulysparse.model import serialize

    file = tmp_path / "c.safetensors"
    _fit(_trainer(TopKAST(0.4), checkpoint=file), 2)
    tensors, metadata = serialize.read_tensors(file)
    del tensors["exploring.1.slots.velocity"]
    serialize.write_tensors(file, tensors, metadata)
    with pytest.raises(CheckpointError, match="explored connections of layer 1"):
        ts.Trainer.resume(file)
    tensors["exploring.1.slots.velocity"] = np.zeros(1, np.float32)
    serialize.write_tensors(file, tensors, metadata)
    with pytest.raises(CheckpointError, match="explored connections of layer 1"):
        ts.Trainer.resume(file)


@pytest.mark.parametrize("threads", [1, 7])
@pytest.mark.parametrize("form", ["dense", "lazy"])
def test_any_number_of_threads_gives_the_same_bits(threads: int, form: str) -> None:
    def run(threads: int) -> dict[str, bytes]:
        rule = TopKAST(0.5, refresh_every=2, regularizer=0.01, master=form)
        return _everything(_fit(_trainer(rule, threads=threads, batch_size=16), 6))

    assert run(threads) == run(2)


@pytest.mark.parametrize("optimizer", [ts.SGD(lr=0.2), ts.SGD(lr=0.2, nesterov=True), ts.Adam()], ids=repr)
def test_micro_batches_do_what_the_whole_batch_does(optimizer: ts.Optimizer) -> None:
    def run(micro_batch: int | None) -> ts.Trainer:
        rule = TopKAST(0.5, refresh_every=4, regularizer=0.01)
        return _fit(_trainer(rule, optimizer=optimizer, micro_batch=micro_batch), 7)

    whole, parts = run(None), run(16)
    for i in range(3):
        for one, other in (
            (whole.net.layers[i], parts.net.layers[i]),
            (whole.state.exploring[i].layer, parts.state.exploring[i].layer),
        ):
            assert one.pattern == other.pattern and one.nnz
            np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)


def test_the_clip_norm_counts_explored_connections() -> None:
    rule = TopKAST(0.6, regularizer=0.0)
    trainer = _trainer(rule, optimizer=ts.SGD(lr=1.0, momentum=0.0, clip_norm=0.01))
    reference = _Reference(trainer.net, rule, ts.SGD())
    reference.refresh()
    _fit(trainer, 1)
    total = 0.0
    for i, layer in enumerate(trainer.net.layers):
        before = reference.theta[i].ravel()
        for some in (layer, trainer.state.exploring[i].layer):
            total += float(np.square(before[some.pattern.cells()] - some.values).sum())
        total += float(np.square(layer.bias.astype(np.float64)).sum())
    assert math.sqrt(total) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("optimizer", [ts.SGD(), ts.Adam()], ids=repr)
def test_optimizer_state_exists_for_the_backward_set_only(optimizer: ts.Optimizer) -> None:
    rule = TopKAST(0.4)
    trainer = _fit(_trainer(rule, optimizer=optimizer), 2)
    both = sum(rule.backward_counts(trainer.net.layers))
    slots = [*trainer.state.weight_slots, *(e.slots for e in trainer.state.exploring.values())]
    assert sum(array.size for some in slots for array in some.values()) == both * len(optimizer.slots)
    biases = sum(SIZES[1:])
    assert trainer.state.memory(trainer.net)["optimizer"] == 4 * (both + biases) * len(optimizer.slots)
    assert both < sum(layer.n_in * layer.n_out for layer in trainer.net.layers)


def test_the_regularizer_adds_c_on_the_forward_set_and_c_over_its_density_on_the_rest() -> None:
    def step(c: float) -> ts.Trainer:
        return _fit(_trainer(TopKAST(0.6, regularizer=c), optimizer=ts.SGD(lr=1.0, momentum=0.0)), 1)

    plain, decayed = step(0.0), step(0.01)
    full = ts.SparseMLP(SIZES, density=1.0, seed=3)
    for i, layer in enumerate(plain.net.layers):
        for some, other, factor in (
            (layer, decayed.net.layers[i], 0.01),
            (plain.state.exploring[i].layer, decayed.state.exploring[i].layer, 0.01 / layer.density),
        ):
            first = full.layers[i].values[some.pattern.cells()]
            np.testing.assert_allclose(some.values - other.values, factor * first, rtol=1e-4, atol=1e-7)
            assert some.nnz and np.any(first)


def test_random_choice_draws_the_rest_anew_and_the_forward_set_is_the_strongest() -> None:
    trainer = _trainer(TopKAST(0.5, refresh_every=1, choice="random"), optimizer=ts.SGD(lr=0.05))
    drawn = []
    for step in range(1, 5):
        before = None if step == 1 else _theta(trainer, 0)
        _fit(trainer, step)
        layer, rest = trainer.net.layers[0], trainer.state.exploring[0].layer
        assert not np.intersect1d(layer.pattern.cells(), rest.pattern.cells()).size
        assert layer.nnz + rest.nnz == trainer.topology.backward_counts(trainer.net.layers)[0]
        if before is not None:
            strongest = np.sort(np.argsort(-np.abs(before), kind="stable")[: layer.nnz])
            np.testing.assert_array_equal(layer.pattern.cells(), strongest)
            top = np.argsort(-np.abs(before), kind="stable")[layer.nnz :][: rest.nnz]
            assert not np.array_equal(rest.pattern.cells(), np.sort(top))
        drawn.append(rest.pattern.cells().tobytes())
    assert len(set(drawn)) == 4


def test_equal_densities_leave_nothing_to_explore() -> None:
    trainer = _fit(_trainer(TopKAST(0.25, refresh_every=1)), 3)
    assert [e.nnz for e in trainer.state.exploring.values()] == [0, 0, 0]
    assert np.isfinite(trainer.history.loss).all()


def test_backward_density_one_trains_every_weight() -> None:
    trainer = _fit(_trainer(TopKAST(1.0, refresh_every=2)), 5)
    for i, layer in enumerate(trainer.net.layers):
        assert layer.nnz + trainer.state.exploring[i].nnz == layer.n_in * layer.n_out


def test_full_layers_stay_and_leave_their_share_to_the_others() -> None:
    rule = TopKAST(0.6, refresh_every=1)
    net = ts.SparseMLP((20, 30, 4), density=ts.Given([np.arange(600).reshape(20, 30) % 5 == 0, np.ones((30, 4), bool)]))
    assert rule.backward_counts(net.layers) == [round(0.6 * 720) - 120, 120]
    trainer = ts.Trainer(net, topology=rule, batch_size=8, standardize=False, progress=False)
    trainer.fit(rng.normal(size=(8, 20)).astype(np.float32), np.arange(8) % 4, epochs=2)
    assert net.layers[1].density == 1 and trainer.state.exploring[1].nnz == 0
    assert "theta.1" not in trainer.state.rule.tensors and "theta.0" in trainer.state.rule.tensors


def test_layers_hidden_leaves_the_output_matrix_alone() -> None:
    trainer = _trainer(TopKAST(0.5, refresh_every=1, layers="hidden"))
    pattern = trainer.net.layers[-1].pattern
    _fit(trainer, 3)
    assert trainer.net.layers[-1].pattern is pattern and sorted(trainer.state.exploring) == [0, 1]


def test_sets_are_chosen_at_whole_intervals_until_the_end() -> None:
    rule = TopKAST(refresh_every=10, end=0.5)
    assert [s for s in range(100) if rule.due(Progress(s, s / 10, 10, 10))] == [0, 10, 20, 30, 40]


def test_an_earlier_network_that_is_put_back_is_explored_anew() -> None:
    trainer = _fit(_trainer(TopKAST(0.5, refresh_every=100)), 3)
    snapshot = snapshot_network(trainer.net)
    _fit(trainer, 5)
    trainer.restore(snapshot)
    assert not trainer.state.exploring
    trainer._versions = trainer._net_versions()  # as inside a fit, where callbacks restore
    _fit(trainer, 6)
    assert trainer.state.evolutions == 2
    for i, layer in enumerate(trainer.net.layers):
        assert trainer.state.exploring[i].nnz > 0
        assert not np.intersect1d(layer.pattern.cells(), trainer.state.exploring[i].layer.pattern.cells()).size


def test_early_stopping_returns_the_best_network_and_the_run_can_go_on() -> None:
    trainer = _trainer(
        TopKAST(0.5, refresh_every=2),
        optimizer=ts.SGD(lr=20.0),
        callbacks=[ts.EarlyStopping(monitor="loss", patience=2)],
    )
    _fit(trainer, 30)
    assert trainer.stop_reason is not None and trainer.state.epoch < 30
    assert not trainer.state.exploring
    trainer.callbacks = []
    _fit(trainer, trainer.state.epoch + 2)
    assert len(trainer.state.exploring) == 3


def test_weights_that_are_no_numbers_are_refused() -> None:
    trainer = _fit(_trainer(TopKAST(0.5)), 2)
    trainer.state.exploring[0].layer.values[3] = np.nan
    with pytest.raises(DivergenceError, match=r"layer 0 .* learning rate"):
        evolve_network(trainer.net, trainer.state, topology=trainer.topology, pruning=None, seed=0, threads=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backward_density": 0}, "backward_density"),
        ({"backward_density": 1.5}, "backward_density"),
        ({"refresh_every": 0}, "refresh_every"),
        ({"regularizer": -1}, "regularizer"),
        ({"choice": "best"}, "choice must be one of top, random"),
        ({"master": "lasy"}, "did you mean 'lazy'"),
        ({"master": "lazy", "master_dir": "."}, "master_dir is for master='dense'"),
        ({"master_dir": 3}, "path of a directory"),
        ({"end": 0}, "end"),
        ({"layers": "some"}, "layers"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TopKAST(**arguments)


def test_settings_that_do_not_fit_the_run_are_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backward_density=0.1 is below the density"):
        _fit(_trainer(TopKAST(0.1)), 1)
    with pytest.raises(ConfigError, match=r"not a directory"):
        _fit(_trainer(TopKAST(master_dir=str(tmp_path / "nothing"))), 1)
    with pytest.raises(ConfigError, match=r"TopKAST .* importance pruning"):
        _trainer(TopKAST(0.5), pruning=ts.ImportancePruning(compact=True))


@pytest.mark.parametrize("form", ["dense", "lazy"])
def test_what_importance_pruning_takes_does_not_come_back(form: str) -> None:
    gone: dict[int, set[int]] = {}
    counts: list[tuple[int, ...]] = []

    class Watch(TopKAST):
        def connections_pruned(self, layer: ts.SparseLayer, mask: Any, state: Any) -> None:
            super().connections_pruned(layer, mask, state)
            gone.setdefault(layer.index, set()).update(map(int, layer.pattern.cells()[~mask]))

    def look(trainer: ts.Trainer, report: Any) -> None:
        counts.append(tuple(layer.nnz for layer in trainer.net.layers))
        for index, cells in gone.items():
            assert not cells & set(map(int, trainer.net.layers[index].pattern.cells()))
            if f"pruned.{index}" not in trainer.state.rule.tensors:
                assert not cells & set(map(int, trainer.state.exploring[index].layer.pattern.cells()))

    trainer = _trainer(
        Watch(0.5, refresh_every=3, master=form),
        pruning=ts.ImportancePruning(20, start=0, period=1),
        callbacks=ts.LambdaCallback(on_evolution=look),
    )
    _fit(trainer, 5)
    assert gone and all(len(cells) > 3 for cells in gone.values())
    for before, after in itertools.pairwise(counts):
        assert all(a <= b for a, b in zip(after, before, strict=True))
    assert sum(counts[-1]) < 0.9 * sum(counts[0])


def test_the_lazy_form_runs_where_the_dense_one_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_kast, "available_bytes", lambda: 100)
    lazy = _fit(_trainer(TopKAST(0.5, refresh_every=2)), 4)
    monkeypatch.setattr(top_kast, "available_bytes", lambda: 10**9)
    dense = _fit(_trainer(TopKAST(0.5, refresh_every=2)), 4)
    assert [t.state.rule.numbers["master"] for t in (lazy, dense)] == ["lazy", "dense"]
    assert _everything(lazy) == _everything(dense)


def test_training_flops_are_twice_forward_and_once_backward() -> None:
    assert TopKAST(0.4).training_flops(10.0, 100.0) == 60
    assert TopKAST().training_flops(10.0, 100.0) == 40
    assert TopKAST().training_flops(80.0, 100.0) == 260


def test_memory_is_told_by_what_it_is_for() -> None:
    trainer = _fit(_trainer(TopKAST(0.5, master="dense")), 2)
    held = trainer.state.memory(trainer.net)
    cells = [layer.n_in * layer.n_out for layer in trainer.net.layers if layer.density < 1]
    assert held["rule"] == 4 * sum(cells)
    # weight, column, source and permutation of a connection; two pointer arrays and a bias
    network = sum(16 * layer.nnz + 4 * (layer.n_in + 1) + 4 * (2 * layer.n_out + 1) for layer in trainer.net.layers)
    assert held["network"] == network
    # what is explored has no forward pass, and so no second index
    explored = [exploration.layer for exploration in trainer.state.exploring.values()]
    assert held["exploring"] == sum(8 * layer.nnz + 4 * (layer.n_in + 1) + 4 * layer.n_out for layer in explored)
    slots = sum(a.nbytes for e in trainer.state.exploring.values() for a in e.slots.values())
    assert sum(e.nbytes for e in trainer.state.exploring.values()) == held["exploring"] + slots > 0


def test_the_rule_is_known_by_name_to_files_and_the_command_line(tmp_path: Path) -> None:
    rule = TopKAST(0.3, regularizer=1e-4, choice="random")
    again = ts.topology.get_topology(rule.to_config())
    assert isinstance(again, TopKAST) and again.to_config() == rule.to_config()
    assert ts.TopKAST is TopKAST and ts.topology.Exploration is Exploration
    out = tmp_path / "run"
    options = ["--epochs", "2", "--set", "hidden=[32]", "--quiet", "--out", str(out)]
    assert main(["train", *options, "--topology", "top_kast", "--set", "topology.backward_density=0.9"]) == 0
    text = (out / "run.toml").read_text()
    assert "top_kast" in text and "backward_density = 0.9" in text
    assert ts.load(out / "checkpoint.safetensors").connections > 0
