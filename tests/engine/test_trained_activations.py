# SPDX-License-Identifier: BSD-3-Clause
"""PReLU, SReLU and learned All-ReLU in the very step that trains: gradients, threads, micro-batches, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine, restore_network, snapshot_network
from trulysparse.engine.state import NetworkSnapshot
from trulysparse.model import Inputs

Arrays = dict[str, np.ndarray]
TRAINED = [
    ts.PReLU(),
    ts.PReLU(shared=True),
    ts.SReLU(left_threshold=(-0.6, 0.0), right_threshold=(-0.5, 0.8), right_slope=(-0.2, 1.2)),
    ts.AllReLU("auto"),
]
each_activation = pytest.mark.parametrize("activation", TRAINED, ids=["prelu", "shared", "srelu", "auto"])


def _arrays(net: ts.SparseMLP) -> Arrays:
    """Return every living array that training moves, by its name in a file."""
    return {name: a for name, a in net.to_tensors()[0].items() if a.dtype == np.float32 and "scaling" not in name}


def _copies(net: ts.SparseMLP) -> Arrays:
    return {name: array.copy() for name, array in _arrays(net).items()}


def _problem(samples: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(samples, 9)).astype(np.float32)
    return X, (X[:, 0] > 0) + (X[:, 1] * X[:, 2] > 0).astype(np.int64)


def _net(activation: ts.model.Activation, dropout: float = 0.0, **more: Any) -> ts.SparseMLP:
    net = ts.SparseMLP(
        (9, 14, 11, 3), density=0.5, activation=activation, dropout=dropout, init="xavier", seed=5, **more
    )
    rng = np.random.default_rng(0)
    for layer in net.layers:
        layer.values[...] *= 2.0
        layer.bias[...] = rng.normal(scale=0.3, size=layer.n_out)
    return net


def _train(
    net: ts.SparseMLP, X: np.ndarray, y: np.ndarray, optimizer: ts.optim.Optimizer, steps: int = 1, **more: Any
) -> float:
    """Return the mean loss of the first step."""
    engine = Engine(net, optimizer, **({"seed": 0, "threads": 1} | more))
    inputs, targets = Inputs(X, net.sizes[0], None, "X"), net.loss.check_targets(y, net.sizes[-1], "y")
    losses = [engine.train_batch(inputs, targets, np.arange(len(X)), optimizer.lr)[0] for _ in range(steps)]
    return losses[0] / len(X)


def _gradients(net: ts.SparseMLP, X: np.ndarray, y: np.ndarray, **more: Any) -> Arrays:
    before, lr = _copies(net), 0.125  # small enough for All-ReLU's slopes to stay within their bounds
    _train(net, X, y, ts.SGD(lr=lr, momentum=0.0), **more)
    gradients = {name: (before[name] - array) / lr for name, array in _arrays(net).items()}
    if isinstance(net.activation, ts.AllReLU):  # moved by its gradient over the square root of the neurons
        for layer in net.layers[:-1]:
            gradients[f"layers.{layer.index}.activation.slope"] *= np.sqrt(layer.fed_neurons)
    for name, array in _arrays(net).items():
        array[...] = before[name]
    return gradients


def _loss(net: ts.SparseMLP, X: np.ndarray, y: np.ndarray) -> float:
    before = _copies(net)
    loss = _train(net, X, y, ts.SGD(lr=1e-30, momentum=0.0))
    assert all(np.array_equal(array, before[name]) for name, array in _arrays(net).items())
    return loss


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@each_activation
def test_gradients_of_everything_equal_finite_differences(activation: ts.model.Activation, dropout: float) -> None:
    X, y = _problem()
    net = _net(activation, dropout)
    gradients = _gradients(net, X, y)
    here = _loss(net, X, y)
    rng = np.random.default_rng(1)
    parameters = 4 if isinstance(activation, ts.SReLU) else 1
    assert sum("activation" in name for name in gradients) == 2 * parameters
    for name, array in _arrays(net).items():
        assert np.any(gradients[name])
        for k in rng.choice(array.size, size=min(8, array.size), replace=False):
            kept, slopes = array[k], []
            for h in (8e-3, 2e-3, 5e-4):
                array[k] = kept + h
                up = _loss(net, X, y)
                array[k] = kept - h
                down = _loss(net, X, y)
                array[k] = kept
                slopes += [(up - down) / (2 * h), (up - here) / h, (here - down) / h]
            # A step may cross a kink, on one side or both, and a small one drowns in rounding: one must agree.
            assert min(abs(s - gradients[name][k]) for s in slopes) < 1e-3 + 2e-2 * abs(gradients[name][k]), (name, k)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@each_activation
def test_micro_batches_give_the_whole_batch_gradient(activation: ts.model.Activation, dropout: float) -> None:
    X, y = _problem(70)
    net = _net(activation, dropout)
    whole, parts = _gradients(net, X, y), _gradients(net, X, y, micro_batch=16)
    for name, gradient in whole.items():
        np.testing.assert_allclose(gradient, parts[name], rtol=2e-4, atol=2e-6, err_msg=name)


@each_activation
def test_any_number_of_threads_gives_the_same_bits(activation: ts.model.Activation) -> None:
    X, y = _problem(128)
    results = []
    for threads in (1, 2, 7):
        net = ts.SparseMLP((9, 1500, 1500, 3), epsilon=4, activation=activation, dropout=0.3, seed=1)
        _train(net, X, y, ts.SGD(lr=0.1), steps=3, threads=threads)
        results.append(_copies(net))
    for name, array in results[0].items():
        assert all(np.array_equal(array, other[name]) for other in results[1:]), name


@pytest.mark.parametrize(
    "optimizer",
    [
        ts.SGD(lr=1e-30, weight_decay=0.1),
        ts.SGD(lr=1e-30, weight_decay=0.1, clip_norm=1.0),
        ts.Adam(lr=1e-3, weight_decay=0.1),
    ],
    ids=["sgd", "clipped", "adam"],
)
@each_activation
def test_weight_decay_leaves_the_parameters_alone(
    activation: ts.model.Activation, optimizer: ts.optim.Optimizer
) -> None:
    X, y = _problem()
    moved = []
    for decay in (0.0, optimizer.weight_decay):
        net = _net(activation)
        _train(net, X, y, replace(optimizer, weight_decay=decay))
        moved.append(_copies(net))
    for name, array in moved[0].items():
        assert np.array_equal(array, moved[1][name]) == ("activation" in name), name


@pytest.mark.parametrize("direction", [-1, 1])
@pytest.mark.parametrize("optimizer", ["sgd", "clipped", "micro", "adam", "applied"])
def test_learned_slopes_stay_in_their_bounds_whatever_the_step(optimizer: str, direction: int) -> None:
    X, y = _problem(48)
    net = _net(ts.AllReLU("auto"))
    kinds = {"clipped": ts.SGD(lr=1.0, clip_norm=1e9), "adam": ts.Adam(lr=1.0)}
    engine = Engine(
        net,
        kinds.get(optimizer, ts.SGD(lr=1.0)),
        seed=0,
        threads=1,
        micro_batch=16 if optimizer == "micro" else None,
    )
    inputs, targets, rows = Inputs(X, 9, None, "X"), net.loss.check_targets(y, 3, "y"), np.arange(48)
    for slots in engine.state.activation_slots[:2]:  # moments or velocities that push beyond the bounds
        for name, array in slots["slope"].items():
            array[...] = 1.0 if name == "v" else direction * 1e3
    if optimizer == "applied":
        engine.compute(inputs, targets, rows)
        engine.apply(1.0)
    else:
        engine.train_batch(inputs, targets, rows, 1.0)
    slopes = [layer.activation_parameters["slope"][0] for layer in net.layers[:-1]]
    assert all(1 / 64 <= abs(slope) <= 1 for slope in slopes)
    assert slopes[0] < 0 < slopes[1]
    assert any(abs(slope) in (1 / 64, 1) for slope in slopes)


@each_activation
def test_clipping_counts_the_parameters(activation: ts.model.Activation) -> None:
    X, y = _problem()
    net = _net(activation)
    before = _copies(net)
    _train(net, X, y, ts.SGD(lr=1.0, momentum=0.0, clip_norm=0.01))
    moved = {name: array - before[name] for name, array in _arrays(net).items()}
    assert np.sqrt(sum((m**2).sum() for m in moved.values())) == pytest.approx(0.01, rel=1e-3)
    assert any(np.any(m) for name, m in moved.items() if "activation" in name)


@each_activation
def test_bfloat16_activations_train_nearly_the_same(activation: ts.model.Activation) -> None:
    X, y = _problem(300)
    net = _net(activation, 0.2)
    wide, narrow = _gradients(net, X, y), _gradients(net, X, y, activation_dtype="bfloat16")
    for name, gradient in wide.items():
        assert np.linalg.norm(gradient - narrow[name]) < 0.05 * np.linalg.norm(gradient), name


@each_activation
def test_a_dense_network_learns_and_moves_its_parameters(activation: ts.model.Activation) -> None:
    X, y = _problem(300)
    net = ts.SparseMLP((9, 30, 20, 3), density=1.0, activation=activation, seed=0)
    before = _copies(net)
    trainer = ts.Trainer(net, optimizer=ts.SGD(lr=0.02), topology="static", batch_size=20, progress=False)
    history = trainer.fit(X, y, epochs=60)
    assert history.rows[-1]["loss"] < 0.2 * history.rows[0]["loss"]
    for name, array in _arrays(net).items():
        assert not np.array_equal(array, before[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@each_activation
def test_a_resumed_run_equals_the_uninterrupted_one(
    activation: ts.model.Activation, optimizer: str, tmp_path: Path
) -> None:
    X, y = _problem(64)

    def trainer() -> ts.Trainer:
        net = _net(activation, 0.2)
        return ts.Trainer(net, optimizer=optimizer, batch_size=16, progress=False, checkpoint=tmp_path)

    whole = trainer()
    whole.fit(X, y, epochs=5)
    first = trainer()
    first.fit(X, y, epochs=2)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    resumed.fit(X, y, epochs=5)
    for name, array in _arrays(whole.net).items():
        assert np.array_equal(array, _arrays(resumed.net)[name]), name


def test_a_checkpoint_names_parameters_and_their_slots(tmp_path: Path) -> None:
    X, y = _problem(32)
    trainer = ts.Trainer(_net(ts.SReLU()), optimizer="adam", batch_size=16, progress=False, checkpoint=tmp_path)
    trainer.fit(X, y, epochs=1)
    tensors, _ = ts.model.read_tensors(tmp_path / "checkpoint.safetensors")
    for name in ("left_threshold", "left_slope", "right_threshold", "right_slope"):
        assert tensors[f"layers.1.activation.{name}"].shape == (11,)
        assert np.any(tensors[f"optimizer.layers.1.activation.{name}.v"])
    assert not any(name.startswith(("layers.2.activation", "optimizer.layers.2.activation")) for name in tensors)


@each_activation
def test_snapshots_bring_the_parameters_back(activation: ts.model.Activation) -> None:
    X, y = _problem(32)
    net = _net(activation)
    snapshot = snapshot_network(net)
    before = _copies(net)
    _train(net, X, y, ts.SGD(lr=0.5), steps=2)
    restore_network(net, NetworkSnapshot.from_tensors(net, snapshot.tensors()))
    for name, array in _arrays(net).items():
        assert np.array_equal(array, before[name]), name


def test_a_restored_best_network_is_the_best_one() -> None:
    X, y = _problem(64)
    net = _net(ts.SReLU())
    stopping = ts.EarlyStopping(patience=2, restore_best=True)
    trainer = ts.Trainer(net, optimizer=ts.SGD(lr=0.3), batch_size=16, callbacks=[stopping], progress=False)
    history = trainer.fit(X, y, epochs=40, validation=(X[:32], y[:32]))
    best = min(row["val_loss"] for row in history.rows)
    assert net.evaluate(X[:32], y[:32]).loss == pytest.approx(best, rel=1e-5)
