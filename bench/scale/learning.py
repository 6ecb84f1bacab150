# SPDX-License-Identifier: BSD-3-Clause
"""Does a network of a million neurons learn? 65536-500000-500000-2, epsilon 10, on artificial data that can be learned.

    python bench/scale/learning.py [--epochs 10] [--samples-file X.npy]

10,000 samples of 65,536 features (50 informative, 2,000 linear combinations of them, the rest noise; clusters around
corners 2 from the origin), 7,000 for training, 3,000 for testing. SET and RigL with sampled candidates, settings of
docs/design/extreme-scale.md, and SET with bfloat16 activations. The accuracy reported is that of the last epoch. What
the data allow is told by the classifier that compares a sample with the means of the two classes.
Appends to bench/results/scale_learning.jsonl; writes scale_learning.md and scale_learning.png beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import trulysparse as ts
from trulysparse._files import replacing
from trulysparse.bench import records
from trulysparse.bench.machine import provenance, source_commit
from trulysparse.plot import learning_curves

RESULTS = Path(__file__).parents[1] / "results" / "scale_learning.jsonl"
SIZES = (65536, 500_000, 500_000, 2)
TRAIN, TEST = 7000, 3000
PROBLEM = {"informative": 50, "redundant": 2000, "class_sep": 2.0, "clusters_per_class": 1}
SEED = 0


def rules() -> dict[str, tuple[ts.Topology, str]]:
    """Return what is compared: the rule, and how activations are stored."""
    return {
        "SET": (ts.SET(0.3, grown_scale="match"), "float32"),
        "RigL, sampled": (ts.RigL(0.3, update_every=25, search="sampled", layers="hidden"), "float32"),
        "SET, bfloat16": (ts.SET(0.3, grown_scale="match"), "bfloat16"),
    }


def class_means_accuracy(X: Any, y: Any) -> float:
    """Return the test accuracy of the nearest class mean: what a simple linear classifier gets."""
    means = [X[:TRAIN][y[:TRAIN] == label].mean(axis=0, dtype=np.float64) for label in (0, 1)]
    weights, middle = means[1] - means[0], (means[0] + means[1]) / 2
    margins = X[TRAIN:].astype(np.float64) @ weights - middle @ weights
    return float(np.mean((margins > 0) == (y[TRAIN:] == 1)))


def train(X: Any, y: Any, rule: ts.Topology, dtype: str, epochs: int) -> tuple[ts.History, ts.SparseMLP]:
    net = ts.SparseMLP(
        SIZES,
        density=ts.ErdosRenyi(10),
        init=ts.HeUniform("sparse", gain="signal"),
        activation=ts.AllReLU(0.25),
        seed=SEED,
    )
    trainer = ts.Trainer(
        net,
        optimizer=ts.SGD(0.1, lr_scale="fan_in"),
        topology=rule,
        batch_size=128,
        micro_batch=32,
        storage="fast",
        activation_dtype=dtype,
        standardize=False,
        seed=SEED,
    )
    history = trainer.fit(X[:TRAIN], y[:TRAIN], epochs=epochs, validation=(X[TRAIN:], y[TRAIN:]))
    return history, net


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    options.add_argument("--samples-file", type=Path, help="where to keep the samples, 2.6 GB (default: nowhere)")
    options.add_argument("--note", default="", help="what else ran on the machine")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.samples_file or Path(folder) / "X.npy"
        X, y = ts.artificial_classification(TRAIN + TEST, SIZES[0], seed=SEED, out=out, **PROBLEM)
        allowed = class_means_accuracy(X, y)
        facts = provenance(source_commit(Path(__file__).parent)) | {"note": chosen.note}
        histories, rows = {}, []
        for name, (rule, dtype) in rules().items():
            history, net = train(X, y, rule, dtype, chosen.epochs)
            test = net.evaluate(X[TRAIN:], y[TRAIN:])
            if test.accuracy != history.val_accuracy[-1] or not all(map(math.isfinite, history.loss)):
                raise RuntimeError(f"{name}: the history is not what the network gives: this is a bug")
            histories[name] = history
            found = {
                "benchmark": "learning",
                "rule": name,
                "settings": {"topology": rule.to_config(), "activation_dtype": dtype, "problem": PROBLEM},
                "connections": net.connections,
                "class_means_accuracy": allowed,
                "history": history.rows,
            }
            records.append(RESULTS, found, facts)
            seconds = sum(row["train_seconds"] + row["evolve_seconds"] for row in history.rows) / chosen.epochs
            rows.append(
                f"| {name} | {history.loss[0]:.3f} to {history.loss[-1]:.3f} | {history.accuracy[0]:.3f} to "
                f"{history.accuracy[-1]:.3f} | {history.val_accuracy[0]:.3f} to {history.val_accuracy[-1]:.3f} | "
                f"{seconds:.0f} |"
            )
            print(json.dumps({"rule": name, "test_accuracy": test.accuracy}), flush=True)
    learning_curves(
        histories, RESULTS.with_suffix(".png"), title="A million neurons, 17 million connections: test accuracy"
    )
    text = [
        "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
        "# A million neurons: first and last epoch",
        "",
        f"65536-500000-500000-2, epsilon 10, {TRAIN:,} training samples, {chosen.epochs} epochs, one seed, batch 128, "
        'SGD at 0.1 with `lr_scale="fan_in"`, `HeUniform("sparse", gain="signal")`, All-ReLU 0.25, without dropout; '
        "`python bench/scale/learning.py`. Training figures are means over the epoch. The nearest class mean gets "
        f"{allowed:.3f} on the test samples. Curves: scale_learning.png.",
        "",
        "| rule | training loss | training accuracy | test accuracy | seconds an epoch |",
        "|---|---|---|---|---|",
        *rows,
    ]
    with replacing(RESULTS.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
