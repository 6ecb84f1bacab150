# SPDX-License-Identifier: BSD-3-Clause
"""A worker of a parameter server: gradients for the master, then training on its own."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import TrainState, restore_state, state_tensors
from trulysparse.errors import DivergenceError, ParallelError
from trulysparse.model.progress import Progress
from trulysparse.parallel import wire
from trulysparse.parallel.batches import shard
from trulysparse.parallel.master import FINAL_TAG, GATHER_TAG, STATE_TAG
from trulysparse.parallel.transport import Do, Order, Said, Update
from trulysparse.parallel.transports import open_client
from trulysparse.parallel.world import is_told, mark_told, rank_memory
from trulysparse.topology import Static

if TYPE_CHECKING:
    from trulysparse.parallel.host import Host
    from trulysparse.parallel.strategies import ParameterServer
    from trulysparse.parallel.world import World

_STEPS_BETWEEN_LOOKS = 256  # at one's own memory


def worker_seed(seed: int, worker: int) -> int:
    """Return the seed of a worker's own random streams; worker 0 has those of a run in one process."""
    if worker == 0:
        return seed
    low, high, _, _ = _kernels.philox(seed, purpose="worker", layer=0, step=0, index=worker)
    return int(high) << 32 | int(low)


class Worker:
    """A rank that trains for a parameter server.

    Parameters
    ----------
    strategy : ParameterServer
    host : Host
    world : World
    """

    def __init__(self, strategy: ParameterServer, host: Host, world: World) -> None:
        self.strategy, self.host, self.world = strategy, host, world
        self.run, self.engine = host.run, host.run.engine
        self.worker, self.workers = world.rank - 1, world.size - 1
        self.client = open_client(strategy, world, host.run)
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._idle_seconds = 0.0
        self._sent = 0
        self._keeps = self._averaged = False

    def _say(self, update: Update) -> None:
        """Send an update, with what the master wants to know of every worker."""
        if update.kind != Said.GRADIENT or self._sent % _STEPS_BETWEEN_LOOKS == 1:
            memory = rank_memory()
            update.private_bytes, update.shared_bytes = memory.get("rss_anon", 0), memory.get("rss_shmem", 0)
        update.sent = self._sent
        self.client.send(update)

    def train(self) -> int:
        """Do what the master says until it says that all is done; return the signal that ended the run, 0 for none."""
        client = self.client
        try:
            while True:
                started = time.perf_counter()
                order = client.receive()
                self._idle_seconds += time.perf_counter() - started
                if order.kind == Do.FINISH:
                    self._finish(order)
                    return order.argument
                if order.kind == Do.ABORT:
                    raise mark_told(ParallelError(order.text))
                self._carry_out(order)
        except BaseException as error:
            if not is_told(error):
                self._say(Update(Said.FAILED, text=f"{type(error).__name__}: {error}"))
                mark_told(error)
            raise
        finally:
            self.engine.seed = self.host.seed
            self.host.end_worker(averaged=self._averaged)
            if not self._keeps:
                self._give_up()
            self.engine.own_gradient()
            client.close()

    def _give_up(self) -> None:
        """Keep nothing: what is here may lie in memory that goes, or is one worker's alone."""
        engine = self.engine
        engine.net.drop_connections()
        engine.state = TrainState.fresh(engine.net, engine.optimizer, self.run.topology)

    def _finish(self, order: Order) -> None:
        """Take the trained network, if it comes."""
        self.world.broken = order.batch > 0
        self._averaged = not order.argument
        if order.number:
            self.host.take_result(wire.receive_tensors(self.world, 0, FINAL_TAG))
            self._keeps = True

    def _carry_out(self, order: Order) -> None:
        if order.kind == Do.OPEN:
            self.client.open_model()
            self._say(Update(Said.READY))
        elif order.kind == Do.COMPUTE:
            self._compute(order)
        elif order.kind == Do.LOCAL:
            self._train_locally(order)
        elif order.kind == Do.GATHER:
            self._give()
        elif order.kind == Do.STOP:
            self.host.save()
            self._say(Update(Said.STOPPED))
        else:
            raise ParallelError(f"the master sent an order of kind {order.kind}, which this version does not know")

    def _compute(self, order: Order) -> None:
        """Send the gradient of one batch."""
        started = time.perf_counter()
        samples, size = self.run.samples, self.host.batch_size
        if order.epoch != self._epoch:
            self._epoch, self._order = order.epoch, samples.order(self.host.seed, order.epoch)
        rows = self._order[order.batch * size : (order.batch + 1) * size]
        self.engine.state.step = order.number
        self._sent += 1
        loss, correct = self.engine.compute(samples.inputs, samples.targets, rows, self.client.layer_done)
        self._say(
            Update(
                Said.GRADIENT,
                number=order.number,
                slot=order.slot,
                loss=loss,
                correct=correct,
                stop=self.host.received() or 0,
                compute_seconds=time.perf_counter() - started,
                idle_seconds=self._idle_seconds,
            )
        )
        self._idle_seconds = 0.0

    def _train_locally(self, order: Order) -> None:
        """Train a network of one's own on one's shard, from the master's as it is, until the epochs are over."""
        host, run, engine, client = self.host, self.run, self.engine, self.client
        client.own_model(engine.net, engine.state)
        received = wire.receive_tensors(self.world, 0, STATE_TAG)
        counters = json.loads(received.pop("counters").tobytes())
        host.begin_worker(self.worker, counters.pop("run"), order.epoch)
        engine.state = restore_state(
            engine.net, engine.optimizer, run.topology, state_tensors(engine.state) | received, counters
        )
        per_epoch = (run.samples.count // host.batch_size) // self.workers
        resumed = bool(order.argument) and host.resume_worker()
        self._say(Update(Said.READY))
        client.free_model()
        engine.seed = worker_seed(host.seed, self.worker)
        if not self.strategy.local_topology:
            run.topology, run.pruning = Static(), None
        state = engine.state
        if resumed:
            for row in host.history_rows:
                if row["epoch"] > order.epoch:
                    self._tell(row, per_epoch * host.batch_size, again=True)
        else:
            state.start_epoch(order.epoch)
            state.step = order.epoch * per_epoch
        while state.epoch < host.epochs:
            stop = self._local_epoch(per_epoch)
            if stop is not None:
                self._carry_out(stop)
                return
        self._say(Update(Said.DONE, number=state.evolutions))

    def _local_epoch(self, per_epoch: int) -> Order | None:
        """Train one epoch; return the order that interrupted it."""
        host, run, state, size = self.host, self.run, self.engine.state, self.host.batch_size
        signalled = False
        mine = shard(per_epoch * self.workers, self.worker, self.workers)
        order: NDArray[np.int64] = run.samples.order(host.seed, state.epoch)[mine.start * size : mine.stop * size]
        while state.batch < per_epoch:
            rows = order[state.batch * size : (state.batch + 1) * size]
            progress = Progress(state.step, state.step / per_epoch, per_epoch, host.epochs)
            lr = self.engine.optimizer.lr_at(progress)
            loss = run.step(rows, progress, lr, host.on_evolution)
            if not np.isfinite(loss):
                raise DivergenceError(
                    f"the loss became {loss} in local epoch {state.epoch + 1}; lower the learning rate"
                )
            if host.received() and not signalled:
                signalled = True
                self._say(Update(Said.SIGNAL, stop=host.received() or 0))
            told = self.client.poll()
            if told is not None:
                if told.kind == Do.ABORT:
                    raise mark_told(ParallelError(told.text))
                return told
        judge = state.epoch % self.workers == self.worker
        row = host.close_epoch(per_epoch * size, validate=judge)
        self._tell(row, per_epoch * size)
        return None

    def _tell(self, row: dict[str, object], samples: int, *, again: bool = False) -> None:
        """Report a local epoch; `again` if it was trained before the run was resumed."""

        def number(key: str) -> float:
            value = row[key]
            return float("nan") if value is None else float(value)  # type: ignore[arg-type]

        accuracy = number("accuracy")
        self._say(
            Update(
                Said.EPOCH,
                number=int(again),
                epoch=int(number("epoch")),
                samples=samples,
                loss=number("loss") * samples,
                correct=0 if np.isnan(accuracy) else round(accuracy * samples),
                connections=int(number("connections")),
                val_loss=number("val_loss"),
                val_accuracy=number("val_accuracy"),
                train_seconds=number("train_seconds"),
                eval_seconds=number("eval_seconds"),
                evolve_seconds=number("evolve_seconds"),
            )
        )

    def _give(self) -> None:
        """Send the network, layer by layer."""
        for layer in self.engine.net.layers:
            tensors = {
                "row_ptr": layer.pattern.row_ptr,
                "col_idx": layer.pattern.col_idx,
                "weights": layer.values,
                "bias": layer.bias,
                **layer.activation_parameters,
            }
            if layer.index in self.engine.state.pruned:
                tensors["pruned"] = self.engine.state.pruned[layer.index]
            wire.send_tensors(self.world, tensors, 0, GATHER_TAG)
