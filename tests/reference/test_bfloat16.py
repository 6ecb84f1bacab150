# SPDX-License-Identifier: BSD-3-Clause
"""A step with bfloat16 activations against NumPy that rounds where the step does, and nowhere else."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine
from trulysparse.model import Inputs

from . import numpy_reference as ref
from . import philox

ACTIVATIONS = [ts.ReLU(), ts.LeakyReLU(0.1), ts.AllReLU(0.6), ts.Sigmoid(), ts.Tanh(), ts.Linear()]


def _rounded(a: np.ndarray) -> np.ndarray:
    """Return `a` as bfloat16 would keep it."""
    words = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def _rounded_gradients(
    net: ts.SparseMLP, X: np.ndarray, y: np.ndarray, loss: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Do what the step does, in double, but for activations and deltas between layers: those are rounded."""
    layers = ref.layers_of(net)
    kept = [
        philox.dropout_kept(layer.bias.size, len(X), t, seed=0, layer=i, step=0)
        for i, (layer, t) in enumerate(zip(layers, net.dropout_thresholds, strict=False))
    ]
    scales = [ref.dropout_scale(t) for t in net.dropout_thresholds]
    inputs, signs = [X.astype(np.float64)], []
    for i, layer in enumerate(layers):
        z = inputs[-1] @ layer.weights + layer.bias
        a = ref.activate(layer.activation, z)
        signs.append(z)
        inputs.append(_rounded(np.where(kept[i], a * scales[i], 0)) if i < len(kept) else a)
    delta = ref.LOSSES[loss](inputs[-1], y)[2] / len(X)
    weights, biases = [], [delta.sum(axis=0)]
    for i in range(len(layers) - 1, -1, -1):
        pattern = net.layers[i].pattern
        rows = np.repeat(np.arange(net.layers[i].n_in), np.diff(pattern.row_ptr))
        weights.append((inputs[i].T @ delta)[rows, pattern.col_idx])
        if i == 0:
            return weights[::-1], biases[::-1]
        kind, slope = layers[i - 1].activation
        a = inputs[i] / scales[i - 1]
        slopes = {"sigmoid": a * (1 - a), "tanh": 1 - a * a, "rectifier": np.where(signs[i - 1] < 0, slope, 1.0)}
        delta = np.where(kept[i - 1], (delta @ layers[i].weights.T) * scales[i - 1], 0) * slopes.get(kind, 1.0)
        biases.append(delta.sum(axis=0))
        delta = _rounded(delta)
    raise AssertionError


def _gradients(
    net: ts.SparseMLP, X: np.ndarray, y: np.ndarray, activation_dtype: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read the gradient off one plain gradient step: w_before - w_after at learning rate 1."""
    net = copy.deepcopy(net)
    before = [(layer.values.copy(), layer.bias.copy()) for layer in net.layers]
    engine = Engine(net, ts.SGD(lr=1.0, momentum=0.0), seed=0, threads=2, activation_dtype=activation_dtype)
    targets = net.loss.check_targets(y, net.sizes[-1], "y")
    engine.train_batch(Inputs(X, net.sizes[0], None, "X"), targets, np.arange(len(X)), 1.0)
    after = [(layer.values, layer.bias) for layer in net.layers]
    pairs = list(zip(before, after, strict=True))
    return [w - v for (w, _), (v, _) in pairs], [b - c for (_, b), (_, c) in pairs]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_bfloat16_gradients_equal_numpy_that_rounds_where_the_step_does(
    activation: ts.model.Activation, loss: str, dropout: float, each_isa: str
) -> None:
    rng = np.random.default_rng(3)
    outputs = {"cross_entropy": 3, "binary_cross_entropy": 1, "mse": 2}[loss]
    X = rng.normal(size=(40, 9)).astype(np.float32)
    y = rng.normal(size=(40, 2)) if loss == "mse" else rng.integers(0, max(outputs, 2), 40)
    net = ts.SparseMLP((9, 14, 11, 10, outputs), density=0.5, activation=activation, dropout=dropout, loss=loss, seed=5)
    expected = _rounded_gradients(net, X, y, loss)
    got, plain = _gradients(net, X, y, "bfloat16"), _gradients(net, X, y, "float32")
    error = distance = size = 0.0
    for a, b, c in zip([*got[0], *got[1]], [*expected[0], *expected[1]], [*plain[0], *plain[1]], strict=True):
        error += float(((a - b) ** 2).sum())
        distance += float(((a - c) ** 2).sum())
        size += float((b**2).sum())
    assert error < (2e-4) ** 2 * size
    assert error < 0.1**2 * distance  # rounding is seen, and is not what differs
    assert distance < 0.1**2 * size


def test_bfloat16_rows_are_whole_cache_lines_or_half_of_one() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 9)).astype(np.float32), rng.integers(0, 3, 100)
    net = ts.SparseMLP((9, 20, 3), density=0.5, seed=0)
    inputs, targets = Inputs(X, 9, None, "X"), net.loss.check_targets(y, 3, "y")
    for batch, ld in ((5, 16), (16, 16), (17, 32), (40, 64), (100, 128)):
        engine = Engine(net, ts.SGD(lr=0.1), seed=0, threads=1, activation_dtype="bfloat16")
        engine.train_batch(inputs, targets, np.arange(batch), 0.1)
        assert engine._workspace is not None
        (hidden,) = engine._workspace.hidden
        assert hidden.activation.shape == (20, ld) and hidden.activation.dtype == np.uint16
        assert engine._workspace.inputs.dtype == engine._workspace.output.dtype == np.float32
