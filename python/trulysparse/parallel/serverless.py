# SPDX-License-Identifier: BSD-3-Clause
"""Ways to train in several processes without a parameter server: every process trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trulysparse.model import SparseMLP
from trulysparse.model.registry import check_integer
from trulysparse.optim import Optimizer
from trulysparse.parallel.strategies import PARALLEL, LinearScaling, Parallel

if TYPE_CHECKING:
    from trulysparse.parallel.host import Host
    from trulysparse.parallel.report import ParallelReport
    from trulysparse.parallel.world import World


class Serverless(Parallel):
    """Base of those without a master."""

    minimum = 2
    masters = 0
    copies = 0
    """Arrays as long as all parameters that a process needs beside its network."""

    def steps_per_epoch(self, batches: int, workers: int) -> int:
        return batches // workers

    def prepare(self, net: SparseMLP, optimizer: Optimizer, epochs: int, threads: int, world: World) -> str | None:
        from trulysparse.parallel.budget import check_budgets, plan_peer_budgets

        super().prepare(net, optimizer, epochs, threads, world)
        if world.rank > 0:
            check_budgets(world, None)
            return None
        budgets = plan_peer_budgets(net, optimizer.slots, world.node_of, copies=self.copies)
        check_budgets(world, budgets)
        of = "" if len(budgets) == 1 else " of the first node"
        return f"{world.size} processes without a master; memory for models{of}: {budgets[0]}"


@PARALLEL.register("allreduce")
class AllReduce(LinearScaling, Serverless):
    """Synchronous data parallel: every process has the whole network, and all make each step together.

    A step takes one batch a process; the gradients are averaged, and every process applies the same update to its own
    network and optimizer state. Rewiring and pruning are carried out by each alone, with the same result; a rule that
    looks at gradients measures the same batch everywhere. Once an epoch the processes compare checksums of all that
    they hold. The result for a given number of processes is reproducible, bit for bit, up to the instruction set,
    whatever MPI library carries it, and equals that of ``WASSP(phase_two=0)`` with as many workers.

    Learning rate and velocity grow as in `WASSP` (gradual warm-up and linear scaling, Goyal et al. 2017).

    Parameters
    ----------
    scale_lr : bool
        False: the learning rate stays what it is.
    warmup_epochs : int
        How long it grows.
    """

    copies = 2

    def __init__(self, *, scale_lr: bool = True, warmup_epochs: int = 5) -> None:
        self.scale_lr, self.warmup_epochs = scale_lr, warmup_epochs
        self._check_scaling()

    def train(self, host: Host, world: World) -> tuple[int, ParallelReport | None]:
        from trulysparse.parallel.peers import AllReducePeer

        return AllReducePeer(self, host, world).train()


@PARALLEL.register("decentralized")
class Decentralized(Serverless):
    """Every process trains a network of its own on its shard, and averages it with that of a random other, at times.

    Every `every` steps the processes pair up at random (one rests if their number is odd), and both of a pair go on
    with the mean of their weights, biases and trained activations; nobody waits for more than its partner, and runs
    ahead by two such rounds at most. All have the same connections at all times: before an evolution the networks are
    averaged over all processes, exactly, and then each process rewires (and prunes) its own in the same way, with the
    seed of the run. Dropout is drawn separately by each. Momentum stays where it is, and is never averaged. In the end
    the networks are averaged.

    This is gossip averaging of models (as in Lian et al. 2017, arXiv:1705.09056, with a random matching for a fixed
    graph) for networks that change their connections together. It is not a server without a place: between two
    evolutions no process knows the network of the others, and what a row of the history says of the validation data is
    said of rank 0's network alone, but for the last epoch. So is a checkpoint, unless a signal ended the run: a resumed
    run starts all processes from it. The learning rate is that of one process. For a given number of processes the
    result is reproducible, bit for bit, up to the instruction set, unless the run was resumed.

    Parameters
    ----------
    every : int
        Steps between two exchanges.
    """

    copies = 3

    def __init__(self, *, every: int = 8) -> None:
        self.every = check_integer(every, "every of Decentralized", low=1)

    def train(self, host: Host, world: World) -> tuple[int, ParallelReport | None]:
        from trulysparse.parallel.peers import GossipPeer

        return GossipPeer(self, host, world).train()
