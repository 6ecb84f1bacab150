# SPDX-License-Identifier: BSD-3-Clause
"""A learning rate for each layer by its in-degree: the rule, and that every way of training follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine, evolve_network
from trulysparse.model import Inputs

SIZES = (300, 60, 40, 3)  # in-degrees on both sides of 32


def _net(seed: int = 0) -> ts.SparseMLP:
    init = ts.HeUniform(fan_in="sparse")
    net = ts.SparseMLP(SIZES, density=0.15, activation=ts.AllReLU(0.6), init=init, seed=seed)
    degrees = [layer.nnz / layer.n_out for layer in net.layers]
    assert min(degrees) < 20 and max(degrees) > 35
    return net


def _problem() -> tuple[Inputs, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, SIZES[0])).astype(np.float32)
    return Inputs(X, SIZES[0], None, "X"), rng.integers(0, 3, 48).astype(np.int32)


@pytest.mark.parametrize(
    ("optimizer", "connections", "n_out", "rate"),
    [
        (ts.SGD(lr_scale="fan_in"), 320, 10, 0.01),
        (ts.SGD(lr_scale="fan_in"), 20, 10, 0.16),
        (ts.SGD(lr_scale="fan_in"), 5_000_000, 2, 0.01 * 32 / 2_500_000),
        (ts.SGD(lr_scale="fan_in"), 0, 10, 0.32),  # as at in-degree 1
        (ts.SGD(lr_scale="fan_in"), 3, 10, 0.32),
        (ts.Adam(lr_scale="fan_in"), 20, 10, 0.01),
        (ts.Adam(lr_scale="fan_in"), 640, 10, 0.005),
        (ts.SGD(), 5_000_000, 2, 0.01),
    ],
)
def test_the_rate_is_32_over_the_in_degree(optimizer: Any, connections: int, n_out: int, rate: float) -> None:
    assert optimizer.layer_lr(0.01, connections, n_out) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("micro_batch", [None, 16])
@pytest.mark.parametrize(
    "settings",
    [{}, {"decay": "l2"}, {"nesterov": True}, {"clip_norm": 1e9}],
    ids=["paper", "l2", "nesterov", "not fused"],
)
def test_sgd_equals_the_formulas_with_each_layers_rate(settings: dict[str, Any], micro_batch: int | None) -> None:
    lr, momentum, decay = 0.02, 0.9, 0.01
    optimizer = ts.SGD(lr, momentum, decay, lr_scale="fan_in", **settings)
    engine = Engine(_net(), optimizer, seed=1, threads=1, micro_batch=micro_batch)
    inputs, targets = _problem()
    rows = np.arange(48)
    velocities = [np.zeros(layer.nnz) for layer in engine.net.layers]
    bias_velocities = [np.zeros(layer.n_out) for layer in engine.net.layers]
    for _ in range(3):
        _, weights, biases = engine.gradients(inputs, targets, rows)
        expected = []
        for layer in engine.net.layers:
            rate = lr * 32 / (layer.nnz / layer.n_out)
            for values, gradient, velocity, own in (
                (layer.values, weights[layer.index], velocities[layer.index], rate),
                (layer.bias, biases[layer.index], bias_velocities[layer.index], lr),
            ):
                w, g = values.astype(float), gradient.astype(float)
                shrink = decay * w if optimizer.decay == "paper" else 0.0  # no learning rate in it
                g = g + decay * w if optimizer.decay == "l2" else g
                velocity[:] = momentum * velocity - own * g
                move = momentum * velocity - own * g if optimizer.nesterov else velocity
                expected.append(w + move - shrink)
        engine.train_batch(inputs, targets, rows, lr)
        found = [array for layer in engine.net.layers for array in (layer.values, layer.bias)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_the_first_step_of_adam_is_each_layers_rate() -> None:
    engine = Engine(_net(), ts.Adam(lr_scale="fan_in"), seed=1, threads=1)
    inputs, targets = _problem()
    before = [(layer.values.copy(), layer.bias.copy()) for layer in engine.net.layers]
    _, weights, _ = engine.gradients(inputs, targets, np.arange(48))
    engine.train_batch(inputs, targets, np.arange(48), 1e-3)
    for layer, (values, bias), gradient in zip(engine.net.layers, before, weights, strict=True):
        rate = 1e-3 * min(1.0, 32 * layer.n_out / layer.nnz)
        moved = np.abs(gradient) > 1e-4  # beside eps
        assert moved.mean() > 0.2
        np.testing.assert_allclose(np.abs(layer.values - values)[moved], rate, rtol=5e-3)
        assert np.abs(layer.bias - bias).max() == pytest.approx(1e-3, rel=5e-3)


def test_a_step_moves_sums_alike_whatever_the_in_degree() -> None:
    # one layer on inputs of mean square 1: the change of a sum is lr * 32 * delta, with 8 inputs or with 4096
    moves = {}
    for lr_scale in (None, "fan_in"):
        for n_in in (8, 64, 4096):
            net = ts.SparseMLP((n_in, 2), density=1.0, init=ts.HeUniform(), seed=0)
            net.layers[0].values[:] = 0  # delta is then +-1/2
            X = np.sign(np.random.default_rng(0).normal(size=(1, n_in))).astype(np.float32)
            engine = Engine(net, ts.SGD(lr_scale=lr_scale), seed=0, threads=1)
            engine.train_batch(Inputs(X, n_in, None, "X"), np.array([0], np.int32), np.arange(1), 0.01)
            sums = X @ net.layers[0].weights.toarray()
            moves[lr_scale, n_in] = abs(float(sums[0, 0]))
    for n_in in (8, 64, 4096):
        assert moves["fan_in", n_in] == pytest.approx(0.01 * 32 * 0.5, rel=1e-4)
        assert moves[None, n_in] == pytest.approx(0.01 * n_in * 0.5, rel=1e-4)


def test_the_rate_follows_a_changing_in_degree() -> None:
    net = _net()
    engine = Engine(net, ts.SGD(momentum=0.0, lr_scale="fan_in"), seed=1, threads=1)
    layer = net.layers[0]
    before = engine.layer_lr(0, 0.01)
    kept = np.arange(layer.nnz) % 4 == 0
    pattern, (values,) = layer.pattern.keep(kept, [layer.values])
    layer.replace(pattern, values)
    engine.state.weight_slots[0]["velocity"] = np.zeros(layer.nnz, np.float32)
    assert engine.layer_lr(0, 0.01) == pytest.approx(4 * before, rel=1e-3)
    inputs, targets = _problem()
    _, (gradient, *_), _ = engine.gradients(inputs, targets, np.arange(48))
    start = layer.values.copy()
    engine.train_batch(inputs, targets, np.arange(48), 0.01)
    np.testing.assert_allclose(layer.values, start - 4 * before * gradient, rtol=1e-3, atol=1e-6)


def test_weights_grown_by_a_gradient_step_have_their_layers_rate() -> None:
    net = _net()
    inputs, targets = _problem()
    engine = Engine(net, ts.SGD(lr_scale="fan_in"), seed=1, threads=1)
    rates = {layer.index: engine.layer_lr(layer.index, 0.01) for layer in net.layers}
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    rule = ts.RigL(0.3, schedule="constant", new_weights="gradient")
    for layer_lr in (None, rates):
        net = _net()
        engine = Engine(net, ts.SGD(lr_scale="fan_in"), seed=1, threads=1, topology=rule)
        _, _, gradients = engine.measure_batch(inputs, targets, np.arange(48))
        before = [layer.pattern.cells() for layer in net.layers]
        evolve_network(
            net,
            engine.state,
            topology=rule,
            pruning=None,
            seed=1,
            threads=1,
            lr=0.01,
            layer_lr=layer_lr,
            gradients=gradients,
        )
        for layer, old in zip(net.layers[:2], before[:2], strict=True):  # the third is full
            new = ~np.isin(layer.pattern.cells(), old)
            assert new.any()
            if layer_lr is None:
                seen[layer.index] = layer.pattern.cells()[new], layer.values[new]
            else:
                cells, values = seen[layer.index]
                assert np.array_equal(cells, layer.pattern.cells()[new])
                np.testing.assert_allclose(layer.values[new], values * rates[layer.index] / 0.01, rtol=1e-5)


def test_a_resumed_run_keeps_the_rates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, SIZES[0])).astype(np.float32)
    y = rng.integers(0, 3, 64)

    def trainer() -> ts.Trainer:
        optimizer = ts.SGD(0.01, lr_scale="fan_in")
        rule = ts.SET(0.3, grown_scale="match")
        return ts.Trainer(_net(), optimizer=optimizer, topology=rule, batch_size=16, seed=4, progress=False)

    whole = trainer()
    whole.fit(X, y, epochs=4)
    first = trainer()
    first.fit(X, y, epochs=2)
    first.save_checkpoint(tmp_path / "c.safetensors")
    second = ts.Trainer.resume(tmp_path / "c.safetensors", progress=False)
    assert second.optimizer == whole.optimizer
    assert second.topology.to_config() == whole.topology.to_config()
    second.fit(X, y, epochs=4)
    for a, b in zip(whole.net.layers, second.net.layers, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
        assert a.bias.tobytes() == b.bias.tobytes()


def test_a_rule_is_told_each_layers_rate_in_a_run() -> None:
    told: dict[int, float] = {}

    class Listens(ts.Topology):
        name = "listens"

        def due(self, progress: ts.optim.Progress) -> bool:
            return progress.step == 2

        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> None:
            told[layer.index] = signals.lr_of(layer)

    _, targets = _problem()
    net = _net()
    optimizer = ts.SGD(0.01, lr_scale="fan_in")
    trainer = ts.Trainer(net, optimizer=optimizer, topology=Listens(layers="all"), batch_size=16, progress=False)
    trainer.fit(np.random.default_rng(0).normal(size=(48, SIZES[0])), targets, epochs=1)
    assert told == {layer.index: 0.01 * 32 / (layer.nnz / layer.n_out) for layer in net.layers}
