# SPDX-License-Identifier: BSD-3-Clause
"""A gradient of an older topology reaches the connections that survived, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine, Run
from trulysparse.model.progress import Progress
from trulysparse.parallel.messages import MessageServer


@pytest.mark.parametrize("evolutions", [1, 3])
def test_retain_valid_updates_never_resurrects_a_connection(evolutions: int) -> None:
    """Not even one that was dropped and grown again in the same evolution, which a dense layer makes common."""
    net = ts.SparseMLP((20, 60, 40, 2), density=0.7, seed=1)
    engine = Engine(net, ts.SGD(), seed=0, threads=1)
    world: Any = SimpleNamespace(size=2)
    server = MessageServer(world, engine, holds=False)
    server.open_model(net, engine.state)
    layout = server._layouts[0]
    late = np.ones(layout.size, np.float32)
    server._gradients[0], server._versions[0] = late, 0
    samples: Any = None
    run = Run(engine, ts.SET(0.3), None, samples)
    run.settle = lambda layer, delta: server.settle(net, engine.state, layer.index, delta)
    alive = [np.full(layer.nnz, 7.0, np.float32) for layer in net.layers]  # a mark that only survivors keep
    for number in range(1, evolutions + 1):
        for layer, mark in zip(net.layers, alive, strict=True):
            engine.state.weight_slots[layer.index]["mark"] = mark
        engine.state.evolved = False
        run.evolve(np.empty(0, np.int64), Progress(number * 10, float(number), 10, 20), 0.1, lambda report: None)
        alive = [engine.state.weight_slots[layer.index].pop("mark") for layer in net.layers]
        server.publish(net, engine.state)
    gradient, carried = server.gradient(0)
    assert carried
    for layer, array, mark in zip(net.layers, gradient.weights, alive, strict=True):
        assert array.shape == (layer.nnz,)
        np.testing.assert_array_equal(array != 0, mark != 0)
    assert any((mark == 0).any() for mark in alive[:2]) and (alive[2] == 7).all()
