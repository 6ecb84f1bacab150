# SPDX-License-Identifier: BSD-3-Clause
"""Sparse evolutionary training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model import SparseLayer
from trulysparse.topology.apportion import apportion
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import drop_by_sign, globally_smallest, smallest_magnitude
from trulysparse.topology.periodic import DropAndGrow
from trulysparse.topology.schedules import DropSchedule


@register_topology("set")
class SET(DropAndGrow):
    """Drop the smallest weights of each sign, grow as many new connections at random.

    After every epoch but the last, a fraction of the smallest positive weights, the same fraction of the negative
    weights nearest zero, and all exact zeros are removed; as many cells are drawn uniformly among the free ones
    (one just emptied may come back) with fresh weights from the layer's initial distribution and no momentum.
    Mocanu et al. 2018, Nature Communications 9:2383; "Truly Sparse Neural Networks at Scale", arXiv:2102.01732.

    Parameters
    ----------
    drop_fraction : float
        Fraction zeta of each sign's weights that is replaced, in [0, 1].
    layers : {"hidden", "all"}
        Which matrices evolve; the paper leaves the output matrix alone.
    compat : {None, "wasap"}
        "wasap" uses the cut-offs of the paper's released code, whose strict comparisons remove up to two weights
        more than the fraction asks for (two even at fraction 0).
    drop : {"sign", "magnitude"}
        "sign" is the paper's rule above; "magnitude" drops the fraction (rounded down) of smallest |w|, whatever the
        sign, as the SET baseline of the RigL paper does.
    ranking : {"layer", "global"}
        "layer" is the paper's. "global" needs ``drop="magnitude"``: the smallest weights of all layers go, and as many
        cells come in each layer as it has survivors in proportion; only the sum over layers stays.
    schedule, update_every, unit, end, new_weights, grown_scale
        As in `DropAndGrow`; the paper's are "constant", every epoch, to the end, "init", 1.
    """

    def __init__(
        self,
        drop_fraction: float = 0.3,
        *,
        layers: str = "hidden",
        compat: str | None = None,
        drop: str = "sign",
        schedule: DropSchedule | str | Mapping[str, Any] = "constant",
        update_every: int = 1,
        unit: str = "epochs",
        end: float = 1.0,
        new_weights: str = "init",
        ranking: str = "layer",
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
        if compat not in (None, "wasap"):
            raise ConfigError(f'SET: compat={compat!r} is unknown; use None or "wasap"')
        if drop not in ("sign", "magnitude"):
            raise ConfigError(f'SET: drop={drop!r} is unknown; use "sign" or "magnitude"')
        if compat is not None and drop != "sign":
            raise ConfigError(f"SET: compat={compat!r} has its own way to drop; leave out drop={drop!r}")
        if ranking == "global" and drop != "magnitude":
            raise ConfigError("SET ranks over the whole network by magnitude only; set drop='magnitude' too")
        self.compat = compat
        self.drop = drop

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer's change; with global ranking all masks are made first."""
        if self.ranking == "layer":
            yield from super().plan(layers, signals)
            return
        chosen = [layer for layer in layers if layer.nnz]
        count = int(self.fraction(signals.progress) * sum(layer.nnz for layer in chosen))
        scores = [layer.values for layer in chosen]
        masks = globally_smallest(scores, count, chosen, signals.threads, keep_one=True)
        survivors = [int(np.count_nonzero(mask)) for mask in masks]
        room = [signals.room(layer, mask) for layer, mask in zip(chosen, masks, strict=True)]
        for layer, mask, new in zip(chosen, masks, apportion(count, survivors, room), strict=True):
            grown = signals.draw_missing(layer, layer.pattern, new, mask)
            yield layer, self.scaled(layer, TopologyDelta(mask, grown, self.weights_of_new(grown, signals)), signals)

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Return what goes and what comes; the number of connections stays the same."""
        if layer.nnz == 0:
            return None
        fraction = self.fraction(signals.progress)
        if self.compat == "wasap":
            mask = wasap_cutoffs(layer.values, fraction)
            dropped = int(mask.size - np.count_nonzero(mask))
        elif self.drop == "magnitude":
            dropped = int(fraction * layer.nnz)
            mask = smallest_magnitude(layer, dropped, signals.threads)
        else:
            mask, dropped = drop_by_sign(layer, fraction, signals.threads)
        grown = signals.draw_missing(layer, layer.pattern, dropped, mask)
        return self.scaled(layer, TopologyDelta(mask, grown, self.weights_of_new(grown, signals)), signals)


def wasap_cutoffs(values: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Mark the survivors as the paper's released code does: bit-faithful cut-offs from the sorted weights.

    With v the ascending weights, p the first index of least magnitude and q the last one plus 1, a weight survives
    if it is strictly below ``v[trunc((1 - fraction) p)]`` or strictly above
    ``v[min(n - 1, trunc(q + fraction (n - q)))]``.

    Parameters
    ----------
    values : ndarray of float32, shape (nnz,)
    fraction : float

    Returns
    -------
    ndarray of bool, shape (nnz,)
        True for survivors.
    """
    v = np.sort(values)
    if np.isnan(v[-1]):
        raise DivergenceError("weights hold NaN and cannot be sorted; training diverged, try a smaller learning rate")
    n = v.size
    size = np.abs(v)
    p = int(size.argmin())
    q = v.size - int(size[::-1].argmin())
    low = v[int((1.0 - fraction) * p)]
    high = v[min(n - 1, int(q + fraction * (n - q)))]
    survivors: NDArray[np.bool_] = (values < low) | (values > high)
    return survivors
