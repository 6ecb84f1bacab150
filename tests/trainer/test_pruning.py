# SPDX-License-Identifier: BSD-3-Clause
"""Runs whose network is pruned and shrinks on the way: arithmetic, resuming, going back to a bigger network."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Evolution
from trulysparse.errors import CheckpointError
from trulysparse.model.serialize import read_tensors, write_tensors
from trulysparse.trainer import TrainingInterrupted

COMPACT = {"percentile": 15, "start": 0, "period": 2, "compact": True}
CLOSED = {"percentile": 15, "start": 0, "period": 2, "regrow_into_pruned": False}


def _data(n: int = 200, features: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, features)) * 1.5
    y = rng.integers(0, classes, n)
    return (centres[y] + rng.normal(size=(n, features))).astype(np.float32), y


def _trainer(dropout: float = 0.2, activation: Any = "all_relu", **arguments: Any) -> ts.Trainer:
    net = ts.SparseMLP((12, 60, 40, 3), epsilon=6, activation=activation, dropout=dropout, seed=3)
    defaults: dict[str, Any] = {"optimizer": ts.SGD(lr=0.05), "batch_size": 32, "progress": False, "seed": 5}
    return ts.Trainer(net, **(defaults | arguments))


def _bits(net: ts.SparseMLP) -> list[bytes]:
    return [array.tobytes() for layer in net.layers for array in (layer.pattern.cells(), layer.values, layer.bias)]


RULES = {
    "static": ts.Static,
    "set": lambda: ts.SET(0.3),
    "rigl": lambda: ts.RigL(0.3, update_every=4),
    "rigl at the event": lambda: ts.RigL(0.3, update_every=1, unit="epochs", end=1.0),
}
OPTIMIZERS = {
    "sgd": lambda: ts.SGD(lr=0.05, momentum=0.9, weight_decay=2e-4),
    "nesterov": lambda: ts.SGD(lr=0.02, momentum=0.9, nesterov=True, decay="l2"),
    "adam": lambda: ts.Adam(lr=0.003, clip_norm=5.0),
}


@pytest.mark.parametrize("micro_batch", [None, 16], ids=["whole", "parts"])
@pytest.mark.parametrize(
    "activation", ["all_relu", {"name": "prelu", "shared": True}, "srelu", ts.AllReLU("auto")], ids=str
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_compacted_run_is_the_run_that_keeps_its_dead_neurons(
    optimizer: str, activation: Any, micro_batch: int | None
) -> None:
    X, y = _data()
    runs = []

    def harder(trainer: ts.Trainer, row: Mapping[str, Any]) -> None:
        assert trainer.pruning is not None
        trainer.pruning.percentile += 4  # removed neurons count as 0: the same percentile would find no others

    for option in ("remove_outgoing", "compact"):
        pruning = {"percentile": 15, "start": 0, "period": 2, option: True}
        trainer = _trainer(
            dropout=0.0,
            activation=activation,
            pruning=pruning,
            topology="static",
            optimizer=OPTIMIZERS[optimizer](),
            micro_batch=micro_batch,
            callbacks=ts.LambdaCallback(on_epoch_end=harder),
        )
        runs.append((trainer, trainer.fit(X, y, epochs=7, validation=(X, y))))
    (wide, expected), (small, history) = runs
    assert wide.net.sizes == (12, 60, 40, 3) and small.net.sizes[1] < 55 and small.net.sizes[2] < 40
    assert history.connections == expected.connections and len(set(history.connections)) > 2
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-4)
    np.testing.assert_allclose(small.net.decision(X), wide.net.decision(X), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("pruning", [COMPACT, CLOSED], ids=["compact", "closed"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stop", [9, 33], ids=["before", "after"])
def test_a_run_resumes_bit_for_bit_across_a_compaction(
    rule: str, stop: int, pruning: dict[str, Any], tmp_path: Path
) -> None:
    X, y = _data()
    whole = _trainer(topology=RULES[rule](), pruning=pruning)
    expected = whole.fit(X, y, epochs=10)
    if pruning is COMPACT:
        assert whole.net.sizes[1] < 60 and whole.net.sizes[2] < 40

    class StopInTheMiddle(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    first = _trainer(
        topology=RULES[rule](), pruning=pruning, checkpoint=tmp_path / "c.safetensors", callbacks=[StopInTheMiddle()]
    )
    with pytest.raises(TrainingInterrupted):
        first.fit(X, y, epochs=10)
    second = ts.Trainer.resume(tmp_path / "c.safetensors", threads=2, progress=False)
    assert second.state.removed == first.state.removed
    assert (sum(first.state.removed) > 0) == (pruning is COMPACT and stop == 33)
    assert sorted(second.state.pruned) == ([0, 1] if pruning is CLOSED and stop == 33 else [])
    history = second.fit(X, y)
    assert _bits(second.net) == _bits(whole.net)
    assert history.loss == expected.loss and history.connections == expected.connections


@pytest.mark.parametrize(
    "activation", ["all_relu", {"name": "prelu", "shared": True}, "srelu", ts.AllReLU("auto")], ids=str
)
def test_a_checkpoint_saved_at_the_compaction_resumes_bit_for_bit(activation: Any, tmp_path: Path) -> None:
    X, y = _data()
    file = tmp_path / "c.safetensors"

    def save(trainer: ts.Trainer, report: Evolution) -> None:
        if trainer.state.removed and not file.exists():
            trainer.save_checkpoint(file)

    whole = _trainer(activation=activation, pruning=COMPACT, callbacks=ts.LambdaCallback(on_evolution=save))
    whole.fit(X, y, epochs=8)
    resumed = ts.Trainer.resume(file, progress=False)
    resumed.fit(X, y)
    assert _bits(resumed.net) == _bits(whole.net)


@pytest.mark.parametrize("activation", ["all_relu", "srelu"], ids=str)
def test_early_stopping_goes_back_to_a_network_from_before_the_compaction(activation: Any, tmp_path: Path) -> None:
    X, y = _data()
    snapshots: dict[int, tuple[tuple[int, ...], list[bytes]]] = {}

    def stopping() -> ts.EarlyStopping:
        return ts.EarlyStopping(monitor="loss", mode="max", patience=4)  # worse is better: the first epoch is best

    def remember(trainer: ts.Trainer, row: Mapping[str, Any]) -> None:
        snapshots[row["epoch"]] = (trainer.net.sizes, _bits(trainer.net))
        if row["epoch"] == 4:
            trainer.save_checkpoint(tmp_path / "c.safetensors")

    callback = stopping()
    trainer = _trainer(
        activation=activation, pruning=COMPACT, callbacks=[callback, ts.LambdaCallback(on_epoch_end=remember)]
    )
    trainer.fit(X, y, epochs=20)
    assert callback.best_epoch == 1 and snapshots[4][0] < snapshots[1][0]
    assert (trainer.net.sizes, _bits(trainer.net)) == snapshots[1]
    assert trainer.state.removed == [0, 0]

    resumed = ts.Trainer.resume(tmp_path / "c.safetensors", callbacks=[stopping()], progress=False)
    assert resumed.net.sizes == snapshots[4][0]
    resumed.fit(X, y)
    assert (resumed.net.sizes, _bits(resumed.net)) == snapshots[1]

    trainer.callbacks = []
    trainer.fit(X, y, epochs=24)  # and training goes on, and shrinks it again
    assert trainer.net.sizes < snapshots[1][0]


@pytest.mark.parametrize("rule", RULES)
def test_where_only_pruning_is_due_only_pruning_runs(rule: str) -> None:
    X, y = _data()
    reports: list[Evolution] = []
    log = ts.LambdaCallback(on_evolution=lambda trainer, report: reports.append(report))
    trainer = _trainer(topology=RULES[rule](), pruning=COMPACT, callbacks=log)
    trainer.fit(X, y, epochs=8)
    taken = [sum(change.pruned for change in report.changes) for report in reports]
    moved = [sum(change.dropped for change in report.changes) for report in reports]
    events = [i for i, n in enumerate(taken) if n]
    assert [report.number for report in reports] == list(range(len(reports)))
    assert events
    if rule == "static":
        assert not any(moved) and len(reports) == 3  # the later events found only what is gone at the threshold
    if rule == "rigl":
        # six steps an epoch, an update every four: after an odd number of epochs none is due
        assert [moved[i] > 0 for i in events] == [False] * len(events) and any(moved)
    if rule in ("set", "rigl at the event"):
        assert all(moved[i] > 0 for i in events)


def test_gradients_are_those_of_the_pruned_network() -> None:
    X, y = _data()

    class Looks(ts.Topology):
        """Checks that the gradient at hand has the shape and the connections of the layer as it is now."""

        name = "looks"
        wants_gradient = True

        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta | None:
            gradient = signals.gradient(layer)
            assert gradient.x.shape[0] == layer.n_in and gradient.dy.shape[0] == layer.n_out
            expected = gradient.x.astype(np.float64) @ gradient.dy.astype(np.float64).T
            dense = expected[layer.pattern.sources(), layer.pattern.col_idx]
            np.testing.assert_allclose(gradient.existing(), dense, rtol=1e-3, atol=1e-5)
            seen.append(layer.n_out)
            return None

    seen: list[int] = []
    trainer = _trainer(topology=Looks(), pruning=COMPACT)
    trainer.fit(X, y, epochs=5)
    assert len(set(seen)) > 1 and trainer.net.sizes[1] in seen


def test_a_scaling_and_bfloat16_activations_outlive_a_compaction() -> None:
    X, y = _data()
    trainer = _trainer(pruning=COMPACT, activation_dtype="bfloat16", micro_batch=16)
    history = trainer.fit(X * 50 + 7, y, epochs=12, validation=(X * 50 + 7, y))
    assert trainer.net.sizes[1] < 60 and trainer.net.scaling is not None
    assert history.val_accuracy[-1] > 0.8 and trainer.net.score(X * 50 + 7, y) == history.val_accuracy[-1]


def test_a_checkpoint_whose_closed_neurons_do_not_fit_is_an_error(tmp_path: Path) -> None:
    X, y = _data()
    trainer = _trainer(pruning=CLOSED)
    trainer.fit(X, y, epochs=4)
    trainer.save_checkpoint(tmp_path / "c.safetensors")
    tensors, metadata = read_tensors(tmp_path / "c.safetensors")
    assert tensors["pruned.layers.0"].dtype == np.bool_
    write_tensors(tmp_path / "c.safetensors", tensors | {"pruned.layers.0": np.zeros(7, np.bool_)}, metadata)
    with pytest.raises(CheckpointError, match=r"pruned\.layers\.0 is bool of shape \(7,\)"):
        ts.Trainer.resume(tmp_path / "c.safetensors", progress=False)
