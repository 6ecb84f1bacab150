# SPDX-License-Identifier: BSD-3-Clause
"""Training with a changing topology as masked-dense NumPy: what SET, RigL, SNIP and GMP runs must equal.

Weights are dense matrices beside boolean masks, gradients whole matrices; see `numpy_reference` for the arithmetic of
a step. Sources: Mocanu et al. 2018 (SET); Evci et al. 2020, algorithm 1 (RigL); Lee et al. 2019 (SNIP); Zhu & Gupta
2017, equation 1 (GMP). Every choice reports how near it was, so that a test can tell rounding from a mistake.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import numpy_reference as ref

Array = NDArray[Any]


@dataclass
class Choices:
    """How near each choice of the largest was: (last taken - first left) / last taken; and how many there were."""

    margin: float = math.inf
    made: int = 0
    replaced: int = 0

    def largest(self, scores: Array, allowed: Array, count: int) -> Array:
        """Return which `count` of the allowed entries are largest; of equal ones the first."""
        candidates = np.flatnonzero(allowed)
        order = candidates[np.argsort(-scores.reshape(-1)[candidates], kind="stable")]
        chosen = np.zeros(allowed.size, bool)
        chosen[order[:count]] = True
        if 0 < count < order.size:
            last, left = scores.reshape(-1)[order[count - 1 : count + 1]]
            self.margin = min(self.margin, (last - left) / last if last else 0.0)
        self.made += 1
        return chosen.reshape(allowed.shape)


@dataclass
class Rule:
    """Which method, and its numbers; `period` in steps, `end` a part of the run."""

    method: str
    fraction: float = 0.3
    period: int = 100
    end: float = 1.0
    density: float = 0.1
    choices: Choices = field(default_factory=Choices)

    def due(self, step: int, total: int) -> bool:
        if self.method == "snip":
            return step == 0
        if self.method == "gmp":
            last = min(math.ceil(self.end * total), total - 1)
            return step == last or (0 < step < last and step % self.period == 0)
        return step > 0 and step % self.period == 0 and step < self.end * total

    @property
    def takes_a_batch(self) -> bool:
        return self.method in ("rigl", "snip")


def full_gradients(layers: Sequence[ref.Layer], X: Array, y: Array, loss: str) -> tuple[float, list[Array]]:
    """Return the loss sum and dL/dW of every cell, missing ones too."""
    masks = [layer.mask for layer in layers]
    for layer in layers:
        layer.mask = np.ones_like(layer.mask)  # the weights outside are zero, so only the gradients' cut is lifted
    loss_sum, _, grads = ref.gradients(layers, X, y, loss)
    for layer, mask in zip(layers, masks, strict=True):
        layer.mask = mask
    return loss_sum, [dw for dw, _ in grads]


def _reduce(layer: ref.Layer, keep: Array) -> None:
    gone = layer.mask & ~keep
    layer.mask = layer.mask & keep
    for array in (layer.weights, *layer.weight_slots.values()):
        array[gone] = 0


def evolve(
    layers: Sequence[ref.Layer],
    rule: Rule,
    step: int,
    total: int,
    evolution: int,
    grads: Sequence[Array],
    initial: Sequence[float],
    draws: ref.Draws,
) -> None:
    """Change the masks as the rule says."""
    choices = rule.choices
    if rule.method == "snip":
        scores = np.concatenate([np.abs(la.weights * g).reshape(-1) for la, g in zip(layers, grads, strict=True)])
        mask = np.concatenate([layer.mask.reshape(-1) for layer in layers])
        keep = choices.largest(scores, mask, round(rule.density * mask.size))
        start = 0
        for layer in layers:
            _reduce(layer, keep[start : start + layer.mask.size].reshape(layer.mask.shape))
            start += layer.mask.size
        return
    part = min(1.0, step / (rule.end * total))
    if rule.method == "gmp":
        part = 1.0 if step >= min(math.ceil(rule.end * total), total - 1) else part
        for layer, first in zip(layers, initial, strict=True):
            density = rule.density + (first - rule.density) * (1 - part) ** 3
            size = np.abs(layer.weights)
            _reduce(layer, choices.largest(size, layer.mask, min(layer.connections, round(density * size.size))))
        return
    fraction = rule.fraction * (0.5 * (1 + math.cos(math.pi * part)) if rule.method == "rigl" else 1.0)
    for number, (layer, gradient) in enumerate(zip(layers, grads, strict=True)):
        count = int(fraction * layer.connections)
        if count == 0 or (rule.method == "rigl" and layer.mask.all()):
            continue
        keep = choices.largest(np.abs(layer.weights), layer.mask, layer.connections - count)
        if rule.method == "rigl":
            grown = choices.largest(np.abs(gradient), ~keep, count)
            new = grown & ~layer.mask
            _reduce(layer, keep | grown)
            choices.replaced += int(new.sum())
            layer.mask = layer.mask | new
            continue
        _reduce(layer, keep)
        cells = draws.cells(number, evolution, layer.mask, count)
        layer.mask.reshape(-1)[cells] = True
        layer.weights.reshape(-1)[cells] = draws.values(number, evolution, cells)
        choices.replaced += count


def train(
    layers: list[ref.Layer],
    X: Array,
    y: Array,
    rule: Rule,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    optimizer: ref.Optimizer,
    draws: ref.Draws,
    loss: str = "cross_entropy",
) -> list[float]:
    """Train in place and return the mean loss of every epoch; the rule may act before any step."""
    for layer in layers:
        layer.weight_slots = {name: np.zeros_like(layer.weights) for name in optimizer.slots}
        layer.bias_slots = {name: np.zeros_like(layer.bias) for name in optimizer.slots}
    batches = len(X) // batch_size
    total, step, evolution = epochs * batches, 0, 0
    initial = [layer.connections / layer.mask.size for layer in layers]
    losses = []
    for epoch in range(epochs):
        order = draws.order(len(X), epoch)
        loss_sum = 0.0
        for batch in range(batches):
            some = order[batch * batch_size : (batch + 1) * batch_size]
            due = rule.due(step, total)
            if due:
                batch_loss, grads = full_gradients(layers, X[some], y[some], loss)
                evolve(layers, rule, step, total, evolution, grads, initial, draws)
                evolution += 1
            if not (due and rule.takes_a_batch):
                batch_loss, _, steps = ref.gradients(layers, X[some], y[some], loss)
                for layer, (dw, db) in zip(layers, steps, strict=True):
                    moved = optimizer.update(layer.weights, dw, layer.weight_slots, lr, step + 1)
                    layer.weights = np.where(layer.mask, moved, moved.dtype.type(0))
                    layer.bias = optimizer.update(layer.bias, db, layer.bias_slots, lr, step + 1)
            loss_sum += batch_loss
            step += 1
        losses.append(loss_sum / (batches * batch_size))
    return losses
