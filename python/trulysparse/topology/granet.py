# SPDX-License-Identifier: BSD-3-Clause
"""GraNet: gradual pruning whose every step also moves connections to where the gradient is large."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trulysparse.model import SparseLayer
from trulysparse.model.registry import check_number
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import globally_smallest, rewire, smallest_magnitude
from trulysparse.topology.gradual import GradualPruning
from trulysparse.topology.schedules import DropSchedule, get_drop_schedule


@register_topology("granet")
class GraNet(GradualPruning):
    """Prune gradually by magnitude over all layers, and replace at each pruning more of the weakest by the steepest.

    The network begins dense (or at half density) and gets sparser as in `GMP` with ``scope="global"``. At each update,
    after the pruning, every layer also gives up a further fraction of its connections of smallest |w| and gets as many
    back where |dL/dw| is largest, at weight 0 and without optimizer state ("zero-cost neuroregeneration"). A
    connection that is dropped and grown at once stays as it was. The batch of an update moves no weight. Liu et al.
    2021, "Sparse Training via Boosting Pruning Plasticity with Neuroregeneration", arXiv:2106.10404.

    Parameters
    ----------
    final_density : float
        Connections that are left in the end as a part of all cells of the matrices that are pruned, in (0, 1].
    drop_fraction : float
        Part of a layer's remaining connections that the first update replaces, in [0, 1].
    schedule : DropSchedule, str or mapping
        How that part changes from the start to the end; the paper's is "cosine".
    start, end : float
        Parts of the run between which connections go and come, 0 <= start <= end <= 1.
    update_every, unit : int, {"steps", "epochs"}
        Interval between two updates. One more falls on the end, so that the final count is exact in any case.
    layers : {"all", "hidden"}
        Which matrices evolve.

    Notes
    -----
    Each layer keeps at least one connection. A run that begins dense takes 12 bytes for each connection of the dense
    network at first (weight, momentum, column; the backward order besides), and less with every update. An update
    costs about one dense weight gradient.
    """

    wants_gradient = True

    def __init__(
        self,
        final_density: float = 0.1,
        *,
        drop_fraction: float = 0.5,
        schedule: DropSchedule | str | Mapping[str, Any] = "cosine",
        start: float = 0.0,
        end: float = 0.75,
        update_every: int = 100,
        unit: str = "steps",
        layers: str = "all",
    ) -> None:
        super().__init__(
            final_density=final_density, start=start, end=end, update_every=update_every, unit=unit, layers=layers
        )
        self.drop_fraction = check_number(drop_fraction, "GraNet's drop_fraction", low=0, high=1)
        self.schedule = get_drop_schedule(schedule)

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer and how it changes, pruning and regeneration at once."""
        excess = sum(layer.nnz for layer in layers) - self.global_count(layers, signals.state, signals.progress)
        scores = [layer.values for layer in layers]
        masks = globally_smallest(scores, max(0, excess), layers, signals.threads, keep_one=True)
        kept = [int(np.count_nonzero(mask)) for mask in masks]
        del masks
        fraction = self.drop_fraction * self.schedule.factor(self.part(signals.progress))
        for layer, count in zip(layers, kept, strict=True):
            yield layer, self._change(layer, count, int(fraction * count), signals)

    def _change(self, layer: SparseLayer, kept: int, again: int, signals: Signals) -> TopologyDelta | None:
        """Return the change that leaves `kept` connections, `again` of them where the gradient is largest."""
        if kept == layer.nnz and (again == 0 or layer.density == 1.0):
            return None
        mask = smallest_magnitude(layer, layer.nnz - kept + again, signals.threads)
        if again == 0:
            return TopologyDelta(mask)
        grown, _ = signals.gradient(layer).top_missing(again, mask)
        return rewire(layer, mask, grown, np.zeros(grown.size, np.float32))

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return (3 s T + 2 s + d) / (T + 1) with s averaged over a run that begins dense, T the interval in steps."""
        return self.step_flops(self.average_flops(sparse, dense), dense)

    def step_flops(self, sparse: float, dense: float) -> float:
        """Return (3 s T + 2 s + d) / (T + 1) of the network as it is now."""
        if self.unit == "epochs":
            return 3.0 * sparse
        return (3.0 * sparse * self.update_every + 2.0 * sparse + dense) / (self.update_every + 1)
