# SPDX-License-Identifier: BSD-3-Clause
"""Several networks of different topology made into one: the average over all connections, then sparse again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.model import Pattern

Floats = NDArray[np.float32]


def average_layers(
    patterns: Sequence[Pattern], values: Sequence[Floats], connections: int, threads: int
) -> tuple[Pattern, Floats]:
    """Average a layer over several networks and prune it to `connections`.

    A connection that only some of them have counts as 0 in the others ("Truly Sparse Neural Networks at Scale", eq. 2);
    then the surplus goes, smallest weights of each sign first, as many of a sign as it has of all. Averages of equal
    layers are the layer, bit for bit.

    Parameters
    ----------
    patterns : sequence of Pattern
        Of one shape.
    values : sequence of ndarray of float32
        Their weights.
    connections : int
        How many may stay.
    threads : int

    Returns
    -------
    pattern : Pattern
    values : ndarray of float32
    """
    union, (mean,) = Pattern.unite(patterns, [[v] for v in values], divisor=len(patterns), threads=threads)
    mask = without_surplus(mean, union.nnz - connections, threads)
    if mask is None:
        return union, mean
    pattern, (kept,) = union.keep(mask, [mean], threads=threads)
    return pattern, kept


def without_surplus(values: Floats, surplus: int, threads: int) -> NDArray[np.bool_] | None:
    """Mark what stays when exactly `surplus` weights go: zeros, then the smallest of each sign, by the signs' shares.

    Returns
    -------
    ndarray of bool, or None
        None if nothing is to go.
    """
    if surplus <= 0:
        return None
    positive, negative, zeros = _kernels.count_signs(values, threads)
    if surplus <= zeros:
        mask = np.ones(values.size, np.bool_)
        mask[np.flatnonzero(values == 0)[:surplus]] = False
        return mask
    rest = surplus - zeros
    k_negative = min(negative, rest - int(rest * positive / (positive + negative) + 0.5))
    mask, _ = _kernels.drop_by_sign(values, rest - k_negative, k_negative, True, threads)
    return mask
