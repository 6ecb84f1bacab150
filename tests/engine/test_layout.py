# SPDX-License-Identifier: BSD-3-Clause
"""Parameters in one array: where they stand, and that training there is training, bit for bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.engine import Engine, Flat, Layout
from trulysparse.model import Inputs

OPTIMIZERS = {
    "sgd": lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
    "plain": lambda: ts.SGD(lr=0.1, momentum=0.0),
    "nesterov": lambda: ts.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "l2": lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3, decay="l2"),
    "clip": lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3, clip_norm=0.05),
    "fan-in": lambda: ts.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3, lr_scale="fan_in"),
    "adam fan-in": lambda: ts.Adam(lr=0.01, weight_decay=1e-3, lr_scale="fan_in"),
    "adam": lambda: ts.Adam(lr=0.01, weight_decay=1e-3),
    "adam l2": lambda: ts.Adam(lr=0.01, weight_decay=1e-3, decoupled=False, clip_norm=0.05),
}
ACTIVATIONS = [ts.AllReLU(0.6), ts.PReLU(), ts.SReLU(), ts.AllReLU("auto")]


def engine_for(optimizer: Any, activation: Any = None, **more: Any) -> Engine:
    activation = ts.PReLU() if activation is None else activation
    net = ts.SparseMLP((11, 37, 21, 4), density=0.3, dropout=0.2, activation=activation, seed=2)
    return Engine(net, optimizer, seed=5, threads=1, **more)


def make_flat(engine: Engine, room: int = 0) -> Layout:
    """Let network and slots lie in whole arrays, with room to spare."""
    net = engine.net
    layout = Layout.of(net, [layer.nnz + room for layer in net.layers])
    values = _kernels.aligned_zeros(layout.size)
    layout.copy_values(net, values)
    slots = {name: _kernels.aligned_zeros(layout.size) for name in engine.optimizer.slots}
    parts = layout.parameters(values)
    for layer, weights, bias, trained in zip(net.layers, parts.weights, parts.biases, parts.activations, strict=True):
        layer.replace(layer.pattern, weights, bias, trained)
    for name, flat in slots.items():
        parts = layout.parameters(flat)
        for i, layer in enumerate(net.layers):
            engine.state.weight_slots[i][name] = parts.weights[i]
            engine.state.bias_slots[i][name] = parts.biases[i]
            for own in layer.activation_parameters:
                engine.state.activation_slots[i][own][name] = parts.activations[i][own]
    engine.flat = Flat(values, slots, layout.decayed)
    engine.gradient = layout.parameters(_kernels.aligned_zeros(layout.size))
    return layout


def everything(engine: Engine) -> list[bytes]:
    state, arrays = engine.state, []
    for layer in engine.net.layers:
        arrays += [layer.values, layer.bias, *layer.activation_parameters.values()]
        trained = state.activation_slots[layer.index].values()
        for slots in (state.weight_slots[layer.index], state.bias_slots[layer.index], *trained):
            arrays += [slots[name] for name in engine.optimizer.slots]
    return [array.tobytes() for array in arrays]


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40), st.integers(0, 50), st.integers(0, 3)), min_size=1),
)
def test_segments_are_aligned_apart_and_in_order(layers: list[tuple[int, int, int, int]]) -> None:
    connections, neurons, spare = ([layer[i] for layer in layers] for i in range(3))
    trained = [{f"p{k}": k + 1 for k in range(layer[3])} for layer in layers]
    capacity = [c + s for c, s in zip(connections, spare, strict=True)]
    layout = Layout(connections, neurons, trained, capacity)
    slices = [*layout.weights, *layout.biases, *(part for parts in layout.activations for part in parts.values())]
    assert all(part.start % 16 == 0 for part in slices)
    assert all(left.stop <= right.start for left, right in pairwise(slices))
    assert slices[-1].stop <= layout.size and layout.size % 16 == 0 and layout.nbytes == 4 * layout.size
    assert [s.stop - s.start for s in layout.weights] == connections
    assert [s.stop - s.start for s in layout.biases] == neurons
    assert layout.biases[-1].stop <= layout.decayed <= layout.size
    for part in (part for parts in layout.activations for part in parts.values()):
        assert part.start >= layout.decayed
    assert layout.size == Layout(capacity, neurons, trained).size  # the capacity alone decides where things stand
    assert [s.start for s in layout.weights] == [s.start for s in Layout(capacity, neurons, trained).weights]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_a_layout_has_a_place_for_all_that_is_trained(activation: Any) -> None:
    engine = engine_for(ts.Adam(), activation)
    net, layout = engine.net, Layout.of(engine.net)
    flat = np.full(layout.size, np.nan, np.float32)
    layout.copy_values(net, flat)
    parts = layout.parameters(flat)
    trained = sum(array.size for layer in net.layers for array in layer.activation_parameters.values())
    assert np.isfinite(flat).sum() == net.connections + sum(net.sizes[1:]) + trained
    for layer in net.layers:
        assert np.array_equal(parts.weights[layer.index], layer.values)
        assert np.array_equal(parts.biases[layer.index], layer.bias)
        for name, array in layer.activation_parameters.items():
            assert np.array_equal(parts.activations[layer.index][name], array)


@pytest.mark.parametrize("flat", [False, True], ids=["apart", "flat"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize(
    ("name", "micro_batch"),
    # of optimizers fused into the backward pass, micro-batches go to the velocity one by one: other roundings
    [(name, None) for name in OPTIMIZERS] + [(name, 16) for name in ("nesterov", "clip", "adam", "adam l2")],
)
def test_compute_and_apply_are_train_batch(name: str, activation: Any, micro_batch: int | None, flat: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = Inputs(rng.normal(size=(160, 11)).astype(np.float32), 11, None, "X")
    targets = rng.integers(0, 4, 160).astype(np.int32)
    whole = engine_for(OPTIMIZERS[name](), activation, micro_batch=micro_batch)
    split = engine_for(OPTIMIZERS[name](), activation, micro_batch=micro_batch)
    start = everything(whole)
    layout = make_flat(split, room=20) if flat else None
    for step in range(4):
        rows = rng.permutation(160)[:48]
        expected = whole.train_batch(inputs, targets, rows, 0.05 + 0.01 * step)
        before = everything(split)
        assert split.compute(inputs, targets, rows) == expected
        assert everything(split) == before and split.state.step == step
        split.apply(0.05 + 0.01 * step)
        assert everything(split) == everything(whole)
        assert split.state.step == whole.state.step == step + 1
    assert not set(everything(whole)) & set(start)
    if layout is not None:
        assert split.flat is not None
        gaps = np.ones(layout.size, bool)
        layout_parts = [*layout.weights, *layout.biases, *(s for some in layout.activations for s in some.values())]
        for part in layout_parts:
            gaps[part] = False
        for array in (split.flat.values, *split.flat.slots.values()):
            assert gaps.any() and not array[gaps].any()


def test_layers_are_done_from_the_last_to_the_first_when_their_gradient_is_complete() -> None:
    engine = engine_for(ts.SGD(lr=0.1))
    rng = np.random.default_rng(0)
    inputs = Inputs(rng.normal(size=(64, 11)).astype(np.float32), 11, None, "X")
    targets, rows = rng.integers(0, 4, 64).astype(np.int32), np.arange(64)
    told: list[tuple[int, bytes]] = []
    engine.compute(inputs, targets, rows, lambda i: told.append((i, engine.gradient.weights[i].tobytes())))
    assert [index for index, _ in told] == [2, 1, 0]
    assert all(found == engine.gradient.weights[index].tobytes() for index, found in told)


@pytest.mark.parametrize("direction", [-1, 1])
def test_slopes_in_one_array_stay_in_their_bounds(direction: int) -> None:
    engine = engine_for(ts.SGD(lr=0.1), ts.AllReLU("auto"))
    make_flat(engine)
    assert engine.flat is not None
    engine.flat.slots["velocity"][engine.flat.decayed :] = direction * 1e3
    engine.apply(0.1)
    slopes = [float(layer.activation_parameters["slope"][0]) for layer in engine.net.layers[:-1]]
    assert sorted(abs(slope) for slope in slopes) == [1 / 64, 1]
    assert slopes[0] < 0 < slopes[1]
