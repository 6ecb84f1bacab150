# SPDX-License-Identifier: BSD-3-Clause
"""Sparse evolutionary training."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model import SparseLayer
from trulysparse.model.registry import check_number
from trulysparse.topology.base import Signals, Topology, TopologyDelta, register_topology


@register_topology("set")
class SET(Topology):
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
    """

    def __init__(self, drop_fraction: float = 0.3, *, layers: str = "hidden", compat: str | None = None) -> None:
        super().__init__(layers=layers)
        if compat not in (None, "wasap"):
            raise ConfigError(f'SET: compat={compat!r} is unknown; use None or "wasap"')
        self.drop_fraction = check_number(drop_fraction, "SET's drop_fraction", low=0, high=1)
        self.compat = compat

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Return what goes and what comes; the number of connections stays the same."""
        if layer.nnz == 0:
            return None
        if self.compat == "wasap":
            mask = wasap_cutoffs(layer.values, self.drop_fraction)
            dropped = int(mask.size - np.count_nonzero(mask))
        else:
            mask, dropped = drop_by_sign(layer, self.drop_fraction, signals.threads)
        return TopologyDelta(mask, signals.draw_missing(layer, layer.pattern, dropped, mask))


def drop_by_sign(layer: SparseLayer, fraction: float, threads: int) -> tuple[NDArray[np.bool_], int]:
    """Mark the survivors when `fraction` of each sign's smallest weights, and every zero, are dropped.

    Returns
    -------
    mask : ndarray of bool, shape (nnz,)
        True for survivors.
    dropped : int
        round(fraction * positives) + round(fraction * negatives) + zeros, halves rounded up.

    Raises
    ------
    DivergenceError
        If a weight is NaN.
    """
    try:
        positive, negative, _ = _kernels.count_signs(layer.values, threads)
    except ValueError as error:
        raise DivergenceError(
            f"layer {layer.index} cannot be evolved: {error}; training diverged, try a smaller learning rate"
        ) from error
    k_positive, k_negative = (math.floor(fraction * n + 0.5) for n in (positive, negative))
    return _kernels.drop_by_sign(layer.values, k_positive, k_negative, True, threads)


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
