# SPDX-License-Identifier: BSD-3-Clause
"""Files written by earlier versions still load, and their runs still go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trulysparse as ts

VERSIONS = sorted(path for path in Path(__file__).parent.glob("v*") if path.is_dir())


@pytest.mark.parametrize("saved", VERSIONS, ids=lambda path: path.name)
def test_old_models_load(saved: Path) -> None:
    with np.load(saved / "expected.npz") as expected:
        proba = ts.load(saved / "model.safetensors").predict_proba(expected["X"])
        np.testing.assert_allclose(proba, expected["proba"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("saved", VERSIONS, ids=lambda path: path.name)
def test_old_checkpoints_go_on(saved: Path) -> None:
    stopping = ts.EarlyStopping(patience=50, restore_best=False)
    trainer = ts.Trainer.resume(saved / "checkpoint.safetensors", callbacks=[stopping], progress=False)
    with np.load(saved / "expected.npz") as expected:
        X, y = expected["X"], expected["y"]
        trainer.fit(X, y, epochs=5, validation=(X[:9], y[:9]))
        np.testing.assert_allclose(trainer.net.predict_proba(X), expected["proba_longer"], rtol=1e-3, atol=1e-5)
