# SPDX-License-Identifier: BSD-3-Clause
"""The paper's settings on the paper's data, against an independent simulation of the algorithm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trulysparse as ts
from trulysparse.cli.config import RunConfig
from trulysparse.recipes.paper import preset

# Test accuracy of a dense simulation with masks, one seed, from epoch 5 on.
FASHION = {5: 0.82, 10: 0.8515, 16: 0.862, 21: 0.8675, 29: 0.872, 40: 0.877}


def _train(name: str, file: Path, epochs: int, **tables: dict[str, Any]) -> tuple[ts.Trainer, ts.Dataset]:
    config = RunConfig(preset(name) | tables)
    config.set("data", "data", str(file))
    data = config.load_data()
    trainer = ts.Trainer(config.build_net(data, None), progress=False, **config.trainer_arguments())
    trainer.fit(data.X_train, data.y_train, epochs=epochs, validation=(data.X_test, data.y_test))
    return trainer, data


@pytest.mark.parametrize("epochs", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_fashion_mnist_follows_the_simulated_curve(shared_data: Callable[[str], Path], epochs: int) -> None:
    optimizer = preset("fashion_mnist")["optimizer"] | {"weight_decay": 2e-4}  # as the simulation has it
    trainer, _ = _train("fashion_mnist", shared_data("fashion_mnist.npz"), epochs, optimizer=optimizer)
    accuracy = trainer.history.val_accuracy
    for epoch, expected in FASHION.items():
        if epoch <= epochs:
            assert abs(accuracy[epoch - 1] - expected) < 0.01, f"epoch {epoch}"
    assert len(set(trainer.history.connections)) == 1
    assert abs(trainer.net.connections - 125680) < 4 * 350  # four deviations of the Bernoulli sampler


def test_madelon_trains_with_importance_pruning(shared_data: Callable[[str], Path]) -> None:
    pruning = {"percentile": 20.0, "start": 9, "period": 10}
    trainer, data = _train("madelon", shared_data("madelon.npz"), 50, pruning=pruning)
    counts = trainer.history.connections
    assert [e + 1 for e in range(49) if counts[e + 1] < counts[e]] == [11, 21, 31, 41]
    assert max(trainer.history.val_accuracy) > 0.55
    assert trainer.net.score(data.X_test, data.y_test) == trainer.history.val_accuracy[-1]
