# SPDX-License-Identifier: BSD-3-Clause
"""How several processes train one network: what a user chooses between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trulysparse import _kernels
from trulysparse.engine import TrainState
from trulysparse.errors import ConfigError, ParallelError
from trulysparse.model import SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.model.registry import Configurable, Registry, check_integer, check_number
from trulysparse.optim import Optimizer
from trulysparse.topology import ImportancePruning, Topology

if TYPE_CHECKING:
    from trulysparse.engine import Engine
    from trulysparse.parallel.host import Host
    from trulysparse.parallel.report import ParallelReport
    from trulysparse.parallel.world import World

TRANSPORTS = ("auto", "shared", "messages")


class Parallel(Configurable):
    """Base of all ways to train in several processes, one of which runs on each MPI rank.

    Attributes
    ----------
    minimum : int
        Least number of processes.
    masters : int
        How many of them do not train.
    """

    minimum = 2
    masters = 0

    def workers(self, size: int) -> int:
        """Return how many of `size` processes train."""
        return size - self.masters

    def check(self, net: SparseMLP, topology: Topology, pruning: ImportancePruning | None) -> None:
        """Raise ConfigError if the rules cannot be carried out in several processes."""
        name = type(topology).__name__
        if topology.explores or topology.observes:
            why = "trains connections beside the network's own" if topology.explores else "watches every step"
            raise ConfigError(
                f"{name} {why}, which parallel training does not do; choose a rule that acts between steps "
                "(set, static, rigl, gmp, mest), or train in one process"
            )

    def check_run(self, batches: int, workers: int, epochs: int) -> None:
        """Raise ConfigError if there is not a batch for every worker."""
        if batches < workers:
            raise ConfigError(
                f"an epoch has {batches} whole batches for {workers} workers, which leaves some without any; start at "
                f"most {batches} workers (mpiexec -n {batches + self.masters}), or make batch_size smaller"
            )

    def steps_per_epoch(self, batches: int, workers: int) -> int:
        """Return the steps that the network makes in an epoch."""
        raise NotImplementedError

    def rate_factor(self, epoch: int, workers: int) -> float:
        """Return what the learning rate is multiplied by in an epoch of common steps."""
        return 1.0

    def rate(self, optimizer: Optimizer, progress: Progress, workers: int, staleness: int) -> float:
        """Return the learning rate of the update that comes next."""
        return optimizer.lr_at(progress) * self.rate_factor(progress.finished_epochs, workers)

    def correct_momentum(self, engine: Engine, workers: int, before: int, now: int | None) -> None:
        """Scale the velocity as the learning rate from one epoch to another (None: to 1): it is a sum of steps."""
        factor = self.rate_factor(before, workers)
        rate = 1.0 if now is None else self.rate_factor(now, workers)
        if rate != factor and "velocity" in engine.optimizer.slots:
            state = engine.state
            trained = [slots for parameters in state.activation_slots for slots in parameters.values()]
            for slots in (*state.weight_slots, *state.bias_slots, *trained):
                _kernels.scale(slots["velocity"], rate / factor, engine.threads)

    def check_resumed(self, notes: Mapping[str, Any], state: TrainState, batches: int, workers: int) -> None:
        """See that the steps of a resumed run can be counted on with the workers that there are now.

        Parameters
        ----------
        notes : mapping
            Of the checkpoint; "workers" is how many there were.
        state : TrainState
            Its steps are counted anew where an epoch has another number of them.
        batches, workers : int

        Raises
        ------
        ParallelError
            Within an epoch that would have another number of steps.
        """
        before, per_epoch = notes.get("workers", workers), self.steps_per_epoch(batches, workers)
        if before == workers or batches == per_epoch == self.steps_per_epoch(batches, before):
            return
        if state.batch:
            raise ParallelError(
                f"the run was stopped within an epoch of {before} workers, and cannot go on there with {workers}; "
                f"start it with mpiexec -n {before + self.masters}"
            )
        state.step = state.epoch * per_epoch

    def threads(self, world: World, asked: int | None) -> int:
        """Return the threads of a process: its part of the node's cores, unless a number was asked for."""
        busy = max(1, world.node_size - (self.masters if world.node_of[0] == world.node_of[world.rank] else 0))
        return max(1, _kernels.default_threads() // busy) if asked is None else _kernels.resolve_threads(asked)

    def prepare(self, net: SparseMLP, optimizer: Optimizer, epochs: int, threads: int, world: World) -> str | None:
        """Check cores and memory before anything is shared out; all ranks call this.

        Returns
        -------
        str or None
            On rank 0, what the run will take.
        """
        world.check_cores(threads, range(self.masters, world.size))
        return None

    def train(self, host: Host, world: World) -> tuple[int, ParallelReport | None]:
        """Carry out the run; all ranks call this.

        Returns
        -------
        signal : int
            The signal that ended it, 0 for none.
        report : ParallelReport or None
            On rank 0.
        """
        raise NotImplementedError


class ParameterServer(Parallel):
    """Base of the two of the paper: a master with the momentum, workers with gradients, then local training."""

    minimum = 2
    masters = 1
    synchronous = False
    phase_two: float
    transport: str
    local_topology: bool
    broadcast: bool

    def _check_common(self) -> None:
        where = type(self).__name__
        self.phase_two = check_number(self.phase_two, f"phase_two of {where}", low=0, high=1)
        if self.transport not in TRANSPORTS:
            raise ConfigError(f"transport of {where} must be one of {', '.join(TRANSPORTS)}, got {self.transport!r}")
        for name in ("local_topology", "broadcast", "staleness_aware"):
            value = getattr(self, name, False)
            if not isinstance(value, bool):
                raise ConfigError(f"{name} of {where} must be true or false, got {value!r}")

    def first_local_epoch(self, epochs: int) -> int:
        """Return the epochs of phase one."""
        return math.floor((1.0 - self.phase_two) * epochs + 0.5)

    def check(self, net: SparseMLP, topology: Topology, pruning: ImportancePruning | None) -> None:
        super().check(net, topology, pruning)
        if pruning is not None and pruning.compact and self.phase_two > 0:
            raise ConfigError(
                "importance pruning with compact=True would give every worker another number of neurons in phase two, "
                "and such networks have no average; set compact=False, or phase_two=0"
            )

    def prepare(self, net: SparseMLP, optimizer: Optimizer, epochs: int, threads: int, world: World) -> str | None:
        from trulysparse.parallel.budget import check_budgets, plan_budgets
        from trulysparse.parallel.transports import choose

        super().prepare(net, optimizer, epochs, threads, world)
        transport = choose(self.transport, world.nodes)
        if world.rank > 0:
            check_budgets(world, None)
            return None
        local = self.first_local_epoch(epochs) < epochs
        budgets = plan_budgets(net, optimizer.slots, world.node_of, shared=transport == "shared", local=local)
        check_budgets(world, budgets)
        of = "" if len(budgets) == 1 else " of the first node"
        return f"{self.workers(world.size)} workers, transport {transport}; memory for models{of}: {budgets[0]}"

    def train(self, host: Host, world: World) -> tuple[int, ParallelReport | None]:
        from trulysparse.parallel.master import Master
        from trulysparse.parallel.worker import Worker

        if world.rank == 0:
            return Master(self, host, world).train()
        return Worker(self, host, world).train(), None


class WASAP(ParameterServer):
    """Asynchronous in phase one, local in phase two, then averaged.  arXiv:2102.01732, algorithm 1.

    Phase one: workers send the gradient of one batch at a time; the master applies each at once (momentum lives there
    alone) and evolves the topology. A gradient that was computed before an evolution is restricted to the connections
    that survived it. Phase two: every worker trains its own copy on its shard, rewiring it after each local epoch. In
    the end the copies are averaged and pruned to the number of connections that one had.

    With more than one worker the result depends on timing and is not reproducible; with one it is that of training in
    one process, bit for bit (with micro-batches and momentum SGD, up to the rounding of their sums).

    Parameters
    ----------
    phase_two : float
        Part of the epochs that is trained locally.
    hot_start : float
        With more than one worker, the learning rate of the first epochs is multiplied by it. The paper wants it larger
        than 1; many workers, or a rate that is large already, want it to be 1, lest training diverge.
    hot_start_epochs : int
        How many.
    transport : {"auto", "shared", "messages"}
        "shared": the model lies once in memory that all processes of the node map; "messages": it travels. "auto" takes
        the first where all processes are on one node.
    local_topology : bool
        False: phase two keeps the connections as they are.
    staleness_aware : bool
        Divide the rate of an update by the number of updates that came between its model and it.
    broadcast : bool
        Whether every process has the trained network in the end; False: only rank 0, which saves memory.
    """

    def __init__(
        self,
        *,
        phase_two: float = 0.3,
        hot_start: float = 1.0,
        hot_start_epochs: int = 5,
        transport: str = "auto",
        local_topology: bool = True,
        staleness_aware: bool = False,
        broadcast: bool = True,
    ) -> None:
        self.phase_two, self.transport = phase_two, transport
        self.local_topology, self.staleness_aware, self.broadcast = local_topology, staleness_aware, broadcast
        self.hot_start = check_number(hot_start, "hot_start of WASAP", low=0, low_open=True)
        self.hot_start_epochs = check_integer(hot_start_epochs, "hot_start_epochs of WASAP", low=0)
        self._check_common()

    def steps_per_epoch(self, batches: int, workers: int) -> int:
        return batches

    def rate_factor(self, epoch: int, workers: int) -> float:
        return self.hot_start if workers > 1 and epoch < self.hot_start_epochs else 1.0

    def rate(self, optimizer: Optimizer, progress: Progress, workers: int, staleness: int) -> float:
        rate = super().rate(optimizer, progress, workers, staleness)
        return rate / max(1, staleness) if self.staleness_aware else rate


class LinearScaling(Parallel):
    """Base of those that average gradients of as many batches as there are workers, and step further for it."""

    scale_lr: bool
    warmup_epochs: int

    def _check_scaling(self) -> None:
        where = type(self).__name__
        if not isinstance(self.scale_lr, bool):
            raise ConfigError(f"scale_lr of {where} must be true or false, got {self.scale_lr!r}")
        self.warmup_epochs = check_integer(self.warmup_epochs, f"warmup_epochs of {where}", low=0)

    def rate_factor(self, epoch: int, workers: int) -> float:
        if not self.scale_lr:
            return 1.0
        part = min(epoch, self.warmup_epochs) / self.warmup_epochs if self.warmup_epochs else 1.0
        return 1.0 + (workers - 1) * part


class WASSP(LinearScaling, ParameterServer):
    """Synchronous in phase one: the mean gradient of all workers is one step; phase two as in `WASAP`.

    The learning rate grows in a straight line from its value to K times it over the first epochs, K = workers, and the
    velocity with it (gradual warm-up and linear scaling, Goyal et al. 2017, as in arXiv:2102.01732). For a given number
    of workers the result is reproducible, bit for bit, up to the instruction set.

    Parameters
    ----------
    phase_two : float
        Part of the epochs that is trained locally.
    scale_lr : bool
        False: the learning rate stays what it is.
    warmup_epochs : int
        How long it grows.
    transport : {"auto", "shared", "messages"}
        As in `WASAP`.
    local_topology : bool
        False: phase two keeps the connections as they are.
    broadcast : bool
        As in `WASAP`.
    """

    synchronous = True

    def __init__(
        self,
        *,
        phase_two: float = 0.3,
        scale_lr: bool = True,
        warmup_epochs: int = 5,
        transport: str = "auto",
        local_topology: bool = True,
        broadcast: bool = True,
    ) -> None:
        self.phase_two, self.transport = phase_two, transport
        self.local_topology, self.broadcast = local_topology, broadcast
        self.scale_lr, self.warmup_epochs = scale_lr, warmup_epochs
        self._check_scaling()
        self._check_common()

    def steps_per_epoch(self, batches: int, workers: int) -> int:
        return batches // workers


PARALLEL: Registry[Parallel] = Registry("parallel strategy", Parallel)
PARALLEL.register("wasap")(WASAP)
PARALLEL.register("wassp")(WASSP)


def get_parallel(spec: Parallel | str | Mapping[str, Any] | None) -> Parallel | None:
    """Return a strategy from itself, its name, or a mapping of ``name`` and arguments; None stays None."""
    return None if spec is None else PARALLEL.get(spec)
