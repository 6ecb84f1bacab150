# SPDX-License-Identifier: BSD-3-Clause
"""Deep rewiring: connections of fixed sign on a random walk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import DivergenceError
from trulysparse.model import SparseLayer
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_number
from trulysparse.topology.base import Signals, Topology, TopologyDelta, register_topology

_START = 1e-12


@register_topology("deep_r")
class DeepR(Topology):
    """Each connection keeps its sign; one whose weight crosses zero goes, and a random one takes its place.

    A connection is w = sign * theta with theta > 0. After every step of the optimizer theta moves by
    -lr * l1 + lr * noise * N(0, 1); connections with theta <= 0 become dormant and at once as many dormant cells,
    drawn uniformly (those just gone included), become active with theta = 1e-12, a random sign and no optimizer
    state. Each layer keeps its number of connections. Bellec et al. 2018, "Deep Rewiring", arXiv:1711.05136,
    algorithm 1.

    Parameters
    ----------
    l1 : float
        Pull towards zero, not negative.
    noise : float
        Size of the random walk, not negative. The paper's temperature T means ``sqrt(2 T / lr)``.
    layers : {"all", "hidden"}
        Which matrices evolve.

    Notes
    -----
    It acts before every step but the first, so what the last step of a run does to a sign stays. The sign of a
    connection of the first network is that of its weight; a grown one has the sign that the seed gives its cell.
    """

    slots = ("sign",)

    def __init__(self, *, l1: float = 1e-5, noise: float = 1e-5, layers: str = "all") -> None:
        super().__init__(layers=layers)
        self.l1 = check_number(l1, "DeepR's l1", low=0)
        self.noise = check_number(noise, "DeepR's noise", low=0)

    def due(self, progress: Progress) -> bool:
        """Whether it acts before the next step: always; before the first one it only takes note of the signs."""
        return True

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Move the weights in place, and return which go and which come in their place."""
        sign, values = signals.slots[layer.index]["sign"], layer.values
        new = sign == 0  # at the start, and after the trainer put an earlier network back
        if new.any():
            drawn = self._signs(layer, layer.pattern.cells()[new], signals)
            sign[new] = np.where(values[new] == 0, drawn, np.sign(values[new]))
        if step == 0:
            return None
        if self.l1:
            values -= sign * np.float32(signals.lr_of(layer) * self.l1)
        if self.noise:
            values += self._walk(layer, signals)
        theta = sign * values
        if np.isnan(theta).any():
            raise DivergenceError(
                f"layer {layer.index} cannot be evolved: its weights hold NaN; training diverged, "
                "try a smaller learning rate"
            )
        mask = theta > 0
        dormant = int(mask.size - np.count_nonzero(mask))
        if dormant == 0:
            return None
        grown = signals.draw_missing(layer, layer.pattern, dormant, mask)
        signs = self._signs(layer, grown, signals)
        return TopologyDelta(mask, grown, signs * np.float32(_START), {"sign": signs})

    def _walk(self, layer: SparseLayer, signals: Signals) -> NDArray[np.float32]:
        pattern = layer.pattern
        return _kernels.draw_values(
            *pattern.shape,
            pattern.row_ptr,
            pattern.col_idx,
            "normal",
            signals.lr_of(layer) * self.noise,
            seed=signals.seed,
            purpose="regrow_values",
            layer=layer.index,
            step=signals.evolution,
            threads=signals.threads,
        )

    def _signs(self, layer: SparseLayer, cells: NDArray[np.uint64], signals: Signals) -> NDArray[np.float32]:
        """Return +1 or -1 for each cell, the same whenever it is asked for."""
        drawn = _kernels.draw_values_at(
            cells,
            layer.n_out,
            "uniform",
            1.0,
            seed=signals.seed,
            purpose="weights",
            layer=layer.index,
            step=0,
            threads=signals.threads,
        )
        return np.where(drawn < 0, np.float32(-1), np.float32(1))
