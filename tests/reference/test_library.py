# SPDX-License-Identifier: BSD-3-Clause
"""The library against the reference: its random draws bit by bit, and whole training runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import trulysparse as ts
from trulysparse import _kernels

from . import numpy_reference as ref
from . import philox
from .library_draws import LibraryDraws

SEEDS = (0, 1, 2**32, 2**64 - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("purpose", list(philox.PURPOSES))
def test_philox_draws_are_the_documented_ones(seed: int, purpose: str) -> None:
    assert _kernels.PURPOSES[purpose] == philox.PURPOSES[purpose]
    for layer, step, index in ((0, 0, 0), (3, 7, 12345), (2**24 - 1, 2**32 - 1, 2**64 - 1)):
        np.testing.assert_array_equal(
            _kernels.philox(seed, purpose, layer, step, index), philox.draw(seed, purpose, layer, step, index)
        )


@pytest.mark.parametrize("n", [0, 1, 2, 17, 5000])
def test_shuffle_is_the_documented_one(n: int) -> None:
    for seed in SEEDS:
        expected = philox.shuffle(n, seed=seed, step=6)
        np.testing.assert_array_equal(_kernels.shuffle(n, seed=seed, step=6), expected)


def test_grown_values_are_the_documented_ones() -> None:
    rng = np.random.default_rng(0)
    cells = np.sort(rng.choice(50_000 * 3, 4000, replace=False)).astype(np.uint64)
    where: dict[str, Any] = {"seed": 77, "purpose": "regrow_values", "layer": 2, "step": 9}
    scale = rng.random(3).astype(np.float32)
    got = _kernels.draw_values_at(cells, 3, "uniform", scale, **where)
    np.testing.assert_array_equal(got, philox.uniform_values(cells, scale[cells % 3], **where))
    got = _kernels.draw_values_at(cells, 3, "normal", 0.1, **where)
    np.testing.assert_allclose(got, philox.normal_values(cells, 0.1, **where), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize(("neurons", "batch", "column"), [(5, 1, 0), (7, 40, 0), (3, 24, 16), (1, 33, 8)])
def test_dropout_is_the_documented_one(neurons: int, batch: int, column: int, each_isa: str) -> None:
    """Feed ones through an identity layer: what comes out is the mask times its scale."""
    ld, threshold = _kernels.padded(batch), 19661
    eye = np.arange(neurons + 1, dtype=np.int32)
    index = (eye, eye[:-1].copy(), eye.copy(), eye[:-1].copy(), eye[:-1].copy())
    weights, bias = _kernels.aligned_zeros(neurons) + np.float32(1), _kernels.aligned_zeros(neurons)
    view = _kernels.layer_view(neurons, neurons, *index, weights, bias)
    x, y = _kernels.aligned_zeros((neurons, ld)), _kernels.aligned_zeros((neurons, ld))
    x[:, :batch] = 1
    _kernels.forward(
        view,
        x,
        y,
        activation=("linear", 0.0),
        dropout_threshold=threshold,
        kept=np.zeros((neurons, ld // 16), np.uint16),
        seed=5,
        layer=1,
        step=3,
        column_offset=column,
        threads=2,
    )
    kept = philox.dropout_kept(neurons, column + batch, threshold, seed=5, layer=1, step=3)[column:]
    np.testing.assert_array_equal(y[:, :batch].T, np.where(kept, np.float32(ref.dropout_scale(threshold)), 0))


def _problem(loss: str) -> tuple[NDArray[np.float32], NDArray[Any], int]:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 4 if loss == "cross_entropy" else 2, 230)
    X = (rng.normal(size=(4, 12))[y] * 1.5 + rng.normal(size=(230, 12))).astype(np.float32)
    if loss == "mse":
        return X, (X[:, :2] * X[:, 2:4]).astype(np.float32), 2
    return X, y, 4 if loss == "cross_entropy" else 1


RUNS: dict[str, dict[str, Any]] = {
    "paper": {},
    "static": {"topology": ts.Static(), "set_fraction": None},
    "wasap cut-offs": {"topology": ts.SET(0.3, compat="wasap"), "compat": "wasap"},
    "every matrix evolves": {
        "topology": ts.SET(0.2, layers="all"),
        "set_fraction": 0.2,
        "evolve_output": True,
    },
    "pruning": {
        "pruning": ts.ImportancePruning(30.0, start=0, period=2),
        "reference_pruning": ref.Pruning(30.0, start=0, period=2),
    },
    "pruning alone": {
        "topology": ts.Static(),
        "set_fraction": None,
        "pruning": ts.ImportancePruning(20.0, start=0, period=1),
        "reference_pruning": ref.Pruning(20.0, start=0, period=1),
    },
    "l2 and Nesterov": {
        "optimizer": ts.SGD(0.02, momentum=0.8, weight_decay=1e-2, decay="l2", nesterov=True),
        "reference_optimizer": ref.SGD(0.8, 1e-2, "l2", nesterov=True),
        "lr": 0.02,
    },
    "AdamW": {
        "optimizer": ts.Adam(0.003, weight_decay=1e-2),
        "reference_optimizer": ref.Adam(decay=1e-2),
        "lr": 0.003,
    },
    "Adam": {
        "optimizer": ts.Adam(0.003, weight_decay=1e-2, decoupled=False),
        "reference_optimizer": ref.Adam(decay=1e-2, decoupled=False),
        "lr": 0.003,
    },
    "binary": {"loss": "binary_cross_entropy", "activation": ts.Tanh()},
    "regression": {"loss": "mse", "activation": ts.Sigmoid(), "init": "xavier"},
    "normal init": {"activation": ts.LeakyReLU(0.1), "init": "normal"},
    "micro-batches": {"micro_batch": 16},
}


@pytest.mark.parametrize("name", list(RUNS))
def test_whole_run_equals_reference(name: str, each_isa: str) -> None:
    run = {
        "optimizer": ts.SGD(0.01, momentum=0.9, weight_decay=2e-4),
        "reference_optimizer": ref.SGD(0.9, 2e-4),
        "lr": 0.01,
        "topology": ts.SET(0.3),
        "set_fraction": 0.3,
        "loss": "cross_entropy",
        "activation": ts.AllReLU(0.6),
        "init": "he_uniform",
    } | RUNS[name]
    X, y, outputs = _problem(run["loss"])
    sizes = (12, 30, 25, 20, outputs)
    net = ts.SparseMLP(
        sizes,
        density=0.3,
        activation=run["activation"],
        dropout=0.3,
        init=run["init"],
        loss=run["loss"],
        seed=4,
    )
    layers = ref.layers_of(net)
    draws = LibraryDraws(sizes, 11, net.dropout_thresholds, run["init"])
    rows = ref.train(
        layers,
        X.astype(np.float64),
        y,
        epochs=5,
        batch_size=40,
        lr=run["lr"],
        optimizer=run["reference_optimizer"],
        draws=draws,
        loss=run["loss"],
        dropout_thresholds=net.dropout_thresholds,
        set_fraction=run["set_fraction"],
        compat=run.get("compat"),
        evolve_output=run.get("evolve_output", False),
        pruning=run.get("reference_pruning"),
    )
    trainer = ts.Trainer(
        net,
        optimizer=run["optimizer"],
        topology=run["topology"],
        pruning=run.get("pruning"),
        batch_size=40,
        seed=11,
        standardize=False,
        micro_batch=run.get("micro_batch"),
        progress=False,
        threads=2,
    )
    history = trainer.fit(X, y, epochs=5)
    assert history.connections == [row["connections"] for row in rows]
    np.testing.assert_allclose(history.loss, [row["loss"] for row in rows], rtol=1e-5)
    if run["loss"] != "mse":
        assert history.accuracy == [row["accuracy"] for row in rows]
    for number, (got, expected) in enumerate(zip(ref.layers_of(net), layers, strict=True)):
        np.testing.assert_array_equal(got.mask, expected.mask, err_msg=f"pattern of layer {number}")
        np.testing.assert_allclose(got.weights, expected.weights, atol=2e-5)
        np.testing.assert_allclose(got.bias, expected.bias, atol=2e-5)
        velocity = "velocity" in expected.weight_slots
        slots = trainer.state.weight_slots[number]
        for slot, array in expected.weight_slots.items():
            np.testing.assert_allclose(slots[slot], array[expected.mask], atol=2e-5 if velocity else 2e-4)
    loss, accuracy = ref.evaluate(layers, X.astype(np.float64), y, run["loss"])
    evaluation = net.evaluate(X, y)
    assert evaluation.loss == pytest.approx(loss, rel=1e-5)
    assert evaluation.accuracy == (None if run["loss"] == "mse" else accuracy)
