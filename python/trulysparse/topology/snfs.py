# SPDX-License-Identifier: BSD-3-Clause
"""Sparse momentum: growing where the smoothed gradient is largest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model import SparseLayer, SparseMLP
from trulysparse.model.memory import available_bytes
from trulysparse.model.registry import check_number
from trulysparse.topology.apportion import apportion
from trulysparse.topology.base import RuleState, Signals, TopologyDelta, register_topology
from trulysparse.topology.criteria import rewire, smallest_magnitude
from trulysparse.topology.gradient import LayerGradient, open_part, widen_cells
from trulysparse.topology.periodic import DropAndGrow
from trulysparse.topology.schedules import DropSchedule

F32 = NDArray[np.float32]


@register_topology("snfs")
class SNFS(DropAndGrow):
    """Drop the smallest |w|, grow the missing connections of largest smoothed |dL/dw|.

    The gradient of every cell, missing ones too, is smoothed over the steps: m <- momentum m + (1 - momentum) g. At
    an update trunc(fraction * connections) weights of smallest magnitude go in each layer; the same total comes back,
    distributed in proportion to each layer's mean |m| over the survivors (exactly, full layers passing on what they
    cannot take), at the missing cells of largest |m|, with weight 0. A connection dropped and grown at once stays as
    it was. Dettmers & Zettlemoyer 2019, "Sparse Networks from Scratch", arXiv:1907.04840, algorithm 1.

    Parameters
    ----------
    drop_fraction : float
        Part of a layer's connections that the first update replaces, in [0, 1].
    momentum : float
        Smoothing of the gradients, in [0, 1).
    redistribute : bool
        False keeps the number of connections of each layer.
    schedule : DropSchedule, str or mapping, optional
        How the part changes until the `end`; default ``CosineDrop(final=0.01)``, from 0.5 to 0.005.
    memory : int, optional
        Bytes that the dense arrays may take; default what the machine has available when the run begins.
    update_every, unit, end, layers
        As in `Periodic`; the paper's are 1 epoch, to the end.

    Notes
    -----
    Besides the network it holds one float32 for every cell of the layers it applies to, missing or not, and each
    step makes their dense weight gradient: 4 n_in n_out bytes a layer. `RigL` needs neither. Its own smoothing is kept
    whatever the optimizer; SGD's "velocity" and Adam's "m" of a grown connection start from it.
    """

    observes = True

    def __init__(
        self,
        drop_fraction: float = 0.5,
        *,
        momentum: float = 0.9,
        redistribute: bool = True,
        schedule: DropSchedule | str | Mapping[str, Any] | None = None,
        update_every: int = 1,
        unit: str = "epochs",
        end: float = 1.0,
        memory: int | None = None,
        layers: str = "all",
    ) -> None:
        super().__init__(
            drop_fraction,
            schedule={"name": "cosine", "final": 0.01} if schedule is None else schedule,
            update_every=update_every,
            unit=unit,
            end=end,
            new_weights="zeros",
            layers=layers,
        )
        self.momentum = check_number(momentum, "SNFS's momentum", low=0, high=1, high_open=True)
        if not isinstance(redistribute, (bool, np.bool_)):
            raise ConfigError(f"SNFS's redistribute must be true or false, got {redistribute!r}")
        self.redistribute = bool(redistribute)
        self.memory = None if memory is None else int(check_number(memory, "SNFS's memory", low=1))

    def check(self, net: SparseMLP) -> None:
        """Refuse a network whose dense arrays would not fit."""
        count = len(net.layers)
        shapes = [(layer.n_in, layer.n_out) for layer in net.layers if self.applies_to(layer.index, count)]
        needed = 4 * sum(n_in * n_out for n_in, n_out in shapes)
        budget = available_bytes() if self.memory is None else self.memory
        if budget is not None and needed > budget:
            terms = " + ".join(f"{n_in} x {n_out}" for n_in, n_out in shapes)
            raise ConfigError(
                f"SNFS keeps the momentum of every cell, missing ones too: 4 bytes x ({terms}) = {needed:,} bytes, "
                f"but {budget:,} are available; use RigL, which needs no dense array, or a smaller network"
            )

    def observe(self, gradient: LayerGradient, state: RuleState, first: bool) -> None:
        """Take the gradient of every cell into the layer's momentum."""
        layer, name = gradient.layer, _name(gradient.layer)
        dense = state.tensors.get(name)
        if dense is None:
            dense = state.tensors[name] = _kernels.aligned_zeros((layer.n_in, layer.n_out))
        # the parts of one step add up to its gradient: only the first makes the past smaller
        decay = self.momentum if first else 1.0
        _kernels.accumulate_gradient(dense, gradient.x, gradient.dy, decay, 1.0 - self.momentum, gradient.threads)

    def neurons_removed(self, state: RuleState, kept: Sequence[NDArray[np.bool_]]) -> None:
        """Take the removed neurons out of the dense momenta."""
        for name, dense in list(state.tensors.items()):
            layer = int(name.rpartition(".")[2])
            rows = kept[layer - 1] if layer > 0 else np.ones(dense.shape[0], np.bool_)
            columns = kept[layer] if layer < len(kept) else np.ones(dense.shape[1], np.bool_)
            smaller = _kernels.aligned_empty((int(rows.sum()), int(columns.sum())))
            smaller[...] = dense[np.ix_(rows, columns)]
            state.tensors[name] = smaller

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer's change; the shares come from all layers first."""
        fraction = self.fraction(signals.progress)
        momenta = [signals.state.tensors.get(_name(layer)) for layer in layers]
        if any(dense is None for dense in momenta):
            return  # nothing was observed since the run began, or since another network was put back
        masks, gone, shares = [], [], []
        for layer, dense in zip(layers, momenta, strict=True):
            assert dense is not None
            count = int(fraction * layer.nnz)
            mask = smallest_magnitude(layer, count, signals.threads)
            active = np.abs(_at(dense, layer.pattern.cells()[mask])).astype(np.float64)
            share = float(active.mean()) if active.size else 0.0
            if not np.isfinite(share):
                raise DivergenceError(
                    f"layer {layer.index} cannot be evolved: its momentum is not finite; training diverged, "
                    "try a smaller learning rate"
                )
            masks.append(mask)
            gone.append(count)
            shares.append(share)
        room = [signals.room(layer, mask) for layer, mask in zip(layers, masks, strict=True)]
        new = apportion(sum(gone), shares, room) if self.redistribute else gone
        for layer, dense, mask, dropped, count in zip(layers, momenta, masks, gone, new, strict=True):
            assert dense is not None
            if dropped == 0 and count == 0:
                yield layer, None
                continue
            yield layer, self._change(layer, dense, mask, count, signals)

    def _change(
        self, layer: SparseLayer, dense: F32, mask: NDArray[np.bool_], count: int, signals: Signals
    ) -> TopologyDelta:
        pattern, closed = layer.pattern, signals.closed.get(layer.index)
        survivors: NDArray[np.bool_] | None = mask
        open_columns = None
        if closed is not None:
            pattern, open_columns = open_part(pattern, mask, closed, signals.threads)
            survivors, dense = None, np.ascontiguousarray(dense[:, open_columns])
        try:
            cells, _ = _kernels.top_missing_values(
                *pattern.shape, pattern.row_ptr, pattern.col_idx, survivors, dense, count, signals.threads
            )
        except _kernels.NotFiniteError as error:
            raise DivergenceError(
                f"layer {layer.index} cannot be evolved: {error}; training diverged, try a smaller learning rate"
            ) from error
        if open_columns is not None:
            cells = widen_cells(cells, open_columns, layer.n_out)
        delta = rewire(layer, mask, cells, np.zeros(cells.size, np.float32))
        # The paper grows inside the optimizer's own dense buffer, so what is grown moves on with the past of its
        # gradients: SGD's velocity is -lr times their sum, mean / (1 - momentum), and Adam's m their mean. Adam's v is
        # not kept densely; m squared stands in for it, since beside v = 0 the first steps would be far too long.
        smooth = _at(signals.state.tensors[_name(layer)], delta.grown)
        velocity = np.multiply(smooth, np.float32(-signals.lr_of(layer) / (1.0 - self.momentum)), dtype=np.float32)
        slots = {"velocity": velocity}
        # beside an "age" of 0 they would count as those of a connection just begun
        if not signals.slots or "age" not in signals.slots[layer.index]:
            slots |= {"m": smooth, "v": smooth * smooth}
        return TopologyDelta(delta.mask, delta.grown, delta.values, slots)

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return 2 s + d: forward pass and deltas are sparse, the weight gradient is dense at every step."""
        return 2.0 * sparse + dense


def _name(layer: SparseLayer) -> str:
    return f"momentum.{layer.index}"


def _at(dense: F32, cells: NDArray[np.uint64]) -> F32:
    return np.ascontiguousarray(dense.reshape(-1)[cells.astype(np.int64)])
