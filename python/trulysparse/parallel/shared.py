# SPDX-License-Identifier: BSD-3-Clause
"""One node: the model lies once in memory that all ranks map, and who waits sleeps until a word changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import Engine, Parameters, TrainState
from trulysparse.errors import ParallelError
from trulysparse.model import SparseMLP
from trulysparse.parallel import wire
from trulysparse.parallel.board import Board, ModelStore, next_count, own_layer, own_network
from trulysparse.parallel.transport import Client, Do, Order, Said, Server, Update
from trulysparse.parallel.world import World, check_shm, mark_told
from trulysparse.topology import TopologyDelta

_SLICE_SECONDS = 0.1  # a wait wakes up so often, so that signals are handled and the dead are noticed
_LINE = 64


class _Window:
    """Memory of an MPI shared window, at an address that is a multiple of 64; made and freed by all ranks together."""

    def __init__(self, world: World, n_bytes: int) -> None:
        from mpi4py import MPI

        mine = world.rank == 0
        self._window = MPI.Win.Allocate_shared(n_bytes + _LINE if mine else 0, 1, comm=world.node)
        buffer: Any = self._window.Shared_query(0)[0]
        whole: NDArray[np.uint8] = np.frombuffer(buffer, dtype=np.uint8)
        start = -whole.ctypes.data % _LINE
        self.memory = whole[start : start + n_bytes]

    def free(self) -> None:
        self._window.Free()


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs: a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return not Path("/proc/self/stat").exists()  # no /proc here: the process is all that can be asked for
    return state not in "ZX"


def _all_here(world: World, someone_died: Callable[[], bool]) -> bool:
    """Wait until all ranks are here; False if one died: what all free together then stays until the processes end."""
    if someone_died():
        return False
    try:
        return wire.wait([world.comm.Ibarrier()], interrupted=someone_died)
    except wire.mpi_error() as error:
        if wire.is_death(error):
            return False
        raise


class SharedServer(Server):
    """The master of one node: the single writer of the model.

    Parameters
    ----------
    world : World
        All of its ranks are on one node; rank 0 is the master.
    engine : Engine
        Whose network and optimizer state are shared.
    """

    shares_memory = True
    holds = True
    name = "shared"

    def __init__(self, world: World, engine: Engine) -> None:
        super().__init__(world.size - 1)
        self._world, self._engine = world, engine
        self._control = _Window(world, Board.nbytes(self.workers))
        self._control.memory[...] = 0
        self._board = Board(self._control.memory, self.workers)
        self._board.pids[self.workers] = os.getpid()
        world.barrier()  # zeroed
        world.barrier()  # everybody's pid is there
        self._heard = [0] * self.workers
        self._look_at = 0.0
        self._next = 0
        self._bytes_of_update = 0, 0
        self._model: ModelStore | None = None
        self._window: _Window | None = None

    def open_model(self, net: SparseMLP, state: TrainState) -> None:
        plan = ModelStore.plan_of(net, self._engine.optimizer.slots, self.workers)
        n_bytes = ModelStore.nbytes(plan)
        with self._world.together("making room for the shared model"):
            check_shm(n_bytes)
        self._world.broadcast_json(plan)
        self._window = _Window(self._world, n_bytes)
        self._model = ModelStore(plan, self._window.memory)
        self.has_model = True  # from the first layer on that lies there, should the next one fail
        with self._world.together("moving the model to shared memory"):
            for layer in net.layers:
                self._model.take_in(net, state, layer.index)
            self._engine.flat = self._model.flat()
            self._measure(net)

    def settle(self, net: SparseMLP, state: TrainState, index: int, delta: TopologyDelta) -> None:
        if self._model is not None and self._model.fits(net):
            self._model.take_in(net, state, index)

    def publish(self, net: SparseMLP, state: TrainState) -> None:
        assert self._model is not None
        self.version += 1
        self._measure(net)
        if self._model.fits(net):
            for layer in net.layers:
                if layer.pattern.lasting() is layer.pattern:  # its arrays are this process's own
                    self._model.take_in(net, state, layer.index)
            return
        if self.lost:
            raise ParallelError(
                "the network outgrew its shared memory after a worker had died, and moving it needs all that were "
                "there at the start; resume from the last checkpoint, or use --transport messages"
            )
        for worker in self.living:
            self.send(worker, Order(Do.REMAP))
        self.own_model(net, state)
        self.free_model()
        self.open_model(net, state)

    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        own_network(net, state)
        self._engine.flat = None
        self._engine.own_gradient()

    def free_model(self) -> None:
        if self._model is not None:
            self._model.let_go()
        self._model, self.has_model = None, False
        window, self._window = self._window, None
        if window is not None and _all_here(self._world, self._has_lost):
            window.free()

    def receive(self, seconds: float) -> Update | None:
        board, until = self._board, time.monotonic() + seconds
        while True:
            bell = _kernels.load_word(board.words, Board.bell)
            for i in range(self.workers):
                worker = (self._next + i) % self.workers
                if _kernels.load_word(board.words, Board.said(worker)) != self._heard[worker]:
                    self._heard[worker] = next_count(self._heard[worker])
                    self._next = worker + 1
                    update = Update.read(board.updates[worker])
                    update.worker = worker
                    _kernels.store_word(board.words, Board.read(worker), self._heard[worker])
                    if update.kind != Said.GRADIENT:  # after that a worker says nothing before it is told
                        _kernels.wake_word(board.words, Board.read(worker))
                    return update
            left = until - time.monotonic()
            if left <= 0:
                self._count_the_dead()
                return None
            _kernels.wait_word(board.words, Board.bell, bell, min(left, _SLICE_SECONDS))

    def _has_lost(self) -> bool:
        if time.monotonic() >= self._look_at:
            self._count_the_dead()
            self._look_at = time.monotonic() + _SLICE_SECONDS
        return bool(self.lost)

    def _count_the_dead(self) -> None:
        for worker in self.living:
            if not is_alive(int(self._board.pids[worker])):
                self.lost.add(worker)
                _kernels.add_word(self._board.words, Board.deaths, 1)

    def gradient(self, slot: int) -> tuple[Parameters, bool]:
        assert self._model is not None
        return self._model.gradient(slot), False

    def send(self, worker: int, order: Order) -> None:
        order.version = self.version
        order.write(self._board.orders[worker])
        _kernels.add_word(self._board.words, Board.told(worker), 1)
        _kernels.wake_word(self._board.words, Board.told(worker))

    def close(self) -> None:
        self.free_model()
        if _all_here(self._world, self._has_lost):
            self._control.free()

    def _measure(self, net: SparseMLP) -> None:
        gradient = 4 * (net.connections + sum(layer.n_out for layer in net.layers))
        # the model is read where it lies
        self._bytes_of_update = gradient + Update.dtype.itemsize, Order.dtype.itemsize

    @property
    def bytes_of_update(self) -> tuple[int, int]:
        return self._bytes_of_update


class SharedClient(Client):
    """A worker on the master's node.

    Parameters
    ----------
    world : World
    engine : Engine
        Whose network becomes the shared one, and whose gradient goes to memory that the master reads.
    """

    def __init__(self, world: World, engine: Engine) -> None:
        self._world, self._engine = world, engine
        self._worker, workers = world.rank - 1, world.size - 1
        self._control = _Window(world, Board.nbytes(workers))
        world.barrier()
        self._board = Board(self._control.memory, workers)
        self._board.pids[self._worker] = os.getpid()
        world.barrier()
        self._heard = self._said = 0
        self._version, self._slot = -1, -1
        self._model: ModelStore | None = None
        self._window: _Window | None = None

    def open_model(self) -> None:
        """Map the model; all ranks together."""
        with self._world.together("making room for the shared model"):
            pass
        plan: dict[str, Any] = self._world.broadcast_json(None)
        self._window = _Window(self._world, ModelStore.nbytes(plan))
        self._model = ModelStore(plan, self._window.memory)
        with self._world.together("moving the model to shared memory"):
            pass
        self._version = -1

    def receive(self) -> Order:
        while True:
            order = self.poll()
            if order is not None:
                return order
            word = Board.told(self._worker)
            if not _kernels.wait_word(self._board.words, word, self._heard, _SLICE_SECONDS):
                self._look_for_master()

    def _look_for_master(self) -> None:
        if not is_alive(int(self._board.pids[-1])):
            raise mark_told(ParallelError("the master died; resume from the last checkpoint with --resume"))

    def _look_for_abort(self) -> None:
        """Raise if the master has given up: it reads nothing any more."""
        if _kernels.load_word(self._board.words, Board.told(self._worker)) != self._heard:
            order = Order.read(self._board.orders[self._worker])
            if order.kind == Do.ABORT:
                raise ParallelError(order.text)

    def poll(self) -> Order | None:
        board = self._board
        if _kernels.load_word(board.words, Board.told(self._worker)) == self._heard:
            return None
        self._heard = next_count(self._heard)
        order = Order.read(board.orders[self._worker])
        if order.kind == Do.REMAP:
            self._engine.net.drop_connections()  # until the next batch, if one comes: its arrays are about to go
            self._engine.own_gradient()
            self.free_model()
            self.open_model()
            return None
        if order.kind == Do.COMPUTE:
            self._follow(order)
        return order

    def _follow(self, order: Order) -> None:
        assert self._model is not None
        if order.version != self._version:
            self._model.attach(self._engine.net)
        if (order.version, order.slot) != (self._version, self._slot):
            self._engine.gradient = self._model.gradient(order.slot)
        self._version, self._slot = order.version, order.slot

    def send(self, update: Update) -> None:
        words, read = self._board.words, Board.read(self._worker)
        while (seen := _kernels.load_word(words, read)) != self._said:  # what was said before is still unread
            if not _kernels.wait_word(words, read, seen, _SLICE_SECONDS):
                self._look_for_master()
                self._look_for_abort()
        update.version = self._version
        update.write(self._board.updates[self._worker])
        self._said = _kernels.add_word(words, Board.said(self._worker), 1)
        _kernels.add_word(words, Board.bell, 1)
        _kernels.wake_word(words, Board.bell)

    def own_model(self, net: SparseMLP, state: TrainState) -> None:
        assert self._model is not None
        self._model.attach(net)
        self._model.lend_slots(net, state)
        for layer in net.layers:
            own_layer(layer)
        self._engine.own_gradient()

    def free_model(self) -> None:
        self._model = None
        window, self._window = self._window, None
        if window is not None and _all_here(self._world, self._someone_died):
            window.free()

    def _someone_died(self) -> bool:
        return bool(_kernels.load_word(self._board.words, Board.deaths))

    def close(self) -> None:
        self.free_model()
        if _all_here(self._world, self._someone_died):
            self._control.free()
