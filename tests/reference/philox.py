# SPDX-License-Identifier: BSD-3-Clause
"""Philox4x32-10 (Salmon et al. 2011) and the library's draws from it, written again from their definitions.

Slow, in NumPy alone, and without a look at the compiled core: what rng.hpp and activation.hpp promise,
checked from outside. An index may be an array; the four words are then the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]

PURPOSES = {
    "pattern": 1,
    "weights": 2,
    "dropout": 3,
    "regrow_cells": 4,
    "regrow_values": 5,
    "shuffle": 6,
    "split": 7,
    "data": 8,
    "user": 9,
    "augment": 11,
}
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: ArrayLike, key: tuple[int, int]) -> Words:
    """Return the ten-round block of a counter (..., 4) under a key of two words."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    for turn in range(10):
        k0, k1 = (np.uint64((k + turn * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL, strict=True))
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def draw(seed: int, purpose: str, layer: int, step: int, index: ArrayLike) -> Words:
    """Return the words of draw `index` of a stream: key = seed, counter = index, step, purpose, layer."""
    i = np.asarray(index, dtype=np.uint64)
    rest = np.array([step, PURPOSES[purpose] << 24 | layer], dtype=np.uint64)
    counter = np.stack([i & _LOW, i >> _HALF, *(np.broadcast_to(r, i.shape) for r in rest)], axis=-1)
    return philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))


def bounded(words: Words, bound: int) -> int:
    """Return a uniform whole number below `bound`: 64 bits times bound, the high half, with one rejection."""
    first, second = (int(words[2 * h + 1]) << 32 | int(words[2 * h]) for h in (0, 1))
    if (first * bound) % 2**64 < (2**64 - bound) % bound:
        return second * bound >> 64
    return first * bound >> 64


def shuffle(n: int, *, seed: int, purpose: str = "shuffle", layer: int = 0, step: int = 0) -> NDArray[np.int64]:
    """Return a permutation of 0..n-1: Fisher-Yates from the last place down, place i swapped by draw i."""
    out = np.arange(n)
    blocks = draw(seed, purpose, layer, step, np.arange(n))
    for i in range(n - 1, 0, -1):
        j = bounded(blocks[i], i + 1)
        out[i], out[j] = out[j], out[i]
    return out


def dropout_draws(neurons: int, batch: int, *, seed: int, layer: int, step: int) -> NDArray[np.uint16]:
    """Return the 16-bit draws (batch, neurons) of a step.

    Sample s of neuron j has half s % 2 (0 the low one) of word (s % 8) / 2 of draw ``j << 32 | s / 8``.
    """
    sample, neuron = np.arange(batch)[:, None], np.arange(neurons, dtype=np.uint64)[None, :]
    index = neuron << _HALF | (sample // 8).astype(np.uint64)
    words = draw(seed, "dropout", layer, step, index)
    word = np.take_along_axis(words, np.broadcast_to((sample % 8) // 2, index.shape)[..., None], -1)[..., 0]
    return (word >> (16 * (sample % 2)).astype(np.uint32)).astype(np.uint16)


def dropout_kept(neurons: int, batch: int, threshold: int, *, seed: int, layer: int, step: int) -> NDArray[Any]:
    """Return which units (batch, neurons) stay: those whose draw is not below `threshold`."""
    return dropout_draws(neurons, batch, seed=seed, layer=layer, step=step) >= threshold


def uniform_values(
    cells: NDArray[np.uint64], scale: ArrayLike, *, seed: int, purpose: str, layer: int, step: int
) -> NDArray[np.float32]:
    """Return the U(-scale, scale) weights of cells: 24 bits of the first word of the cell's own draw."""
    words = draw(seed, purpose, layer, step, cells)
    unit = (words[..., 0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return (np.float32(2) * unit - np.float32(1)) * np.asarray(scale, dtype=np.float32)


def normal_values(
    cells: NDArray[np.uint64], scale: ArrayLike, *, seed: int, purpose: str, layer: int, step: int
) -> NDArray[np.float64]:
    """Return the N(0, scale^2) weights of cells: Box-Muller on 53 bits of each half of its own draw."""
    words = draw(seed, purpose, layer, step, cells).astype(np.uint64)
    u, v = ((words[..., 2 * h + 1] << _HALF | words[..., 2 * h]) >> np.uint64(11) for h in (0, 1))
    radius = np.sqrt(-2.0 * np.log(1.0 - u * 2.0**-53))
    return radius * np.cos(2.0 * np.pi * (v * 2.0**-53)) * np.asarray(scale, dtype=np.float64)
