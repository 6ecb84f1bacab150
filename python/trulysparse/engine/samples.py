# SPDX-License-Identifier: BSD-3-Clause
"""Training data past the door, in the order of an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.model import Inputs


@dataclass(frozen=True)
class Samples:
    """Data that was checked, with its scaling, and targets as the loss wants them.

    Attributes
    ----------
    inputs : Inputs
    targets : ndarray
    rows : ndarray of int64 or None
        Of the samples to train on; None: all.
    validation : (Inputs, ndarray) or None
    """

    inputs: Inputs
    targets: NDArray[Any]
    rows: NDArray[np.int64] | None
    validation: tuple[Inputs, NDArray[Any]] | None

    @property
    def count(self) -> int:
        """How many samples are trained on."""
        return self.inputs.n_samples if self.rows is None else self.rows.size

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the samples in the order of an epoch."""
        order = _kernels.shuffle(self.count, seed=seed, purpose="shuffle", step=epoch)
        return order if self.rows is None else self.rows[order]
