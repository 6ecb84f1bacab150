# SPDX-License-Identifier: BSD-3-Clause
"""Write the files of the current format, once for each format version: python tests/saves/make.py tests/saves/v1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import trulysparse as ts

EPOCHS, LONGER = 3, 5


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(48, 6)).astype(np.float32)
    y = rng.integers(0, 3, 48)
    net = ts.SparseMLP((6, 10, 8, 3), density=0.6, activation=ts.AllReLU(0.6), dropout=0.1, seed=1)
    trainer = ts.Trainer(
        net,
        optimizer=ts.SGD(lr=0.05, weight_decay=1e-4),
        pruning=ts.ImportancePruning(20, start=0, period=3),
        batch_size=16,
        seed=2,
        callbacks=[ts.EarlyStopping(patience=50, restore_best=False)],
        progress=False,
    )
    trainer.fit(X, y, epochs=EPOCHS, validation=(X[:9], y[:9]))
    net.save(directory / "model.safetensors")
    trainer.save_checkpoint(directory / "checkpoint.safetensors")
    first = net.predict_proba(X)
    trainer.fit(X, y, epochs=LONGER, validation=(X[:9], y[:9]))
    np.savez(directory / "expected.npz", X=X, y=y, proba=first, proba_longer=net.predict_proba(X))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
