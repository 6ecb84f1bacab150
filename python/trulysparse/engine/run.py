# SPDX-License-Identifier: BSD-3-Clause
"""A step of a run, with the evolution that stands before it or takes its batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trulysparse.engine.evolve import Evolution, Settle, evolve_network
from trulysparse.engine.samples import Samples
from trulysparse.engine.state import TrainState
from trulysparse.engine.step import Engine
from trulysparse.model.progress import Progress
from trulysparse.topology import ImportancePruning, LayerGradient, Topology

Rows = NDArray[np.int64]
Told = Callable[[Evolution], None]


class Run:
    """An engine, the rules that evolve its network, and the samples that it trains on.

    Parameters
    ----------
    engine : Engine
    topology : Topology
    pruning : ImportancePruning or None
    samples : Samples
    settle : callable, optional
        As in `evolve_network`.

    Attributes
    ----------
    stands_for : int
        Batches of a step, in the sums over an epoch, of which a rule takes one for its gradients.
    """

    def __init__(
        self,
        engine: Engine,
        topology: Topology,
        pruning: ImportancePruning | None,
        samples: Samples,
        settle: Settle | None = None,
    ) -> None:
        self.engine = engine
        self.topology, self.pruning = topology, pruning
        self.samples = samples
        self.settle = settle
        self.stands_for = 1

    @property
    def state(self) -> TrainState:
        """Where the run stands."""
        return self.engine.state

    def due(self, progress: Progress) -> tuple[Topology | None, ImportancePruning | None]:
        """Return the rules that act before step `progress.step`, whichever step the state stands at."""
        count = len(self.engine.net.layers)
        unexplored = self.topology.explores and not self.state.exploring and self.topology.applies_to(0, count)
        pruned = (
            self.pruning is not None
            and progress.step > 0
            and progress.starts_epoch
            and self.pruning.due(progress.finished_epochs - 1)
        )
        return self.topology if self.topology.due(progress) or unexplored else None, self.pruning if pruned else None

    def acts(self, progress: Progress) -> bool:
        """Whether a rule acts before step `progress.step`."""
        return self.due(progress) != (None, None)

    def step(self, rows: Rows, progress: Progress, lr: float, told: Told) -> float:
        """Make one step, and the evolution that stands before it, or that takes its batch for the gradients.

        Parameters
        ----------
        rows : ndarray of int64, shape (batch,)
            The samples of the step.
        progress : Progress
            Where the run is.
        lr : float
        told : callable
            Told of the evolution.

        Returns
        -------
        float
            The sum of the losses; not finite if training diverged.
        """
        result = self.evolve(rows, progress, lr, told)
        if result is None:
            started = time.perf_counter()
            result = self.engine.train_batch(self.samples.inputs, self.samples.targets, rows, lr)
            self.state.train_seconds += time.perf_counter() - started
            self.count_batch(*result)
        return result[0]

    def evolve(self, rows: Rows, progress: Progress, lr: float, told: Told) -> tuple[float, int] | None:
        """Carry out what is due before the next step, unless that was done.

        Returns
        -------
        (loss_sum, correct), or None
            Of the batch `rows`, if a rule took it for its gradients: the step is made then.
        """
        state, engine, samples = self.state, self.engine, self.samples
        topology, pruning = (None, None) if state.evolved else self.due(progress)
        if topology is None and pruning is None:
            return None
        taken: list[tuple[float, int]] = []
        started = time.perf_counter()

        def measure() -> dict[int, LayerGradient] | None:
            loss, correct, gradients = engine.measure_batch(samples.inputs, samples.targets, rows)
            taken.append((loss, correct))
            return gradients if math.isfinite(loss) else None

        measured = topology is not None and topology.wants_gradient
        report = evolve_network(
            engine.net,
            state,
            topology=topology,
            pruning=pruning,
            seed=engine.seed,
            threads=engine.threads,
            progress=progress,
            lr=lr,
            layer_lr={layer.index: engine.layer_lr(layer.index, lr) for layer in engine.net.layers},
            gradients=measure if measured else None,
            rule=self.topology,
            settle=self.settle,
        )
        state.evolved = True
        state.evolve_seconds += time.perf_counter() - started
        if taken:
            loss, correct = taken[0]
            self.count_batch(loss * self.stands_for, correct * self.stands_for)
        if not taken or math.isfinite(taken[0][0]):
            told(report)
        return taken[0] if taken else None

    def count_batch(self, loss_sum: float, correct: int) -> None:
        """Add a batch to the sums of the epoch under way."""
        state = self.state
        state.loss_sum += loss_sum
        state.correct += correct
        state.batch += 1
        state.evolved = False
