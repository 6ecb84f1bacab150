# SPDX-License-Identifier: BSD-3-Clause
"""Gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trulysparse.errors import ConfigError
from trulysparse.model import ERK, SparseLayer
from trulysparse.model.registry import nearest
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import globally_smallest, smallest_magnitude
from trulysparse.topology.gradual import GradualPruning

_SCOPES = ("uniform", "erk", "global")


@register_topology("gmp")
class GMP(GradualPruning):
    """Begin dense (or denser), and drop the smallest |w| again and again until the final density is reached.

    The density falls as a cubic from what the network has to `final_density`: fast at first, slowly towards the end.
    Nothing is ever grown. Zhu & Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.

    Parameters
    ----------
    final_density : float
        Connections that are left in the end as a part of all cells of the matrices that are pruned, in (0, 1].
    start, end : float
        Parts of the run between which connections go, 0 <= start <= end <= 1.
    update_every, unit : int, {"steps", "epochs"}
        Interval between two prunings. One more falls on the end, so that the final count is exact in any case.
    scope : {"uniform", "erk", "global"}
        "uniform": every layer has the same density in the end; one that is sparser from the start stays as it is.
        "erk": the densities of `ERK` for `final_density`, likewise. "global": the smallest weights of all layers
        together go.
    layers : {"all", "hidden"}
        Which matrices are pruned.

    Notes
    -----
    Each layer keeps at least one connection. Counts are rounded to the nearest whole number. A run that begins dense
    takes 12 bytes for each connection of the dense network at first (weight, momentum, column; the backward order
    besides), and less with every pruning.
    """

    def __init__(
        self,
        final_density: float = 0.1,
        *,
        start: float = 0.0,
        end: float = 0.75,
        update_every: int = 100,
        unit: str = "steps",
        scope: str = "uniform",
        layers: str = "all",
    ) -> None:
        super().__init__(
            final_density=final_density, start=start, end=end, update_every=update_every, unit=unit, layers=layers
        )
        if scope not in _SCOPES:
            raise ConfigError(
                f"GMP's scope must be one of {', '.join(_SCOPES)}, got {scope!r}{nearest(scope, _SCOPES)}"
            )
        self.scope = scope

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer and what it loses."""
        if self.scope == "global":
            excess = sum(layer.nnz for layer in layers) - self.global_count(layers, signals.state, signals.progress)
            scores = [layer.values for layer in layers]
            masks = globally_smallest(scores, max(0, excess), layers, signals.threads, keep_one=True)
            for layer, mask in zip(layers, masks, strict=True):
                yield layer, None if mask.all() else TopologyDelta(mask)
            return
        initial = self.initial_densities(layers, signals.state)
        for layer, first, last in zip(layers, initial, self._final_densities(layers), strict=True):
            target = round(self.scheduled(first, last, signals.progress) * layer.n_in * layer.n_out)
            count = layer.nnz - max(1, target) if last < first else 0
            yield layer, TopologyDelta(smallest_magnitude(layer, count, signals.threads)) if count > 0 else None

    def _final_densities(self, layers: Sequence[SparseLayer]) -> list[float]:
        if self.scope == "uniform":
            return [self.final_density] * len(layers)
        return ERK(self.final_density).densities([*(layer.n_in for layer in layers), layers[-1].n_out])
