# SPDX-License-Identifier: BSD-3-Clause
"""MEST: elastic mutation, with or without a soft bound on the memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_number
from trulysparse.topology.base import Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import smallest
from trulysparse.topology.periodic import Periodic


@register_topology("mest")
class MEST(Periodic):
    """Drop the connections of smallest |w| + gradient_weight |dL/dw|, grow as many at random; a part that fades out.

    Elastic mutation (EM): every mutation drops trunc(d * connections) of each layer and grows as many, so a layer is
    never denser than at the start. With `soft` (EM&S) the layers train with trunc(d * connections) more than their
    target, grown before the first step; every mutation drops down to the target and grows the surplus anew, and the
    network ends at its target exactly. d is `drop_fraction` at first and falls in equal steps, one at each milestone,
    to 0 at the last. New connections start at weight 0 without optimizer state. Yuan et al. 2021, arXiv:2110.14032.

    Parameters
    ----------
    drop_fraction : float
        d at the start, as a part of a layer's connections, in [0, 1].
    soft : bool
        Whether the layers may be denser than their target while they train.
    gradient_weight : float
        Weight of the gradient in the score (lambda); 0, the released code's, never takes a batch for gradients.
    milestones : sequence of float
        Parts of the run at which d falls, ascending, in (0, 1].
    update_every, unit, layers
        As in `Periodic`; the paper's are 5 epochs. With `soft` each milestone is a mutation too.

    Notes
    -----
    A milestone at 1 is never acted upon: with `soft` the last one has to be below 1.
    """

    def __init__(
        self,
        drop_fraction: float = 0.2,
        *,
        soft: bool = False,
        gradient_weight: float = 0.0,
        milestones: Sequence[float] = (0.5625, 0.75),
        update_every: int = 5,
        unit: str = "epochs",
        layers: str = "all",
    ) -> None:
        super().__init__(update_every=update_every, unit=unit, layers=layers)
        self.drop_fraction = check_number(drop_fraction, "MEST's drop_fraction", low=0, high=1)
        if not isinstance(soft, (bool, np.bool_)):
            raise ConfigError(f"MEST's soft must be true or false, got {soft!r}")
        self.soft = bool(soft)
        self.gradient_weight = check_number(gradient_weight, "MEST's gradient_weight", low=0)
        if isinstance(milestones, (str, bytes)) or not isinstance(milestones, Sequence) or not len(milestones):
            raise ConfigError(f"MEST's milestones must be numbers in (0, 1] such as (0.5, 0.75), got {milestones!r}")
        self.milestones = tuple(
            check_number(m, "each of MEST's milestones", low=0, high=1, low_open=True) for m in milestones
        )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"MEST's milestones must be ascending, got {self.milestones}")
        if self.soft and self.milestones[-1] == 1.0:
            raise ConfigError("MEST with soft=True needs its last milestone below 1, or it ends denser than its target")
        self.wants_gradient = self.gradient_weight > 0

    def due(self, progress: Progress) -> bool:
        """Whether a mutation comes before the next step; with `soft` before the first and at milestones too."""
        if super().due(progress):
            return True
        return self.soft and (progress.step == 0 or progress.step in self._falls(progress))

    def _falls(self, progress: Progress) -> list[int]:
        return [min(progress.step_at(part), progress.total_steps - 1) for part in self.milestones]

    def settled(self, progress: Progress) -> bool:
        """Whether the last milestone is passed, with `soft`."""
        return not self.soft or progress.step > self._falls(progress)[-1]

    def fraction(self, progress: Progress) -> float:
        """Return d as it is now."""
        passed = sum(progress.step >= step for step in self._falls(progress))
        return self.drop_fraction * (1.0 - passed / len(self.milestones))

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Return what goes and what comes."""
        part, key = self.fraction(signals.progress), f"connections.{layer.index}"
        if self.soft:
            target, left = signals.state.numbers.get(key, (layer.nnz, layer.nnz))
            if layer.nnz < left:  # what importance pruning took does not come back
                target = round(target * layer.nnz / left)
            dropped = max(0, layer.nnz - target)
            after = min(target + int(part * target), layer.n_in * layer.n_out)
            signals.state.numbers[key] = [target, after]
        else:
            after = layer.nnz
            dropped = int(part * layer.nnz)
        if dropped == 0 and after == layer.nnz:
            return None
        scores = layer.values
        if dropped and self.gradient_weight:
            gradient = np.abs(signals.gradient(layer).existing())
            scores = np.abs(scores) + np.float32(self.gradient_weight) * gradient
        mask = smallest(scores, dropped, layer, signals.threads)
        grown = signals.draw_missing(layer, layer.pattern, after - layer.nnz + dropped, mask)
        return TopologyDelta(mask, grown, np.zeros(grown.size, np.float32))
