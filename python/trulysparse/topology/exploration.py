# SPDX-License-Identifier: BSD-3-Clause
"""Connections that are trained beside a layer's own without taking part in its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.model import Pattern, SparseLayer

__all__ = ["Exploration"]

F32 = NDArray[np.float32]
Cells = NDArray[np.uint64]


@dataclass
class Exploration:
    """Connections of one layer that get gradients and optimizer steps but are absent from the network's output.

    Attributes
    ----------
    layer : SparseLayer
        Their pattern and values; none of its cells is in the network's own layer. Its bias is not used.
    slots : dict of str to ndarray
        Their optimizer state, float32 (nnz,) in pattern order.
    """

    layer: SparseLayer
    slots: dict[str, F32] = field(default_factory=dict)

    @classmethod
    def build(cls, beside: SparseLayer, pattern: Pattern, values: F32, slots: Mapping[str, F32]) -> Exploration:
        """Return an exploration beside a layer; arrays are copied.

        Parameters
        ----------
        beside : SparseLayer
            The network's own layer.
        pattern : Pattern
            Of the same shape.
        values : ndarray of float32, shape (nnz,)
        slots : mapping of str to ndarray of float32, shape (nnz,)
        """
        bias = np.zeros(pattern.n_out, dtype=np.float32)
        layer = SparseLayer(beside.index, pattern, _copy(values), bias, ("linear", 0.0), beside.initializer)
        layer.store("lean")  # there is no forward pass over it
        return cls(layer, {name: _copy(array) for name, array in slots.items()})

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self.layer.nnz

    @property
    def nbytes(self) -> int:
        """Bytes of the pattern, the values and the optimizer state."""
        return self.layer.nbytes + sum(array.nbytes for array in self.slots.values())


def _copy(array: F32) -> F32:
    copy = _kernels.aligned_empty(array.size)
    copy[...] = array
    return copy
