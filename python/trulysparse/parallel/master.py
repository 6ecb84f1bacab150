# SPDX-License-Identifier: BSD-3-Clause
"""The parameter server: it owns the model, applies what workers send, and evolves the topology."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import TrainState, state_tensors
from trulysparse.errors import DivergenceError, ParallelError
from trulysparse.model import Pattern
from trulysparse.model.progress import Progress
from trulysparse.parallel import wire
from trulysparse.parallel.average import average_layers
from trulysparse.parallel.batches import Batches, Ticket
from trulysparse.parallel.host import pack_result
from trulysparse.parallel.report import ParallelReport, Tally
from trulysparse.parallel.transport import Do, Order, Said, Server, Update
from trulysparse.parallel.transports import open_server
from trulysparse.parallel.world import mark_told, rank_memory

if TYPE_CHECKING:
    from trulysparse.parallel.host import Host
    from trulysparse.parallel.strategies import ParameterServer
    from trulysparse.parallel.world import World

_WAIT_SECONDS = 0.2
GATHER_TAG, STATE_TAG, FINAL_TAG = 9_000, 9_001, 9_002


@dataclass(frozen=True)
class _Flight:
    """A batch that a worker computes on, and the step at which it got its model."""

    ticket: Ticket
    step: int


class Master:
    """Rank 0 of a run with a parameter server.

    Parameters
    ----------
    strategy : ParameterServer
    host : Host
    world : World
    """

    def __init__(self, strategy: ParameterServer, host: Host, world: World) -> None:
        self.strategy, self.host, self.world = strategy, host, world
        self.run, self.engine = host.run, host.run.engine
        self.batches = host.run.samples.count // host.batch_size
        self.workers = strategy.workers(world.size)
        self.server: Server = open_server(strategy, world, host.run)
        self.tally = Tally(self.workers)
        self._idle: list[int] = []
        self._signal = 0
        self._samples = 0
        self._early: list[Update] = []
        self._last_row: dict[str, Any] | None = None
        self._sent: list[int | None] = [None] * self.workers
        self._orders: dict[int, NDArray[np.int64]] = {}
        host.notes.setdefault("run", uuid.uuid4().hex)

    @property
    def state(self) -> TrainState:
        """Where the run stands."""
        return self.engine.state

    def train(self) -> tuple[int, ParallelReport | None]:
        """Carry out the run and return the signal that ended it (0: none), and what was measured, if anything."""
        begun = self.state.step
        first_local = self.strategy.first_local_epoch(self.host.epochs)
        try:
            if self.host.notes.get("phase") != 2:
                self.strategy.check_resumed(self.host.notes, self.state, self.batches, self.workers)
            if self.state.epoch < first_local and self.host.notes.get("phase") != 2:
                self._phase_one(first_local)
            if self._is_local_next():
                self._phase_two(first_local)
            if not self._signal:
                self.host.conclude()
            self._finish()
        except BaseException as error:
            for worker in self.server.living:
                self.server.send(worker, Order(Do.ABORT, text=f"the master failed: {error}"))
            mark_told(error)
            raise
        finally:
            if self.server.has_model:
                self.server.own_model(self.engine.net, self.state)
            self.server.close()
        return self._signal, self._report() if self.state.step > begun else None

    def _finish(self) -> None:
        """Let the workers go, with the trained network if they are to have it."""
        gives = self.strategy.broadcast and not self._signal
        for worker in self.server.living:
            order = Order(Do.FINISH, number=int(gives), batch=len(self.server.lost), argument=self._signal)
            self.server.send(worker, order)
        self.world.broken = bool(self.server.lost)
        if gives:
            result = pack_result(self.engine.net, self.host.history_rows)
            for worker in self.server.living:
                with self._mourned(worker):
                    wire.send_tensors(self.world, result, worker + 1, FINAL_TAG)

    @contextmanager
    def _mourned(self, worker: int) -> Iterator[None]:
        """Go on without a worker that dies meanwhile."""
        try:
            yield
        except wire.mpi_error() as error:
            if not wire.is_death(error):
                raise
            self.server.lost.add(worker)

    def _is_local_next(self) -> bool:
        return self.state.epoch < self.host.epochs and not self._signal and self.host.stop_reason is None

    # Phase one

    def _phase_one(self, end: int) -> None:
        state, net, server = self.state, self.engine.net, self.server
        started, samples = time.perf_counter(), self._samples
        self._open()
        self._note_size()
        self._idle = list(server.living)
        self.run.settle = lambda layer, delta: server.settle(net, state, layer.index, delta)
        self.run.stands_for = self.workers if self.strategy.synchronous else 1
        self.host.notes.update({"phase": 1, "workers": self.workers})
        try:
            if self.strategy.synchronous:
                self._synchronous(end)
            else:
                self._asynchronous(end)
        finally:
            self.run.settle = None
        if not self._is_local_next():
            server.own_model(net, state)
        if self._signal:
            self.host.save()
        self.tally.phase("one", time.perf_counter() - started, self._samples - samples)

    def _asynchronous(self, end: int) -> None:
        """Hand out batches, apply gradients as they come."""
        state, idle = self.state, self._idle
        left = self.host.notes.pop("left", None)
        if not state.batch:
            left = None
        elif left is None or sum(stop - start for start, stop in left) != self.batches - state.batch:
            left = [[state.batch, self.batches]]
        pool = Batches(self.batches, self.workers, epoch=state.epoch, end=end, number=state.step, left=left)
        flying: dict[int, _Flight] = {}
        self.host.note_with(lambda: {"left": _left(pool, flying, state.epoch)})
        self._started = time.perf_counter()
        while True:
            ending = bool(self._signal) or self.host.stop_reason is not None
            while idle and not ending and self._ready(pool, len(flying)):
                ticket = pool.take(idle[0])
                if ticket is None:
                    break
                self._compute(idle.pop(0), ticket, flying)
            if not flying:
                break
            update = self._receive()
            for worker in [k for k in flying if k in self.server.lost]:
                pool.give_back(flying.pop(worker).ticket)
            if update is None or update.worker not in flying:
                continue
            flight = flying.pop(update.worker)
            idle.append(update.worker)
            self._check_finite(update.loss)
            gradient, carried = self.server.gradient(update.slot)
            staleness = state.step - flight.step
            self.engine.gradient = gradient
            self._apply(staleness)
            self._count(update, staleness, carried)
            self.run.count_batch(update.loss, update.correct)
            self._end_step()
        self.host.notes["left"] = pool.left
        self.host.note_with(dict)

    def _ready(self, pool: Batches, flying: int) -> bool:
        """Carry out the evolution that stands before the next ticket; False while it has to wait for other workers."""
        state, server = self.state, self.server
        if state.step >= pool.end * self.batches or (pool.is_empty and (server.holds or self._measures)):
            return True  # the evolution that stands before a local epoch is the workers', and after the last is none
        at = state.step + flying if server.holds else state.step
        progress = self._progress(at)
        if (at == state.step and state.evolved) or not self.run.acts(progress):
            return True
        if at != state.step:
            return False
        ticket = pool.take(0) if self._measures else None
        rows = np.empty(0, np.int64) if ticket is None else self._rows(ticket.epoch, ticket.batch)
        if self._evolve(progress, rows):
            return not (self._signal or self.host.stop_reason) and self._ready(pool, flying)
        if ticket is not None:
            pool.give_back(ticket)
        return True

    @property
    def _measures(self) -> bool:
        return self.run.topology.wants_gradient

    def _synchronous(self, end: int) -> None:
        """Make steps of one batch a worker; all gradients are in before the model moves."""
        state, workers, per_epoch = self.state, self.workers, self.batches // self.workers
        self._started = time.perf_counter()
        while state.epoch < end and not self._signal and self.host.stop_reason is None:
            if state.batch == 0 and state.epoch and not state.evolved:
                self.strategy.correct_momentum(self.engine, self.workers, state.epoch - 1, state.epoch)
            progress = self._progress(state.step)
            if not state.evolved and self.run.acts(progress):
                self._evolve(progress, self._rows(state.epoch, state.batch))
                continue
            jobs = [Ticket(state.step * workers + k, state.epoch, k * per_epoch + state.batch) for k in range(workers)]
            updates = self._all_of(jobs)
            gradients = [self.server.gradient(k)[0] for k in range(workers)]
            flats = [gradient.flat for gradient in gradients if gradient.flat is not None]
            if workers > 1:
                _kernels.average(flats, flats[0], self.engine.threads)
            self.engine.gradient = gradients[0]
            for update in updates:
                self._check_finite(update.loss)
            self._apply(0)
            for update in updates:
                self._count(update, 0, False)
            self.run.count_batch(sum(u.loss for u in updates), sum(u.correct for u in updates))
            self._end_step()

    def _all_of(self, jobs: list[Ticket]) -> list[Update]:
        """Have every job done, those of lost workers by others; return the updates in the order of the jobs."""
        waiting, flying, done = list(range(len(jobs))), dict[int, int](), dict[int, Update]()
        while len(done) < len(jobs):
            while waiting and self._idle:
                worker, slot = self._idle.pop(0), waiting.pop(0)
                if worker != slot and slot in self._idle:  # each its own slot, where its worker is there
                    self._idle.remove(slot)
                    self._idle.insert(0, worker)
                    worker = slot
                flying[worker] = slot
                self.server.send(worker, self._order(jobs[slot], slot))
            update = self._receive()
            for worker in [k for k in flying if k in self.server.lost]:
                waiting += [flying.pop(worker)]
            if update is not None and update.worker in flying:
                done[flying.pop(update.worker)] = update
                self._idle.append(update.worker)
        self._idle.sort()
        return [done[slot] for slot in range(len(jobs))]

    def _progress(self, step: int) -> Progress:
        per_epoch = self.strategy.steps_per_epoch(self.batches, self.workers)
        return Progress(step, step / per_epoch, per_epoch, self.host.epochs)

    def _rows(self, epoch: int, batch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {epoch: self.run.samples.order(self.host.seed, epoch)}
        size = self.host.batch_size
        return self._orders[epoch][batch * size : (batch + 1) * size]

    def _order(self, ticket: Ticket, slot: int) -> Order:
        return Order(Do.COMPUTE, ticket.number, ticket.epoch, ticket.batch, slot)

    def _compute(self, worker: int, ticket: Ticket, flying: dict[int, _Flight]) -> None:
        flying[worker] = _Flight(ticket, self.state.step)
        self.server.send(worker, self._order(ticket, worker))

    def _receive(self) -> Update | None:
        """Return what a worker says; note signals, and raise what went wrong elsewhere."""
        started = time.perf_counter()
        update = self.server.receive(_WAIT_SECONDS)
        self.tally.master(idle_seconds=time.perf_counter() - started)
        self._signal = self._signal or self.host.received() or 0
        self._idle = [k for k in self._idle if k not in self.server.lost]
        self._check_living()
        if update is None:
            return None
        self._sent[update.worker] = update.sent
        if update.private_bytes:
            self._note_memory(update.worker + 1, update.private_bytes, update.shared_bytes)
        if update.kind == Said.FAILED:
            self.server.failed.add(update.worker)
            raise ParallelError(f"rank {update.worker + 1} failed: {update.text}")
        self._signal = self._signal or update.stop
        return update

    def _check_living(self) -> None:
        if not self.server.living:
            raise ParallelError("every worker died; resume from the last checkpoint with --resume")

    def _apply(self, staleness: int) -> None:
        started = time.perf_counter()
        progress = self._progress(self.state.step)
        self.engine.apply(self.strategy.rate(self.engine.optimizer, progress, self.workers, staleness))
        self.tally.master(apply_seconds=time.perf_counter() - started)

    def _count(self, update: Update, staleness: int, carried: bool) -> None:
        up, down = self.server.bytes_of_update
        self.tally.applied(
            update.worker, staleness, up, down, update.compute_seconds, update.idle_seconds, filtered=carried
        )
        self._samples += self.host.batch_size

    def _note_size(self) -> None:
        net = self.engine.net
        self.tally.topology(4 * (net.connections + sum(layer.n_out for layer in net.layers)))

    def _evolve(self, progress: Progress, rows: NDArray[np.int64]) -> bool:
        """Evolve the network; return whether the step was taken for its gradients."""
        started = time.perf_counter()
        lr = self.strategy.rate(self.engine.optimizer, progress, self.workers, 0)
        measured = self.run.evolve(rows, progress, lr, self.host.on_evolution)
        self.server.publish(self.engine.net, self.state)
        self.tally.master(evolve_seconds=time.perf_counter() - started)
        self._note_size()
        if measured is None:
            return False
        self._check_finite(measured[0])
        self._end_step()
        return True

    def _end_step(self) -> None:
        state, host = self.state, self.host
        host.on_step()
        per_epoch = self.strategy.steps_per_epoch(self.batches, self.workers)
        if state.batch == per_epoch:
            state.train_seconds = time.perf_counter() - self._started - state.evolve_seconds
            started = time.perf_counter()
            host.close_epoch(per_epoch * self.run.stands_for * host.batch_size)
            self.tally.master(evaluate_seconds=time.perf_counter() - started)
            self._started = time.perf_counter()

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the loss became {loss} in epoch {self.state.epoch + 1}, step {self.state.step}; lower the learning "
                "rate, above all with many workers (wasap: hot_start=1 too; wassp: scale_lr=False, or a longer "
                "warmup_epochs), or clip gradients with clip_norm"
            )

    # Phase two

    def _phase_two(self, first_local: int) -> None:
        state, net, server, host = self.state, self.engine.net, self.server, self.host
        resumed = host.notes.get("phase") == 2
        started = time.perf_counter()
        if not resumed:
            if self.strategy.synchronous and first_local:
                self.strategy.correct_momentum(self.engine, self.workers, first_local - 1, None)
            host.notes.update({"phase": 2, "workers": self.workers, "local_from": state.epoch})
            host.notes.pop("left", None)
        elif host.notes["workers"] != self.workers:
            raise ParallelError(
                f"the run is in its local phase with {host.notes['workers']} workers, each with a network of its own, "
                f"and cannot go on with {self.workers}; start it with mpiexec -n {host.notes['workers'] + 1}"
            )
        if not server.has_model:  # the run was resumed here, or has no phase one
            self._open()
        tensors = self._state_tensors()
        for worker in server.living:
            server.send(worker, Order(Do.LOCAL, epoch=host.notes["local_from"], argument=int(resumed)))
        for worker in server.living:
            with self._mourned(worker):
                wire.send_tensors(self.world, tensors, worker + 1, STATE_TAG)
        self._await_ready()
        server.own_model(net, state)
        server.free_model()
        host.save()  # each worker's own checkpoint goes on from here
        evolutions, samples = self._follow_local()
        if self._signal:
            self._stop_local()
        else:
            self._gather(evolutions)
        self.tally.phase("two", time.perf_counter() - started, samples)

    def _state_tensors(self) -> dict[str, NDArray[Any]]:
        """Return what a worker needs to go on alone, besides what it sees in shared memory."""
        tensors, optimizer = state_tensors(self.state), self.engine.optimizer
        if self.server.shares_memory:
            tensors = {
                name: array
                for name, array in tensors.items()
                if not (name.startswith("optimizer.") and name.rpartition(".")[2] in optimizer.slots)
            }
        counters = json.dumps(self.state.counters() | {"run": self.host.notes["run"]})
        return tensors | {"counters": np.frombuffer(counters.encode(), np.uint8)}

    def _open(self) -> None:
        """Give all workers the model."""
        for worker in self.server.living:
            self.server.send(worker, Order(Do.OPEN))
        self.server.open_model(self.engine.net, self.state)
        self._await_ready()

    def _await_ready(self) -> None:
        """Wait until every worker has said that it is."""
        ready: set[int] = set()
        while not ready >= set(self.server.living):
            update = self._receive()
            if update is not None and update.kind == Said.READY:
                ready.add(update.worker)
            elif update is not None:
                self._early.append(update)  # of one that did not wait for the others

    def _follow_local(self) -> tuple[int, int]:
        """Write a row for each epoch that all workers are through with; return evolutions and samples of workers."""
        host, server = self.host, self.server
        epochs: dict[int, dict[int, Update]] = {}
        done: set[int] = set()
        evolutions = samples = 0
        following = len(host.history_rows) + 1
        while not self._signal:
            # every time: a worker that died may have been the last that an epoch waited for
            while following < host.epochs and set(epochs.get(following, ())) >= set(server.living):
                host.add_row(self._row(following, epochs.pop(following)))
                following += 1
            if done >= set(server.living):
                self._last_row = self._row(host.epochs, epochs[host.epochs])
                break
            if host.stop_reason is not None:  # the average is what they have by now
                self._last_row = None
                break
            update = self._early.pop(0) if self._early else self._receive()
            if update is None:
                continue
            if update.kind == Said.DONE:
                done.add(update.worker)
                evolutions = max(evolutions, update.number)
            elif update.kind == Said.EPOCH:
                epochs.setdefault(update.epoch, {})[update.worker] = update
                if not update.number:  # not one of before the run was resumed
                    samples += update.samples
                    self.tally.worked(update.worker, update.train_seconds + update.evolve_seconds)
        return evolutions, samples

    def _stop_local(self) -> None:
        """Have every worker save what it has."""
        for worker in self.server.living:
            self.server.send(worker, Order(Do.STOP, argument=self._signal))
        stopped: set[int] = set()
        while not stopped >= set(self.server.living):
            update = self._receive()
            if update is not None and update.kind == Said.STOPPED:
                stopped.add(update.worker)
        self.host.save()

    def _gather(self, evolutions: int) -> None:
        """Average what the workers have, layer by layer, and make it sparse again (eq. 2)."""
        net, state, host, threads = self.engine.net, self.state, self.host, self.engine.threads
        for worker in self.server.living:
            self.server.send(worker, Order(Do.GATHER))
        for layer in net.layers:
            parts = []
            for worker in self.server.living:
                with self._mourned(worker):
                    parts.append(wire.receive_tensors(self.world, worker + 1, GATHER_TAG))
            self._check_living()
            patterns = [
                Pattern(layer.n_in, layer.n_out, part["row_ptr"], part["col_idx"], validate=False) for part in parts
            ]
            most = max(pattern.nnz for pattern in patterns)
            pattern, values = average_layers(patterns, [part["weights"] for part in parts], most, threads)
            bias = _mean([part["bias"] for part in parts], threads)
            trained = {name: _mean([part[name] for part in parts], threads) for name in layer.activation_parameters}
            layer.replace(pattern, values, bias, trained)
            closed = [part["pruned"] for part in parts if "pruned" in part]
            if len(closed) == len(parts):
                state.pruned[layer.index] = np.logical_and.reduce(closed)
        fresh = TrainState.fresh(net, self.engine.optimizer, self.run.topology)
        state.weight_slots, state.bias_slots = fresh.weight_slots, fresh.bias_slots
        state.activation_slots = fresh.activation_slots
        state.evolutions = max(state.evolutions, evolutions)
        host.notes["phase"] = 1  # averaged: a longer run goes on from one network
        if self._last_row is not None:
            host.add_row(self._last_row | host.evaluate() | {"connections": net.connections})
        state.step = state.epoch * self.strategy.steps_per_epoch(self.batches, self.workers)

    def _row(self, epoch: int, by_worker: dict[int, Update]) -> dict[str, Any]:
        """Return a row of the history for a local epoch: sums and means over the workers.

        Validation is that of the one worker whose turn it was; the last row gets that of the averaged network.
        """
        updates = [by_worker[worker] for worker in sorted(by_worker)]
        has_accuracy = self.engine.net.loss.has_accuracy
        samples = sum(update.samples for update in updates)
        judged = next((u for u in updates if not math.isnan(u.val_loss)), None)
        count = len(updates)
        return {
            "epoch": epoch,
            "loss": sum(u.loss for u in updates) / samples,
            "accuracy": sum(u.correct for u in updates) / samples if has_accuracy else None,
            "val_loss": None if judged is None else judged.val_loss,
            "val_accuracy": None if judged is None or math.isnan(judged.val_accuracy) else judged.val_accuracy,
            "connections": round(sum(u.connections for u in updates) / count),
            "train_seconds": sum(u.train_seconds for u in updates) / count,
            "eval_seconds": sum(u.eval_seconds for u in updates) / count,
            "evolve_seconds": sum(u.evolve_seconds for u in updates) / count,
        }

    def _note_memory(self, rank: int, private: int, shared: int) -> None:
        self.tally.memory(rank, self.world.node_of[rank], private, shared)

    def _report(self) -> ParallelReport:
        memory = rank_memory()
        self._note_memory(0, memory.get("rss_anon", 0), memory.get("rss_shmem", 0))
        net = self.engine.net
        parameters = 4 * (net.connections + sum(layer.n_out for layer in net.layers))
        self.tally.topology(parameters, self.server.topology_bytes)
        return self.tally.report(
            strategy=self.strategy.name,
            transport=self.server.name,
            library=self.world.library,
            nodes=self.world.nodes,
            updates_sent=self._sent,
        )


def _left(pool: Batches, flying: dict[int, _Flight], epoch: int) -> list[list[int]]:
    """Return the ranges of batches of an epoch whose gradients are not in the model."""
    computed = [flight.ticket.batch for flight in flying.values() if flight.ticket.epoch == epoch]
    return (pool.left if pool.epoch == epoch else []) + [[batch, batch + 1] for batch in computed]


def _mean(arrays: list[NDArray[np.float32]], threads: int) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = _kernels.aligned_empty(arrays[0].size)
    _kernels.average(arrays, mean, threads)
    return mean
