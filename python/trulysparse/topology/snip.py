# SPDX-License-Identifier: BSD-3-Clause
"""SNIP: one choice of connections before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.density import Density, get_density
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_number, nearest
from trulysparse.topology.base import Signals, Topology, TopologyDelta, register_topology
from trulysparse.topology.criteria import globally_smallest, smallest
from trulysparse.topology.gradual import check_target

_SCOPES = ("global", "layer")


@register_topology("snip")
class SNIP(Topology):
    """Before training, keep the connections of largest |g w| on the first batch; they stay for ever.

    g is the gradient of the loss on that batch, which moves no weight: it takes the place of the first step. Lee et
    al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", arXiv:1810.02340.

    Parameters
    ----------
    density : float
        Connections that are kept as a part of all cells of the matrices that are pruned, in (0, 1].
    scope : {"global", "layer"}
        "global" ranks the connections of all layers together, as the paper does (its division by the sum of all
        scores changes no order). "layer" ranks within each layer, whose density `distribution` says.
    distribution : Density, str or mapping
        For ``scope="layer"``: "erk", "uniform", or one of them with its settings; its density is `density`. A layer
        that has fewer connections than that keeps them all.
    layers : {"all", "hidden"}
        Which matrices are pruned.

    Notes
    -----
    Each layer keeps at least one connection, its best, in place of the last one of the ranking. A run that begins
    dense takes 12 bytes for each connection of the dense network (weight, momentum, column; the backward order
    besides), and 13 more while it ranks them; after the first step only what the sparse network takes.
    """

    prunes_dense = True
    wants_gradient = True

    def __init__(
        self,
        density: float = 0.1,
        *,
        scope: str = "global",
        distribution: Density | str | Mapping[str, Any] = "erk",
        layers: str = "all",
    ) -> None:
        super().__init__(layers=layers)
        self.density = check_number(density, "SNIP's density", low=0, high=1, low_open=True)
        if scope not in _SCOPES:
            raise ConfigError(
                f"SNIP's scope must be one of {', '.join(_SCOPES)}, got {scope!r}{nearest(scope, _SCOPES)}"
            )
        self.scope = scope
        given = distribution.to_config() if isinstance(distribution, Density) else distribution
        settings = {"name": given} if isinstance(given, str) else dict(given)
        own = settings.pop("density", self.density)
        if own != self.density:
            raise ConfigError(
                f"SNIP's distribution has the density {own:g}, but density is {self.density:g}; "
                "give its name alone, such as 'erk' or 'uniform'"
            )
        self._distribution = get_density(settings | {"density": self.density})
        # without its density, so that a run file says that once
        self.distribution = settings["name"] if len(settings) == 1 else settings

    def check(self, net: SparseMLP) -> None:
        """Refuse a network that has no more connections than are to be kept."""
        check_target(self, net, "density", self.density)

    def due(self, progress: Progress) -> bool:
        """Whether the next step is the first of the run."""
        return progress.step == 0

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer and what it keeps."""
        if self.scope == "global":
            target = round(self.density * sum(layer.n_in * layer.n_out for layer in layers))
            scores = [self._scores(layer, signals) for layer in layers]
            excess = max(0, sum(layer.nnz for layer in layers) - target)
            masks = globally_smallest(scores, excess, layers, signals.threads, keep_one=True)
            del scores
            for layer, mask in zip(layers, masks, strict=True):
                yield layer, TopologyDelta(mask)
            return
        counts = self._distribution.expected_connections([*(layer.n_in for layer in layers), layers[-1].n_out])
        for layer, count in zip(layers, counts, strict=True):
            excess = max(0, layer.nnz - max(1, round(count)))
            yield layer, TopologyDelta(smallest(self._scores(layer, signals), excess, layer, signals.threads))

    @staticmethod
    def _scores(layer: SparseLayer, signals: Signals) -> np.ndarray[Any, np.dtype[np.float32]]:
        scores = signals.gradient(layer).existing()
        scores *= layer.values
        return scores
