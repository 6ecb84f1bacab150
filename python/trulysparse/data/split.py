# SPDX-License-Identifier: BSD-3-Clause
"""Splits of the training samples, drawn from the counter-based generator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DataError

Rows = NDArray[np.int64]


def check_fraction(fraction: Any, what: str) -> None:
    """Raise ConfigError unless 0 < fraction < 1."""
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not 0.0 < fraction < 1.0:
        raise ConfigError(f"{what}={fraction!r} is not a number between 0 and 1 (both excluded); 0.1 is a tenth")


def validation_split(n: int, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Split `n` samples at random into those to train on and those to validate on.

    Parameters
    ----------
    n : int
        Number of samples, at least 2.
    fraction : float
        Share of the validation part, in (0, 1); rounded to whole samples, at least one in each part.
    seed : int
        The same seed gives the same split on every machine.

    Returns
    -------
    train_rows, validation_rows : ndarray of int64
        Row numbers, each ascending; together every row once.

    Raises
    ------
    ConfigError
        If `fraction` is not in (0, 1).
    DataError
        If there are fewer than two samples.
    """
    check_fraction(fraction, "validation fraction")
    if n < 2:
        raise DataError(f"{n} sample(s) cannot be split into a training and a validation part; at least 2 are needed")
    held_out = min(max(round(fraction * n), 1), n - 1)
    order = _kernels.shuffle(n, seed=seed, purpose="split")
    return np.sort(order[held_out:]), np.sort(order[:held_out])
