# SPDX-License-Identifier: BSD-3-Clause
"""One training step: load, forward, loss, backward with the optimizer fused in where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine.layout import Flat, Parameters
from trulysparse.engine.state import TrainState
from trulysparse.errors import ConfigError
from trulysparse.model import Inputs, SparseLayer, SparseMLP
from trulysparse.model.inference import Stored, row_length, stored_dtype
from trulysparse.model.registry import check_integer
from trulysparse.optim import Optimizer
from trulysparse.topology import LayerGradient, Topology

Floats = NDArray[np.float32]
Bits = NDArray[np.uint16]


@dataclass(frozen=True)
class _Hidden:
    """What one hidden layer leaves for the backward pass: (n, ld) activations and (n, ld / 16) bits."""

    activation: Stored
    negative: Bits | None
    kept: Bits | None
    z: Floats | None  # before PReLU or SReLU


class _Workspace:
    """Activations of one micro-batch; a delta overwrites its activation in place."""

    def __init__(self, net: SparseMLP, ld: int, dtype: np.dtype[Any], dropout: Sequence[int]) -> None:
        self.ld, self.sizes = ld, net.sizes
        self.inputs = _kernels.aligned_zeros((net.sizes[0], ld))
        self.hidden = []
        for layer, threshold in zip(net.layers[:-1], dropout, strict=True):
            bits = (layer.n_out, ld // _kernels.LANE)
            self.hidden.append(
                _Hidden(
                    _kernels.aligned_zeros((layer.n_out, ld), dtype),
                    np.zeros(bits, np.uint16) if layer.activation[0] == "rectifier" else None,
                    np.zeros(bits, np.uint16) if threshold else None,
                    _kernels.aligned_zeros((layer.n_out, ld)) if layer.activation_apart else None,
                )
            )
        self.output = _kernels.aligned_zeros((net.sizes[-1], ld))
        # What the forward pass applied: a slope in shared memory may move before the backward pass.
        self.applied = [layer.fused_activation for layer in net.layers[:-1]]

    @property
    def sources(self) -> list[Stored]:
        """What each layer takes in, between forward and backward pass."""
        return [self.inputs, *(hidden.activation for hidden in self.hidden)]

    @property
    def deltas(self) -> list[Stored]:
        """The delta of each layer, after the backward pass."""
        return [*(hidden.activation for hidden in self.hidden), self.output]


def _as_float32(stored: Stored) -> Floats:
    """Return stored activations as numbers, aligned as kernels want them: bfloat16 is the upper half of float32."""
    if stored.dtype == np.float32:
        return cast(Floats, stored)
    numbers = _kernels.aligned_empty(stored.shape)
    np.left_shift(stored, 16, out=numbers.view(np.uint32), dtype=np.uint32)
    return numbers


def _like(arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: _kernels.aligned_zeros(array.size) for name, array in arrays.items()}


def _like_sizes(arrays: Mapping[str, Floats]) -> dict[str, int]:
    return {name: array.size for name, array in arrays.items()}


class Engine:
    """Trains a network batch by batch.

    Parameters
    ----------
    net : SparseMLP
        Changed in place.
    optimizer : Optimizer
        Its arithmetic; its state lives in `state`.
    seed : int
        Seed of dropout, order and regrowth.
    threads : int
        Threads for the kernels; the result does not depend on it.
    topology : Topology, optional
        The rule that will evolve the network: its arrays are kept in the state, and it may observe every step.
    dropout : bool
        False trains, or measures, without the network's dropout.
    micro_batch : int, optional
        Columns handled at once, a multiple of 16; default the whole batch. Less memory, the same result up to the
        rounding of sums.
    activation_dtype : str
        How activations and deltas between layers are stored: ``"float32"`` or ``"bfloat16"``. Inputs, outputs and all
        arithmetic are float32.
    storage : str
        What the layers keep for the forward pass, as `SparseLayer.store` takes it: ``"balanced"``, ``"fast"`` or
        ``"lean"``; default as they are. The network keeps it after training. The same result in the same bits.

    Attributes
    ----------
    state : TrainState
        Where the run stands; a resumed run puts its own here.
    flat : Flat or None
        The arrays in which all parameters and slots lie, where they do: `apply` then makes one pass over them.
    """

    def __init__(
        self,
        net: SparseMLP,
        optimizer: Optimizer,
        *,
        seed: int,
        threads: int,
        topology: Topology | None = None,
        dropout: bool = True,
        micro_batch: int | None = None,
        activation_dtype: str = "float32",
        storage: str | None = None,
    ) -> None:
        if micro_batch is not None and check_integer(micro_batch, "micro_batch", low=1) % _kernels.LANE:
            raise ConfigError(f"micro_batch={micro_batch} is not a positive multiple of {_kernels.LANE}; try 32 or 128")
        self.net = net
        self.optimizer = optimizer
        self.topology = topology
        self._dropout = net.dropout_thresholds if dropout else (0,) * len(net.dropout_thresholds)
        self.seed = seed
        self.threads = threads
        self.micro_batch = micro_batch
        self._stored = stored_dtype(activation_dtype)
        if storage is not None:
            for layer in net.layers:
                layer.store(storage)
        self.state = TrainState.fresh(net, optimizer, topology)
        self._workspace: _Workspace | None = None
        self._gradients: list[Floats] = []
        self._explored: dict[int, Floats] = {}
        self._by_target: list[Floats] = []
        self._bias_gradients: list[Floats] = []
        self._row_sums: Floats = _kernels.aligned_zeros(0)  # of the layer at hand, where they are used up at once
        self._activation_gradients: list[dict[str, Floats]] = []
        self._flat_gradient: Floats | None = None
        self.flat: Flat | None = None
        self._activation_parts: list[dict[str, Floats]] = []

    def train_batch(
        self, inputs: Inputs, targets: NDArray[Any], rows: NDArray[np.int64], lr: float
    ) -> tuple[float, int]:
        """Make one optimizer step on the samples `rows`.

        Parameters
        ----------
        inputs : Inputs
            The samples.
        targets : ndarray
            Targets of all samples as the loss prepared them.
        rows : ndarray of int64, shape (batch,)
            Which samples.
        lr : float
            Learning rate of this step.

        Returns
        -------
        loss_sum : float
            Loss summed over the batch, in training mode (dropout on), before the step.
        correct : int
            Samples classified correctly.
        """
        parts = 1 if self.micro_batch is None else -(-rows.size // self.micro_batch)
        fused = self.optimizer.fused and (parts == 1 or self.optimizer.fused_microbatches)
        loss_sum, correct = self._pass(inputs, targets, rows, fused, lr)
        self._finish(fused, lr)
        self.state.step += 1
        return loss_sum, correct

    def compute(
        self,
        inputs: Inputs,
        targets: NDArray[Any],
        rows: NDArray[np.int64],
        done: Callable[[int], None] | None = None,
    ) -> tuple[float, int]:
        """Leave the gradient of the mean loss over the samples `rows` in `gradient`; nothing moves, no step is counted.

        Parameters
        ----------
        inputs, targets, rows
            As in `train_batch`.
        done : callable, optional
            Told each layer, the last one first, when the gradient of its weights is complete.

        Returns
        -------
        loss_sum, correct : float, int
            As `train_batch` returns them.
        """
        self._allocate_gradient()
        return self._pass(inputs, targets, rows, False, 0.0, done)

    def apply(self, lr: float) -> None:
        """Make one optimizer step with `gradient`, as `train_batch` does with the gradient that it computes."""
        self._finish(False, lr)
        self.state.step += 1

    def layer_lr(self, index: int, lr: float) -> float:
        """Return the learning rate of a layer's weights, present and explored, in a step of learning rate `lr`."""
        layer = self.net.layers[index]
        return self.optimizer.layer_lr(lr, layer.nnz, layer.n_out)

    @property
    def gradient(self) -> Parameters:
        """Where `compute` leaves the gradient and `apply` takes it from; may be set to arrays of the same shapes."""
        self._allocate_gradient()
        return Parameters(self._gradients, self._bias_gradients, self._activation_gradients, self._flat_gradient)

    @gradient.setter
    def gradient(self, given: Parameters) -> None:
        self._gradients, self._bias_gradients = given.weights, given.biases
        self._activation_gradients, self._flat_gradient = given.activations, given.flat

    def measure_batch(
        self, inputs: Inputs, targets: NDArray[Any], rows: NDArray[np.int64]
    ) -> tuple[float, int, dict[int, LayerGradient]]:
        """Pass the samples `rows` forward and backward in training mode (dropout on), and move no weight.

        The batch counts as a step. Besides the workspace this takes one more copy of the activations, and with
        micro-batches activations and deltas of the whole batch.

        Parameters
        ----------
        inputs, targets, rows
            As in `train_batch`.

        Returns
        -------
        loss_sum, correct : float, int
            As `train_batch` returns them.
        gradients : dict of int to LayerGradient
            By layer; valid until the next batch.
        """
        batch = rows.size
        width, parts, space = self._prepare(batch)
        net, ld = self.net, space.ld
        self._order_by_target(1)
        # of a batch in one part only the activations must be copied: deltas overwrite them, inputs and deltas stay
        alone = parts == 1
        taken = [_kernels.aligned_empty((layer.n_in, parts * ld)) for layer in net.layers[alone:]]
        deltas = [] if alone else [_kernels.aligned_empty((layer.n_out, parts * ld)) for layer in net.layers]
        loss_sum, correct = 0.0, 0
        for part in range(parts):
            some = rows[part * width : (part + 1) * width]
            columns = slice(part * ld, (part + 1) * ld)
            loss, right = self._forward(space, inputs, targets, some, part * width, 1.0 / batch)
            loss_sum += loss
            correct += right
            for array, source in zip(taken, space.sources[alone:], strict=True):
                array[:, columns] = _as_float32(source)
            self._backward(space, False, 0.0, part == 0, part == parts - 1, discard=True)
            for array, source in zip(deltas, space.deltas, strict=not alone):
                array[:, columns] = _as_float32(source)
        if alone:
            taken, deltas = [space.inputs, *taken], [_as_float32(delta) for delta in space.deltas]
        self.state.step += 1
        gradients = {
            layer.index: LayerGradient(layer, x, dy, self.threads)
            for layer, x, dy in zip(net.layers, taken, deltas, strict=True)
        }
        return loss_sum, correct, gradients

    def gradients(
        self, inputs: Inputs, targets: NDArray[Any], rows: NDArray[np.int64]
    ) -> tuple[float, list[Floats], list[Floats]]:
        """Return the mean loss over the samples `rows` and its gradient; nothing moves, and no step is counted.

        Parameters
        ----------
        inputs, targets, rows
            As in `train_batch`.

        Returns
        -------
        loss : float
        weights, biases : list of ndarray of float32
            For each layer (nnz,) in pattern order, and (n_out,).
        """
        loss_sum, _ = self.compute(inputs, targets, rows)
        gradient = self.gradient
        return loss_sum / rows.size, [g.copy() for g in gradient.weights], [g.copy() for g in gradient.biases]

    def own_gradient(self) -> None:
        """Let go of the arrays that `gradient` was set to; the engine makes its own when it needs them."""
        self.gradient = Parameters([], [], [])

    def _pass(
        self,
        inputs: Inputs,
        targets: NDArray[Any],
        rows: NDArray[np.int64],
        fused: bool,
        lr: float,
        done: Callable[[int], None] | None = None,
    ) -> tuple[float, int]:
        """Pass a batch forward and backward, in its parts; return the sum of the losses and what was right."""
        batch = rows.size
        width, parts, space = self._prepare(batch)
        if not fused:
            self._allocate_bias_gradients()
        self._order_by_target(parts)
        loss_sum, correct = 0.0, 0
        for part in range(parts):
            some = rows[part * width : (part + 1) * width]
            loss, right = self._forward(space, inputs, targets, some, part * width, 1.0 / batch)
            loss_sum += loss
            correct += right
            last = part == parts - 1
            self._backward(space, fused, lr, part == 0, last, done=done if last else None)
        return loss_sum, correct

    def _prepare(self, batch: int) -> tuple[int, int, _Workspace]:
        """Return the width of a micro-batch, how many there are, and the space for one."""
        width = batch if self.micro_batch is None else min(self.micro_batch, batch)
        ld = row_length(width, self._stored)
        space = self._workspace
        if space is None or space.ld != ld or space.sizes != self.net.sizes:
            if space is None or space.sizes != self.net.sizes:  # neurons were removed, or put back
                self._row_sums = _kernels.aligned_zeros(max(layer.n_out for layer in self.net.layers))
                self._activation_parts = [_like(layer.activation_parameters) for layer in self.net.layers]
            for layer in self.net.layers:
                layer.prepare(self.threads)  # here and not when first used: with these threads
            self._workspace = space = _Workspace(self.net, ld, self._stored, self._dropout)
        self._allocate_activation_gradients()
        return width, -(-batch // width), space

    def _forward(
        self,
        space: _Workspace,
        inputs: Inputs,
        targets: NDArray[Any],
        rows: NDArray[np.int64],
        column: int,
        scale: float,
    ) -> tuple[float, int]:
        net, threads = self.net, self.threads
        inputs.load_training(rows, space.inputs, threads, seed=self.seed, step=self.state.step, column=column)
        x: Stored = space.inputs
        ordered: Sequence[Floats | None] = self._by_target or [None] * len(net.layers)
        for layer, threshold, hidden, copied in zip(net.layers, self._dropout, space.hidden, ordered, strict=False):
            view, weights = layer.operands(threads)
            space.applied[layer.index] = layer.fused_activation
            _kernels.forward(
                view,
                x,
                hidden.activation if hidden.z is None else hidden.z,
                activation=space.applied[layer.index],
                dropout_threshold=threshold if hidden.z is None else 0,
                negative=hidden.negative,
                kept=hidden.kept,
                seed=self.seed,
                layer=layer.index,
                step=self.state.step,
                column_offset=column,
                by_target=weights if copied is None else copied,
                threads=threads,
            )
            if hidden.z is not None:
                _kernels.trained_forward(
                    hidden.z,
                    hidden.activation,
                    layer.activation_parameters,
                    dropout_threshold=threshold,
                    kept=hidden.kept,
                    seed=self.seed,
                    layer=layer.index,
                    step=self.state.step,
                    column_offset=column,
                    threads=threads,
                )
            x = hidden.activation
            del view, weights  # what a layer made for this pass alone
        last = net.layers[-1]
        view, weights = last.operands(threads)
        weights = weights if ordered[-1] is None else ordered[-1]
        _kernels.forward(view, x, space.output, activation=last.activation, by_target=weights, threads=threads)
        return net.loss(space.output, net.loss.batch(targets, rows, space.ld), rows.size, scale, space.output, threads)

    def _backward(
        self,
        space: _Workspace,
        fused: bool,
        lr: float,
        first: bool,
        last: bool,
        *,
        discard: bool = False,
        done: Callable[[int], None] | None = None,
    ) -> None:
        net, threads = self.net, self.threads
        gather = not (fused or discard)

        def row_sums(layer: SparseLayer) -> Floats:
            if gather and first:
                return self._bias_gradients[layer.index]
            return self._row_sums[: layer.n_out]

        def take(layer: SparseLayer, sums: Floats) -> None:
            """Use the gradient of a layer's biases, or of this part of the batch, while it is there."""
            if fused:
                slots, step = self.state.bias_slots[layer.index], self.state.step + 1
                self.optimizer.update(
                    layer.bias, sums, slots, lr=lr, step=step, threads=threads, first=first, last=last
                )
            elif gather and not first:
                self._bias_gradients[layer.index] += sums

        dy: Stored = space.output
        sums = row_sums(net.layers[-1])
        _kernels.row_sums(space.output, sums, threads)
        take(net.layers[-1], sums)
        for index in range(len(net.layers) - 1, -1, -1):
            layer = net.layers[index]
            if self.topology is not None and self.topology.observes:
                self._show(index, dy, space.sources[index], first)
            sink = _kernels.sink_none() if discard else self._sink(index, fused, lr, first, last)
            if not discard and index in self.state.exploring:
                # first: the layer's own pass may write the delta over its input
                self._explore(index, dy, space.sources[index], fused, lr, first, last)
            if index == 0:
                _kernels.backward(layer.view, dy, space.inputs, None, sink=sink, threads=threads)
                if done is not None:
                    done(0)
                break
            hidden, below, threshold = space.hidden[index - 1], net.layers[index - 1], self._dropout[index - 1]
            sums = row_sums(below)
            trained = (self._activation_gradients if first else self._activation_parts)[index - 1]
            slope = trained["slope"] if trained and hidden.z is None else None
            _kernels.backward(
                layer.view,
                dy,
                hidden.activation,
                hidden.activation,
                row_sum=sums if hidden.z is None else None,
                below=space.applied[index - 1],
                below_dropout_threshold=threshold if hidden.z is None else 0,
                below_negative=hidden.negative,
                below_kept=hidden.kept,
                below_slope_gradient=slope,
                sink=sink,
                threads=threads,
            )
            if slope is not None:  # a sum over neurons; of those that are dead, compaction may have removed some
                slope /= math.sqrt(max(1, below.fed_neurons))
            if hidden.z is not None:
                _kernels.trained_backward(
                    hidden.z,
                    hidden.activation,
                    below.activation_parameters,
                    trained,
                    row_sum=sums,
                    dropout_threshold=threshold,
                    kept=hidden.kept,
                    threads=threads,
                )
            take(below, sums)
            dy = hidden.activation
            if done is not None:
                done(index)
        if not first:
            for totals, parts in zip(self._activation_gradients, self._activation_parts, strict=True):
                for name, part in parts.items():
                    totals[name] += part

    def _show(self, index: int, dy: Stored, x: Stored, first: bool) -> None:
        """Let the rule see the gradient of a layer, while what it is made of is still there."""
        net, rule = self.net, self.topology
        assert rule is not None
        if rule.applies_to(index, len(net.layers)):
            gradient = LayerGradient(net.layers[index], _as_float32(x), _as_float32(dy), self.threads)
            rule.observe(gradient, self.state.rule, first)

    def _explore(self, index: int, dy: Stored, x: Stored, fused: bool, lr: float, first: bool, last: bool) -> None:
        """Give the explored connections of a layer their gradients."""
        exploration = self.state.exploring[index]
        if exploration.nnz == 0:
            return
        if fused:
            sink = self.optimizer.sink(exploration.slots, self.layer_lr(index, lr), first, last, l2=self._l2(index, 1))
        else:
            gradient = self._explored.get(index)
            if gradient is None or gradient.size != exploration.nnz:
                gradient = self._explored[index] = _kernels.aligned_empty(exploration.nnz)
            sink = _kernels.sink_store(gradient) if first else _kernels.sink_accumulate(gradient)
        _kernels.backward(exploration.layer.view, dy, x, None, sink=sink, threads=self.threads)

    def _l2(self, index: int, which: int) -> float:
        """Return what the rule adds to the decay of a layer's connections (0) or of explored ones (1)."""
        if self.topology is None or not self.topology.applies_to(index, len(self.net.layers)):
            return 0.0
        return self.topology.l2(self.net.layers[index])[which]

    def _sink(self, index: int, fused: bool, lr: float, first: bool, last: bool) -> _kernels.Sink:
        if fused:
            rate = self.layer_lr(index, lr)
            return self.optimizer.sink(self.state.weight_slots[index], rate, first, last, l2=self._l2(index, 0))
        gradient = self._gradient(index)
        return _kernels.sink_store(gradient) if first else _kernels.sink_accumulate(gradient)

    def _order_by_target(self, parts: int) -> None:
        """Copy the weights into the forward pass's order, where layers keep such a copy or it is read several times."""
        layers = self.net.layers
        for layer in layers:
            layer.order_weights(self.threads)
        if parts < 3 or any(layer.storage != "balanced" for layer in layers):
            self._by_target = []
            return
        if [array.size for array in self._by_target] != [layer.nnz for layer in layers]:
            self._by_target = []
            self._by_target = [_kernels.aligned_empty(layer.nnz) for layer in layers]
        for layer, array in zip(layers, self._by_target, strict=True):
            _kernels.weights_by_target(layer.view, array, self.threads)

    def _gradient(self, index: int) -> Floats:
        """Return the gradient array of a layer, made anew when its number of connections changed."""
        if not self._gradients:
            self._gradients = [_kernels.aligned_empty(layer.nnz) for layer in self.net.layers]
        if self._gradients[index].size != self.net.layers[index].nnz:
            self._gradients[index] = _kernels.aligned_empty(self.net.layers[index].nnz)
        return self._gradients[index]

    def _allocate_gradient(self) -> None:
        for layer in self.net.layers:
            self._gradient(layer.index)
        self._allocate_bias_gradients()
        self._allocate_activation_gradients()

    def _allocate_bias_gradients(self) -> None:
        layers = self.net.layers
        if [array.size for array in self._bias_gradients] != [layer.n_out for layer in layers]:
            self._bias_gradients = [_kernels.aligned_zeros(layer.n_out) for layer in layers]

    def _allocate_activation_gradients(self) -> None:
        wanted = [_like_sizes(layer.activation_parameters) for layer in self.net.layers]
        if [_like_sizes(gradients) for gradients in self._activation_gradients] != wanted:
            self._activation_gradients = [_like(layer.activation_parameters) for layer in self.net.layers]

    def _finish(self, fused: bool, lr: float) -> None:
        """Move what is trained in activations, and weights and biases where the backward pass did not."""
        state, optimizer = self.state, self.optimizer
        if optimizer.clip_norm is not None:
            trained = [gradient for gradients in self._activation_gradients for gradient in gradients.values()]
            explored = [self._explored[i] for i, e in state.exploring.items() if e.nnz]
            self._clip([*self._gradients, *explored, *self._bias_gradients, *trained], optimizer.clip_norm)
        step = state.step + 1
        if fused or not self._update_flat(lr, step):
            self._update_separately(fused, lr, step)
        self._hold_in_bounds()

    def _update_separately(self, fused: bool, lr: float, step: int) -> None:
        """Move what is trained in activations, and, unless the backward pass has, weights and biases layer by layer."""
        state, optimizer, threads = self.state, self.optimizer, self.threads
        if not fused:
            self._update_layers(lr, step)
        for layer, slots, gradients in zip(
            self.net.layers, state.activation_slots, self._activation_gradients, strict=True
        ):
            for name, values in layer.activation_parameters.items():
                optimizer.update(values, gradients[name], slots[name], lr=lr, step=step, threads=threads, decay=False)

    def _hold_in_bounds(self) -> None:
        """Put what is trained in activations back where a step has taken it beyond its bounds."""
        for layer in self.net.layers[:-1]:
            for name, (low, high) in self.net.activation.parameter_bounds(layer.index + 1).items():
                values = layer.activation_parameters[name]
                np.minimum(np.maximum(values, low, out=values), high, out=values)

    def _update_layers(self, lr: float, step: int) -> None:
        """Move the weights and biases of all layers by their gradient arrays."""
        state, optimizer, threads = self.state, self.optimizer, self.threads
        for layer, weight_slots, bias_slots, bias_gradient in zip(
            self.net.layers, state.weight_slots, state.bias_slots, self._bias_gradients, strict=True
        ):
            optimizer.update(
                layer.values,
                self._gradients[layer.index],
                weight_slots,
                lr=self.layer_lr(layer.index, lr),
                step=step,
                threads=threads,
                l2=self._l2(layer.index, 0),
            )
            exploration = state.exploring.get(layer.index)
            if exploration is not None and exploration.nnz:
                optimizer.update(
                    exploration.layer.values,
                    self._explored[layer.index],
                    exploration.slots,
                    lr=self.layer_lr(layer.index, lr),
                    step=step,
                    threads=threads,
                    l2=self._l2(layer.index, 1),
                )
            optimizer.update(layer.bias, bias_gradient, bias_slots, lr=lr, step=step, threads=threads)

    def _update_flat(self, lr: float, step: int) -> bool:
        """Move all at once where it all lies in one array and nothing concerns single layers; return whether."""
        flat, gradient = self.flat, self._flat_gradient
        if flat is None or gradient is None or any(self._l2(layer.index, 0) for layer in self.net.layers):
            return False
        if any(self.layer_lr(layer.index, lr) != lr for layer in self.net.layers):
            return False
        for part, decay in ((slice(flat.decayed), True), (slice(flat.decayed, None), False)):
            values = flat.values[part]
            if values.size:
                slots = {name: array[part] for name, array in flat.slots.items()}
                self.optimizer.update(
                    values, gradient[part], slots, lr=lr, step=step, threads=self.threads, decay=decay
                )
        return True

    def _clip(self, gradients: Sequence[Floats], limit: float) -> None:
        """Scale all gradients together so that their joint Euclidean norm is at most `limit`."""
        norm = math.sqrt(sum(_kernels.sum_of_squares(g, self.threads) for g in gradients))
        if norm > limit:
            for g in gradients:
                _kernels.scale(g, limit / norm, self.threads)
