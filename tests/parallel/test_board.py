# SPDX-License-Identifier: BSD-3-Clause
"""What lies in shared memory, in plain memory here: mailboxes, and a network with its optimizer state."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.engine import TrainState, snapshot_network
from trulysparse.model import Pattern
from trulysparse.parallel.board import Board, ModelStore, next_count, own_network
from trulysparse.parallel.transport import Do, Order, Said, Update

ACTIVATIONS = [ts.ReLU(), ts.PReLU(), ts.SReLU(), ts.AllReLU("auto")]


def network(activation: Any = None, seed: int = 0) -> tuple[ts.SparseMLP, TrainState]:
    """Return a network of odd sizes and an optimizer state, all numbers random."""
    net = ts.SparseMLP((7, 19, 5, 3), density=0.4, activation=activation or ts.ReLU(), seed=seed)
    state = TrainState.fresh(net, ts.Adam())
    rng = np.random.default_rng(seed)
    for array in [*parameters(net).values(), *slots(state).values()]:
        array[...] = rng.normal(size=array.shape)
    return net, state


def parameters(net: ts.SparseMLP) -> dict[str, NDArray[np.float32]]:
    found = {}
    for layer in net.layers:
        found |= {f"{layer.index}.values": layer.values, f"{layer.index}.bias": layer.bias}
        found |= {f"{layer.index}.{name}": array for name, array in layer.activation_parameters.items()}
    return found


def slots(state: TrainState) -> dict[str, NDArray[np.float32]]:
    found = {}
    for i in range(len(state.weight_slots)):
        for name in ("m", "v"):
            found |= {f"{i}.w.{name}": state.weight_slots[i][name], f"{i}.b.{name}": state.bias_slots[i][name]}
            found |= {f"{i}.{own}.{name}": some[name] for own, some in state.activation_slots[i].items()}
    return found


def copies(arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {name: array.copy() for name, array in arrays.items()}


def assert_equal(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.tobytes() == right[name].tobytes(), name


def store_for(net: ts.SparseMLP, workers: int = 2, *, index: bool = True) -> tuple[ModelStore, NDArray[np.uint8]]:
    """Return a store and its memory, with a fence behind it."""
    plan = json.loads(json.dumps(ModelStore.plan_of(net, ("m", "v"), workers, index=index)))
    n_bytes = ModelStore.nbytes(plan)
    memory = _kernels.aligned_zeros(n_bytes + 64, np.uint8)
    memory[n_bytes:] = 0xA5
    store = ModelStore(plan, memory[:n_bytes])
    assert store._at == n_bytes  # all of it is used, and no more
    return store, memory


def take_in(store: ModelStore, net: ts.SparseMLP, state: TrainState) -> None:
    for layer in net.layers:
        store.take_in(net, state, layer.index)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("index", [True, False])
def test_what_is_taken_in_is_there_for_all(activation: Any, index: bool) -> None:
    net, state = network(activation)
    before, slots_before, patterns = copies(parameters(net)), copies(slots(state)), [x.pattern for x in net.layers]
    store, memory = store_for(net, index=index)
    take_in(store, net, state)
    assert (memory[-64:] == 0xA5).all()
    assert_equal(parameters(net), before)
    assert_equal(slots(state), slots_before)
    assert [x.pattern for x in net.layers] == patterns
    for array in [*parameters(net).values(), *slots(state).values()]:
        assert np.shares_memory(array, memory) and array.ctypes.data % 64 == 0

    other, other_state = network(activation, seed=5)
    if not index:
        for layer, pattern in zip(other.layers, patterns, strict=True):
            layer.replace(pattern, np.zeros(pattern.nnz, np.float32))
    mapped = ModelStore(store.plan, memory[:-64])
    mapped.attach(other)
    mapped.lend_slots(other, other_state)
    assert_equal(parameters(other), before)
    assert_equal(slots(other_state), slots_before)
    assert [x.pattern for x in other.layers] == patterns
    for layer, pattern in zip(other.layers, patterns, strict=True):
        for array, expected in zip(layer.pattern.transposed, pattern.transposed, strict=True):
            assert np.array_equal(array, expected)
    net.layers[1].values[0] = 42.0
    assert other.layers[1].values[0] == 42.0

    X = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    assert np.array_equal(net.predict_proba(X), other.predict_proba(X))


def smaller(layer: Any, keep: float, seed: int) -> tuple[Pattern, NDArray[np.float32]]:
    mask = np.random.default_rng(seed).random(layer.nnz) < keep
    pattern, (values,) = layer.pattern.keep(mask, [layer.values])
    return pattern, values


def test_a_smaller_layer_leaves_zeros_behind_it() -> None:
    net, state = network(ts.SReLU())
    store, _ = store_for(net)
    take_in(store, net, state)
    for k in range(2):
        store.gradient(k).flat[...] = 1.0
    layer = net.layers[0]
    pattern, values = smaller(layer, 0.6, 1)
    state.weight_slots[0] = {name: np.full(pattern.nnz, 7.0, np.float32) for name in ("m", "v")}
    layer.replace(pattern, values)
    others = copies(parameters(net))
    assert store.fits(net)
    store.take_in(net, state, 0)
    assert store.connections[0] == pattern.nnz
    assert_equal(parameters(net), others)
    flat, room = store.flat(), store.plan["capacity"][0]
    for array in (flat.values, *flat.slots.values()):
        assert not array[pattern.nnz : _kernels.padded(room)].any()
        assert array[: pattern.nnz].all()
    for k in range(2):
        gradient = store.gradient(k)
        assert not gradient.flat[: _kernels.padded(room)].any() and gradient.weights[0].size == pattern.nnz
        assert gradient.weights[1].all()


def test_a_network_fits_where_each_layer_has_room() -> None:
    net, state = network()
    store, _ = store_for(net)
    take_in(store, net, state)
    assert store.fits(net)
    layer = net.layers[1]
    layer.replace(*smaller(layer, 0.5, 2))
    assert store.fits(net)
    full = Pattern.from_dense(np.ones((layer.n_in, layer.n_out), bool))
    layer.replace(full, np.zeros(full.nnz, np.float32))
    assert not store.fits(net)
    assert not store.fits(ts.SparseMLP((7, 18, 5, 3), density=0.1, seed=0))


def test_wide_offsets_have_their_room() -> None:
    net, state = network()
    layer = net.layers[0]
    wide = Pattern(layer.n_in, layer.n_out, layer.pattern.row_ptr.astype(np.int64), layer.pattern.col_idx)
    narrow_store, _ = store_for(net)
    layer.replace(wide, layer.values)
    assert not narrow_store.fits(net)
    store, memory = store_for(net)
    take_in(store, net, state)
    assert (memory[-64:] == 0xA5).all()
    assert net.layers[0].pattern.row_ptr.dtype == np.int64 and net.layers[0].pattern == wide
    assert net.layers[0].pattern.transposed[2].dtype == np.int64


def test_own_network_lets_go_of_shared_memory() -> None:
    net, state = network(ts.PReLU())
    before, slots_before, patterns = copies(parameters(net)), copies(slots(state)), [x.pattern for x in net.layers]
    store, memory = store_for(net)
    take_in(store, net, state)
    own_network(net, state)
    memory[...] = 0xFF
    assert_equal(parameters(net), before)
    assert_equal(slots(state), slots_before)
    assert [x.pattern for x in net.layers] == patterns
    for layer, pattern in zip(net.layers, patterns, strict=True):
        for array, expected in zip(layer.pattern.transposed, pattern.transposed, strict=True):
            assert np.array_equal(array, expected)


def test_snapshots_survive_the_rewriting_of_the_memory() -> None:
    net, state = network(ts.PReLU())
    store, memory = store_for(net)
    take_in(store, net, state)
    patterns = [Pattern(*x.pattern.shape, x.pattern.row_ptr.copy(), x.pattern.col_idx.copy()) for x in net.layers]
    values = copies(parameters(net))
    matrices = [layer.weights for layer in net.layers]
    dense = [matrix.toarray() for matrix in matrices]
    snapshot = snapshot_network(net)
    memory[:-64] = 0
    assert not net.layers[0].values.any()
    for matrix, expected in zip(matrices, dense, strict=True):
        assert np.array_equal(matrix.toarray(), expected)
    other, _ = network(ts.PReLU(), seed=3)
    ts.Trainer(other, progress=False).restore(snapshot)
    assert [x.pattern for x in other.layers] == patterns
    assert_equal(parameters(other), values)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_words_of_a_board_lie_in_cache_lines_of_their_own(workers: int) -> None:
    memory = _kernels.aligned_zeros(Board.nbytes(workers), np.uint8)
    board = Board(memory, workers)
    waited_on = [Board.bell, *(word(k) for k in range(workers) for word in (Board.said, Board.read, Board.told))]
    lines = [word * 4 // 64 for word in waited_on]
    assert len(set(lines)) == len(waited_on)
    assert Board.deaths not in waited_on
    assert max(waited_on) < board.words.size
    parts = [[board.words], board.orders, board.updates, [board.pids]]
    ends = [(part[0].ctypes.data, part[-1].ctypes.data + part[-1].nbytes) for part in parts]
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ends))
    assert ends[-1][1] <= memory.ctypes.data + memory.nbytes
    assert all(start % 64 == 0 for start, _ in ends)


def test_records_on_a_board_do_not_touch_each_other() -> None:
    board = Board(_kernels.aligned_zeros(Board.nbytes(3), np.uint8), 3)
    orders = [Order(Do.COMPUTE, number=k, epoch=-k, text="x" * 600) for k in range(3)]
    updates = [Update(Said.FAILED, number=2**40 + k, loss=float(k), text="y" * 600) for k in range(3)]
    for k in (2, 0, 1):
        orders[k].write(board.orders[k])
        updates[k].write(board.updates[k])
    board.pids[...] = [2**31 + 5, 2, 3, 4]
    assert not board.words.any()
    for k in range(3):
        assert (Order.read(board.orders[k]).number, Order.read(board.orders[k]).epoch) == (k, -k)
        assert (Update.read(board.updates[k]).number, Update.read(board.updates[k]).loss) == (2**40 + k, float(k))


def test_counts_wrap_as_the_word_does() -> None:
    words = np.zeros(16, np.int32)
    for start in (0, -1, 2**31 - 2, 2**31 - 1, -(2**31)):
        words[0] = start
        _kernels.add_word(words, 0, 1)
        assert next_count(start) == _kernels.load_word(words, 0)
