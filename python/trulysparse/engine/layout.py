# SPDX-License-Identifier: BSD-3-Clause
"""All that is trained in one array: what travels between processes, or lies in memory that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.model import SparseMLP

Floats = NDArray[np.float32]


@dataclass
class Parameters:
    """What is trained in a network, or its gradient.

    Attributes
    ----------
    weights : list of ndarray of float32
        For each layer (nnz,) in pattern order.
    biases : list of ndarray of float32
        For each layer (n_out,).
    activations : list of dict of str to ndarray of float32
        For each layer, what is trained in its activation.
    flat : ndarray of float32 or None
        The array of which all of them are parts, if they are.
    """

    weights: list[Floats]
    biases: list[Floats]
    activations: list[dict[str, Floats]]
    flat: Floats | None = None


@dataclass(frozen=True)
class Flat:
    """A network's parameters and its optimizer's slots, each in one array of a `Layout`.

    Attributes
    ----------
    values : ndarray of float32
    slots : dict of str to ndarray of float32
    decayed : int
        Up to here stand weights and biases; beyond, what is trained in activations, which has no weight decay.
    """

    values: Floats
    slots: Mapping[str, Floats]
    decayed: int


class Layout:
    """Where the parameters of each layer stand in one array: weights, then biases, then what activations train.

    Every segment begins at a multiple of 64 bytes; the gaps hold zeros and stay zero under any optimizer.

    Parameters
    ----------
    connections, neurons : sequence of int
        Of each layer: connections, and target neurons.
    trained : sequence of dict of str to int
        For each layer, the sizes of what its activation trains.
    capacity : sequence of int, optional
        Room for each layer's connections, so that the layout outlives a change of topology; default what they are.

    Attributes
    ----------
    size : int
        Entries of an array.
    decayed : int
        Entries before what is trained in activations.
    weights, biases : list of slice
    activations : list of dict of str to slice
    """

    def __init__(
        self,
        connections: Sequence[int],
        neurons: Sequence[int],
        trained: Sequence[Mapping[str, int]],
        capacity: Sequence[int] | None = None,
    ) -> None:
        self._end = 0
        starts = [self._take(room) for room in (connections if capacity is None else capacity)]
        self.weights = [slice(s.start, s.start + count) for s, count in zip(starts, connections, strict=True)]
        self.biases = [self._take(count) for count in neurons]
        self.decayed = self._end
        self.activations = [{name: self._take(size) for name, size in sizes.items()} for sizes in trained]
        self.size = self._end

    @classmethod
    def of(cls, net: SparseMLP, capacity: Sequence[int] | None = None) -> Layout:
        """Return the layout of a network as it is now."""
        layers = net.layers
        return cls(
            [layer.nnz for layer in layers],
            [layer.n_out for layer in layers],
            [{name: array.size for name, array in layer.activation_parameters.items()} for layer in layers],
            capacity,
        )

    def _take(self, count: int) -> slice:
        taken = slice(self._end, self._end + count)
        self._end += _kernels.padded(count)
        return taken

    @property
    def nbytes(self) -> int:
        """Bytes of one array."""
        return 4 * self.size

    def parameters(self, flat: Floats) -> Parameters:
        """Return the parts of `flat`, a float32 array of `size` entries."""
        return Parameters(
            [flat[s] for s in self.weights],
            [flat[s] for s in self.biases],
            [{name: flat[s] for name, s in parts.items()} for parts in self.activations],
            flat,
        )

    def copy_values(self, net: SparseMLP, flat: Floats) -> None:
        """Write all that is trained in `net` to its place in `flat`."""
        parts = self.parameters(flat)
        for layer, weights, bias, trained in zip(
            net.layers, parts.weights, parts.biases, parts.activations, strict=True
        ):
            weights[...] = layer.values
            bias[...] = layer.bias
            for name, array in layer.activation_parameters.items():
                trained[name][...] = array
