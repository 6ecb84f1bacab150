# SPDX-License-Identifier: BSD-3-Clause
"""What a run with a parameter server will take in memory, said and checked before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trulysparse.errors import ParallelError
from trulysparse.model import SparseMLP
from trulysparse.model.memory import available_bytes
from trulysparse.parallel.board import ModelStore
from trulysparse.parallel.world import World


@dataclass(frozen=True)
class Budget:
    """Bytes of models on one node, activations and data apart.

    Attributes
    ----------
    model_bytes : int
        One network: patterns with their second index, weights, biases, optimizer state.
    phase_one_bytes : int
        While workers send gradients.
    phase_two_bytes : int
        While every worker trains a network of its own; 0 if there is no such phase.
    """

    model_bytes: int
    phase_one_bytes: int
    phase_two_bytes: int

    @property
    def most_bytes(self) -> int:
        """At the passage from one phase to the other both are there."""
        return self.phase_one_bytes + self.phase_two_bytes

    def __str__(self) -> str:
        one = _mb(self.phase_one_bytes)
        phases = f"phase one {one}, phase two {_mb(self.phase_two_bytes)}" if self.phase_two_bytes else one
        return f"{phases}; one network {_mb(self.model_bytes)}"


def plan_budgets(
    net: SparseMLP, slots: Sequence[str], node_of: Sequence[int], *, shared: bool, local: bool
) -> list[Budget]:
    """Return the budget of each node; rank 0 is the master.

    Parameters
    ----------
    net : SparseMLP
        As it is at the start.
    slots : sequence of str
        Of the optimizer.
    node_of : sequence of int
        The node of each rank.
    shared : bool
        Whether the model lies in memory that all ranks share.
    local : bool
        Whether there is a phase two.
    """
    model = ModelStore.nbytes(ModelStore.plan_of(net, slots, 0))
    weights = ModelStore.nbytes(ModelStore.plan_of(net, (), 0, index=False))
    copy = ModelStore.nbytes(ModelStore.plan_of(net, (), 0))  # a worker's: no optimizer state
    workers = len(node_of) - 1
    budgets = []
    for node in range(max(node_of) + 1):
        here = sum(1 for rank, of in enumerate(node_of) if of == node and rank > 0)
        master = node == node_of[0]
        if shared:
            one = model + workers * weights
        else:  # the master keeps a gradient and a model on its way for each worker, a worker its gradient
            one = here * (copy + weights) + (model + 2 * workers * weights if master else 0)
        budgets.append(Budget(model, one, (here + master) * model if local else 0))
    return budgets


def plan_peer_budgets(net: SparseMLP, slots: Sequence[str], node_of: Sequence[int], *, copies: int) -> list[Budget]:
    """Return the budget of each node where every rank has a network, and `copies` arrays as long as its parameters."""
    model = ModelStore.nbytes(ModelStore.plan_of(net, slots, 0))
    weights = ModelStore.nbytes(ModelStore.plan_of(net, (), 0, index=False))
    return [Budget(model, node_of.count(node) * (model + copies * weights), 0) for node in range(max(node_of) + 1)]


def check_budgets(world: World, budgets: Sequence[Budget] | None) -> None:
    """Refuse a run for which some node has too little memory; all ranks call it, rank 0 with the budgets.

    Raises
    ------
    ParallelError
        On every rank, with the arithmetic.
    """
    free = world.share_json(available_bytes())
    with world.together("counting memory"):
        for node, budget in enumerate(budgets or []):
            known = [n for n, of in zip(free, world.node_of, strict=True) if of == node and n is not None]
            if known and budget.most_bytes > min(known):
                raise ParallelError(
                    f"node {node} needs {_mb(budget.most_bytes)} for models ({budget}), activations and data besides, "
                    f"but {_mb(min(known))} are available; start fewer processes a node, "
                    f"{'use phase_two=0, ' if budget.phase_two_bytes else ''}or make the network smaller"
                )


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
