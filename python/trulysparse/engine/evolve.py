# SPDX-License-Identifier: BSD-3-Clause
"""Carrying out what a topology rule says: one layer at a time, optimizer state along with the weights."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trulysparse.engine.state import Slots, TrainState
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.topology import ImportancePruning, LayerGradient, Signals, Topology, TopologyDelta


@dataclass(frozen=True)
class LayerChange:
    """What an evolution did to one layer, in connections."""

    layer: int
    before: int
    pruned: int
    dropped: int
    grown: int

    @property
    def after(self) -> int:
        """Connections afterwards."""
        return self.before - self.pruned - self.dropped + self.grown


@dataclass(frozen=True)
class Evolution:
    """One evolution of a network.

    Attributes
    ----------
    number : int
        How many came before it.
    changes : tuple of LayerChange
        One for each layer that changed.
    seconds : float
        Time it took.
    """

    number: int
    changes: tuple[LayerChange, ...]
    seconds: float


def apply_delta(
    layer: SparseLayer,
    slots: Slots,
    delta: TopologyDelta,
    *,
    seed: int,
    evolution: int,
    threads: int | None = None,
) -> None:
    """Rewire a layer: kept connections keep weight and optimizer state, grown ones start as the delta says.

    Parameters
    ----------
    layer : SparseLayer
        Changed in place.
    slots : dict of str to ndarray
        Its optimizer state in pattern order; the arrays are replaced.
    delta : TopologyDelta
        What stays and what is new.
    seed, evolution : int
        Key the draw of new weights where the delta brings none.
    threads : int, optional
        Threads for the kernels; default all.
    """
    names = list(slots)
    carried = [layer.values, *(slots[name] for name in names)]
    if delta.grown.size == 0:
        if delta.mask is None:
            return
        pattern, arrays = layer.pattern.keep(delta.mask, carried, threads=threads)
    else:
        values = delta.values
        if values is None:
            values = layer.draw_grown(delta.grown, seed=seed, step=evolution, threads=threads)
        fills = [values, *(delta.slots.get(name) for name in names)]
        pattern, arrays = layer.pattern.rewire(delta.mask, delta.grown, carried, fills, threads=threads)
    layer.replace(pattern, arrays[0])
    slots.update(zip(names, arrays[1:], strict=True))


def _change(delta: TopologyDelta | None) -> tuple[int, int]:
    if delta is None:
        return 0, 0
    dropped = 0 if delta.mask is None else int(delta.mask.size - np.count_nonzero(delta.mask))
    return dropped, int(delta.grown.size)


def evolve_network(
    net: SparseMLP,
    state: TrainState,
    *,
    topology: Topology | None,
    pruning: ImportancePruning | None,
    seed: int,
    threads: int,
    progress: Progress | None = None,
    lr: float = 0.0,
    gradients: Mapping[int, LayerGradient] | None = None,
) -> Evolution:
    """Evolve every layer to which a rule applies: importance pruning first, then the topology rule.

    Parameters
    ----------
    net : SparseMLP
        Changed in place, layer by layer.
    state : TrainState
        Its slots follow the connections; its evolution count goes up by one.
    topology, pruning : Topology or None, ImportancePruning or None
        The rules that are due; None is not.
    seed, threads : int
        Seed of the run and threads for the kernels.
    progress : Progress, optional
        Where the run is; default its very start.
    lr : float
        Learning rate of the step that comes next.
    gradients : mapping of int to LayerGradient, optional
        By layer, for rules that want them.

    Returns
    -------
    Evolution
        What changed, layer by layer.
    """
    started = time.perf_counter()
    signals = Signals(
        seed,
        state.evolutions,
        threads,
        progress=Progress(state.step, 0.0, 1, 1) if progress is None else progress,
        lr=lr,
        state=state.rule,
        slots=state.weight_slots,
        gradients=gradients or {},
        exploring=state.exploring,
        network_seed=net.seed,
    )
    carry_out = functools.partial(apply_delta, seed=seed, evolution=state.evolutions, threads=threads)
    count = len(net.layers)
    before = [layer.nnz for layer in net.layers]
    pruned, dropped, grown = [0] * count, [0] * count, [0] * count
    if pruning is not None:
        for layer in net.layers:
            if not pruning.applies_to(layer.index, count):
                continue
            delta, _ = pruning.delta(layer, threads)
            if delta is not None:
                pruned[layer.index], _ = _change(delta)
                carry_out(layer, state.weight_slots[layer.index], delta)
    if topology is not None:
        chosen = [layer for layer in net.layers if topology.applies_to(layer.index, count)]
        for layer, delta in topology.plan(chosen, signals):
            if not isinstance(delta, TopologyDelta | None):
                raise TypeError(
                    f"{type(topology).__name__} gave a {type(delta).__name__} as the change of a layer; "
                    "evolve returns a TopologyDelta or None"
                )
            if delta is not None:
                out, came = _change(delta)
                dropped[layer.index] += out
                grown[layer.index] += came
                carry_out(layer, state.weight_slots[layer.index], delta)
    for layer in net.layers:
        layer.pattern.transpose(threads)  # here and not when first used: with these threads
    for exploration in state.exploring.values():
        exploration.layer.pattern.transpose(threads)
    changes = tuple(
        LayerChange(i, before[i], pruned[i], dropped[i], grown[i])
        for i in range(count)
        if pruned[i] or dropped[i] or grown[i]
    )
    state.evolutions += 1
    return Evolution(signals.evolution, changes, time.perf_counter() - started)
