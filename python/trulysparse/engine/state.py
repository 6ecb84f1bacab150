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
from trulysparse.model import Pattern, SparseMLP
from trulysparse.model.tensors import described, fill, take
from trulysparse.optim import Optimizer
from trulysparse.topology import Exploration, RuleState, Topology

Slots = dict[str, NDArray[np.float32]]

_RULE = "topology."
_EXPLORING = "exploring."
_PRUNED = "pruned.layers."


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
    activation_slots : list of dict of dict
        Optimizer state of what is trained in each layer's activation, by parameter.
    rule : RuleState
        What the topology rule remembers.
    exploring : dict of int to Exploration
        By layer, connections that are trained without taking part in the output.
    pruned : dict of int to ndarray of bool
        By layer, the neurons that are closed to new connections for good, because they were pruned.
    removed : list of int
        Neurons that compactions took out of each hidden layer; empty if none ever did.
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
    activation_slots: list[dict[str, Slots]] = field(default_factory=list, repr=False)
    rule: RuleState = field(default_factory=RuleState, repr=False)
    exploring: dict[int, Exploration] = field(default_factory=dict, repr=False)
    pruned: dict[int, NDArray[np.bool_]] = field(default_factory=dict, repr=False)
    removed: list[int] = field(default_factory=list)

    @classmethod
    def fresh(cls, net: SparseMLP, optimizer: Optimizer, topology: Topology | None = None) -> TrainState:
        """Return the state before the first step: all slots zero."""
        slots = (*optimizer.slots, *(() if topology is None else topology.slots))
        return cls(
            weight_slots=[{s: _kernels.aligned_zeros(layer.nnz) for s in slots} for layer in net.layers],
            bias_slots=[{s: _kernels.aligned_zeros(layer.n_out) for s in optimizer.slots} for layer in net.layers],
            activation_slots=[
                {
                    name: {s: _kernels.aligned_zeros(array.size) for s in optimizer.slots}
                    for name, array in layer.activation_parameters.items()
                }
                for layer in net.layers
            ],
        )

    def counters(self) -> dict[str, Any]:
        """Return the numbers (not the slots), for a checkpoint's metadata."""
        counters = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _COUNTERS}
        more = {"rule": self.rule.numbers, "removed": self.removed}
        return counters | {name: value for name, value in more.items() if value}

    def memory(self, net: SparseMLP) -> dict[str, int]:
        """Return the bytes that the run holds between two steps, by what they are for.

        Returns
        -------
        dict of str to int
            "network": patterns with their second index, weights and biases; "exploring": the same of explored
            connections; "optimizer": the slots of all of them; "rule": what the topology rule remembers in memory;
            "rule_files": and in files that are mapped to memory.
        """
        trained = [slots for parameters in self.activation_slots for slots in parameters.values()]
        explored = [exploration.slots for exploration in self.exploring.values()]
        slots = [*self.weight_slots, *self.bias_slots, *trained, *explored]
        held = list(self.rule.tensors.values())
        mapped = sum(a.nbytes for a in held if isinstance(a, np.memmap))
        return {
            "network": sum(layer.nbytes for layer in net.layers),
            "exploring": sum(e.layer.nbytes for e in self.exploring.values()),
            "optimizer": sum(array.nbytes for some in slots for array in some.values()),
            "rule": sum(a.nbytes for a in held) - mapped,
            "rule_files": mapped,
        }

    def start_epoch(self, epoch: int) -> None:
        """Begin `epoch` with empty sums."""
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.correct = 0.0, 0
        self.train_seconds = self.evolve_seconds = 0.0


_COUNTERS = {f.name for f in fields(TrainState)} - {
    "weight_slots",
    "bias_slots",
    "activation_slots",
    "rule",
    "pruned",
    "removed",
    "exploring",
}


def state_tensors(state: TrainState) -> dict[str, NDArray[Any]]:
    """Return slots, explored connections and the rule's tensors under the names that a checkpoint gives them."""
    named: dict[str, NDArray[Any]] = {**_slot_tensors(state)}
    named |= {_RULE + name: array for name, array in state.rule.tensors.items()}
    named |= {f"{_PRUNED}{layer}": closed for layer, closed in state.pruned.items()}
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
    named = {
        f"optimizer.layers.{i}.{part}.{slot}": array
        for part, layers in (("weights", state.weight_slots), ("bias", state.bias_slots))
        for i, slots in enumerate(layers)
        for slot, array in slots.items()
    }
    return named | {
        f"optimizer.layers.{i}.activation.{name}.{slot}": array
        for i, parameters in enumerate(state.activation_slots)
        for name, slots in parameters.items()
        for slot, array in slots.items()
    }


def restore_state(
    net: SparseMLP,
    optimizer: Optimizer,
    topology: Topology | None,
    tensors: Mapping[str, NDArray[Any]],
    counters: Mapping[str, Any],
) -> TrainState:
    """Rebuild a state from a checkpoint; the slots of a `TensorFile` are read in place.

    Raises
    ------
    CheckpointError
        If an optimizer tensor is absent or of the wrong size, or a counter is unknown.
    """
    state = TrainState.fresh(net, optimizer, topology)
    numbers = dict(counters)
    state.rule.numbers.update(numbers.pop("rule", {}))
    state.removed = list(numbers.pop("removed", []))
    unknown = set(numbers) ^ _COUNTERS
    if unknown:
        raise CheckpointError(f"the checkpoint's counters do not match this version's: {', '.join(sorted(unknown))}")
    for name, array in _slot_tensors(state).items():
        saved = described(tensors, name)
        if saved != (array.dtype, array.shape):
            got = "absent" if saved is None else f"{saved[0]} of shape {saved[1]}"
            raise CheckpointError(f"checkpoint tensor {name} is {got}, expected {array.dtype} of shape {array.shape}")
        fill(tensors, name, array)
    for key, value in numbers.items():
        setattr(state, key, value)
    for name in tensors:
        if name.startswith(_PRUNED):
            index, closed = int(name[len(_PRUNED) :]), take(tensors, name)
            if index >= len(net.layers) or closed.shape != (net.layers[index].n_out,) or closed.dtype != np.bool_:
                raise CheckpointError(
                    f"checkpoint tensor {name} is {closed.dtype} of shape {closed.shape}, expected one bool a neuron"
                )
            state.pruned[index] = closed
    # a rule changes its arrays in place, so they are its own
    state.rule.tensors.update({n[len(_RULE) :]: take(tensors, n) for n in tensors if n.startswith(_RULE)})
    state.exploring.update(_explorations(net, state, tensors))
    return state


@dataclass(frozen=True)
class NetworkSnapshot:
    """A copy of a network's patterns, weights, biases and trained activations, to return to."""

    patterns: tuple[Pattern, ...]
    values: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    activations: tuple[Slots, ...]  # of each layer, by parameter

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the snapshot as named tensors."""
        named: dict[str, NDArray[Any]] = {}
        for i, (pattern, values, bias) in enumerate(zip(self.patterns, self.values, self.biases, strict=True)):
            named[f"layers.{i}.row_ptr"] = pattern.row_ptr.astype(np.int64)
            named[f"layers.{i}.col_idx"] = pattern.col_idx
            named[f"layers.{i}.weights"] = values
            named[f"layers.{i}.bias"] = bias
        for i, parameters in enumerate(self.activations):
            named |= {f"layers.{i}.activation.{name}": array for name, array in parameters.items()}
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
                    tensors[f"layers.{i}.row_ptr"].size - 1,  # not as the net is now: it may have been compacted since
                    tensors[f"layers.{i}.bias"].size,
                    tensors[f"layers.{i}.row_ptr"].astype(_kernels.offset_dtype(tensors[f"layers.{i}.col_idx"].size)),
                    tensors[f"layers.{i}.col_idx"],
                )
                for i in range(len(net.layers))
            )
            values = tuple(tensors[f"layers.{i}.weights"] for i in range(len(net.layers)))
            biases = tuple(tensors[f"layers.{i}.bias"] for i in range(len(net.layers)))
            activations = tuple(
                {name: tensors[f"layers.{i}.activation.{name}"] for name in layer.activation_parameters}
                for i, layer in enumerate(net.layers)
            )
        except KeyError as error:
            raise CheckpointError(f"the snapshot of the best network lacks tensor {error}") from error
        return cls(patterns, values, biases, activations)


def snapshot_network(net: SparseMLP) -> NetworkSnapshot:
    """Copy what training changes (patterns are immutable and shared)."""
    return NetworkSnapshot(
        tuple(layer.pattern.lasting() for layer in net.layers),
        tuple(layer.values.copy() for layer in net.layers),
        tuple(layer.bias.copy() for layer in net.layers),
        tuple({name: array.copy() for name, array in layer.activation_parameters.items()} for layer in net.layers),
    )


def restore_network(net: SparseMLP, snapshot: NetworkSnapshot) -> None:
    """Put a snapshot's patterns, weights, biases and trained activations back, and neurons that were removed since."""
    for layer, pattern, values, bias, parameters in zip(
        net.layers, snapshot.patterns, snapshot.values, snapshot.biases, snapshot.activations, strict=True
    ):
        fresh = _kernels.aligned_empty(values.shape)
        fresh[...] = values
        own = _restored(layer.bias, bias)
        trained = {name: _restored(layer.activation_parameters[name], array) for name, array in parameters.items()}
        layer.replace(pattern, fresh, own, trained)


def _restored(living: NDArray[np.float32], saved: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the living array filled with what was saved, or a new one where neurons are back."""
    array = living if living.size == saved.size else _kernels.aligned_empty(saved.size)
    array[...] = saved
    return array
