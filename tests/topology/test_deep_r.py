# SPDX-License-Identifier: BSD-3-Clause
"""DeepR: signs are kept, what crosses zero goes, counts stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.engine import TrainState, evolve_network
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model.progress import Progress


def _evolve(net: ts.SparseMLP, state: TrainState, rule: ts.DeepR, step: int, lr: float = 0.1, threads: int = 1) -> None:
    state.step = step
    progress = Progress(step, 0.0, 10, 10)
    evolve_network(net, state, topology=rule, pruning=None, seed=5, threads=threads, progress=progress, lr=lr)


@given(seed=st.integers(0, 50), l1=st.floats(0, 2))
def test_crossed_connections_go_and_the_others_move_as_the_rule_says(seed: int, l1: float) -> None:
    net = ts.SparseMLP((20, 15, 4), density=0.3, seed=seed)
    rule = ts.DeepR(l1=l1, noise=0.0)
    state = TrainState.fresh(net, ts.SGD(), rule)
    start = [(layer.pattern.cells(), layer.values.copy()) for layer in net.layers]
    _evolve(net, state, rule, 0)
    for layer, slots, (_, values) in zip(net.layers, state.weight_slots, start, strict=True):
        np.testing.assert_array_equal(layer.values, values)  # before the first step only signs are set
        np.testing.assert_array_equal(slots["sign"], np.sign(values))
    _evolve(net, state, rule, 1)
    for layer, slots, (cells, values) in zip(net.layers, state.weight_slots, start, strict=True):
        sign = np.sign(values)
        moved = values - sign * np.float32(0.1 * l1)
        stays = sign * moved > 0
        now = dict(zip(layer.pattern.cells().tolist(), layer.values.tolist(), strict=True))
        assert len(now) == cells.size
        kept = dict(zip(cells[stays].tolist(), moved[stays].tolist(), strict=True))
        assert all(now[cell] == value for cell, value in kept.items())
        fresh = [value for cell, value in now.items() if cell not in kept]
        np.testing.assert_allclose(np.abs(fresh), 1e-12, rtol=1e-6)
        assert (slots["sign"] * layer.values > 0).all()


def test_noise_has_the_size_asked_for_and_differs_from_step_to_step() -> None:
    net = ts.SparseMLP((200, 100, 4), density=0.5, seed=0)
    rule = ts.DeepR(l1=0, noise=2.0)
    state = TrainState.fresh(net, ts.SGD(), rule)
    net.layers[0].values[:] = 100.0
    walks = []
    for step in (0, 1, 2):
        before = net.layers[0].values.copy()
        _evolve(net, state, rule, step)
        walks.append(net.layers[0].values - before)
    assert not walks[0].any()
    assert abs(walks[1].std() / 0.2 - 1) < 0.05
    assert not np.array_equal(walks[1], walks[2])


def test_nan_and_bad_settings_are_errors() -> None:
    net = ts.SparseMLP((20, 15, 4), density=0.3, seed=0)
    rule = ts.DeepR()
    state = TrainState.fresh(net, ts.SGD(), rule)
    net.layers[0].values[0] = np.nan
    with pytest.raises(DivergenceError, match="layer 0"):
        _evolve(net, state, rule, 1)
    for bad in ({"l1": -1}, {"noise": -1}, {"layers": "some"}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            ts.DeepR(**bad)
