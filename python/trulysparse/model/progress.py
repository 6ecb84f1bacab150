# SPDX-License-Identifier: BSD-3-Clause
"""Where a run is: what schedules and topology rules are functions of."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """Where a run is, just before a step.

    Parameters
    ----------
    step
        Steps made so far in the whole run.
    epoch
        Epochs made so far, with the fraction of the one under way.
    steps_per_epoch
        Steps in an epoch.
    epochs
        Epochs that the whole run will have.
    """

    step: int
    epoch: float
    steps_per_epoch: int
    epochs: int

    @property
    def total_steps(self) -> int:
        """Steps that the whole run will have."""
        return self.steps_per_epoch * self.epochs

    def step_at(self, part: float) -> int:
        """Return the step before which `part` of the run is over: part * total steps, rounded up, but for rounding."""
        return math.ceil(part * self.total_steps - (1e-9 + 1e-12 * self.total_steps))

    @property
    def starts_epoch(self) -> bool:
        """Whether the next step is the first of an epoch."""
        return self.step % self.steps_per_epoch == 0

    @property
    def finished_epochs(self) -> int:
        """Whole epochs made so far."""
        return self.step // self.steps_per_epoch
