# SPDX-License-Identifier: BSD-3-Clause
"""The whole training algorithm again, as readable masked-dense NumPy: what the library must equal.

Independent of the library: weights are dense matrices (n_in, n_out) beside a boolean mask, samples are rows,
nothing is fused or clever. The dtype of the arrays (float64 or float32) is that of all arithmetic. Every
random choice is asked of a `Draws`, so that a run can be given the very draws of another implementation.

Sources: "Truly Sparse Neural Networks at Scale" (arXiv:2102.01732) and the code released with it; Mocanu et
al. 2018 for SET; Kingma & Ba 2015 and Loshchilov & Hutter 2019 for Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Slots = dict[str, Array]


@dataclass
class Layer:
    """One layer: z = a W + b on the connections of the mask, then an activation (kind, slope)."""

    weights: Array
    mask: Mask
    bias: Array
    activation: tuple[str, float] = ("linear", 0.0)
    weight_slots: Slots = field(default_factory=dict)
    bias_slots: Slots = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.weights.shape == self.mask.shape == (self.weights.shape[0], self.bias.size)
        assert np.all(self.weights[~self.mask] == 0)

    @property
    def connections(self) -> int:
        return int(np.count_nonzero(self.mask))


def layers_of(net: Any, dtype: Any = np.float64) -> list[Layer]:
    """Copy the layers of a trulysparse.SparseMLP; stored zeros stay connections."""
    layers = []
    for source in net.layers:
        rows = np.repeat(np.arange(source.n_in), np.diff(source.pattern.row_ptr))
        weights, mask = (
            np.zeros((source.n_in, source.n_out), dtype),
            np.zeros((source.n_in, source.n_out), bool),
        )
        weights[rows, source.pattern.col_idx] = source.values
        mask[rows, source.pattern.col_idx] = True
        layers.append(Layer(weights, mask, source.bias.astype(dtype), source.activation))
    return layers


def all_relu_slope(alpha: float, hidden: int) -> float:
    """Slope of All-ReLU left of zero in hidden layer 1, 2, 3, ...: -alpha, +alpha, -alpha, ..."""
    return alpha if hidden % 2 == 0 else -alpha


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), written so that large |z| do not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def activate(activation: tuple[str, float], z: Array) -> Array:
    kind, slope = activation
    if kind == "rectifier":
        return np.where(z > 0, z, slope * z)
    if kind == "sigmoid":
        return sigmoid(z)
    return np.tanh(z) if kind == "tanh" else z


def derivative(activation: tuple[str, float], z: Array) -> Array:
    kind, slope = activation
    if kind == "rectifier":
        return np.where(z < 0, z.dtype.type(slope), z.dtype.type(1))
    if kind == "sigmoid":
        a = activate(activation, z)
        return a * (1 - a)
    return 1 - np.tanh(z) ** 2 if kind == "tanh" else np.ones_like(z)


def cross_entropy(z: Array, y: Array) -> tuple[float, int, Array]:
    """Softmax and negative log-likelihood of integer labels."""
    shifted = z - z.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = float(np.sum(np.log(total[:, 0]) - shifted[rows, y]))
    delta = p / total
    delta[rows, y] -= 1
    return loss, int(np.sum(z.argmax(axis=1) == y)), delta


def binary_cross_entropy(z: Array, y: Array) -> tuple[float, int, Array]:
    """Sigmoid and cross-entropy with targets in [0, 1], averaged over outputs."""
    t = y.reshape(z.shape).astype(z.dtype)
    loss = float(np.sum(np.maximum(z, 0) - t * z + np.log1p(np.exp(-np.abs(z)))) / z.shape[1])
    correct = int(np.sum(np.all((z > 0) == (t > 0.5), axis=1)))
    return loss, correct, (sigmoid(z) - t) / z.shape[1]


def mse(z: Array, y: Array) -> tuple[float, int, Array]:
    """Squared error, averaged over outputs."""
    error = z - y.reshape(z.shape).astype(z.dtype)
    return float(np.sum(error**2) / z.shape[1]), 0, 2 * error / z.shape[1]


# (outputs, targets) -> loss summed over samples, correct samples, d loss_b / d z
LOSSES: dict[str, Callable[[Array, Array], tuple[float, int, Array]]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mse": mse,
}


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout after one hidden layer: kept units (batch, neurons) are scaled up."""

    kept: Mask
    scale: float


def dropout_scale(threshold: int) -> float:
    """What kept units are multiplied by when a unit is dropped with probability threshold / 65536."""
    return 65536 / (65536 - threshold)


def forward(
    layers: Sequence[Layer], X: Array, dropout: Sequence[Dropout | None] = ()
) -> tuple[list[Array], list[Array]]:
    """Return the input of every layer and, last, the output; and z of every layer."""
    inputs, zs = [X], []
    for number, layer in enumerate(layers):
        z = inputs[-1] @ layer.weights + layer.bias
        a = activate(layer.activation, z)
        drop = dropout[number] if number < len(dropout) else None
        if drop is not None:
            a = np.where(drop.kept, a * a.dtype.type(drop.scale), a.dtype.type(0))
        zs.append(z)
        inputs.append(a)
    return inputs, zs


def gradients(
    layers: Sequence[Layer], X: Array, y: Array, loss: str, dropout: Sequence[Dropout | None] = ()
) -> tuple[float, int, list[tuple[Array, Array]]]:
    """Return loss sum, correct samples, and the mean loss's gradients by each layer's weights and biases."""
    inputs, zs = forward(layers, X, dropout)
    loss_sum, correct, delta = LOSSES[loss](inputs[-1], y)
    delta = delta * derivative(layers[-1].activation, zs[-1]) / len(X)
    result = []
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        result.append((np.where(layer.mask, inputs[number].T @ delta, delta.dtype.type(0)), delta.sum(axis=0)))
        if number == 0:
            break
        delta = (delta @ layer.weights.T) * derivative(layers[number - 1].activation, zs[number - 1])
        drop = dropout[number - 1] if number - 1 < len(dropout) else None
        if drop is not None:
            delta = np.where(drop.kept, delta * delta.dtype.type(drop.scale), delta.dtype.type(0))
    return loss_sum, correct, result[::-1]


def evaluate(layers: Sequence[Layer], X: Array, y: Array, loss: str) -> tuple[float, float]:
    """Return mean loss and accuracy over all samples, without dropout."""
    loss_sum, correct, _ = LOSSES[loss](forward(layers, X)[0][-1], y)
    return loss_sum / len(X), correct / len(X)


class Optimizer(Protocol):
    slots: tuple[str, ...]

    def update(self, w: Array, g: Array, slots: Slots, lr: float, step: int) -> Array:
        """Return the new w; `slots` are replaced; `step` counts from 1."""


@dataclass(frozen=True)
class SGD:
    """Momentum: v <- mu v - lr g, w <- w + v (Nesterov: w + mu v - lr g).

    Decay "paper" takes decay * old w from w, not times lr; "l2" adds decay * w to g.
    """

    momentum: float = 0.9
    decay: float = 0.0
    form: str = "paper"
    nesterov: bool = False
    slots: tuple[str, ...] = ("velocity",)

    def update(self, w: Array, g: Array, slots: Slots, lr: float, step: int) -> Array:
        if self.form == "l2":
            g = g + self.decay * w
        v = slots["velocity"] = self.momentum * slots["velocity"] - lr * g
        move = self.momentum * v - lr * g if self.nesterov else v
        return w + move - self.decay * w if self.form == "paper" else w + move


@dataclass(frozen=True)
class Adam:
    """Adam; decoupled decay (AdamW) takes lr * decay * w from w, the other form adds decay * w to g."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    decay: float = 0.0
    decoupled: bool = True
    slots: tuple[str, ...] = ("m", "v")

    def update(self, w: Array, g: Array, slots: Slots, lr: float, step: int) -> Array:
        if not self.decoupled:
            g = g + self.decay * w
        m = slots["m"] = self.beta1 * slots["m"] + (1 - self.beta1) * g
        v = slots["v"] = self.beta2 * slots["v"] + (1 - self.beta2) * g**2
        new = w - lr * (m / (1 - self.beta1**step)) / (np.sqrt(v / (1 - self.beta2**step)) + self.eps)
        return new - lr * self.decay * w if self.decoupled else new


def round_half_up(x: float) -> int:
    return math.floor(x + 0.5)


def set_survivors(values: Array, fraction: float) -> Mask:
    """Which of the stored weights SET keeps: of each sign all but the fraction nearest zero, and no zeros.

    `values` are in the order of their cells; of equal magnitudes the earlier goes first.
    """
    if np.any(np.isnan(values)):
        raise ValueError("weights hold NaN")
    keep = values != 0
    for sign in (1, -1):
        of_sign = np.flatnonzero(sign * values > 0)
        by_size = of_sign[np.argsort(np.abs(values[of_sign]), kind="stable")]
        keep[by_size[: round_half_up(fraction * of_sign.size)]] = False
    return keep


def wasap_survivors(values: Array, fraction: float) -> Mask:
    """Which weights the paper's released code keeps: those strictly outside two of the sorted weights.

    One entry lies the fraction of the way back from the first weight nearest zero to the smallest, the other
    that of the way from just behind the last weight nearest zero to the largest.
    """
    if values.size == 0:
        raise ValueError("no weights to cut")
    ascending = sorted(values.tolist())
    n = len(ascending)
    sizes = [abs(v) for v in ascending]
    before = sizes.index(min(sizes))
    behind = n - sizes[::-1].index(min(sizes))
    low = ascending[math.trunc((1.0 - fraction) * before)]
    high = ascending[min(n - 1, math.trunc(behind + fraction * (n - behind)))]
    return np.array([v < low or v > high for v in values.tolist()])


def importance(layer: Layer) -> Array:
    """Sum of the absolute incoming weights of every neuron of the layer."""
    return np.abs(layer.weights).sum(axis=0)


def prune_neurons(layer: Layer, percentile: float) -> int:
    """Remove the incoming connections of neurons at or below the percentile; return how many."""
    strength = importance(layer).astype(np.float64)
    weak = strength <= np.percentile(strength, percentile)
    gone = layer.mask & weak[None, :]
    _erase(layer, gone)
    return int(np.count_nonzero(gone))


def _erase(layer: Layer, gone: Mask) -> None:
    layer.mask = layer.mask & ~gone
    for array in (layer.weights, *layer.weight_slots.values()):
        array[gone] = 0


class Draws(Protocol):
    """All random choices of a run."""

    def order(self, n: int, epoch: int) -> NDArray[np.int64]:
        """Return a permutation of the samples; epochs count from 0."""

    def kept(self, layer: int, step: int, batch: int, neurons: int) -> Mask:
        """Return which units (batch, neurons) dropout leaves; steps count from 0."""

    def cells(self, layer: int, evolution: int, survivors: Mask, count: int) -> NDArray[np.uint64]:
        """Return `count` distinct cells row * n_out + column outside `survivors`; evolutions count from 0."""

    def values(self, layer: int, evolution: int, cells: NDArray[np.uint64]) -> Array:
        """Return the weights of grown cells."""


def evolve_set(layer: Layer, number: int, evolution: int, fraction: float, draws: Draws, compat: str | None) -> None:
    """Carry out one SET step: drop, then grow as many among all free cells, without optimizer state."""
    if layer.connections == 0:
        return
    stored = layer.weights[layer.mask]
    keep = wasap_survivors(stored, fraction) if compat == "wasap" else set_survivors(stored, fraction)
    gone = np.zeros_like(layer.mask)
    gone[layer.mask] = ~keep
    _erase(layer, gone)
    cells = draws.cells(number, evolution, layer.mask, int(np.count_nonzero(~keep)))
    flat_mask, flat_weights = layer.mask.reshape(-1), layer.weights.reshape(-1)
    assert len(set(cells.tolist())) == np.count_nonzero(~keep)
    assert not np.any(flat_mask[cells])
    flat_mask[cells] = True
    flat_weights[cells] = draws.values(number, evolution, cells)


@dataclass(frozen=True)
class Pruning:
    """Importance pruning after epochs (from 0) greater than `start` and divisible by `period`."""

    percentile: float = 20.0
    start: int = 200
    period: int = 10


def train(
    layers: list[Layer],
    X: Array,
    y: Array,
    *,
    epochs: int,
    batch_size: int,
    lr: float | Callable[[int], float],
    optimizer: Optimizer,
    draws: Draws,
    loss: str = "cross_entropy",
    dropout_thresholds: Sequence[int] = (),
    set_fraction: float | None = None,
    compat: str | None = None,
    evolve_output: bool = False,
    pruning: Pruning | None = None,
) -> list[dict[str, float]]:
    """Train in place; X (samples, features) is used as it is.

    Every epoch goes through whole batches of a new order, what is left over is dropped. Between two epochs
    importance pruning, if due, then SET change the hidden matrices (`evolve_output`: SET the output matrix
    too). `lr` may be a function of the step from 0. Returns mean loss, accuracy (as met while training) and
    connections of every epoch.
    """
    for layer in layers:
        layer.weight_slots = {name: np.zeros_like(layer.weights) for name in optimizer.slots}
        layer.bias_slots = {name: np.zeros_like(layer.bias) for name in optimizer.slots}
    rows, step, evolution = [], 0, 0
    batches = len(X) // batch_size
    for epoch in range(epochs):
        if epoch > 0:
            prune = pruning is not None and epoch - 1 > pruning.start and (epoch - 1) % pruning.period == 0
            for number, layer in enumerate(layers):
                hidden = number < len(layers) - 1
                if prune and hidden and pruning is not None:
                    prune_neurons(layer, pruning.percentile)
                if set_fraction is not None and (hidden or evolve_output):
                    evolve_set(layer, number, evolution, set_fraction, draws, compat)
            evolution += prune or set_fraction is not None
        order = draws.order(len(X), epoch)
        loss_sum, correct = 0.0, 0
        for batch in range(batches):
            some = order[batch * batch_size : (batch + 1) * batch_size]
            dropout = [
                Dropout(draws.kept(number, step, batch_size, layers[number].bias.size), dropout_scale(threshold))
                if threshold
                else None
                for number, threshold in enumerate(dropout_thresholds)
            ]
            batch_loss, batch_correct, grads = gradients(layers, X[some], y[some], loss, dropout)
            rate = lr(step) if callable(lr) else lr
            for layer, (dw, db) in zip(layers, grads, strict=True):
                moved = optimizer.update(layer.weights, dw, layer.weight_slots, rate, step + 1)
                layer.weights = np.where(layer.mask, moved, moved.dtype.type(0))
                layer.bias = optimizer.update(layer.bias, db, layer.bias_slots, rate, step + 1)
            loss_sum += batch_loss
            correct += batch_correct
            step += 1
        seen = batches * batch_size
        rows.append(
            {
                "loss": loss_sum / seen,
                "accuracy": correct / seen,
                "connections": sum(layer.connections for layer in layers),
            }
        )
    return rows
