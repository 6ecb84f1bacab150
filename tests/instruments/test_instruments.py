# SPDX-License-Identifier: BSD-3-Clause
"""What instruments say is what brute force says."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import trulysparse as ts
from trulysparse.errors import ConfigError, DataError, ShapeError
from trulysparse.plot import input_heat_map

SIZES = (20, 30, 25, 4)


def _blobs(n: int = 320) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, SIZES[-1], n)
    return (rng.normal(size=(SIZES[-1], SIZES[0]))[y] + rng.normal(size=(n, SIZES[0]))).astype(np.float32), y


def _net(**settings: object) -> ts.SparseMLP:
    return ts.SparseMLP(SIZES, **{"density": 0.2, "seed": 1} | settings)  # type: ignore[arg-type]


class _Supports(ts.Callback):
    """Every support that the network had while it trained, as sets of cells, step by step."""

    def __init__(self) -> None:
        self.by_step: dict[int, list[set[int]]] = {}

    def _look(self, trainer: ts.Trainer) -> None:
        self.by_step[trainer.state.step] = [set(map(int, layer.pattern.cells())) for layer in trainer.net.layers]

    def on_fit_start(self, trainer: ts.Trainer) -> None:
        self._look(trainer)

    def on_evolution(self, trainer: ts.Trainer, report: object) -> None:
        self._look(trainer)

    def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
        self._look(trainer)


def _trainer(net: ts.SparseMLP, rule: ts.Topology, *callbacks: ts.Callback, **more: object) -> ts.Trainer:
    settings = {"batch_size": 16, "progress": False, "threads": 1} | more
    return ts.Trainer(net, topology=rule, callbacks=list(callbacks), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule", [ts.RigL(0.4, update_every=7), ts.SET(0.4, layers="all"), ts.Static()], ids=lambda rule: rule.name
)
def test_monitor_counts_density_and_exploration_exactly(rule: ts.Topology) -> None:
    X, y = _blobs()
    supports, monitor = _Supports(), ts.Monitor()
    trainer = _trainer(_net(), rule, supports, monitor)
    trainer.fit(X, y, epochs=3)
    cells = [a * b for a, b in pairwise(SIZES)]
    for step, seen in supports.by_step.items():
        counts = [len(some) for some in seen]
        want = (*(n / c for n, c in zip(counts, cells, strict=True)), sum(counts) / sum(cells))
        assert monitor.density_at(step) == pytest.approx(want, abs=1e-12)
    union = [set().union(*(seen[layer] for seen in supports.by_step.values())) for layer in range(len(cells))]
    explored = [len(some) for some in union]
    assert monitor.exploration()[:-1] == tuple(n / c for n, c in zip(explored, cells, strict=True))
    assert monitor.exploration()[-1] == sum(explored) / sum(cells)
    grew = rule.name != "static"
    assert (monitor.exploration()[-1] > 1.2 * monitor.rows[-1]["density"]) == grew
    assert sum(row["grown"] for row in monitor.rows) == sum(e["grown"] for e in monitor.evolutions)
    assert sum(row["evolutions"] for row in monitor.rows) == trainer.state.evolutions


def test_monitor_follows_a_density_that_falls() -> None:
    """A rule that only drops: the density falls at its steps and nowhere else."""

    class Shrink(ts.Periodic):
        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta:
            return ts.TopologyDelta(np.arange(layer.nnz) % 10 != 0)

    X, y = _blobs()
    monitor = ts.Monitor()
    _trainer(_net(), Shrink(update_every=5, unit="steps", end=0.5), monitor).fit(X, y, epochs=2)
    steps, densities = monitor.densities()
    assert list(steps) == [0, 5, 10, 15]
    assert (np.diff(densities[:, -1]) < 0).all()
    assert monitor.exploration()[-1] == densities[0, -1]


def test_monitor_adds_up_flops_by_the_accounting() -> None:
    X, y = _blobs()
    net, monitor = _net(), ts.Monitor()
    rule = ts.RigL(0.3, update_every=4, end=1.0)
    _trainer(net, rule, monitor).fit(X, y, epochs=2)
    sparse, dense = 2 * net.connections, 2 * sum(a * b for a, b in pairwise(SIZES))
    step = (3 * sparse * 4 + 2 * sparse + dense) / 5
    assert monitor.rows[-1]["training_flops"] == pytest.approx(40 * 16 * step)
    assert monitor.rows[-1]["dense_training_flops"] == 40 * 16 * 3 * dense
    assert monitor.rows[-1]["kernel_flops"] == 40 * 16 * (3 * sparse - 2 * net.layers[0].nnz)
    counted = ts.flops(net, rule)
    assert counted.training == step
    assert counted.training_ratio == pytest.approx(step / (3 * dense))
    assert (counted.inference, counted.dense_inference) == (sparse, dense)


def test_monitor_of_a_resumed_run_equals_the_whole_run(tmp_path: Path) -> None:
    X, y = _blobs()
    whole = ts.Monitor()
    _trainer(_net(), ts.RigL(0.4, update_every=7), whole).fit(X, y, epochs=4)

    class Interrupt(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == 27:
                trainer.save_checkpoint(tmp_path / "checkpoint.safetensors")
                raise KeyboardInterrupt

    first = ts.Monitor()
    with pytest.raises(KeyboardInterrupt):
        _trainer(_net(), ts.RigL(0.4, update_every=7), first, Interrupt()).fit(X, y, epochs=4)
    second = ts.Monitor()
    resumed = ts.Trainer.resume(tmp_path, callbacks=[second], progress=False)
    resumed.fit(X, y)
    assert second.steps == whole.steps and second.connections == whole.connections
    assert second.exploration() == whole.exploration()
    timed = {"train_seconds", "evolve_seconds", "eval_seconds", "peak_bytes"}
    for got, want in zip(second.rows, whole.rows, strict=True):
        assert {k: v for k, v in got.items() if k not in timed} == {k: v for k, v in want.items() if k not in timed}


def test_monitor_writes_a_csv_row_an_epoch(tmp_path: Path) -> None:
    X, y = _blobs()
    monitor = ts.Monitor(tmp_path / "monitor.csv")
    _trainer(_net(), ts.SET(0.3), monitor).fit(X, y, epochs=3)
    with (tmp_path / "monitor.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["explored.0"]) == monitor.exploration()[0]
    assert int(rows[-1]["peak_bytes"]) > int(rows[-1]["state_bytes"]) > 0
    with pytest.raises(DataError, match="has not seen step 5"):
        ts.Monitor().density_at(5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradient_flow_is_the_norm_of_the_gradient_without_dropout(dropout: float) -> None:
    X, y = _blobs(70)
    net = _net(dropout=dropout, activation=ts.AllReLU(0.5))
    flow = ts.gradient_flow(net, X, y, threads=2)
    plain = _net(dropout=0.0, activation=ts.AllReLU(0.5))
    # one step of plain gradient descent moves every weight by its gradient
    before = [(layer.values.copy(), layer.bias.copy()) for layer in plain.layers]
    ts.Trainer(
        plain,
        optimizer=ts.SGD(lr=1.0, momentum=0.0),
        topology="static",
        batch_size=70,
        standardize=False,
        progress=False,
    ).fit(X, y, epochs=1)
    for layer, (values, bias) in zip(plain.layers, before, strict=True):
        gradient = (values - layer.values).astype(np.float64)
        assert flow.weights[layer.index] == pytest.approx((gradient**2).sum(), rel=1e-4)
        assert flow.absolute[layer.index] == pytest.approx(np.abs(gradient).sum(), rel=1e-4)
        assert flow.biases[layer.index] == pytest.approx(((bias - layer.bias) ** 2).sum(), rel=1e-4)
    assert flow.loss == pytest.approx(net.evaluate(X, y).loss, rel=1e-5)
    assert flow.total == pytest.approx(sum(flow.weights))
    for p in (1, 2):
        norms = flow.absolute if p == 1 else [w**0.5 for w in flow.weights]
        each = [n / layer.nnz for n, layer in zip(norms, net.layers, strict=True)]
        assert flow.effective(p) == pytest.approx(np.mean(each))
    assert ts.gradient_flow(net, X, y, threads=7) == flow
    with pytest.raises(ShapeError, match="as many of each"):
        ts.gradient_flow(net, X, y[:5])


@pytest.mark.parametrize("activation", ["prelu", "srelu", "tanh", ts.AllReLU("auto")])
def test_gradient_flow_predicts_what_a_small_step_takes_from_the_loss(activation: str) -> None:
    X, y = _blobs(64)
    net = _net(activation=activation)
    flow = ts.gradient_flow(net, X, y)
    parts = {layer.index: layer.activation_parameters for layer in net.layers}
    lr = 1e-4
    loss = net.evaluate(X, y).loss
    before = {i: {k: a.copy() for k, a in p.items()} for i, p in parts.items()}
    ts.Trainer(
        net, optimizer=ts.SGD(lr=lr, momentum=0.0), topology="static", batch_size=64, standardize=False, progress=False
    ).fit(X, y, epochs=1)
    for i, p in parts.items():
        for k, a in p.items():
            a[...] = before[i][k]  # the parameters of activations are not what is measured
    assert loss - net.evaluate(X, y).loss == pytest.approx(lr * (flow.total + sum(flow.biases)), rel=0.05)


def test_gradient_flow_probe_measures_every_epoch_and_resumes(tmp_path: Path) -> None:
    X, y = _blobs()
    whole = ts.GradientFlowProbe(X[:50], y[:50])
    _trainer(_net(), ts.SET(0.3), whole).fit(X, y, epochs=4)
    assert whole.epochs == [1, 2, 3, 4] and len(set(whole.total)) == 4
    first, second = (ts.GradientFlowProbe(X[:50], y[:50]) for _ in range(2))
    _trainer(_net(), ts.SET(0.3), first, checkpoint=tmp_path).fit(X, y, epochs=2)
    ts.Trainer.resume(tmp_path, callbacks=[second], progress=False).fit(X, y, epochs=4)
    assert second.flows == whole.flows
    sparse = ts.GradientFlowProbe(X[:50], y[:50], every=2)
    _trainer(_net(), ts.SET(0.3), sparse).fit(X, y, epochs=4)
    assert sparse.flows == whole.flows[1::2]


def _permuted(patterns: list[ts.Pattern], seed: int) -> tuple[list[ts.Pattern], list[NDArray[np.int64]]]:
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(p.n_out) for p in patterns[:-1]]
    masks = [p.to_dense() for p in patterns]
    for i, order in enumerate(orders):
        masks[i] = masks[i][:, order]
        masks[i + 1] = masks[i + 1][order]
    return [ts.Pattern.from_dense(mask) for mask in masks], orders


@pytest.mark.parametrize("seed", range(3))
def test_mask_similarity_finds_a_planted_permutation(seed: int) -> None:
    net = ts.SparseMLP((40, 30, 35, 5), density=0.2, seed=seed)
    patterns = [layer.pattern for layer in net.layers]
    shuffled, orders = _permuted(patterns, seed)
    found = ts.mask_similarity(net, shuffled)
    assert found.total == 1.0 and found.jaccard == (1.0, 1.0, 1.0)
    for order, permutation in zip(orders, found.permutations, strict=True):
        assert np.array_equal(order[permutation], np.arange(order.size))
    plain = ts.mask_similarity(net, shuffled, align=False)
    assert plain.total < 0.5
    masks = [(p.to_dense(), q.to_dense()) for p, q in zip(patterns, shuffled, strict=True)]
    assert plain.shared == tuple(int((p & q).sum()) for p, q in masks)
    assert plain.jaccard == tuple((p & q).sum() / (p | q).sum() for p, q in masks)


def test_mask_similarity_of_random_masks_is_what_chance_gives() -> None:
    # seed 0 is also the default seed of the random masks, which must be others than the network's own
    a, b = (ts.SparseMLP((60, 50, 40, 6), density=0.15, seed=seed) for seed in (0, 1))
    plain = ts.mask_similarity(a, b, align=False)
    for got, chance in zip(plain.jaccard, plain.by_chance, strict=True):
        assert got == pytest.approx(chance, abs=0.06)
    aligned = ts.mask_similarity(a, b)
    assert aligned.total > plain.total
    assert aligned.jaccard[0] == pytest.approx(aligned.by_chance[0], abs=0.06)


def test_mask_similarity_refuses_what_it_cannot_compare() -> None:
    net = ts.SparseMLP((4, 6000, 2), epsilon=1)
    with pytest.raises(ConfigError, match="align=False"):
        ts.mask_similarity(net, net)
    assert ts.mask_similarity(net, net, align=False).total == 1.0
    with pytest.raises(ShapeError, match="same sizes"):
        ts.mask_similarity(net, ts.SparseMLP((4, 5, 2), epsilon=1))


def test_input_heat_map_is_a_picture_of_the_first_layer(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    net = ts.SparseMLP((48, 10, 2), density=0.3)
    for shape in ((6, 8), (3, 4, 4), None):
        path = input_heat_map(net, tmp_path / "map.png", image_shape=shape, measure="strength")
        assert path.read_bytes()[:4] == b"\x89PNG"
    assert input_heat_map(net, tmp_path / "other.png").read_bytes() != path.read_bytes()
    with pytest.raises(ShapeError, match="30 pixels, but the network has 48 inputs"):
        input_heat_map(net, tmp_path / "map.png", image_shape=(5, 6))
    with pytest.raises(ConfigError, match="measure"):
        input_heat_map(net, tmp_path / "map.png", measure="colour")


def test_monitor_is_exact_across_a_compaction() -> None:
    X, y = _blobs()
    net, monitor, seen = _net(), ts.Monitor(), {}

    class Look(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            cells = [layer.n_in * layer.n_out for layer in trainer.net.layers]
            seen[step - 1] = trainer.net.connections / sum(cells)

    pruning = ts.ImportancePruning(30, start=0, period=1, compact=True)
    _trainer(net, ts.SET(0.3), monitor, Look(), pruning=pruning).fit(X, y, epochs=4)
    assert net.sizes[1] < SIZES[1]
    for step, density in seen.items():
        assert monitor.density_at(step)[-1] == pytest.approx(density, abs=1e-12)
    assert [row["density"] for row in monitor.rows[:1]] == [pytest.approx(seen[19])]
    per_epoch = np.diff([0.0, *(row["dense_training_flops"] for row in monitor.rows)])
    assert (per_epoch == per_epoch[0]).all()  # beside a dense network of the sizes at the start


def test_monitor_notes_a_network_that_was_put_back() -> None:
    X, y = _blobs()
    net, monitor = _net(), ts.Monitor()
    pruning = ts.ImportancePruning(30, start=0, period=1)
    stopping = ts.EarlyStopping(monitor="val_loss", patience=50)
    trainer = _trainer(net, ts.SET(0.3), monitor, stopping, pruning=pruning, optimizer=ts.SGD(lr=0.5))
    trainer.fit(X, y, epochs=4, validation=(X, y))
    trainer.pruning = None
    trainer.fit(X, y, epochs=5, validation=(X, y))
    cells = sum(a * b for a, b in pairwise(SIZES))
    for row in monitor.rows:
        assert row["density"] == pytest.approx(row["connections"] / cells)


def test_what_was_never_trained_does_not_count_as_explored() -> None:
    X, y = _blobs()
    net, monitor = _net(density=1.0), ts.Monitor()
    _trainer(net, ts.SNIP(0.1), monitor).fit(X, y, epochs=2)
    # the batch that SNIP measures passes through the whole network, but trains nothing
    assert monitor.exploration()[-1] == net.connections / sum(a * b for a, b in pairwise(SIZES))
    net, monitor = _net(), ts.Monitor()
    _trainer(net, ts.TopKAST(0.4, refresh_every=1000), monitor).fit(X, y, epochs=1)
    assert monitor.exploration()[-1] == net.connections / sum(a * b for a, b in pairwise(SIZES))


def test_monitor_counts_a_falling_density_as_it_falls() -> None:
    X, y = _blobs()
    net, monitor, densities = _net(density=1.0), ts.Monitor(), []
    cells = sum(a * b for a, b in pairwise(SIZES))
    note = ts.LambdaCallback(on_step_end=lambda trainer, step: densities.append(trainer.net.connections / cells))
    _trainer(net, ts.GMP(0.1, update_every=5), monitor, note).fit(X, y, epochs=5)
    last = monitor.rows[-1]
    assert last["training_flops"] / last["dense_training_flops"] == pytest.approx(np.mean(densities))
    assert ts.flops(net, ts.GMP(0.1)).training_ratio == pytest.approx(np.mean(densities), abs=0.05)


@pytest.mark.parametrize("shape", [(-8, -6), 48, "48", (0, 48)])
def test_an_impossible_image_shape_is_refused(shape: object, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    net = ts.SparseMLP((48, 10, 2), density=0.3)
    with pytest.raises((ConfigError, ShapeError), match="image_shape"):
        input_heat_map(net, tmp_path / "map.png", image_shape=shape)  # type: ignore[arg-type]
