# SPDX-License-Identifier: BSD-3-Clause
"""Carrying out what a topology rule says: one layer at a time, optimizer state along with the weights."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trulysparse.engine.state import Slots, TrainState
from trulysparse.errors import ConfigError, PatternError, ShapeError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.compaction import drop_neurons, fold_constants, isolated_neurons
from trulysparse.model.progress import Progress
from trulysparse.model.registry import nearest
from trulysparse.topology import ImportancePruning, LayerGradient, Signals, Topology, TopologyDelta

# A rule may bring state for optimizers other than the one at hand.
_COMMON_SLOTS = ("velocity", "m", "v", "age")

Settle = Callable[[SparseLayer, TopologyDelta], None]


@dataclass(frozen=True)
class LayerChange:
    """What an evolution did to one layer.

    Attributes
    ----------
    layer : int
    before : int
        Connections before.
    pruned : int
        Incoming connections that importance pruning took from weak neurons.
    dropped, grown : int
        Connections that the topology rule took and made.
    folded : int
        Connections that pruning took because they came from neurons without inputs; biases hold what they brought.
    neurons_pruned : int
        Target neurons that lost their incoming connections to pruning.
    neurons_removed : int
        Target neurons taken out of the layer.
    """

    layer: int
    before: int
    pruned: int
    dropped: int
    grown: int
    folded: int = 0
    neurons_pruned: int = 0
    neurons_removed: int = 0

    @property
    def after(self) -> int:
        """Connections afterwards."""
        return self.before - self.pruned - self.folded - self.dropped + self.grown


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


@dataclass(frozen=True)
class _Pruned:
    """What pruning took from each layer."""

    connections: list[int]
    folded: list[int]
    neurons: list[int]
    removed: list[int]


def _prune(
    net: SparseMLP, state: TrainState, pruning: ImportancePruning, rule: Topology | None, threads: int
) -> _Pruned:
    """Carry out one event of importance pruning; the state follows."""
    count = len(net.layers)
    taken = _Pruned([0] * count, [0] * count, [0] * count, [0] * count)
    for layer in net.layers:
        i = layer.index
        if not pruning.applies_to(i, count):
            continue
        delta, report = pruning.delta(layer, threads, removed=state.removed[i] if state.removed else 0)
        if delta is not None:
            taken.connections[i], _ = _change(delta)
            taken.neurons[i] = report.neurons_pruned
            if rule is not None and delta.mask is not None and rule.applies_to(i, count):
                rule.connections_pruned(layer, delta.mask, state.rule)
            apply_delta(layer, state.weight_slots[i], delta, seed=0, evolution=0, threads=threads)
        if not pruning.regrow_into_pruned:
            without = layer.pattern.in_degree() == 0  # just those at or below the threshold
            state.pruned[i] = without | state.pruned[i] if i in state.pruned else without
    if pruning.remove_outgoing:
        taken.folded[:] = fold_constants(net, state.weight_slots, threads)
    if pruning.compact:
        doomed = isolated_neurons(net)
        gone = [int(np.count_nonzero(some)) for some in doomed]
        if any(gone):
            if rule is not None:
                rule.neurons_removed(state.rule, [~some for some in doomed])
            own = [
                [bias, *trained.values()]
                for bias, trained in zip(state.bias_slots, state.activation_slots, strict=True)
            ]
            drop_neurons(net, doomed, state.weight_slots, own, threads)
            state.pruned.update({i: closed[~doomed[i]] for i, closed in state.pruned.items()})
            state.removed = [n + more for n, more in zip(state.removed or [0] * len(gone), gone, strict=True)]
            taken.removed[: len(gone)] = gone
    return taken


def _check_delta(topology: Topology, layer: SparseLayer, delta: TopologyDelta, slots: Slots) -> None:
    """Refuse a change that the kernels would stumble over, in words of the rule that made it."""
    where = f"{type(topology).__name__}, layer {layer.index}: the delta's"
    wanted: dict[str, tuple[Any, np.dtype[Any], int | None]] = {"grown": (delta.grown, np.dtype(np.uint64), None)}
    if delta.mask is not None:
        wanted["mask"] = (delta.mask, np.dtype(np.bool_), layer.nnz)
    count = np.size(delta.grown)
    if delta.values is not None:
        wanted["values"] = (delta.values, np.dtype(np.float32), count)
    wanted |= {f"slots[{name!r}]": (array, np.dtype(np.float32), count) for name, array in delta.slots.items()}
    for name, (array, dtype, length) in wanted.items():
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
            got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{where} {name} must be a one-dimensional array of {dtype}, got {got}")
        if length is not None and array.size != length:
            one = "connection" if name == "mask" else "grown cell"
            raise ShapeError(f"{where} {name} must have {length} entries, one a {one}, got {array.size}")
    known = {*slots, *_COMMON_SLOTS}
    for name in delta.slots:
        if name not in known:
            raise ConfigError(
                f"{where} slot {name!r} is not known, there are {', '.join(sorted(known))}{nearest(name, known)}"
            )


def _check_closed(topology: Topology, layer: SparseLayer, delta: TopologyDelta, state: TrainState) -> None:
    closed = state.pruned.get(layer.index)
    if closed is None or not delta.grown.size:
        return
    targets = delta.grown % np.uint64(layer.n_out)
    if closed[targets.astype(np.int64)].any():
        raise PatternError(
            f"{type(topology).__name__} grew connections of layer {layer.index} into neurons that pruning closed for "
            "good; draw cells with Signals.draw_missing, look at Signals.closed, or set regrow_into_pruned=True"
        )


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
    layer_lr: Mapping[int, float] | None = None,
    gradients: Mapping[int, LayerGradient] | Callable[[], Mapping[int, LayerGradient] | None] | None = None,
    rule: Topology | None = None,
    settle: Settle | None = None,
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
    layer_lr : mapping of int to float, optional
        By layer, that of its weights where it differs.
    gradients : mapping of int to LayerGradient, or function that returns one, optional
        By layer, for rules that want them. A function is called between pruning and the rule, so that it measures the
        network that the rule sees; if it returns None, the rule does not act.
    rule : Topology, optional
        The rule of the run, due or not: what it remembers follows when neurons are removed. Default `topology`.
    settle : callable, optional
        Called with each layer that the rule changed, and how, before the next one is: may move its arrays elsewhere,
        so that memory for one layer beside the network is enough.

    Returns
    -------
    Evolution
        What changed, layer by layer.
    """
    started = time.perf_counter()
    number, count = state.evolutions, len(net.layers)
    before = [layer.nnz for layer in net.layers]
    dropped, grown = [0] * count, [0] * count
    taken = _Pruned([0] * count, [0] * count, [0] * count, [0] * count)
    if pruning is not None:
        taken = _prune(net, state, pruning, topology if rule is None else rule, threads)
    measured = gradients() if callable(gradients) else gradients or {}
    if measured is None:
        topology, measured = None, {}
    signals = Signals(
        seed,
        number,
        threads,
        progress=Progress(state.step, 0.0, 1, 1) if progress is None else progress,
        lr=lr,
        state=state.rule,
        slots=state.weight_slots,
        gradients={i: replace(gradient, closed=state.pruned.get(i)) for i, gradient in measured.items()},
        closed=state.pruned,
        exploring=state.exploring,
        network_seed=net.seed,
        layer_lr=layer_lr or {},
    )
    carry_out = functools.partial(apply_delta, seed=seed, evolution=number, threads=threads)
    if topology is not None:
        chosen = [layer for layer in net.layers if topology.applies_to(layer.index, count)]
        for layer, delta in topology.plan(chosen, signals):
            if not isinstance(delta, TopologyDelta | None):
                raise TypeError(
                    f"{type(topology).__name__} gave a {type(delta).__name__} as the change of a layer; "
                    "evolve returns a TopologyDelta or None"
                )
            if delta is not None:
                _check_delta(topology, layer, delta, state.weight_slots[layer.index])
                _check_closed(topology, layer, delta, state)
                out, came = _change(delta)
                dropped[layer.index] += out
                grown[layer.index] += came
                carry_out(layer, state.weight_slots[layer.index], delta)
                if settle is not None:
                    settle(layer, delta)
    for layer in net.layers:
        layer.prepare(threads)  # here and not when first used: with these threads
    changes = tuple(
        LayerChange(
            i,
            before[i],
            taken.connections[i],
            dropped[i],
            grown[i],
            folded=taken.folded[i],
            neurons_pruned=taken.neurons[i],
            neurons_removed=taken.removed[i],
        )
        for i in range(count)
        if taken.connections[i] or taken.folded[i] or taken.removed[i] or dropped[i] or grown[i]
    )
    state.evolutions += 1
    return Evolution(number, changes, time.perf_counter() - started)
