# SPDX-License-Identifier: BSD-3-Clause
"""What lies in memory that the ranks of a node share: mailboxes, and the model."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import Flat, Layout, Parameters, TrainState
from trulysparse.model import Pattern, SparseLayer, SparseMLP
from trulysparse.parallel.transport import Order, Update

Bytes = NDArray[np.uint8]
_LINE = 64
_WORDS_A_LINE = _LINE // 4


def _lines(n_bytes: int) -> int:
    return -(-n_bytes // _LINE) * _LINE


def next_count(count: int) -> int:
    """Return what a word that stands at `count` is after one more: words are 32 bits and wrap around."""
    return count + 1 if count < 2**31 - 1 else -(2**31)


def cells(records: NDArray[Any]) -> list[NDArray[Any]]:
    """Return every record of an array as a 0-dimensional array."""
    return [records[i, ...] for i in range(records.size)]


class Board:
    """Mailboxes of a master and its workers: words to wait on, and a record each way.

    Parameters
    ----------
    memory : ndarray of uint8
        Shared by all, zero at first, `nbytes(workers)` long.
    workers : int
    """

    def __init__(self, memory: Bytes, workers: int) -> None:
        words = _LINE * (1 + 3 * workers)
        self.words: NDArray[np.int32] = memory[:words].view(np.int32)
        start = words
        self.orders = cells(memory[start : start + workers * Order.dtype.itemsize].view(Order.dtype))
        start += _lines(workers * Order.dtype.itemsize)
        self.updates = cells(memory[start : start + workers * Update.dtype.itemsize].view(Update.dtype))
        start += _lines(workers * Update.dtype.itemsize)
        self.pids: NDArray[np.int64] = memory[start : start + 8 * (workers + 1)].view(np.int64)
        self.workers = workers

    @staticmethod
    def nbytes(workers: int) -> int:
        """Return the bytes of a board."""
        records = _lines(workers * Order.dtype.itemsize) + _lines(workers * Update.dtype.itemsize)
        return _LINE * (1 + 3 * workers) + records + _lines(8 * (workers + 1))

    bell = 0
    """The word that every worker bumps and the master waits on."""
    deaths = 1
    """The word that counts the workers that died."""

    @staticmethod
    def said(worker: int) -> int:
        """Return the word that counts what a worker said."""
        return _WORDS_A_LINE * (1 + 3 * worker)

    @staticmethod
    def read(worker: int) -> int:
        """Return the word that counts how much of it the master has read."""
        return _WORDS_A_LINE * (2 + 3 * worker)

    @staticmethod
    def told(worker: int) -> int:
        """Return the word that counts what a worker was told."""
        return _WORDS_A_LINE * (3 + 3 * worker)


class ModelStore:
    """A network with its optimizer state, its index, and gradient arrays of workers, in one piece of memory.

    Parameters
    ----------
    plan : dict
        What `plan_of` said: all that decides where what lies.
    memory : ndarray of uint8
        `nbytes(plan)` long, zero at first.

    Attributes
    ----------
    connections : ndarray of int64
        Of each layer, as they are now.
    """

    def __init__(self, plan: dict[str, Any], memory: Bytes) -> None:
        self.plan = plan
        self._memory, self._at = memory, 0
        sizes = plan["sizes"]
        self.connections: NDArray[np.int64] = self._take(len(sizes) - 1, np.int64)
        self._size = self._layout(plan["capacity"]).size
        self._values: NDArray[np.float32] = self._take(self._size, np.float32)
        self._slots = {name: self._take(self._size, np.float32) for name in plan["slots"]}
        self._gradients = [self._take(self._size, np.float32) for _ in range(plan["workers"])]
        self._lent: dict[int, weakref.ref[Pattern]] = {}
        self._index: list[list[NDArray[Any]]] = []
        self._parts: dict[int, Parameters] = {}  # of gradients, for the connections as they are now
        if not plan["index"]:
            return
        for n_in, n_out, room, offset in zip(sizes, sizes[1:], plan["capacity"], plan["offsets"], strict=False):
            dtype = np.dtype(offset)
            lengths = ((n_in + 1, dtype), (room, np.int32), (n_out + 1, dtype), (room, np.int32), (room, dtype))
            self._index.append([self._take(length, kind) for length, kind in lengths])

    def _take(self, length: int, dtype: Any) -> NDArray[Any]:
        n_bytes = length * np.dtype(dtype).itemsize
        part: NDArray[Any] = self._memory[self._at : self._at + n_bytes].view(dtype)
        self._at += _lines(n_bytes)
        return part

    def _layout(self, connections: Sequence[int]) -> Layout:
        plan = self.plan
        return Layout(connections, plan["sizes"][1:], plan["trained"], plan["capacity"])

    @staticmethod
    def plan_of(net: SparseMLP, slots: Sequence[str], workers: int, *, index: bool = True) -> dict[str, Any]:
        """Return, in plain values, what a store for `net` needs to know.

        Parameters
        ----------
        net : SparseMLP
        slots : sequence of str
            Of the optimizer.
        workers : int
            How many gradient arrays there are.
        index : bool
            False: the patterns stay where they are, only what is trained lies in the store.
        """
        return {
            "sizes": list(net.sizes),
            "capacity": [layer.nnz for layer in net.layers],
            "offsets": [str(layer.pattern.row_ptr.dtype) for layer in net.layers],
            "trained": [
                {name: array.size for name, array in layer.activation_parameters.items()} for layer in net.layers
            ],
            "slots": list(slots),
            "workers": workers,
            "index": index,
        }

    @staticmethod
    def nbytes(plan: dict[str, Any]) -> int:
        """Return the bytes of a store."""
        sizes = plan["sizes"]
        layout = Layout(plan["capacity"], sizes[1:], plan["trained"])
        total: int = _lines(8 * (len(sizes) - 1)) + layout.nbytes * (1 + len(plan["slots"]) + plan["workers"])
        if not plan["index"]:
            return total
        for n_in, n_out, room, offset in zip(sizes, sizes[1:], plan["capacity"], plan["offsets"], strict=False):
            width = np.dtype(offset).itemsize
            total += sum(_lines(n) for n in (width * (n_in + 1), 4 * room, width * (n_out + 1), 4 * room, width * room))
        return total

    def fits(self, net: SparseMLP) -> bool:
        """Whether the network, as it is now, has room where it lies."""
        return list(net.sizes) == self.plan["sizes"] and all(
            layer.nnz <= room and str(layer.pattern.row_ptr.dtype) == offset
            for layer, room, offset in zip(net.layers, self.plan["capacity"], self.plan["offsets"], strict=True)
        )

    def take_in(self, net: SparseMLP, state: TrainState, index: int) -> None:
        """Copy one layer to its place here, and make it live there, with its optimizer state."""
        layer = net.layers[index]
        self.connections[index] = layer.nnz
        self._parts.clear()
        layout = self.layout
        place, values = layout.weights[index], layout.parameters(self._values)
        end = place.start + _kernels.padded(self.plan["capacity"][index])
        if self._index:
            self._settle_accounts(index)
            sources = (layer.pattern.row_ptr, layer.pattern.col_idx, *layer.pattern.transposed)
            for array, source in zip(self._index[index], sources, strict=True):
                array[: source.size] = source
        pairs = [(values, layer.values, layer.bias, layer.activation_parameters)]
        for name, flat in self._slots.items():
            trained = {own: slots[name] for own, slots in state.activation_slots[index].items()}
            pairs.append(
                (layout.parameters(flat), state.weight_slots[index][name], state.bias_slots[index][name], trained)
            )
        for parts, weights, bias, parameters in pairs:
            assert parts.flat is not None
            parts.weights[index][...] = weights
            parts.flat[place.stop : end] = 0.0
            parts.biases[index][...] = bias
            for own, array in parameters.items():
                parts.activations[index][own][...] = array
        for flat in self._gradients:
            flat[place.start : end] = 0.0
        self._put(net, index, layout)
        self._lend(layer, state, layout)

    def lend_slots(self, net: SparseMLP, state: TrainState) -> None:
        """Let `state` have the optimizer's slots that lie here."""
        layout = self.layout
        for layer in net.layers:
            self._lend(layer, state, layout)

    def _lend(self, layer: SparseLayer, state: TrainState, layout: Layout) -> None:
        index = layer.index
        for name, flat in self._slots.items():
            parts = layout.parameters(flat)
            state.weight_slots[index][name] = parts.weights[index]
            state.bias_slots[index][name] = parts.biases[index]
            for own in layer.activation_parameters:
                state.activation_slots[index][own][name] = parts.activations[index][own]

    def _put(self, net: SparseMLP, index: int, layout: Layout) -> None:
        """Make a layer of `net` live here."""
        layer, count = net.layers[index], int(self.connections[index])
        parts = layout.parameters(self._values)
        if not self._index:
            layer.replace(layer.pattern, parts.weights[index], parts.biases[index], parts.activations[index])
            return
        n_in, n_out = self.plan["sizes"][index], self.plan["sizes"][index + 1]
        row_ptr, col_idx, col_ptr, row_idx, perm = self._index[index]
        views = (col_ptr.view(), row_idx[:count], perm[:count])
        pattern = Pattern.over(n_in, n_out, row_ptr.view(), col_idx[:count], views)
        self._lent[index] = weakref.ref(pattern)
        layer.replace(pattern, parts.weights[index], parts.biases[index], parts.activations[index])

    def _settle_accounts(self, index: int) -> None:
        """Give a pattern that somebody may have kept arrays of its own, before this memory is written to or freed."""
        lent = self._lent.pop(index, lambda: None)()
        if lent is not None:
            lent.own()

    def let_go(self) -> None:
        """Do so for all layers: the memory is about to go."""
        for index in list(self._lent):
            self._settle_accounts(index)

    def take_layout(self, net: SparseMLP) -> None:
        """Make the whole of `net` live here, with whatever numbers are here."""
        self.connections[...] = [layer.nnz for layer in net.layers]
        self.attach(net)

    def attach(self, net: SparseMLP) -> None:
        """Make the whole of `net` live here, as it is now."""
        self._parts.clear()
        layout = self.layout
        for layer in net.layers:
            self._put(net, layer.index, layout)

    @property
    def layout(self) -> Layout:
        """Where the parameters of the network, as it is now, stand in an array."""
        return self._layout([int(n) for n in self.connections])

    def flat(self) -> Flat:
        """Return values and slots as whole arrays."""
        return Flat(self._values, self._slots, self._layout(self.plan["capacity"]).decayed)

    def gradient(self, slot: int) -> Parameters:
        """Return the gradient array of a worker, in its parts."""
        if slot not in self._parts:
            self._parts[slot] = self.layout.parameters(self._gradients[slot])
        return self._parts[slot]


def own_network(net: SparseMLP, state: TrainState) -> None:
    """Copy a network and its optimizer state out of memory that it shares."""
    for layer in net.layers:
        own_layer(layer)
        trained = state.activation_slots[layer.index].values()
        for slots in (state.weight_slots[layer.index], state.bias_slots[layer.index], *trained):
            slots.update({name: _own(array) for name, array in slots.items()})


def own_layer(layer: SparseLayer) -> None:
    """Copy a layer out of memory that it shares."""
    trained = {name: _own(array) for name, array in layer.activation_parameters.items()}
    layer.replace(layer.pattern.lasting(), _own(layer.values), _own(layer.bias), trained)


def _own(array: NDArray[np.float32]) -> NDArray[np.float32]:
    copy = _kernels.aligned_empty(array.size)
    copy[...] = array
    return copy
