# SPDX-License-Identifier: BSD-3-Clause
"""Deep networks of in-degree two learn with the recipe in docs/design, and not with the paper's settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification

import trulysparse as ts
from trulysparse.engine import Engine
from trulysparse.model import Inputs

SIZES = (512, *(20_000,) * 8, 2)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(8000, 512, n_informative=50, n_redundant=0, random_state=0)
    return X.astype(np.float32), y


def _network(init: Any, alpha: float) -> ts.SparseMLP:
    return ts.SparseMLP(SIZES, epsilon=1, init=init, activation=ts.AllReLU(alpha), seed=1)


def _recipe_init() -> ts.HeUniform:
    return ts.HeUniform("sparse", gain="signal")


def _fit(net: ts.SparseMLP, optimizer: ts.SGD, data: tuple[np.ndarray, np.ndarray], epochs: int) -> ts.History:
    X, y = data
    rule = ts.SET(0.3, grown_scale="match")
    trainer = ts.Trainer(net, optimizer=optimizer, topology=rule, batch_size=128, seed=1, progress=False)
    return trainer.fit(X[:6400], y[:6400], epochs=epochs, validation=(X[6400:], y[6400:]))


@pytest.mark.slow
def test_it_learns_with_the_recipe(data: tuple[np.ndarray, np.ndarray]) -> None:
    history = _fit(_network(_recipe_init(), 0.25), ts.SGD(0.03, lr_scale="fan_in"), data, 3)
    assert history.column("loss")[-1] < 0.85 * math.log(2)
    assert history.column("val_accuracy")[-1] > 0.65


@pytest.mark.slow
def test_it_does_not_learn_with_the_papers_settings(data: tuple[np.ndarray, np.ndarray]) -> None:
    history = _fit(_network(ts.HeUniform(), 0.6), ts.SGD(0.01, weight_decay=2e-4), data, 2)
    assert min(history.column("loss")) > 0.999 * math.log(2)


@pytest.mark.slow
def test_with_sparse_fan_in_alone_the_output_layer_diverges(data: tuple[np.ndarray, np.ndarray]) -> None:
    history = _fit(_network(ts.HeUniform("sparse"), 0.6), ts.SGD(0.01), data, 1)
    assert history.column("loss")[0] > 10 * math.log(2)


def test_the_first_layer_gets_a_gradient(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    largest = []
    for init in (ts.HeUniform(), _recipe_init()):
        net = _network(init, 0.6)
        engine = Engine(net, ts.SGD(), seed=0, threads=2)
        targets = net.loss.check_targets(y[:64], 2, "y")
        _, weights, _ = engine.gradients(Inputs(X[:64], 512, None, "X"), targets, np.arange(64))
        largest.append(float(np.abs(weights[0]).max()))
    assert largest[0] < 1e-12 < 1e-6 < largest[1]
