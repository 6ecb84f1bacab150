# SPDX-License-Identifier: BSD-3-Clause
"""Ranks without a master: each trains a network, together step by step, or on its own with averages in between."""

from __future__ import annotations

import math
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import Layout, TrainState, restore_state, state_tensors
from trulysparse.errors import DivergenceError, ParallelError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.parallel import wire
from trulysparse.parallel.batches import shard
from trulysparse.parallel.host import pack_result
from trulysparse.parallel.link import Floats, Link, Mean, Numbers, Sharing
from trulysparse.parallel.report import ParallelReport, Tally
from trulysparse.parallel.serverless import AllReduce, Decentralized, Serverless
from trulysparse.parallel.worker import worker_seed
from trulysparse.parallel.world import mark_told, rank_memory

if TYPE_CHECKING:
    from trulysparse.parallel.host import Host
    from trulysparse.parallel.world import World

S = TypeVar("S", bound=Serverless)

_PAIRING = 1
"""The "layer" that keys the draw of pairs, apart from the seeds of workers."""


class FoundByAll(Exception):
    """Wraps an error that every rank finds by itself, in numbers that all have: nobody need be told."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Peer(ABC, Generic[S]):
    """A rank of a run without a master; rank 0 also writes history and checkpoints.

    Parameters
    ----------
    strategy : Serverless
    host : Host
    world : World
    """

    phase: str

    def __init__(self, strategy: S, host: Host, world: World) -> None:
        self.strategy, self.host, self.world = strategy, host, world
        self.run, self.engine = host.run, host.run.engine
        self.rank, self.workers = world.rank, world.size
        self.per_epoch = strategy.steps_per_epoch(self.run.samples.count // host.batch_size, self.workers)
        self.link = Link(world)
        self.tally = Tally(self.workers)
        self.signal = 0
        self._stopped = False
        self._computed = 0
        self._compute_seconds = 0.0
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def state(self) -> TrainState:
        """Where the run stands."""
        return self.engine.state

    def train(self) -> tuple[int, ParallelReport | None]:
        """Carry out the run; return the signal that ended it (0: none), and on rank 0 what was measured."""
        try:
            self._begin()
            started, first = time.perf_counter(), self._samples
            self._started = started
            self._train()
            self.tally.phase(self.phase, time.perf_counter() - started, self._samples - first)
            self._end()
            report = self._report()
        except FoundByAll as found:
            raise mark_told(found.error) from None
        except BaseException as error:
            self.link.tell(error)
            if not self.world.broken:
                mark_told(error)
            raise
        finally:
            self.engine.own_gradient()
        return self.signal, report

    @abstractmethod
    def _train(self) -> None:
        """Make the steps of all epochs, or up to a signal or a reason to stop."""

    @abstractmethod
    def _count_epoch(self) -> None:
        """See that sums over all ranks are in the state of rank 0, at the end of an epoch."""

    # Beginning and end

    def _begin(self) -> None:
        """Give all ranks rank 0's network, optimizer state and counters."""
        world, engine, host, main = self.world, self.engine, self.host, self.rank == 0
        with world.together("preparing the network"):
            if main:
                batches = self.run.samples.count // host.batch_size
                self.strategy.check_resumed(host.notes, self.state, batches, self.workers)
        told = tensors = None
        if main:
            tensors, network = engine.net.to_tensors()
            tensors = tensors | state_tensors(self.state)
            told = {"network": network, "counters": self.state.counters(), "stopped": host.stop_reason is not None}
        told = world.broadcast_json(told)
        tensors = wire.broadcast_tensors(world, tensors)
        with world.together("taking over the network of rank 0"):
            if not main:
                engine.net.take_layers(SparseMLP.from_tensors(tensors, told["network"]))
                engine.state = restore_state(engine.net, engine.optimizer, self.run.topology, tensors, told["counters"])
        self._stopped = told["stopped"]
        host.notes["workers"] = self.workers

    def _end(self) -> None:
        """Save, and give all ranks the network and the history that rank 0 ends with."""
        host, main = self.host, self.rank == 0
        if main and self.signal:
            host.save()
        elif main:
            host.conclude()
        self.link.share([0.0])  # rank 0 may fail there, and tells
        if self.signal or not self.strategy.broadcast:
            if not main:
                self.engine.net.drop_connections()  # it may not be what rank 0 ended with
            return
        result = pack_result(self.engine.net, host.history_rows) if main else None
        tensors = wire.broadcast_tensors(self.world, result)
        if not main:
            host.take_result(tensors)

    def _report(self) -> ParallelReport | None:
        memory = rank_memory()
        mine = [self._computed, memory.get("rss_anon", 0), memory.get("rss_shmem", 0)]
        everyone = self.world.gather_json(mine)
        if everyone is None:
            return None
        for rank, (_, private, shared) in enumerate(everyone):
            self.tally.memory(rank, self.world.node_of[rank], private, shared)
        return self.tally.report(
            strategy=self.strategy.name,
            transport="messages",
            library=self.world.library,
            nodes=self.world.nodes,
            updates_sent=[computed for computed, _, _ in everyone],
        )

    # On the way

    @property
    def _samples(self) -> int:
        """Samples that all ranks have trained on, counted from the first epoch."""
        return (self.state.epoch * self.per_epoch + self.state.batch) * self.workers * self.host.batch_size

    @property
    def _goes_on(self) -> bool:
        return self.state.epoch < self.host.epochs and not self.signal and not self._stopped

    @property
    def _progress(self) -> Progress:
        step, per_epoch = self.state.step, self.per_epoch
        return Progress(step, step / per_epoch, per_epoch, self.host.epochs)

    def _rows(self, rank: int) -> NDArray[np.int64]:
        """Return the samples of the next step of a rank, from its shard of the epoch's order."""
        state, size = self.state, self.host.batch_size
        if state.epoch != self._epoch:
            self._epoch, self._order = state.epoch, self.run.samples.order(self.host.seed, state.epoch)
        batch = shard(self.per_epoch * self.workers, rank, self.workers).start + state.batch
        return self._order[batch * size : (batch + 1) * size]

    def _close_epoch(self) -> None:
        """Write the row of an epoch on rank 0, and hear whether it is to be the last."""
        state, host = self.state, self.host
        state.train_seconds = time.perf_counter() - self._started - state.evolve_seconds
        self._count_epoch()
        if self.rank == 0:
            host.close_epoch(self.per_epoch * self.workers * host.batch_size)
        else:
            state.start_epoch(state.epoch + 1)
        told = self.link.share([host.stop_reason is not None, host.received() or 0])
        self._stopped, self.signal = bool(told[0, 0]), max(self.signal, int(told[:, 1].max()))
        self._started = time.perf_counter()

    def _compare(self, what: str, marks: list[int]) -> None:
        """See that all ranks have the same, layer by layer; `marks` are checksums.

        Raises
        ------
        FoundByAll
            With a ParallelError that names the ranks.
        """
        table = self.link.share([float(mark) for mark in marks])
        found, counts = np.unique(table, axis=0, return_counts=True)
        if len(found) == 1:
            return
        usual = table[0] if counts.max() == 1 or 2 * counts.max() == self.workers else found[counts.argmax()]
        different = [rank for rank in range(self.workers) if (table[rank] != usual).any()]
        layers = np.flatnonzero((table != usual).any(axis=0))
        raise FoundByAll(
            ParallelError(
                f"the {what} of ranks are not the same any more before step {self.state.step}: those of ranks "
                f"{', '.join(map(str, different))} differ from the others' in layers {', '.join(map(str, layers))}; "
                "a callback that changes the network of rank 0, or a fault of a machine, does this; resume from the "
                "last checkpoint with --resume"
            )
        )

    def _check_finite(self, loss: float, error: Callable[[Exception], Exception]) -> None:
        if not math.isfinite(loss):
            raise error(
                DivergenceError(
                    f"the loss became {loss} in epoch {self.state.epoch + 1}, step {self.state.step}; lower the "
                    "learning rate (with allreduce: scale_lr=False, or a longer warmup_epochs), or clip gradients with "
                    "clip_norm"
                )
            )

    def _note_size(self) -> None:
        net = self.engine.net
        self.tally.topology(4 * (net.connections + sum(layer.n_out for layer in net.layers)))


class AllReducePeer(Peer[AllReduce]):
    """A rank that makes every step together with all others."""

    phase = "synchronous"

    def _train(self) -> None:
        run, state = self.run, self.state
        run.stands_for = self.workers
        self._lay_out()
        while self._goes_on:
            if state.batch == 0 and state.epoch and not state.evolved:
                self.strategy.correct_momentum(self.engine, self.workers, state.epoch - 1, state.epoch)
            progress = self._progress
            lr = self.strategy.rate(self.engine.optimizer, progress, self.workers, 0)
            if not state.evolved and run.acts(progress):
                measured = run.evolve(self._rows(0), progress, lr, self.host.on_evolution)
                self._lay_out()
                if measured is None:
                    continue
                self._check_finite(measured[0], FoundByAll)
            else:
                self._step(lr)
            self.host.on_step()
            if state.batch == self.per_epoch:
                self._close_epoch()

    def _lay_out(self) -> None:
        """Make the gradient one array, for the network as it is now."""
        layout = Layout.of(self.engine.net)
        self._gradient: Floats = _kernels.aligned_zeros(layout.size)
        self.engine.gradient = layout.parameters(self._gradient)
        self._mean = Mean(self.link, layout.size, self.engine.threads)
        self._note_size()

    def _step(self, lr: float) -> None:
        state, samples, link = self.state, self.run.samples, self.link
        step, idle, sent = state.step, link.idle_seconds, link.bytes_sent
        started = time.perf_counter()
        state.step = step * self.workers + self.rank  # keys the random draws
        loss, correct = self.engine.compute(samples.inputs, samples.targets, self._rows(self.rank))
        state.step = step
        self._computed += 1
        computing = time.perf_counter() - started
        signal = self.host.received() or 0
        told = link.start_sharing([loss, correct, signal, computing, self._waited])
        self._mean.of(self._gradient)
        everyone = told.finish()
        self._waited = link.idle_seconds - idle
        for other in everyone[:, 0]:
            self._check_finite(float(other), FoundByAll)
        self.engine.apply(lr)
        self._count(everyone, link.bytes_sent - sent)

    _waited = 0.0
    """Of the step before: that of a step is not known when it tells."""

    def _count(self, everyone: Numbers, bytes_sent: int) -> None:
        rows = everyone.tolist()
        self.signal = int(max(row[2] for row in rows))
        self.run.count_batch(sum(row[0] for row in rows), sum(int(row[1]) for row in rows))
        if self.rank == 0:
            for worker, (_, _, _, computing, waited) in enumerate(rows):
                self.tally.applied(worker, 0, bytes_sent, bytes_sent, computing, waited)

    def _count_epoch(self) -> None:
        self._compare("networks", [_checksum(layer, self.state) for layer in self.engine.net.layers])


class GossipPeer(Peer[Decentralized]):
    """A rank that trains a network of its own, and averages it with others."""

    phase = "decentralized"

    def _train(self) -> None:
        run, state, engine, host = self.run, self.state, self.engine, self.host
        self._told: Sharing | None = None
        self._lay_out()
        while self._goes_on:
            progress = self._progress
            lr = engine.optimizer.lr_at(progress)
            if not state.evolved and run.acts(progress):
                measured = self._evolve(progress, lr)
                if measured is None:
                    continue
                self._check_finite(measured[0], FoundByAll)
            else:
                self._step(progress, lr)
            host.on_step()
            if state.step % self.strategy.every == 0:
                self._gossip(state.step // self.strategy.every)
            if state.batch == self.per_epoch:
                if state.epoch + 1 == host.epochs:
                    self._average()
                self._close_epoch()
        if self._told is not None:
            self._told.finish()
        if state.epoch < host.epochs:  # a signal, or a callback: what each has is worth keeping
            self._average()

    def _lay_out(self) -> None:
        """Make room for the parameters in one array, for the network as it is now."""
        self._layout = Layout.of(self.engine.net)
        self._flat: Floats = _kernels.aligned_zeros(self._layout.size)
        self._theirs: Floats = _kernels.aligned_empty(self._layout.size)
        self._mean = Mean(self.link, self._layout.size, self.engine.threads)
        self._note_size()

    def _step(self, progress: Progress, lr: float) -> None:
        """Make a step on this rank's own batch, with its own dropout."""
        started = time.perf_counter()
        self.engine.seed = worker_seed(self.host.seed, self.rank)
        loss = self.run.step(self._rows(self.rank), progress, lr, self.host.on_evolution)
        self.engine.seed = self.host.seed
        self._compute_seconds += time.perf_counter() - started
        self._computed += 1
        self._check_finite(loss, lambda error: error)

    def _evolve(self, progress: Progress, lr: float) -> tuple[float, int] | None:
        """Evolve the mean of all networks: on each rank, with the same result."""
        self._average()
        measured = self.run.evolve(self._rows(0), progress, lr, self.host.on_evolution)
        self._lay_out()
        self._compare("connections", [_pattern_checksum(layer) for layer in self.engine.net.layers])
        return measured

    def _average(self) -> None:
        """Replace the network by the mean over all ranks."""
        self._layout.copy_values(self.engine.net, self._flat)
        self._mean.of(self._flat)
        self._put_back()

    def _gossip(self, number: int) -> None:
        """Average with this round's partner; hear of signals that had come by the round before."""
        signal = self.host.received() or 0
        told = self.link.start_sharing([signal])
        other = partner(self.host.seed, number, self.rank, self.workers)
        if other is not None:
            self._layout.copy_values(self.engine.net, self._flat)
            self.link.exchange(self._flat, self._theirs, other)
            pair = [self._flat, self._theirs] if self.rank < other else [self._theirs, self._flat]
            _kernels.average(pair, self._flat, self.engine.threads)
            self._put_back()
        # a round late: all ranks decide alike, and none waits for more than its partner
        if self._told is not None:
            self.signal = int(self._told.finish().max())
        self._told = told

    def _put_back(self) -> None:
        parts = self._layout.parameters(self._flat)
        for layer, weights, bias, trained in zip(
            self.engine.net.layers, parts.weights, parts.biases, parts.activations, strict=True
        ):
            layer.values[...] = weights
            layer.bias[...] = bias
            for name, array in layer.activation_parameters.items():
                array[...] = trained[name]

    def _count_epoch(self) -> None:
        """Add up what the ranks did in this epoch."""
        state, link, tally = self.state, self.link, self.tally
        mine = [state.loss_sum, state.correct, self._computed, self._compute_seconds, link.idle_seconds]
        mine += [link.bytes_sent, state.train_seconds, state.evolve_seconds]
        everyone = link.share(mine)
        state.loss_sum, state.correct = float(sum(everyone[:, 0].tolist())), int(everyone[:, 1].sum())
        state.train_seconds, state.evolve_seconds = (float(everyone[:, i].mean()) for i in (6, 7))
        if self.rank == 0:
            new = everyone[:, 2:6] - self._counted
            self._counted = everyone[:, 2:6].copy()
            for worker, (steps, computing, idle, sent) in enumerate(new.tolist()):
                for _ in range(int(steps)):
                    tally.applied(worker, 0, round(sent / steps), round(sent / steps), computing / steps, idle / steps)

    _counted: Numbers | float = 0.0


def partner(seed: int, number: int, rank: int, size: int) -> int | None:
    """Return with whom a rank exchanges in a round, None if it rests: a random matching that all ranks know.

    Parameters
    ----------
    seed : int
        Of the run.
    number : int
        Of the round.
    rank, size : int
    """
    order = _kernels.shuffle(size, seed=seed, purpose="worker", layer=_PAIRING, step=number).tolist()
    place = order.index(rank) ^ 1
    return order[place] if place < size else None


def _crc(arrays: list[NDArray[Any]]) -> int:
    mark = 0
    for array in arrays:
        mark = zlib.crc32(np.ascontiguousarray(array).data, mark)
    return mark


def _pattern_checksum(layer: SparseLayer) -> int:
    return _crc([layer.pattern.row_ptr, layer.pattern.col_idx])


def _checksum(layer: SparseLayer, state: TrainState) -> int:
    """Return a checksum of all that is trained in a layer, its connections and its optimizer state."""
    slots = [state.weight_slots[layer.index], state.bias_slots[layer.index]]
    slots += state.activation_slots[layer.index].values()
    trained = [*layer.activation_parameters.values(), *(array for some in slots for array in some.values())]
    return _crc([layer.pattern.row_ptr, layer.pattern.col_idx, layer.values, layer.bias, *trained])
