# SPDX-License-Identifier: BSD-3-Clause
"""Everything that a run is, besides its network and data: counters and optimizer state, as tensors and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import CheckpointError, TrulySparseError
from trulysparse.model import Pattern, SparseLayer, SparseMLP
from trulysparse.optim import Optimizer
from trulysparse.topology import Exploration, RuleState, Topology

Slots = dict[str, NDArray[np.float32]]

_RULE = "topology."
_EXPLORING = "exploring."


@dataclass
class TrainState:
    """Where a run stands. All randomness is a function of the seed and these counters, so they are the whole stream.

    Attributes
    ----------
    step : int
        Training steps made.
    epoch, batch : int
        The epoch under way and the batches of it already trained on.
    evolutions : int
        Evolutions of the network made.
    evolved : bool
        Whether the evolution that precedes the next step is done already.
    loss_sum, correct : float, int
        Sums over the samples of the epoch so far.
    train_seconds, evolve_seconds : float
        Time spent on the epoch so far.
    weight_slots, bias_slots : list of dict
        Optimizer state of each layer: float32 arrays in pattern order (a topology rule may keep some too), and one
        value a neuron.
    rule : RuleState
        What the topology rule remembers.
    exploring : dict of int to Exploration
        By layer, connections that are trained without taking part in the output.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    evolutions: int = 0
    evolved: bool = False
    loss_sum: float = 0.0
    correct: int = 0
    train_seconds: float = 0.0
    evolve_seconds: float = 0.0
    weight_slots: list[Slots] = field(default_factory=list, repr=False)
    bias_slots: list[Slots] = field(default_factory=list, repr=False)
    rule: RuleState = field(default_factory=RuleState, repr=False)
    exploring: dict[int, Exploration] = field(default_factory=dict, repr=False)

    @classmethod
    def fresh(cls, net: SparseMLP, optimizer: Optimizer, topology: Topology | None = None) -> TrainState:
        """Return the state before the first step: all slots zero."""
        slots = (*optimizer.slots, *(() if topology is None else topology.slots))
        return cls(
            weight_slots=[{s: _kernels.aligned_zeros(layer.nnz) for s in slots} for layer in net.layers],
            bias_slots=[{s: _kernels.aligned_zeros(layer.n_out) for s in optimizer.slots} for layer in net.layers],
        )

    def counters(self) -> dict[str, Any]:
        """Return the numbers (not the slots), for a checkpoint's metadata."""
        counters = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _COUNTERS}
        return counters | ({"rule": self.rule.numbers} if self.rule.numbers else {})

    def memory(self, net: SparseMLP) -> dict[str, int]:
        """Return the bytes that the run holds between two steps, by what they are for.

        Returns
        -------
        dict of str to int
            "network": patterns with their second index, weights and biases; "exploring": the same of explored
            connections; "optimizer": the slots of all of them; "rule": what the topology rule remembers in memory;
            "rule_files": and in files that are mapped to memory.
        """
        slots = [*self.weight_slots, *self.bias_slots, *(e.slots for e in self.exploring.values())]
        held = list(self.rule.tensors.values())
        mapped = sum(a.nbytes for a in held if isinstance(a, np.memmap))
        return {
            "network": sum(map(_layer_bytes, net.layers)),
            "exploring": sum(_layer_bytes(e.layer) for e in self.exploring.values()),
            "optimizer": sum(array.nbytes for some in slots for array in some.values()),
            "rule": sum(a.nbytes for a in held) - mapped,
            "rule_files": mapped,
        }

    def start_epoch(self, epoch: int) -> None:
        """Begin `epoch` with empty sums."""
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.correct = 0.0, 0
        self.train_seconds = self.evolve_seconds = 0.0


def _layer_bytes(layer: SparseLayer) -> int:
    index = sum(array.nbytes for array in layer.pattern.transposed)
    return layer.pattern.nbytes + index + layer.values.nbytes + layer.bias.nbytes


_COUNTERS = {f.name for f in fields(TrainState)} - {"weight_slots", "bias_slots", "rule", "exploring"}


def state_tensors(state: TrainState) -> dict[str, NDArray[Any]]:
    """Return slots, explored connections and the rule's tensors under the names that a checkpoint gives them."""
    named: dict[str, NDArray[Any]] = {**_slot_tensors(state)}
    named |= {_RULE + name: array for name, array in state.rule.tensors.items()}
    for i, exploration in state.exploring.items():
        named[f"{_EXPLORING}{i}.cells"] = exploration.layer.pattern.cells()
        named[f"{_EXPLORING}{i}.weights"] = exploration.layer.values
        named |= {f"{_EXPLORING}{i}.slots.{slot}": array for slot, array in exploration.slots.items()}
    return named


def _explorations(net: SparseMLP, state: TrainState, tensors: Mapping[str, NDArray[Any]]) -> dict[int, Exploration]:
    """Read what `state_tensors` wrote of the explored connections."""
    found = {}
    for layer in net.layers:
        prefix = f"{_EXPLORING}{layer.index}."
        if f"{prefix}cells" not in tensors:
            continue
        try:
            pattern = Pattern.from_cells(layer.n_in, layer.n_out, tensors[f"{prefix}cells"])
            slots = {slot: tensors[f"{prefix}slots.{slot}"] for slot in state.weight_slots[layer.index]}
            if any(array.shape != (pattern.nnz,) for array in slots.values()):
                raise CheckpointError("the optimizer state is not as long as the connections")
            found[layer.index] = Exploration.build(layer, pattern, tensors[f"{prefix}weights"], slots)
        except (KeyError, TypeError, TrulySparseError, ValueError) as error:
            raise CheckpointError(f"the explored connections of layer {layer.index} are damaged: {error}") from error
    return found


def _slot_tensors(state: TrainState) -> dict[str, NDArray[np.float32]]:
    return {
        f"optimizer.layers.{i}.{part}.{slot}": array
        for part, layers in (("weights", state.weight_slots), ("bias", state.bias_slots))
        for i, slots in enumerate(layers)
        for slot, array in slots.items()
    }


def restore_state(
    net: SparseMLP,
    optimizer: Optimizer,
    topology: Topology | None,
    tensors: Mapping[str, NDArray[Any]],
    counters: Mapping[str, Any],
) -> TrainState:
    """Rebuild a state from a checkpoint.

    Raises
    ------
    CheckpointError
        If an optimizer tensor is absent or of the wrong size, or a counter is unknown.
    """
    state = TrainState.fresh(net, optimizer, topology)
    numbers = dict(counters)
    state.rule.numbers.update(numbers.pop("rule", {}))
    unknown = set(numbers) ^ _COUNTERS
    if unknown:
        raise CheckpointError(f"the checkpoint's counters do not match this version's: {', '.join(sorted(unknown))}")
    for name, array in _slot_tensors(state).items():
        saved = tensors.get(name)
        if saved is None or saved.shape != array.shape or saved.dtype != array.dtype:
            got = "absent" if saved is None else f"{saved.dtype} of shape {saved.shape}"
            raise CheckpointError(f"checkpoint tensor {name} is {got}, expected {array.dtype} of shape {array.shape}")
        array[...] = saved
    for key, value in numbers.items():
        setattr(state, key, value)
    # a rule changes its arrays in place, and what a file was read into may not be written to
    state.rule.tensors.update({n[len(_RULE) :]: a.copy() for n, a in tensors.items() if n.startswith(_RULE)})
    state.exploring.update(_explorations(net, state, tensors))
    return state


@dataclass(frozen=True)
class NetworkSnapshot:
    """A copy of a network's patterns, weights and biases, to return to."""

    patterns: tuple[Pattern, ...]
    values: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the snapshot as named tensors."""
        named: dict[str, NDArray[Any]] = {}
        for i, (pattern, values, bias) in enumerate(zip(self.patterns, self.values, self.biases, strict=True)):
            named[f"layers.{i}.row_ptr"] = pattern.row_ptr.astype(np.int64)
            named[f"layers.{i}.col_idx"] = pattern.col_idx
            named[f"layers.{i}.weights"] = values
            named[f"layers.{i}.bias"] = bias
        return named

    @classmethod
    def from_tensors(cls, net: SparseMLP, tensors: Mapping[str, NDArray[Any]]) -> NetworkSnapshot:
        """Rebuild a snapshot of `net` from named tensors.

        Raises
        ------
        CheckpointError
            If a tensor is absent.
        """
        try:
            patterns = tuple(
                Pattern(
                    layer.n_in,
                    layer.n_out,
                    tensors[f"layers.{i}.row_ptr"].astype(_kernels.offset_dtype(tensors[f"layers.{i}.col_idx"].size)),
                    tensors[f"layers.{i}.col_idx"],
                )
                for i, layer in enumerate(net.layers)
            )
            values = tuple(tensors[f"layers.{i}.weights"] for i in range(len(net.layers)))
            biases = tuple(tensors[f"layers.{i}.bias"] for i in range(len(net.layers)))
        except KeyError as error:
            raise CheckpointError(f"the snapshot of the best network lacks tensor {error}") from error
        return cls(patterns, values, biases)


def snapshot_network(net: SparseMLP) -> NetworkSnapshot:
    """Copy what training changes (patterns are immutable and shared)."""
    return NetworkSnapshot(
        tuple(layer.pattern for layer in net.layers),
        tuple(layer.values.copy() for layer in net.layers),
        tuple(layer.bias.copy() for layer in net.layers),
    )


def restore_network(net: SparseMLP, snapshot: NetworkSnapshot) -> None:
    """Put a snapshot's patterns, weights and biases back into `net`."""
    for layer, pattern, values, bias in zip(
        net.layers, snapshot.patterns, snapshot.values, snapshot.biases, strict=True
    ):
        fresh = _kernels.aligned_empty(values.shape)
        fresh[...] = values
        layer.replace(pattern, fresh)
        layer.bias[...] = bias
