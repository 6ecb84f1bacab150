# SPDX-License-Identifier: BSD-3-Clause
"""Runs of SET, RigL, SNIP and GMP equal masked dense training, connection by connection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trulysparse as ts

from . import masked_dense as dense
from . import numpy_reference as ref
from .library_draws import LibraryDraws

SIZES = (12, 20, 15, 4)
# Relative gap below which a choice between two connections could turn on rounding in float32.
MARGIN = 2e-4

RUNS: dict[str, tuple[ts.Topology, dict[str, Any], float]] = {
    "set": (
        ts.SET(0.3, drop="magnitude", update_every=5, unit="steps", layers="all"),
        {"method": "set", "period": 5},
        0.3,
    ),
    "rigl": (ts.RigL(0.3, update_every=5), {"method": "rigl", "period": 5, "end": 0.75}, 0.3),
    "snip": (ts.SNIP(0.25), {"method": "snip", "density": 0.25}, 1.0),
    "gmp": (ts.GMP(0.2, update_every=5), {"method": "gmp", "period": 5, "end": 0.75, "density": 0.2}, 1.0),
}


@pytest.mark.parametrize("activation", [ts.AllReLU(0.6), ts.ReLU()], ids=["all_relu", "relu"])
@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_equals_masked_dense_training(name: str, activation: Any, each_isa: str) -> None:
    topology, settings, density = RUNS[name]
    rng = np.random.default_rng(8)
    y = rng.integers(0, 4, 200)
    X = (rng.normal(size=(4, 12))[y] * 1.5 + rng.normal(size=(200, 12))).astype(np.float32)
    net = ts.SparseMLP(SIZES, density=density, activation=activation, seed=4)
    layers = ref.layers_of(net)
    start = [layer.mask.copy() for layer in layers]
    rule = dense.Rule(**settings)
    losses = dense.train(
        layers,
        X.astype(np.float64),
        y,
        rule,
        epochs=4,
        batch_size=25,
        lr=0.02,
        optimizer=ref.SGD(0.9),
        draws=LibraryDraws(SIZES, 11),
    )
    assert rule.choices.margin > MARGIN  # else another seed, not a wider tolerance
    assert rule.choices.made >= (1 if name == "snip" else 10)
    assert rule.choices.replaced > 20 or name in ("snip", "gmp")
    trainer = ts.Trainer(
        net,
        optimizer=ts.SGD(0.02, momentum=0.9),
        topology=topology,
        batch_size=25,
        seed=11,
        standardize=False,
        progress=False,
        threads=2,
    )
    history = trainer.fit(X, y, epochs=4)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)
    for number, (got, expected) in enumerate(zip(ref.layers_of(net), layers, strict=True)):
        assert not np.array_equal(expected.mask, start[number])
        np.testing.assert_array_equal(got.mask, expected.mask, err_msg=f"pattern of layer {number}")
        np.testing.assert_allclose(got.weights, expected.weights, atol=1e-5)
        np.testing.assert_allclose(got.bias, expected.bias, atol=1e-5)
        velocity = trainer.state.weight_slots[number]["velocity"]
        np.testing.assert_allclose(velocity, expected.weight_slots["velocity"][expected.mask], atol=1e-5)
