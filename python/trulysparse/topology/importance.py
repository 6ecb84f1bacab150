# SPDX-License-Identifier: BSD-3-Clause
"""Importance pruning: neurons that matter least lose their incoming connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.registry import Configurable, check_integer, check_number
from trulysparse.topology.base import TopologyDelta


@dataclass(frozen=True)
class PruningReport:
    """What an importance pruning did to one layer."""

    layer: int
    threshold: float
    neurons: int
    connections_before: int
    connections_after: int


class ImportancePruning(Configurable):
    """Remove the incoming connections of the neurons that matter least.

    The importance of a hidden neuron is the sum of the absolute weights of its incoming connections. At an event,
    every neuron at or below the given percentile of its layer (neurons without connections count too, as 0) loses
    all of them; the neuron, its bias and its outgoing connections stay, and the connections are gone for good: the
    rewiring that follows keeps the smaller number. "Truly Sparse Neural Networks at Scale", eq. 4 and algorithm 2.

    Parameters
    ----------
    percentile : float
        Threshold within each layer, in (0, 100).
    start : int
        Events happen after epochs (counted from 0) greater than this.
    period : int
        ... and divisible by this, never after the last epoch.

    Notes
    -----
    The defaults are those of the paper's sequential code: 29 events in 500 epochs, after epochs 210, 220, ..., 490.
    """

    name: ClassVar[str] = "importance"

    def __init__(self, percentile: float = 20.0, *, start: int = 200, period: int = 10) -> None:
        self.percentile = check_number(
            percentile, "ImportancePruning's percentile", low=0, high=100, low_open=True, high_open=True
        )
        self.start = check_integer(start, "ImportancePruning's start", low=0)
        self.period = check_integer(period, "ImportancePruning's period", low=1)

    def due(self, finished_epoch: int) -> bool:
        """Whether an event follows epoch `finished_epoch` (from 0); never asked after the last."""
        return finished_epoch > self.start and finished_epoch % self.period == 0

    def applies_to(self, layer_index: int, n_layers: int) -> bool:
        """Hidden neurons only: the matrix into the output layer is never pruned."""
        return layer_index < n_layers - 1

    def threshold(self, layer: SparseLayer, threads: int | None = None) -> tuple[float, NDArray[np.bool_]]:
        """Return the layer's threshold and which neurons are at or below it.

        Returns
        -------
        threshold : float
        weak : ndarray of bool, shape (n_out,)
        """
        col_ptr, _, perm = layer.pattern.transpose(threads)
        strength = _kernels.incoming_strength(col_ptr, perm, layer.values, threads).astype(np.float64)
        threshold = float(np.percentile(strength, self.percentile))
        return threshold, strength <= threshold

    def delta(self, layer: SparseLayer, threads: int | None = None) -> tuple[TopologyDelta | None, PruningReport]:
        """Say what an event takes from one layer (None: nothing) and report it."""
        threshold, weak = self.threshold(layer, threads)
        p = layer.pattern
        mask, dropped = _kernels.drop_incoming(p.n_in, p.n_out, p.row_ptr, p.col_idx, weak, threads)
        report = PruningReport(layer.index, threshold, int(np.count_nonzero(weak)), layer.nnz, layer.nnz - dropped)
        return (TopologyDelta(mask) if dropped else None), report

    def prune(self, net: SparseMLP, threads: int | None = None) -> list[PruningReport]:
        """Prune a finished network once, in place, without retraining (the paper's table 6).

        Parameters
        ----------
        net : SparseMLP
            Changed in place; its output matrix is left alone.
        threads : int, optional
            Threads to use; default all.

        Returns
        -------
        list of PruningReport
            One for each hidden layer.
        """
        reports = []
        for layer in net.layers:
            if not self.applies_to(layer.index, len(net.layers)):
                continue
            delta, report = self.delta(layer, threads)
            if delta is not None and delta.mask is not None:
                pattern, (values,) = layer.pattern.keep(delta.mask, [layer.values], threads=threads)
                layer.replace(pattern, values)
            reports.append(report)
        return reports

    def __repr__(self) -> str:
        return f"ImportancePruning({self.percentile!r}, start={self.start!r}, period={self.period!r})"


def get_pruning(spec: ImportancePruning | Mapping[str, Any] | None) -> ImportancePruning | None:
    """Return a pruning rule from itself or a mapping of its arguments; None stays None.

    Raises
    ------
    ConfigError
        If an argument is unknown; the nearest known one is suggested.
    """
    if spec is None or isinstance(spec, ImportancePruning):
        return spec
    if not isinstance(spec, Mapping):
        raise ConfigError(f"pruning must be ImportancePruning(...) or a mapping of its arguments, got {spec!r}")
    return ImportancePruning.from_config(spec)
