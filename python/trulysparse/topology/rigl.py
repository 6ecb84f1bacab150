# SPDX-License-Identifier: BSD-3-Clause
"""RigL: growing where the loss would fall fastest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer
from trulysparse.model.registry import check_number, nearest
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import globally_smallest, rewire, smallest, smallest_magnitude
from trulysparse.topology.periodic import DropAndGrow
from trulysparse.topology.schedules import DropSchedule

_SEARCHES = ("exact", "sampled")


@register_topology("rigl")
class RigL(DropAndGrow):
    """Drop the smallest |w|, grow the missing connections of largest |dL/dw|.

    Every `update_every` steps the batch gives its gradients to the topology instead of to the weights: in each layer
    trunc(fraction * connections) weights of smallest magnitude go, and as many cells of largest gradient among those
    that do not survive come, at weight 0 and without optimizer state. A connection that is dropped and grown at once
    stays as it was. Full layers are left alone. Evci et al. 2020, "Rigging the Lottery", arXiv:1911.11134, algorithm 1.

    Parameters
    ----------
    drop_fraction : float
        Part of a layer's connections that the first update replaces, alpha, in [0, 1].
    schedule : DropSchedule, str or mapping
        How that part changes until the `end`; the paper's is "cosine".
    update_every, unit : int, {"steps", "epochs"}
        Interval between two updates, delta T; the paper's is 100 steps.
    end : float
        Part of the run after which the topology stays, in (0, 1].
    new_weights : {"zeros", "init", "gradient"}
        Weights of new connections: 0; drawn as the first ones were; or what one gradient step makes of 0.
    ranking : {"layer", "global"}
        "layer" keeps the number of connections of every layer, as in the paper. "global": the smallest weights of all
        layers go, the largest gradients of all layers come; only their sum stays, and no layer becomes empty.
    search : {"exact", "sampled"}
        "exact" looks at the gradient of every missing cell, tile by tile, as much work as one dense weight gradient.
        "sampled" computes it for random candidates only, for layers where even that is too much.
    candidates : float
        With "sampled": candidates for each connection that is grown, at least 1.
    layers : {"all", "hidden"}
        Which matrices evolve.
    grown_scale : float or "match"
        As in `DropAndGrow`; for ``new_weights="init"``, the other two choices begin at or near zero anyway.

    Notes
    -----
    Between two updates it costs what a static network costs; no array of n_in x n_out is ever made.
    """

    wants_gradient = True

    def __init__(
        self,
        drop_fraction: float = 0.3,
        *,
        schedule: DropSchedule | str | Mapping[str, Any] = "cosine",
        update_every: int = 100,
        unit: str = "steps",
        end: float = 0.75,
        new_weights: str = "zeros",
        search: str = "exact",
        candidates: float = 10.0,
        ranking: str = "layer",
        layers: str = "all",
        grown_scale: float | str = 1.0,
    ) -> None:
        super().__init__(
            drop_fraction,
            schedule=schedule,
            update_every=update_every,
            unit=unit,
            end=end,
            new_weights=new_weights,
            layers=layers,
            ranking=ranking,
            grown_scale=grown_scale,
        )
        if search not in _SEARCHES:
            raise ConfigError(
                f"RigL's search must be one of {', '.join(_SEARCHES)}, got {search!r}{nearest(search, _SEARCHES)}"
            )
        self.search = search
        self.candidates = check_number(candidates, "RigL's candidates", low=1)

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer's change; with global ranking all are found before the first is carried out."""
        if self.ranking == "layer":
            yield from super().plan(layers, signals)
            return
        chosen = [layer for layer in layers if layer.nnz and layer.density < 1.0]
        count = int(self.fraction(signals.progress) * sum(layer.nnz for layer in chosen))
        if count == 0:
            return
        scores = [layer.values for layer in chosen]
        masks = globally_smallest(scores, count, chosen, signals.threads, keep_one=True)
        found = [self._best(layer, signals, count, mask) for layer, mask in zip(chosen, masks, strict=True)]
        # of equal gradients the first layer's first cell comes; the selection drops the first, so from the end
        every = np.concatenate([gradient for _, gradient in found])
        best = smallest(every[::-1].copy(), every.size - count, chosen[0], signals.threads)[::-1]
        parts = np.split(best, np.cumsum([cells.size for cells, _ in found])[:-1])
        for layer, mask, (cells, gradient), part in zip(chosen, masks, found, parts, strict=True):
            grown, slope = cells[part], gradient[part]
            delta = rewire(layer, mask, grown, self.weights_of_new(grown, signals, slope, layer))
            yield layer, self.scaled(layer, delta, signals)

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Return what goes and what comes; the number of connections stays the same."""
        count = int(self.fraction(signals.progress) * layer.nnz)
        if count == 0 or layer.density == 1.0:
            return None
        mask = smallest_magnitude(layer, count, signals.threads)
        grown, gradient = self._best(layer, signals, count, mask)
        delta = rewire(layer, mask, grown, self.weights_of_new(grown, signals, gradient, layer))
        return self.scaled(layer, delta, signals)

    def _best(
        self, layer: SparseLayer, signals: Signals, count: int, mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return up to `count` missing cells of largest gradient, ascending, and their gradients."""
        if self.search == "exact":
            return signals.gradient(layer).top_missing(count, mask)
        return self._sampled(layer, signals, count, mask)

    def _sampled(
        self, layer: SparseLayer, signals: Signals, count: int, mask: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return the best of randomly drawn cells, of equal ones the first."""
        wanted = min(signals.room(layer, mask), int(self.candidates * count))
        drawn = signals.draw_missing(layer, layer.pattern, wanted, mask)
        gradient = signals.gradient(layer).at(drawn)
        # of equal ones the selection drops the first, growing wants to keep it: so from the end
        best = smallest(gradient[::-1].copy(), max(0, gradient.size - count), layer, signals.threads)[::-1]
        return drawn[best], gradient[best]

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return (3 s T + 2 s + d) / (T + 1), s and d the sparse and dense forward pass, T the interval in steps."""
        if self.unit == "epochs" or self.search == "sampled":
            return 3.0 * sparse
        return (3.0 * sparse * self.update_every + 2.0 * sparse + dense) / (self.update_every + 1)
