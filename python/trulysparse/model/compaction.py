# SPDX-License-Identifier: BSD-3-Clause
"""Neurons that are constants or unused: folding their output into biases, and dropping them for real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.model.layer import SparseLayer

if TYPE_CHECKING:
    from trulysparse.model.mlp import SparseMLP

__all__ = ["Compaction", "compact", "drop_neurons", "fold_constants", "isolated_neurons"]

F32 = NDArray[np.float32]
Slots = dict[str, F32]


@dataclass(frozen=True)
class Compaction:
    """What a compaction took out of a network.

    Attributes
    ----------
    neurons : tuple of ndarray of int32
        For each hidden layer the neurons that are gone, numbered as before.
    connections : int
        Connections that went with them.
    """

    neurons: tuple[NDArray[np.int32], ...]
    connections: int


def _constants(layer: SparseLayer, threads: int) -> F32:
    """Return f(bias) of every neuron, (n_out,): what the layer makes of zeros, whatever its activation."""
    layer.prepare(threads)
    y = _kernels.aligned_zeros((layer.n_out, _kernels.LANE))
    layer.forward(_kernels.aligned_zeros((layer.n_in, _kernels.LANE)), y, threads)
    return y[:, 0].copy()


def _delete(layer: SparseLayer, mask: NDArray[np.bool_], slots: Slots, threads: int) -> None:
    names = list(slots)
    pattern, arrays = layer.pattern.keep(mask, [layer.values, *(slots[name] for name in names)], threads=threads)
    layer.replace(pattern, arrays[0])
    slots.update(zip(names, arrays[1:], strict=True))


def fold_constants(net: SparseMLP, slots: Sequence[Slots], threads: int) -> list[int]:
    """Move what hidden neurons without incoming connections give into the biases of the next layer.

    Such a neuron gives the constant f(b_j). Every b_k grows by the sum of f(b_j) w_jk, and the connections j -> k are
    deleted, front to back, so that neurons which lose their last input this way are folded too. The sums are made in
    double precision, in pattern order.

    Parameters
    ----------
    net : SparseMLP
        Changed in place.
    slots : sequence of dict of str to ndarray
        For each layer the arrays that go along with its connections; they are replaced.
    threads : int

    Returns
    -------
    list of int
        For each layer, how many of its connections were deleted.
    """
    folded = [0] * len(net.layers)
    for layer, following in zip(net.layers, net.layers[1:], strict=False):
        doomed = (layer.pattern.in_degree() == 0) & (following.pattern.out_degree() > 0)
        if not doomed.any():
            continue
        going = np.repeat(doomed, following.pattern.out_degree())
        rows = np.flatnonzero(doomed)
        constants = _constants(layer, threads)[rows].astype(np.float64)
        terms = np.repeat(constants, following.pattern.out_degree()[rows]) * following.values[going]
        shift = np.bincount(following.pattern.col_idx[going], weights=terms, minlength=following.n_out)
        following.bias[...] = following.bias + shift
        folded[following.index] = terms.size
        _delete(following, ~going, slots[following.index], threads)
    return folded


def isolated_neurons(net: SparseMLP) -> list[NDArray[np.bool_]]:
    """Mark, for each hidden layer, the neurons that have no connection at all; one of each layer is left out."""
    marked = []
    for layer, following in zip(net.layers, net.layers[1:], strict=False):
        alone = (layer.pattern.in_degree() == 0) & (following.pattern.out_degree() == 0)
        if alone.all():
            alone[0] = False  # a layer needs a neuron
        marked.append(alone)
    return marked


def drop_neurons(
    net: SparseMLP,
    doomed: Sequence[NDArray[np.bool_]],
    weight_slots: Sequence[Slots],
    neuron_slots: Sequence[Sequence[Slots]],
    threads: int,
) -> None:
    """Take hidden neurons out: rows, columns, biases, trained activations and all that goes along with them.

    Parameters
    ----------
    net : SparseMLP
        Changed in place; its sizes shrink.
    doomed : sequence of ndarray of bool
        For each hidden layer, True for the neurons that go.
    weight_slots : sequence of dict of str to ndarray
        For each layer, arrays in pattern order; they are replaced.
    neuron_slots : sequence of sequence of dict of str to ndarray
        For each layer, arrays of one value a neuron; they are replaced. Of another length: one for all, and stay.
    threads : int
    """
    kept = [None if not some.any() else np.flatnonzero(~some).astype(np.int32) for some in doomed]
    for layer, rows, columns in zip(net.layers, [None, *kept], [*kept, None], strict=True):
        if rows is None and columns is None:
            continue
        slots = weight_slots[layer.index]
        names = list(slots)
        carried = [layer.values, *(slots[name] for name in names)]
        pattern, arrays = layer.pattern.select(rows, columns, carried, threads=threads)
        slots.update(zip(names, arrays[1:], strict=True))
        if columns is None:
            layer.replace(pattern, arrays[0])
            continue
        count, trained = layer.n_out, dict(layer.activation_parameters)
        for own in (trained, *neuron_slots[layer.index]):
            own.update({name: _some(array, columns) for name, array in own.items() if array.size == count})
        layer.replace(pattern, arrays[0], _some(layer.bias, columns), trained)


def _some(array: F32, chosen: NDArray[np.int32]) -> F32:
    taken = _kernels.aligned_empty(chosen.size)
    np.take(array, chosen, out=taken)
    return taken


def compact(net: SparseMLP, threads: int) -> Compaction:
    """Take everything out of a finished network that cannot change what it says; see `SparseMLP.compact`."""
    slots: list[Slots] = [{} for _ in net.layers]
    before = net.connections
    fold_constants(net, slots, threads)
    for layer, following in zip(net.layers[-2::-1], net.layers[:0:-1], strict=True):
        useless = following.pattern.out_degree() == 0
        going = useless[layer.pattern.col_idx]
        if going.any():
            _delete(layer, ~going, slots[layer.index], threads)
    doomed = isolated_neurons(net)
    drop_neurons(net, doomed, slots, [[] for _ in net.layers], threads)
    return Compaction(tuple(np.flatnonzero(some).astype(np.int32) for some in doomed), before - net.connections)
