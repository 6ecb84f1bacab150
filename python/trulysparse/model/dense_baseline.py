# SPDX-License-Identifier: BSD-3-Clause
"""The baseline that every sparse network has to beat: a dense one with as many parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from trulysparse.errors import ConfigError
from trulysparse.model.density import Density, get_density
from trulysparse.model.mlp import SparseMLP
from trulysparse.model.registry import check_integer

__all__ = ["small_dense", "small_dense_sizes"]


def small_dense_sizes(sizes: Sequence[int], parameters: int) -> tuple[int, ...]:
    """Return the sizes of the widest dense network of at most `parameters` weights and biases.

    Parameters
    ----------
    sizes
        Neurons of every layer of the sparse network, inputs first; the hidden ones are scaled together.
    parameters
        Weights and biases that the dense network may have.

    Returns
    -------
    tuple of int
        At least one neuron a hidden layer, and never more than `sizes`; in the narrowest case the network may have
        more parameters than asked for.
    """
    sizes = tuple(check_integer(n, f"sizes[{i}]", low=1) for i, n in enumerate(sizes))
    if len(sizes) < 3:
        raise ConfigError(f"a dense network of sizes {sizes} has no hidden layer that could be made narrower")
    check_integer(parameters, "parameters", low=1)
    narrow, wide = 0.0, 1.0
    for _ in range(64):  # bisection: the count does not fall when the scale rises
        middle = 0.5 * (narrow + wide)
        if _parameters(_scaled(sizes, middle)) <= parameters:
            narrow = middle
        else:
            wide = middle
    return sizes if _parameters(sizes) <= parameters else _scaled(sizes, narrow)


def small_dense(
    sizes: Sequence[int], *, density: float | Density | None = None, parameters: int | None = None, **settings: Any
) -> SparseMLP:
    """Build the dense network that has as many parameters as a sparse one: "Small-Dense" of the RigL paper.

    Evci et al. 2020, arXiv:1911.11134, section 4.

    Parameters
    ----------
    sizes
        Neurons of every layer of the sparse network; the hidden layers are narrowed by one factor.
    density
        Of the sparse network, as `SparseMLP` takes it. Give this, or `parameters`.
    parameters
        Weights and biases that the dense network is to have at most.
    **settings
        Other arguments of `SparseMLP`.

    Returns
    -------
    SparseMLP
        Of density 1.

    Raises
    ------
    ConfigError
        If neither or both of `density` and `parameters` are given, or there is no hidden layer.
    """
    if (density is None) == (parameters is None):
        raise ConfigError(
            f"small_dense needs either density or parameters, got density={density!r} and parameters={parameters!r}"
        )
    if parameters is None:
        parameters = round(sum(get_density(density).expected_connections(sizes))) + sum(sizes[1:])
    return SparseMLP(small_dense_sizes(sizes, parameters), density=1.0, **settings)


def _scaled(sizes: tuple[int, ...], scale: float) -> tuple[int, ...]:
    return sizes[0], *(max(1, int(n * scale)) for n in sizes[1:-1]), sizes[-1]


def _parameters(sizes: Sequence[int]) -> int:
    return sum(n_in * n_out + n_out for n_in, n_out in pairwise(sizes))
