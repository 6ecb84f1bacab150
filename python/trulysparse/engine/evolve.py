# SPDX-License-Identifier: BSD-3-Clause
"""Carrying out what a topology rule says: one layer at a time, optimizer state along with the weights."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from trulysparse.engine.state import Slots, TrainState
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.topology import ImportancePruning, Signals, Topology, TopologyDelta


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
    """Rewire a layer: kept connections keep weight and optimizer state, grown ones start with none.

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
        pattern, arrays = layer.pattern.rewire(
            delta.mask, delta.grown, carried, [values, *(None for _ in names)], threads=threads
        )
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

    Returns
    -------
    Evolution
        What changed, layer by layer.
    """
    started = time.perf_counter()
    signals = Signals(seed, state.evolutions, threads)
    carry_out = functools.partial(apply_delta, seed=seed, evolution=state.evolutions, threads=threads)
    count = len(net.layers)
    changes = []
    for layer in net.layers:
        before, pruned, dropped, grown = layer.nnz, 0, 0, 0
        slots = state.weight_slots[layer.index]
        if pruning is not None and pruning.applies_to(layer.index, count):
            delta, _ = pruning.delta(layer, threads)
            if delta is not None:
                pruned, _ = _change(delta)
                carry_out(layer, slots, delta)
        if topology is not None and topology.applies_to(layer.index, count):
            delta = topology.evolve(layer, signals, state.step)
            if not isinstance(delta, TopologyDelta | None):
                raise TypeError(
                    f"{type(topology).__name__}.evolve returned a {type(delta).__name__}; "
                    "return a TopologyDelta or None"
                )
            if delta is not None:
                dropped, grown = _change(delta)
                carry_out(layer, slots, delta)
        layer.pattern.transpose(threads)  # here and not when first used: with these threads, and once for both rules
        if pruned or dropped or grown:
            changes.append(LayerChange(layer.index, before, pruned, dropped, grown))
    state.evolutions += 1
    return Evolution(signals.evolution, tuple(changes), time.perf_counter() - started)
