# SPDX-License-Identifier: BSD-3-Clause
"""Rules that make a network sparser step by step: when they act, and how many connections are left by then."""

from __future__ import annotations

from collections.abc import Sequence

from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_number
from trulysparse.topology.base import RuleState, Topology
from trulysparse.topology.periodic import Periodic

__all__ = ["GradualPruning", "check_target"]

_INITIAL = "initial_densities"


class GradualPruning(Periodic):
    """Base of rules that prune along the cubic schedule of Zhu & Gupta 2017, arXiv:1710.01878, equation 1.

    Parameters
    ----------
    final_density : float
        Connections that are left at the end as a part of all cells of the matrices that are pruned, in (0, 1].
    start, end : float
        Parts of the run between which connections go, 0 <= start <= end <= 1.
    update_every, unit, layers
        As in `Periodic`. One more update comes where the end falls, so that the final count is always reached.
    """

    prunes_dense = True

    def __init__(
        self, *, final_density: float, start: float, end: float, update_every: int, unit: str, layers: str
    ) -> None:
        super().__init__(update_every=update_every, unit=unit, end=end, layers=layers)
        who = type(self).__name__
        self.final_density = check_number(final_density, f"{who}'s final_density", low=0, high=1, low_open=True)
        self.start = check_number(start, f"{who}'s start", low=0, high=self.end)

    def check(self, net: SparseMLP) -> None:
        """Refuse a network that has no more connections than are to be left."""
        check_target(self, net, "final_density", self.final_density)

    def last_step(self, progress: Progress) -> int:
        """Return the step before which the last update comes: where the end falls, or the last of the run."""
        return max(0, min(progress.step_at(self.end), progress.total_steps - 1))

    def settled(self, progress: Progress) -> bool:
        """Whether the last update is made."""
        return progress.step > self.last_step(progress)

    def due(self, progress: Progress) -> bool:
        """Whether an update comes before the next step: at whole intervals from the start on, and at the end."""
        last = self.last_step(progress)
        if progress.step >= last:
            return progress.step == last
        return super().due(progress) and progress.step >= progress.step_at(self.start)

    def part(self, progress: Progress) -> float:
        """Return which part of the time between start and end is over, from 0 to 1."""
        if progress.step >= self.last_step(progress):
            return 1.0
        first, last = self.start * progress.total_steps, self.end * progress.total_steps
        return max(0.0, (progress.step - first) / (last - first)) if first < last else 0.0

    def initial_densities(self, layers: Sequence[SparseLayer], state: RuleState) -> list[float]:
        """Return the densities before the first update; the first call takes note of them."""
        densities: list[float] = state.numbers.setdefault(_INITIAL, [layer.density for layer in layers])
        return densities

    def scheduled(self, initial: float, final: float, progress: Progress) -> float:
        """Return the density that is due now on the way from `initial` to `final`; never more than `initial`."""
        return min(initial, final + (initial - final) * (1.0 - self.part(progress)) ** 3)

    def global_count(self, layers: Sequence[SparseLayer], state: RuleState, progress: Progress) -> int:
        """Return how many connections all layers together shall have now."""
        cells = [layer.n_in * layer.n_out for layer in layers]
        initial = sum(d * n for d, n in zip(self.initial_densities(layers, state), cells, strict=True)) / sum(cells)
        return round(self.scheduled(initial, self.final_density, progress) * sum(cells))

    def average_flops(self, sparse: float, dense: float) -> float:
        """Return the forward FLOPs averaged over a run that begins dense: a quarter of the way down is the mean."""
        return sparse + (dense - sparse) * (self.start + 0.25 * (self.end - self.start))

    def step_flops(self, sparse: float, dense: float) -> float:
        """Return 3 times what the network takes now."""
        return 3.0 * sparse

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return 3 times the average over a run that begins dense, `sparse` being what is left in the end."""
        return 3.0 * self.average_flops(sparse, dense)


def check_target(rule: Topology, net: SparseMLP, key: str, density: float) -> None:
    """Raise ConfigError unless `density` is below what `net` has in the matrices to which `rule` applies."""
    chosen = [layer for layer in net.layers if rule.applies_to(layer.index, len(net.layers))]
    who = type(rule).__name__
    if not chosen:
        raise ConfigError(
            f"{who} has nothing to prune: layers={rule.layers!r} leaves out the output matrix, and there is no "
            "other; set layers='all'"
        )
    present = sum(layer.nnz for layer in chosen)
    cells = sum(layer.n_in * layer.n_out for layer in chosen)
    if round(density * cells) >= present:
        raise ConfigError(
            f"{who}'s {key}={density:g} is not below the density {present / cells:.3g} of the network; it only takes "
            f"connections away: begin with SparseMLP(..., density=1.0), or choose a smaller {key}"
        )
