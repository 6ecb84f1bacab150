# SPDX-License-Identifier: BSD-3-Clause
"""Rules that act again and again: when they do, which part of the connections, and with what weights they grow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, ScheduleWarning
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_integer, check_number, nearest
from trulysparse.topology.base import Signals, Topology, TopologyDelta
from trulysparse.topology.schedules import DropSchedule, get_drop_schedule

__all__ = ["DropAndGrow", "Periodic"]

_UNITS = ("steps", "epochs")
_RANKINGS = ("layer", "global")
_NEW_WEIGHTS = ("init", "zeros", "gradient")


class Periodic(Topology):
    """Base of rules that act every so many steps or epochs, until some part of the run is over.

    Parameters
    ----------
    update_every : int
        Steps or epochs between two updates.
    unit : {"steps", "epochs"}
        What `update_every` counts.
    end : float
        Part of the run after which there are no more updates, in (0, 1].
    layers : {"hidden", "all"}
        As in `Topology`.
    """

    def __init__(self, *, update_every: int, unit: str, end: float = 1.0, layers: str = "all") -> None:
        super().__init__(layers=layers)
        who = type(self).__name__
        self.update_every = check_integer(update_every, f"{who}'s update_every", low=1)
        if unit not in _UNITS:
            raise ConfigError(f"{who}'s unit must be one of {', '.join(_UNITS)}, got {unit!r}{nearest(unit, _UNITS)}")
        self.unit = unit
        self.end = check_number(end, f"{who}'s end", low=0, high=1, low_open=True)

    def due(self, progress: Progress) -> bool:
        """Whether an update comes before the next step: at whole intervals, never before the first step."""
        step = progress.step
        return self.dynamic and 0 < step < progress.step_at(self.end) and step % self.interval(progress) == 0

    def interval(self, progress: Progress) -> int:
        """Return the steps between two updates."""
        return self.update_every * (progress.steps_per_epoch if self.unit == "epochs" else 1)

    def check_run(self, net: SparseMLP, whole: Progress) -> None:
        """As in `Topology`; warn too of a run that ends before the first update."""
        super().check_run(net, whole)
        first = self.interval(whole)
        if self.dynamic and not self.due(whole) and whole.epochs > 1 and first >= whole.step_at(self.end):
            warnings.warn(
                f"{type(self).__name__} makes no update between start and end of this run: the first would come "
                f"before step {first}, but updates end at step {whole.step_at(self.end)} of "
                f"{whole.total_steps}; set update_every to a tenth of that or less, or train longer",
                ScheduleWarning,
                stacklevel=3,
            )

    def part(self, progress: Progress) -> float:
        """Return which part of the updating phase is over, from 0 to 1."""
        last = self.end * progress.total_steps
        return min(1.0, progress.step / last) if last else 1.0


class DropAndGrow(Periodic):
    """Base of rules that drop some connections and grow as many.

    Parameters
    ----------
    drop_fraction : float
        Part of a layer's connections that the first update replaces, in [0, 1].
    schedule : DropSchedule, str or mapping
        How that part changes until the `end` of updates: "constant", "cosine", "linear" or "power".
    new_weights : {"init", "zeros", "gradient"}
        Weights of new connections: drawn as the first ones were; 0; or what one gradient step makes of 0 (-lr g; only
        for rules that grow by gradient).
    ranking : {"layer", "global"}
        Whether each layer replaces the same part of its own connections, or the part is that of the whole network: then
        the smallest of all layers go, the best of all come, and connections move from layer to layer.
    grown_scale : float or "match"
        What drawn weights of new connections are multiplied by, at least 0. "match": by what leaves the sum of squares
        of the layer's weights, and with it the size of its signals, as it was; that is
        root(sum of dropped w^2 / sum of drawn w^2). Other than 1 only with ``new_weights="init"``.
    update_every, unit, end, layers
        As in `Periodic`.
    """

    def __init__(
        self,
        drop_fraction: float,
        *,
        schedule: DropSchedule | str | Mapping[str, Any],
        update_every: int,
        unit: str,
        end: float,
        new_weights: str,
        layers: str,
        ranking: str = "layer",
        grown_scale: float | str = 1.0,
    ) -> None:
        super().__init__(update_every=update_every, unit=unit, end=end, layers=layers)
        who = type(self).__name__
        self.drop_fraction = check_number(drop_fraction, f"{who}'s drop_fraction", low=0, high=1)
        self.schedule = get_drop_schedule(schedule)
        allowed = _NEW_WEIGHTS if self.wants_gradient else _NEW_WEIGHTS[:2]
        if new_weights not in allowed:
            raise ConfigError(
                f"{who}'s new_weights must be one of {', '.join(allowed)}, got {new_weights!r}"
                + nearest(new_weights, allowed)
            )
        self.new_weights = new_weights
        if ranking not in _RANKINGS:
            raise ConfigError(
                f"{who}'s ranking must be one of {', '.join(_RANKINGS)}, got {ranking!r}{nearest(ranking, _RANKINGS)}"
            )
        self.ranking = ranking
        if isinstance(grown_scale, str):
            if grown_scale != "match":
                raise ConfigError(f"{who}'s grown_scale must be a number or 'match', got {grown_scale!r}")
            self.grown_scale: float | str = grown_scale
        else:
            self.grown_scale = check_number(grown_scale, f"{who}'s grown_scale", low=0)
        if self.grown_scale != 1.0 and new_weights != "init":
            raise ConfigError(
                f"{who}'s grown_scale={grown_scale!r} is about drawn weights, and new_weights={new_weights!r} draws "
                "none; set new_weights='init', or leave out grown_scale"
            )

    def fraction(self, progress: Progress) -> float:
        """Return the part of a layer's connections that an update replaces now."""
        return self.drop_fraction * self.schedule.factor(self.part(progress))

    def weights_of_new(
        self,
        grown: NDArray[np.uint64],
        signals: Signals,
        gradient: NDArray[np.float32] | None = None,
        layer: SparseLayer | None = None,
    ) -> NDArray[np.float32] | None:
        """Return the weights of grown cells as `new_weights` says, or None where the engine is to draw them.

        With `layer` a gradient step is one of that layer's own learning rate.
        """
        if self.new_weights == "init":
            return None
        if self.new_weights == "gradient" and gradient is not None:
            rate = signals.lr if layer is None else signals.lr_of(layer)
            return np.multiply(gradient, np.float32(-rate), dtype=np.float32)
        return np.zeros(grown.size, dtype=np.float32)

    def scaled(self, layer: SparseLayer, delta: TopologyDelta, signals: Signals) -> TopologyDelta:
        """Return a change whose grown weights are drawn and multiplied as `grown_scale` says."""
        if self.grown_scale == 1.0 or not delta.grown.size:
            return delta
        values = layer.draw_grown(delta.grown, seed=signals.seed, step=signals.evolution, threads=signals.threads)
        if isinstance(self.grown_scale, str):
            gone = np.empty(0, np.float32) if delta.mask is None else layer.values[~delta.mask]
            drawn = _kernels.sum_of_squares(values, signals.threads)
            scale = math.sqrt(_kernels.sum_of_squares(gone, signals.threads) / drawn) if drawn else 0.0
        else:
            scale = self.grown_scale
        _kernels.scale(values, scale, signals.threads)
        return replace(delta, values=values)
