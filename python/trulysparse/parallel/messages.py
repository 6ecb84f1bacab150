# SPDX-License-Identifier: BSD-3-Clause
"""Any number of nodes: models and gradients travel as raw float32, indices once a change of topology."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import Engine, Layout, Parameters, TrainState
from trulysparse.errors import ParallelError
from trulysparse.model import Pattern, SparseMLP
from trulysparse.parallel import wire
from trulysparse.parallel.board import ModelStore
from trulysparse.parallel.transport import Client, Do, Order, Said, Server, Update
from trulysparse.parallel.world import Pause, World, mark_told
from trulysparse.topology import TopologyDelta

_ORDER_TAG, _MODEL_TAG, _TOPOLOGY_TAG, _UPDATE_TAG, _GRADIENT_TAG = 1, 2, 3, 4, 5
_DRAIN_SECONDS = 1e-3
_CARRIES_MODEL = (Do.COMPUTE, Do.LOCAL)


_NOWHERE = np.empty(0, np.int64)


def _places(grown: NDArray[np.uint64], before: Pattern, now: Pattern) -> NDArray[np.int64]:
    """Return where in `now` those of the grown cells stand that `before` had too."""
    if before.shape != now.shape:
        return _NOWHERE  # neurons went, which nobody computes across
    old = before.cells()
    again = grown[np.isin(grown, old)]
    return np.searchsorted(now.cells(), again).astype(np.int64)


def _store_of(net: SparseMLP, engine: Engine, gradients: int) -> ModelStore:
    slots = () if gradients else engine.optimizer.slots
    plan = ModelStore.plan_of(net, slots, gradients, index=False)
    return ModelStore(plan, _kernels.aligned_zeros(ModelStore.nbytes(plan), np.uint8))


def _segments(layout: Layout) -> list[slice]:
    """Return the parts in which a gradient travels, in the order in which they are complete."""
    return [*reversed(layout.weights), slice(layout.biases[0].start, layout.size)]


def _forget(receives: list[Any]) -> None:
    """Take back receives: what has begun to arrive is let in, since it would be written all the same."""
    for request in receives:
        if request:
            request.Cancel()
    wire.wait(receives)


class MessageServer(Server):
    """The master, wherever its workers are.

    Parameters
    ----------
    world : World
    engine : Engine
    holds : bool
        Whether no worker computes while the topology changes; if not, late gradients are carried onto the new one.
    """

    shares_memory = False
    name = "messages"

    def __init__(self, world: World, engine: Engine, *, holds: bool) -> None:
        super().__init__(world.size - 1)
        self.holds = holds
        self._world, self._engine = world, engine
        count = self.workers
        self._records = np.zeros(count, Update.dtype)
        self._orders = np.zeros(count, Order.dtype)
        self._heard: list[list[Any] | None] = [None] * count
        self._sending: list[list[Any]] = [[] for _ in range(count)]
        self._arriving: dict[int, list[Any]] = {}  # by worker, the parts of its gradient
        self._has = [-1] * count  # the version of the topology that a worker has
        self._models: dict[int, NDArray[np.float32]] = {}  # by worker, on its way
        self._gradients: dict[int, NDArray[np.float32]] = {}  # by slot
        self._versions: dict[int, int] = {}  # by slot
        self._patterns: dict[int, list[Pattern]] = {}  # by version
        self._layouts: dict[int, Layout] = {}
        self._grown: dict[int, list[NDArray[np.uint64]]] = {}  # by layer, of the evolution under way
        self._reborn: dict[int, dict[int, NDArray[np.int64]]] = {}  # by version and layer: the places of `_places`
        self._store: ModelStore | None = None
        self._carried: NDArray[np.float32] | None = None
        self._next = 0

    def open_model(self, net: SparseMLP, state: TrainState) -> None:
        self._take_in(net, state)
        self.has_model = True

    def settle(self, net: SparseMLP, state: TrainState, index: int, delta: TopologyDelta) -> None:
        """Keep which cells are new: one that was dropped and grown at once is another connection than before."""
        self._grown.setdefault(index, []).append(delta.grown)

    def publish(self, net: SparseMLP, state: TrainState) -> None:
        before = self._patterns[self.version]
        self.version += 1
        if self._versions:  # gradients of older versions are on their way
            self._reborn[self.version] = {
                index: _places(np.concatenate(grown), before[index], net.layers[index].pattern)
                for index, grown in self._grown.items()
            }
        self._grown = {}
        self._take_in(net, state)

    def _take_in(self, net: SparseMLP, state: TrainState) -> None:
        """Bring all that is trained into whole arrays, in place where the numbers of connections are as before."""
        store = self._store
        exact = store is not None and store.fits(net) and store.plan["capacity"] == [layer.nnz for layer in net.layers]
        if not exact:
            store = _store_of(net, self._engine, 0)
        assert store is not None
        known = self._patterns.get(self.version - 1, [])
        for layer in net.layers:
            if not exact or layer.pattern is not known[layer.index]:
                store.take_in(net, state, layer.index)
        self._store = store
        self._engine.flat = store.flat()
        self._patterns[self.version] = [layer.pattern for layer in net.layers]
        self._layouts[self.version] = store.layout
        flying = [self._versions[slot] for slot in self._versions]
        oldest = min([self.version, *flying])
        for version in [v for v in self._patterns if v < oldest]:
            del self._patterns[version], self._layouts[version]
            self._reborn.pop(version, None)

    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        self._engine.flat = None
        self._engine.own_gradient()

    def free_model(self) -> None:
        self.has_model = False

    def receive(self, seconds: float) -> Update | None:
        until, pause = time.monotonic() + seconds, Pause()
        while True:
            for i in range(self.workers):
                worker = (self._next + i) % self.workers
                if worker not in self.lost and self._has_spoken(worker):
                    self._next = worker + 1
                    update = Update.read(self._records[worker, ...])
                    update.worker = worker
                    self._heard[worker] = None
                    if update.kind == Said.GRADIENT:  # of one that failed, no more of it comes
                        try:
                            wire.wait(self._arriving.pop(worker))
                        except wire.mpi_error() as error:
                            if not wire.is_death(error):
                                raise
                            self.lost.add(worker)
                            continue
                    return update
            if time.monotonic() >= until:
                return None
            pause.rest()

    def _has_spoken(self, worker: int) -> bool:
        try:
            if self._heard[worker] is None:
                record = self._records[worker : worker + 1].view(np.uint8)
                self._heard[worker] = wire.receive_into(self._world, record, worker + 1, _UPDATE_TAG)
            return wire.is_done(self._heard[worker] or [])
        except wire.mpi_error() as error:
            if not wire.is_death(error):
                raise
            self.lost.add(worker)
            return False

    def gradient(self, slot: int) -> tuple[Parameters, bool]:
        """Return the gradient that lies in a slot, for the network as it is now, and whether it was carried onto it."""
        flat, version = self._gradients[slot], self._versions.pop(slot)
        layout = self._layouts[version]
        if version == self.version:
            return layout.parameters(flat), False
        old, now = layout.parameters(flat), self._layouts[self.version]
        if self._carried is None or self._carried.size != now.size:
            self._carried = _kernels.aligned_zeros(now.size)
        new, threads = now.parameters(self._carried), self._engine.threads
        for i, target in enumerate(new.weights):
            array = old.weights[i]
            for step in range(version, self.version):
                before, after = self._patterns[step][i], self._patterns[step + 1][i]
                if before is not after:
                    (array,) = before.carry(after, [array], threads=threads)
                    array[self._reborn[step + 1].get(i, _NOWHERE)] = 0.0
            target[...] = array
        for target, source in zip(new.biases, old.biases, strict=True):
            target[...] = source
        for targets, sources in zip(new.activations, old.activations, strict=True):
            for name, array in targets.items():
                array[...] = sources[name]
        return new, True

    def send(self, worker: int, order: Order) -> None:
        try:
            wire.wait(self._sending[worker])
            self._send(worker, order)
        except wire.mpi_error() as error:
            if not wire.is_death(error):
                raise
            self.lost.add(worker)

    def _send(self, worker: int, order: Order) -> None:
        world, rank = self._world, worker + 1
        order.version = self.version
        carries = order.kind in _CARRIES_MODEL
        order.topology = int(carries and self._has[worker] != self.version)
        order.write(self._orders[worker, ...])
        record = self._orders[worker : worker + 1].view(np.uint8)
        requests = wire.send(world, record, rank, _ORDER_TAG)
        if order.topology:
            patterns = self._patterns[self.version]
            facts = np.array([[p.n_in, p.n_out, p.nnz, p.row_ptr.itemsize] for p in patterns], np.int64)
            for array in [facts, *(a for p in patterns for a in (p.row_ptr, p.col_idx))]:
                requests += wire.send(world, array, rank, _TOPOLOGY_TAG)
                self.topology_bytes += array.nbytes
            self._has[worker] = self.version
        if carries:
            assert self._store is not None
            values = self._store.flat().values
            copy = self._models.get(worker)
            if copy is None or copy.size != values.size:
                copy = self._models[worker] = _kernels.aligned_empty(values.size)
            copy[...] = values  # the living array moves on while this one travels
            requests += wire.send(world, copy, rank, _MODEL_TAG)
        self._sending[worker] = requests
        if order.kind == Do.COMPUTE:
            self._expect(worker, order.slot)

    def _expect(self, worker: int, slot: int) -> None:
        """Make ready to receive a gradient of the current version."""
        layout = self._layouts[self.version]
        flat = self._gradients.get(slot)
        if flat is None or flat.size != layout.size:
            flat = self._gradients[slot] = _kernels.aligned_zeros(layout.size)
        self._versions[slot] = self.version
        requests: list[Any] = []
        for part in _segments(layout):
            requests += wire.receive_into(self._world, flat[part], worker + 1, _GRADIENT_TAG)
        self._arriving[worker] = requests

    def close(self) -> None:
        for worker in range(self.workers):
            try:
                # one that computes sends its gradient whatever happens, and may not go before that is taken
                while worker in self._arriving and worker in self.living:
                    self._take_last(worker)
                _forget([*(self._heard[worker] or []), *self._arriving.pop(worker, [])])
                if worker in self.living:
                    wire.wait(self._sending[worker])
            except wire.mpi_error() as error:
                if not wire.is_death(error):
                    raise
                self.lost.add(worker)

    def _take_last(self, worker: int) -> None:
        """Wait for the gradient that a worker is about to send, or for why it does not."""
        while worker in self.living and not self._has_spoken(worker):
            time.sleep(_DRAIN_SECONDS)
        if worker in self.living:
            update = Update.read(self._records[worker])
            self._heard[worker] = None
            if update.kind == Said.GRADIENT:
                wire.wait(self._arriving.pop(worker))
            elif update.kind == Said.FAILED:
                self.failed.add(worker)

    @property
    def bytes_of_update(self) -> tuple[int, int]:
        layout = self._layouts[self.version]
        up = 4 * sum(part.stop - part.start for part in _segments(layout))
        return up + Update.dtype.itemsize, layout.nbytes + Order.dtype.itemsize


class MessageClient(Client):
    """A worker, wherever the master is.

    Parameters
    ----------
    world : World
    engine : Engine
    """

    def __init__(self, world: World, engine: Engine) -> None:
        self._world, self._engine = world, engine
        self._record = np.zeros(1, Order.dtype)
        self._said = np.zeros(1, Update.dtype)
        self._listening: list[Any] | None = None
        self._sending: list[Any] = []
        self._store: ModelStore | None = None
        self._version = -1

    def open_model(self) -> None:
        """Nothing to do: the first order brings it."""

    def receive(self) -> Order:
        pause = Pause()
        while True:
            order = self.poll()
            if order is not None:
                return order
            pause.rest()

    def poll(self) -> Order | None:
        if self._listening is None:
            self._listening = wire.receive_into(self._world, self._record.view(np.uint8), 0, _ORDER_TAG)
        try:
            if not wire.is_done(self._listening):
                return None
        except wire.mpi_error() as error:
            if wire.is_death(error):
                told = mark_told(ParallelError("the master died; resume from the last checkpoint with --resume"))
                raise told from error
            raise
        self._listening = None
        order = Order.read(self._record[0, ...])
        if order.kind in _CARRIES_MODEL:
            self._settle()
        if order.topology:
            self._receive_topology()
        if order.kind in _CARRIES_MODEL:
            assert self._store is not None
            wire.wait(wire.receive_into(self._world, self._store.flat().values, 0, _MODEL_TAG))
            self._version = order.version
        return order

    def _receive_topology(self) -> None:
        net, world = self._engine.net, self._world
        facts = np.zeros((len(net.layers), 4), np.int64)
        wire.wait(wire.receive_into(world, facts, 0, _TOPOLOGY_TAG))
        for layer, (n_in, n_out, nnz, width) in zip(net.layers, facts.tolist(), strict=True):
            row_ptr = np.empty(n_in + 1, np.dtype(f"i{width}"))
            col_idx = np.empty(nnz, np.int32)
            for array in (row_ptr, col_idx):
                wire.wait(wire.receive_into(world, array, 0, _TOPOLOGY_TAG))
            pattern = Pattern(n_in, n_out, row_ptr, col_idx, validate=False)
            pattern.transpose(self._engine.threads)
            room = _kernels.aligned_zeros
            trained = {
                name: room(n_out if array.size == layer.n_out else array.size)
                for name, array in layer.activation_parameters.items()
            }
            layer.replace(pattern, room(nnz), room(n_out), trained)
        self._store = _store_of(net, self._engine, 1)
        self._store.take_layout(net)
        self._engine.gradient = self._store.gradient(0)
        self._segments = _segments(self._store.layout)

    def layer_done(self, index: int) -> None:
        flat, count = self._engine.gradient.flat, len(self._engine.net.layers)
        assert flat is not None
        part = flat[self._segments[count - 1 - index]]
        self._sending += wire.send(self._world, part, 0, _GRADIENT_TAG)

    def send(self, update: Update) -> None:
        if update.kind == Said.GRADIENT:
            flat = self._engine.gradient.flat
            assert flat is not None
            self._sending += wire.send(self._world, flat[self._segments[-1]], 0, _GRADIENT_TAG)
        else:
            self._settle()
        update.version = self._version
        update.write(self._said[0, ...])
        self._sending += wire.send(self._world, self._said.view(np.uint8), 0, _UPDATE_TAG)
        if update.kind != Said.GRADIENT:  # the order that answers a gradient shows that it arrived
            self._settle()

    def _settle(self) -> None:
        """Wait until what was said has left."""
        wire.wait(self._sending)
        self._sending = []

    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        """Let the engine go: the network is this process's own already, and the master sends the slots."""
        self._engine.own_gradient()

    def free_model(self) -> None:
        self._store = None

    def close(self) -> None:
        _forget(self._listening or [])
        try:
            self._settle()  # the master takes what was sent, whatever happened
        except wire.mpi_error() as error:
            if not wire.is_death(error):
                raise
