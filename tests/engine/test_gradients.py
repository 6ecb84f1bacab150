# SPDX-License-Identifier: BSD-3-Clause
"""Whole-network gradients against finite differences, through the very step that trains (spec conformance 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine
from trulysparse.model import Inputs

ACTIVATIONS = [ts.ReLU(), ts.LeakyReLU(0.1), ts.AllReLU(0.6), ts.Sigmoid(), ts.Tanh(), ts.Linear()]


def _problem(loss: str, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, 9)).astype(np.float32)
    if loss == "cross_entropy":
        return X, rng.integers(0, 3, 12), 3
    if loss == "binary_cross_entropy":
        return X, rng.integers(0, 2, 12), 1
    return X, rng.normal(size=(12, 2)).astype(np.float32), 2


def _gradients(
    net: ts.SparseMLP, X: np.ndarray, y: np.ndarray, **arguments: Any
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read the gradient off one plain gradient step: w_before - w_after at learning rate 1."""
    before = [(layer.values.copy(), layer.bias.copy()) for layer in net.layers]
    engine = Engine(net, ts.SGD(lr=1.0, momentum=0.0), seed=0, threads=1, **arguments)
    inputs = Inputs(X, net.sizes[0], None, "X")
    targets = net.loss.check_targets(y, net.sizes[-1], "y")
    engine.train_batch(inputs, targets, np.arange(len(X)), 1.0)
    weights = [w - layer.values for (w, _), layer in zip(before, net.layers, strict=True)]
    biases = [b - layer.bias for (_, b), layer in zip(before, net.layers, strict=True)]
    for (w, b), layer in zip(before, net.layers, strict=True):
        layer.values[...] = w
        layer.bias[...] = b
    return weights, biases


def _loss(net: ts.SparseMLP, X: np.ndarray, y: np.ndarray) -> float:
    """Return the training loss (dropout on, same draws) of the batch without moving anything."""
    engine = Engine(net, ts.SGD(lr=1e-30, momentum=0.0), seed=0, threads=1)
    inputs = Inputs(X, net.sizes[0], None, "X")
    targets = net.loss.check_targets(y, net.sizes[-1], "y")
    loss, _ = engine.train_batch(inputs, targets, np.arange(len(X)), 0.0)
    return loss / len(X)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_gradients_equal_finite_differences(activation: ts.model.Activation, loss: str, dropout: float) -> None:
    X, y, outputs = _problem(loss, seed=3)
    net = ts.SparseMLP(
        (9, 14, 11, 10, outputs),
        density=0.5,
        activation=activation,
        dropout=dropout,
        loss=loss,
        init="xavier",
        seed=5,
    )
    rng = np.random.default_rng(0)
    for layer in net.layers:
        layer.values[...] *= 2.0
        layer.bias[...] = rng.normal(scale=0.3, size=layer.n_out)
    weights, biases = _gradients(net, X, y)
    here = _loss(net, X, y)
    for layer, gw, gb in zip(net.layers, weights, biases, strict=True):
        for array, gradient in ((layer.values, gw), (layer.bias, gb)):
            for k in rng.choice(array.size, size=min(6, array.size), replace=False):
                kept = array[k]
                slopes = []
                for h in (8e-3, 2e-3, 5e-4):
                    array[k] = kept + h
                    up = _loss(net, X, y)
                    array[k] = kept - h
                    down = _loss(net, X, y)
                    array[k] = kept
                    slopes += [(up - down) / (2 * h), (up - here) / h, (here - down) / h]
                # A step may cross a kink, on one side or both, and a small one drowns in rounding: one must agree.
                assert min(abs(slope - gradient[k]) for slope in slopes) < 2e-3 + 2e-2 * abs(gradient[k])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_micro_batches_give_the_whole_batch_gradient(dropout: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70, 9)).astype(np.float32)
    y = rng.integers(0, 3, 70)
    net = ts.SparseMLP((9, 40, 30, 3), epsilon=6, activation=ts.AllReLU(0.6), dropout=dropout, seed=0)
    whole = _gradients(net, X, y)
    parts = _gradients(net, X, y, micro_batch=16)
    for a, b in zip([*whole[0], *whole[1]], [*parts[0], *parts[1]], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3, decay="l2"),
        lambda: ts.SGD(lr=0.1, momentum=0.9, nesterov=True),
        lambda: ts.SGD(lr=0.1, momentum=0.9, clip_norm=0.5),
        lambda: ts.Adam(lr=0.01),
    ],
)
def test_micro_batches_train_like_whole_batches_under_every_optimizer(optimizer: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 9)).astype(np.float32)
    y = rng.integers(0, 3, 40)
    results = []
    for micro in (None, 16):
        net = ts.SparseMLP((9, 30, 3), epsilon=5, dropout=0.2, seed=0)
        engine = Engine(net, optimizer(), seed=0, threads=1, micro_batch=micro)
        inputs = Inputs(X, 9, None, "X")
        targets = net.loss.check_targets(y, 3, "y")
        for _ in range(5):
            engine.train_batch(inputs, targets, np.arange(40), engine.optimizer.lr)
        results.append([array.copy() for layer in net.layers for array in (layer.values, layer.bias)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_clipping_bounds_the_joint_norm() -> None:
    X, y, _ = _problem("cross_entropy", 1)
    net = ts.SparseMLP((9, 20, 3), density=0.5, seed=0)
    for layer in net.layers:
        layer.values[...] *= 5
    before = [array.copy() for layer in net.layers for array in (layer.values, layer.bias)]
    engine = Engine(net, ts.SGD(lr=1.0, momentum=0.0, clip_norm=0.25), seed=0, threads=1)
    targets = net.loss.check_targets(y, 3, "y")
    engine.train_batch(Inputs(X, 9, None, "X"), targets, np.arange(12), 1.0)
    after = [array for layer in net.layers for array in (layer.values, layer.bias)]
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, after, strict=True)))
    assert moved == pytest.approx(0.25, rel=1e-4)
