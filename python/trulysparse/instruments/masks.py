# SPDX-License-Identifier: BSD-3-Clause
"""Whether two networks have found the same connections, up to the order of their hidden neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError, ShapeError
from trulysparse.model import Pattern, SparseMLP

__all__ = ["MaskSimilarity", "mask_similarity"]

_MOST_NEURONS = 5000
_ROUNDS = 20
_FAR = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class MaskSimilarity:
    """How alike the connections of two networks are.

    Attributes
    ----------
    shared : tuple of int
        Connections that both have, for each layer.
    first, second : tuple of int
        Connections of each.
    jaccard : tuple of float
        Shared connections as a part of those that at least one has, for each layer; 1 where neither has any.
    by_chance : tuple of float
        The Jaccard index of masks of the same numbers of connections: expected for random ones without alignment; with
        alignment, reached by the second network's connections drawn anew at random (one draw).
    permutations : tuple of ndarray
        For each hidden layer, which neuron of the second network stands for each of the first.
    """

    shared: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    jaccard: tuple[float, ...]
    by_chance: tuple[float, ...]
    permutations: tuple[NDArray[np.int64], ...]

    @property
    def total(self) -> float:
        """The Jaccard index over all layers."""
        union = sum(self.first) + sum(self.second) - sum(self.shared)
        return sum(self.shared) / union if union else 1.0


def mask_similarity(
    a: SparseMLP | Sequence[Pattern], b: SparseMLP | Sequence[Pattern], *, align: bool = True, seed: int = 0
) -> MaskSimilarity:
    """Compare the connections of two networks of the same sizes.

    Hidden neurons have no order of their own: a network in which two of them change places is the same. With `align`,
    the hidden neurons of `b` are matched to those of `a` so that as many connections as possible coincide: layer by
    layer the best assignment given the neighbouring layers, until nothing improves. That finds a local optimum, which
    is why the figure of random masks, matched the same way, stands beside it.

    Parameters
    ----------
    a, b : SparseMLP or sequence of Pattern
    align : bool
        False compares neuron by neuron as they are numbered.
    seed : int
        Of the random masks of `MaskSimilarity.by_chance`.

    Raises
    ------
    ShapeError
        If the networks have different sizes.
    ConfigError
        If a hidden layer is too wide to be aligned (the assignment takes time by the third power of its width).
    """
    first, second = _patterns(a), _patterns(b)
    shapes = [[pattern.shape for pattern in patterns] for patterns in (first, second)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"masks can be compared between networks of the same sizes, got {shapes[0]} and {shapes[1]}")
    hidden = [pattern.n_out for pattern in first[:-1]]
    if align and max(hidden, default=0) > _MOST_NEURONS:
        raise ConfigError(
            f"a hidden layer of {max(hidden)} neurons is too wide to be aligned (at most {_MOST_NEURONS}); "
            "compare with align=False"
        )
    left, right = ([_matrix(pattern) for pattern in patterns] for patterns in (first, second))
    orders = _align(left, right, hidden) if align else [np.arange(n) for n in hidden]
    shared = _shared(left, right, orders)
    counts = tuple(pattern.nnz for pattern in first), tuple(pattern.nnz for pattern in second)
    if align:
        drawn = [_matrix(_random_pattern(pattern, seed, layer)) for layer, pattern in enumerate(second)]
        chance = [float(n) for n in _shared(left, drawn, _align(left, drawn, hidden))]
    else:
        chance = [p.nnz * q.nnz / max(1, p.n_in * p.n_out) for p, q in zip(first, second, strict=True)]
    return MaskSimilarity(
        tuple(shared),
        *counts,
        tuple(_jaccard(n, p, q) for n, p, q in zip(shared, *counts, strict=True)),
        tuple(_jaccard(n, p, q) for n, p, q in zip(chance, *counts, strict=True)),
        tuple(orders),
    )


def _patterns(network: SparseMLP | Sequence[Pattern]) -> list[Pattern]:
    return [layer.pattern for layer in network.layers] if isinstance(network, SparseMLP) else list(network)


def _matrix(pattern: Pattern) -> Any:
    return pattern.to_scipy(np.ones(pattern.nnz, dtype=np.int32))


def _random_pattern(like: Pattern, seed: int, layer: int) -> Pattern:
    empty = Pattern.from_cells(like.n_in, like.n_out, np.empty(0, np.uint64))
    # far from the seeds that people choose, whose first patterns come from the same stream
    cells = empty.draw_missing(like.nnz, seed=seed ^ _FAR, purpose="pattern", layer=layer, step=0)
    return Pattern.from_cells(like.n_in, like.n_out, cells)


def _jaccard(shared: float, first: int, second: int) -> float:
    union = first + second - shared
    return shared / union if union else 1.0


def _permuted(matrix: Any, layer: int, orders: Sequence[NDArray[np.int64]]) -> Any:
    """Return the matrix of a layer with the neurons on both its sides in the given orders."""
    if layer > 0:
        matrix = matrix[orders[layer - 1]]
    return matrix[:, orders[layer]] if layer < len(orders) else matrix


def _shared(left: Sequence[Any], right: Sequence[Any], orders: Sequence[NDArray[np.int64]]) -> list[int]:
    return [
        int(one.multiply(_permuted(other, layer, orders)).sum())
        for layer, (one, other) in enumerate(zip(left, right, strict=True))
    ]


def _align(left: Sequence[Any], right: Sequence[Any], hidden: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return, for each hidden layer, the neurons of the second network in the order that shares most connections."""
    from scipy.optimize import linear_sum_assignment

    orders = [np.arange(n) for n in hidden]
    best = -1
    for number in range(_ROUNDS):
        for layer in range(len(hidden)):
            # what neuron i of the first and neuron j of the second share, incoming and outgoing, as things stand
            incoming = right[layer] if layer == 0 else right[layer][orders[layer - 1]]
            overlap = left[layer].T @ incoming
            if number > 0 or layer == len(hidden) - 1:  # at first the later layers are in no order at all
                after = right[layer + 1]
                outgoing = after if layer + 1 == len(hidden) else after[:, orders[layer + 1]]
                overlap = overlap + left[layer + 1] @ outgoing.T
            orders[layer] = linear_sum_assignment(overlap.toarray(), maximize=True)[1]
        now = sum(_shared(left, right, orders))
        if now <= best:
            break
        best = now
    return orders
