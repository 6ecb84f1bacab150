# SPDX-License-Identifier: BSD-3-Clause
"""Schedules of the drop fraction, and the options that SET has of them; what a rule remembers is in checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.topology import Signals, TopologyDelta, get_drop_schedule, get_topology

SCHEDULES = [
    ts.ConstantDrop(),
    ts.CosineDrop(),
    ts.CosineDrop(0.2),
    ts.LinearDrop(),
    ts.LinearDrop(0.5),
    ts.PowerDrop(2),
]


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 100)
    return (rng.normal(size=(3, 8))[y] + rng.normal(size=(100, 8))).astype(np.float32), y


def _trainer(topology: ts.Topology, **arguments: Any) -> ts.Trainer:
    net = ts.SparseMLP((8, 12, 10, 3), density=0.4, seed=0)
    return ts.Trainer(net, topology=topology, batch_size=20, standardize=False, progress=False, threads=2, **arguments)


def test_factors_are_the_documented_ones() -> None:
    for part in (0.0, 0.25, 0.5, 1.0):
        half = (1 + math.cos(math.pi * part)) / 2
        for schedule, factor in zip(
            SCHEDULES, [1, half, 0.2 + 0.8 * half, 1 - part, 1 - 0.5 * part, (1 - part) ** 2], strict=True
        ):
            assert schedule.factor(part) == pytest.approx(factor, abs=1e-12)


@given(schedule=st.sampled_from(SCHEDULES), a=st.floats(0, 1), b=st.floats(0, 1))
def test_factors_begin_at_one_and_never_rise(schedule: ts.DropSchedule, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert schedule.factor(0.0) == 1.0
    assert 0.0 <= schedule.factor(high) <= schedule.factor(low) <= 1.0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_come_back_from_their_configuration(schedule: ts.DropSchedule) -> None:
    assert get_drop_schedule(schedule.to_config()) == schedule
    rule = ts.SET(schedule=schedule)
    assert get_topology(rule.to_config()).to_config() == rule.to_config()


def test_settings_out_of_range_are_errors() -> None:
    for make in (lambda: ts.CosineDrop(1.5), lambda: ts.LinearDrop(-0.1), lambda: ts.PowerDrop(0)):
        with pytest.raises(ConfigError, match=r"final|exponent"):
            make()
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        get_drop_schedule("cosin")


def test_set_by_magnitude_drops_the_smallest_of_either_sign() -> None:
    layer = ts.SparseMLP((40, 30, 5), density=0.5, seed=0).layers[0]
    layer.values[layer.values < 0] *= 0.01
    progress = Progress(10, 1.0, 10, 10)
    delta = ts.SET(0.3, drop="magnitude").evolve(layer, Signals(0, 0, 2, progress=progress), 10)
    assert delta is not None and delta.mask is not None
    count = int(0.3 * layer.nnz)
    assert (~delta.mask).sum() == delta.grown.size == count
    assert np.abs(layer.values[~delta.mask]).max() <= np.abs(layer.values[delta.mask]).min()
    assert (layer.values[~delta.mask] < 0).mean() > 0.9
    with pytest.raises(ConfigError, match=r"drop='magnitud' is unknown"):
        ts.SET(drop="magnitud")


def test_set_replaces_as_many_as_its_schedule_says() -> None:
    layer = ts.SparseMLP((40, 30, 5), density=0.5, seed=0).layers[0]
    rule = ts.SET(0.4, drop="magnitude", schedule="linear", end=0.8)
    for step, fraction in ((0, 0.4), (20, 0.3), (40, 0.2), (80, 0.0)):
        delta = rule.evolve(layer, Signals(0, 0, 2, progress=Progress(step, step / 10, 10, 10)), step)
        assert delta is not None and delta.grown.size == int(fraction * layer.nnz + 1e-9)


def test_set_is_due_at_its_intervals_until_its_end() -> None:
    def due(rule: ts.SET) -> list[int]:
        return [s for s in range(60) if rule.due(Progress(s, s / 10, 10, 6))]

    assert due(ts.SET()) == [10, 20, 30, 40, 50]
    assert due(ts.SET(update_every=2, unit="epochs")) == [20, 40]
    assert due(ts.SET(update_every=7, unit="steps", end=0.5)) == [7, 14, 21, 28]
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        ts.SET(unit="step")
    with pytest.raises(ConfigError, match="update_every"):
        ts.SET(update_every=0)
    with pytest.raises(ConfigError, match="new_weights"):
        ts.SET(new_weights="gradient")  # it has none


def test_set_can_begin_new_weights_at_zero() -> None:
    layer = ts.SparseMLP((40, 30, 5), density=0.5, seed=0).layers[0]
    delta = ts.SET(0.3, new_weights="zeros").evolve(layer, Signals(0, 0, 2), 0)
    assert delta is not None and delta.values is not None and delta.values.size == delta.grown.size > 0
    assert not delta.values.any()


def test_set_in_mid_epoch_evolves_between_two_weight_updates() -> None:
    X, y = _data()
    seen: list[tuple[bytes, bytes]] = []

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            layer = trainer.net.layers[0]
            seen.append((layer.pattern.cells().tobytes(), layer.bias.tobytes()))

    _trainer(ts.SET(update_every=3, unit="steps"), callbacks=[Watch()]).fit(X, y, epochs=2)
    patterns, biases = zip(*seen, strict=True)
    assert [i for i in range(1, 10) if patterns[i] != patterns[i - 1]] == [3, 6, 9]
    assert len(set(biases)) == 10


@ts.register_topology("test_counting")
class Counting(ts.Topology):
    """Counts its evolutions and adds up weights: something to remember, in numbers and in arrays."""

    def evolve(self, layer: ts.SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        state = signals.state
        state.numbers["calls"] = [*state.numbers.get("calls", []), step]
        total = state.tensors.setdefault("total", np.zeros(2, np.float64))
        total += [1.0, float(layer.values.sum())]
        return None


def test_what_a_rule_remembers_is_in_the_checkpoint(tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer(Counting())
    whole.fit(X, y, epochs=4)
    _trainer(Counting(), checkpoint=tmp_path).fit(X, y, epochs=2)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    assert resumed.state.rule.numbers == {"calls": [5, 5]}
    assert resumed.state.rule.tensors["total"][0] == 2
    resumed.fit(X, y, epochs=4)
    assert resumed.state.rule.numbers == whole.state.rule.numbers == {"calls": [5, 5, 10, 10, 15, 15]}
    np.testing.assert_array_equal(resumed.state.rule.tensors["total"], whole.state.rule.tensors["total"])
