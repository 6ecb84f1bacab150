# SPDX-License-Identifier: BSD-3-Clause
"""Dynamic sparse reparameterization: an adaptive threshold over the whole network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.registry import check_integer, check_number
from trulysparse.topology.apportion import apportion
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import smallest_magnitude
from trulysparse.topology.periodic import Periodic


@register_topology("dsr")
class DSR(Periodic):
    """Drop |w| below one adaptive threshold in all layers, grow as many at random where most survive.

    At each update the weights with |w| < H go, in whichever layer they are, but one connection a layer stays. H is
    halved when more than 1.1 times the wanted number went, doubled when fewer than 0.9 times. As many connections as
    went are distributed over the layers in proportion to the survivors, exactly, and drawn uniformly among the free
    cells (those just dropped excluded), at weight 0 and without optimizer state. The number of connections of the
    network stays the same, that of a layer does not. Mostafa & Wang 2019, arXiv:1902.05967, algorithm 1.

    Parameters
    ----------
    drop_fraction : float
        Part of all connections that an update should replace, in (0, 1].
    prune_count : int, optional
        The same as a number (N_p in the paper); it comes before `drop_fraction`.
    threshold : float
        H at the start; later it lives in the run's state.
    update_every, unit, end, layers
        As in `Periodic`.

    Notes
    -----
    Cells just dropped are refilled only if there is no other free cell in the network.
    """

    def __init__(
        self,
        drop_fraction: float = 0.01,
        *,
        prune_count: int | None = None,
        threshold: float = 1e-3,
        update_every: int = 1000,
        unit: str = "steps",
        end: float = 1.0,
        layers: str = "all",
    ) -> None:
        super().__init__(update_every=update_every, unit=unit, end=end, layers=layers)
        self.drop_fraction = check_number(drop_fraction, "DSR's drop_fraction", low=0, high=1, low_open=True)
        self.prune_count = None if prune_count is None else check_integer(prune_count, "DSR's prune_count", low=1)
        self.threshold = check_number(threshold, "DSR's threshold", low=0, low_open=True)

    def check(self, net: SparseMLP) -> None:
        """Refuse to replace more connections than there are."""
        count = sum(layer.nnz for layer in net.layers if self.applies_to(layer.index, len(net.layers)))
        if self.prune_count is not None and self.prune_count >= count:
            raise ConfigError(
                f"DSR's prune_count {self.prune_count:,} is not below the {count:,} connections that there are; "
                "a hundredth of them is common"
            )

    def wanted(self, connections: int) -> float:
        """Return how many of the network's connections an update should replace, N_p."""
        return self.drop_fraction * connections if self.prune_count is None else float(self.prune_count)

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer's change: all masks are made first, since the shares depend on every layer's survivors."""
        state, threads = signals.state.numbers, signals.threads
        level = float(state.get("threshold", self.threshold))
        gone = []
        for layer in layers:
            if np.isnan(layer.values).any():
                raise DivergenceError(
                    f"layer {layer.index} cannot be evolved: its weights hold NaN; training diverged, "
                    "try a smaller learning rate"
                )
            below = int(np.count_nonzero(np.abs(layer.values) < np.float32(level)))
            gone.append(max(0, min(below, layer.nnz - 1)))
        total = sum(gone)
        wanted = self.wanted(sum(layer.nnz for layer in layers))
        if total > 1.1 * wanted:
            level /= 2
        elif total < 0.9 * wanted:
            level *= 2
        state["threshold"] = min(max(level, 1e-30), 1e30)
        # without the cells just dropped, while the network has room
        room = [signals.room(layer) for layer in layers]
        survivors = [layer.nnz - dropped for layer, dropped in zip(layers, gone, strict=True)]
        new = apportion(total, survivors, room)
        short = total - sum(new)
        back = [0 if layer.index in signals.closed else n for layer, n in zip(layers, gone, strict=True)]
        refill = apportion(short, survivors, back)
        for layer, dropped, count, again in zip(layers, gone, new, refill, strict=True):
            if dropped == 0 and count == 0:
                yield layer, None
                continue
            mask = smallest_magnitude(layer, dropped, threads)
            grown = signals.draw_missing(layer, layer.pattern, count)
            if again:
                # no other free cell is left: the largest of the dropped come back, at 0
                kept = smallest_magnitude(layer, dropped - again, threads) & ~mask
                grown = np.sort(np.concatenate([grown, layer.pattern.cells()[kept]]))
            yield layer, TopologyDelta(mask, grown, np.zeros(grown.size, np.float32))

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Refuse: the threshold and the shares are the whole network's; see `plan`."""
        raise ConfigError("DSR ranks over the whole network and has no change of a single layer; call plan")
