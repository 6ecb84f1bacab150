# SPDX-License-Identifier: BSD-3-Clause
"""Importance pruning: neurons that matter least lose their incoming connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.compaction import drop_neurons, fold_constants, isolated_neurons
from trulysparse.model.registry import Configurable, check_integer, check_number
from trulysparse.topology.base import TopologyDelta


@dataclass(frozen=True)
class PruningReport:
    """What an importance pruning did to one layer.

    Attributes
    ----------
    layer : int
    threshold : float
        Importance at or below which a neuron was pruned.
    neurons : int
        How many are at or below it, those included that had no connections before.
    connections_before, connections_after : int
        Of the matrix into the layer.
    neurons_pruned : int
        Neurons that lost incoming connections now.
    neurons_removed : int
        Neurons taken out of the layer, with `compact`.
    """

    layer: int
    threshold: float
    neurons: int
    connections_before: int
    connections_after: int
    neurons_pruned: int = 0
    neurons_removed: int = 0


class ImportancePruning(Configurable):
    """Remove the incoming connections of the neurons that matter least.

    The importance of a hidden neuron is the sum of the absolute weights of its incoming connections. At an event,
    every neuron at or below the given percentile of its layer (neurons without connections count too, as 0) loses
    all of them, and the connections are gone for good: the rule that follows keeps the smaller number. The neuron, its
    bias and its outgoing connections stay, unless the options below say otherwise. It works beside any topology
    rule, beside Top-KAST without those options.
    "Truly Sparse Neural Networks at Scale", eq. 4 and algorithm 2.

    Parameters
    ----------
    percentile : float
        Threshold within each layer, in (0, 100).
    start : int
        Events happen after epochs (counted from 0) greater than this.
    period : int
        ... and divisible by this, never after the last epoch.
    remove_outgoing : bool
        Also delete the outgoing connections of every hidden neuron that has no incoming ones. What it gives, the
        constant f(bias), goes into the biases of the next layer: predictions stay the same up to rounding.
    compact : bool
        Also take hidden neurons without any connection out of the network, so that matrices, biases and activations
        shrink; the last neuron of a layer stays. Implies `remove_outgoing`. Neurons taken out during training still
        count as 0 in the percentile, so that the percentile remains a part of the layer as it began.
    regrow_into_pruned : bool
        False: a neuron at or below a threshold once never gets incoming connections again, whatever rule follows.

    Notes
    -----
    The defaults are those of the paper's sequential code: 29 events in 500 epochs, after epochs 210, 220, ..., 490.

    With dropout, a training step would have left the constant out now and then and scaled it up otherwise; the folded
    constant is the mean of that. Dropout is drawn by the number of a neuron and new connections by their cell: after a
    compaction both numberings are new, and so are the draws.

    To compact a network once it is trained, see also `SparseMLP.compact`.
    """

    name: ClassVar[str] = "importance"

    def __init__(
        self,
        percentile: float = 20.0,
        *,
        start: int = 200,
        period: int = 10,
        remove_outgoing: bool = False,
        compact: bool = False,
        regrow_into_pruned: bool = True,
    ) -> None:
        self.percentile = check_number(
            percentile, "ImportancePruning's percentile", low=0, high=100, low_open=True, high_open=True
        )
        self.start = check_integer(start, "ImportancePruning's start", low=0)
        self.period = check_integer(period, "ImportancePruning's period", low=1)
        self.compact = _flag("compact", compact)
        self.remove_outgoing = _flag("remove_outgoing", remove_outgoing) or self.compact
        self.regrow_into_pruned = _flag("regrow_into_pruned", regrow_into_pruned)

    def due(self, finished_epoch: int) -> bool:
        """Whether an event follows epoch `finished_epoch` (from 0); never asked after the last."""
        return finished_epoch > self.start and finished_epoch % self.period == 0

    def applies_to(self, layer_index: int, n_layers: int) -> bool:
        """Hidden neurons only: the matrix into the output layer is never pruned."""
        return layer_index < n_layers - 1

    def threshold(
        self, layer: SparseLayer, threads: int | None = None, *, removed: int = 0
    ) -> tuple[float, NDArray[np.bool_]]:
        """Return the layer's threshold and which neurons are at or below it.

        Parameters
        ----------
        layer : SparseLayer
        threads : int, optional
        removed : int
            Neurons that earlier events took out of the layer; they count as 0.

        Returns
        -------
        threshold : float
        weak : ndarray of bool, shape (n_out,)
        """
        col_ptr, _, perm = layer.pattern.transpose(threads)
        strength = _kernels.incoming_strength(col_ptr, perm, layer.values, threads).astype(np.float64)
        layer.prepare(threads)  # a layer that keeps no permutation lets go of this one
        threshold = float(np.percentile(np.concatenate([strength, np.zeros(removed)]), self.percentile))
        return threshold, strength <= threshold

    def delta(
        self, layer: SparseLayer, threads: int | None = None, *, removed: int = 0
    ) -> tuple[TopologyDelta | None, PruningReport]:
        """Say which incoming connections an event takes from one layer (None: none) and report it."""
        threshold, weak = self.threshold(layer, threads, removed=removed)
        p = layer.pattern
        mask, dropped = _kernels.drop_incoming(p.n_in, p.n_out, p.row_ptr, p.col_idx, weak, threads)
        report = PruningReport(
            layer.index,
            threshold,
            int(np.count_nonzero(weak)),
            layer.nnz,
            layer.nnz - dropped,
            int(np.count_nonzero(weak & (p.in_degree() > 0))),
        )
        return (TopologyDelta(mask) if dropped else None), report

    def prune(self, net: SparseMLP, threads: int | None = None) -> list[PruningReport]:
        """Prune a finished network once, in place, without retraining (the paper's table 6).

        Parameters
        ----------
        net : SparseMLP
            Changed in place; its output matrix is left alone, except by `remove_outgoing` and `compact`.
        threads : int, optional
            Threads to use; default all.

        Returns
        -------
        list of PruningReport
            One for each hidden layer.
        """
        threads = _kernels.resolve_threads(threads)
        reports = []
        for layer in net.layers:
            if not self.applies_to(layer.index, len(net.layers)):
                continue
            delta, report = self.delta(layer, threads)
            if delta is not None and delta.mask is not None:
                pattern, (values,) = layer.pattern.keep(delta.mask, [layer.values], threads=threads)
                layer.replace(pattern, values)
            reports.append(report)
        if self.remove_outgoing:
            fold_constants(net, [{} for _ in net.layers], threads)
        if self.compact:
            doomed = isolated_neurons(net)
            drop_neurons(net, doomed, [{} for _ in net.layers], [[] for _ in net.layers], threads)
            gone = [int(np.count_nonzero(some)) for some in doomed]
            reports = [replace(report, neurons_removed=gone[report.layer]) for report in reports]
        return [replace(report, connections_after=net.layers[report.layer].nnz) for report in reports]

    def __repr__(self) -> str:
        flags = {"remove_outgoing": self.remove_outgoing, "compact": self.compact}
        told = [f"{key}=True" for key, value in flags.items() if value]
        told += [] if self.regrow_into_pruned else ["regrow_into_pruned=False"]
        return (
            f"ImportancePruning({', '.join([f'{self.percentile}, start={self.start}, period={self.period}', *told])})"
        )


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"ImportancePruning's {key} must be True or False, got {value!r}")
    return bool(value)


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
