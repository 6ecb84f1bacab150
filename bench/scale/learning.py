# SPDX-License-Identifier: BSD-3-Clause
"""Does a network of a million neurons learn? 65536-500000-500000-2, epsilon 10, on artificial data that can be learned.

    python bench/scale/learning.py [--problem hard] [--epochs 10] [--rules SET "RigL, sampled"] [--samples-file X.npy]
    python bench/scale/learning.py --report

10,000 samples of 65,536 features, 7,000 for training, 3,000 for testing. Easy: 50 features are informative, 2,000
linear combinations of them, clusters around corners 2 from the origin; hard: 500 combinations, corners 1 from it. SET
and RigL with sampled candidates, settings of docs/design/extreme-scale.md, and SET with bfloat16 activations. The
accuracy reported is that of the last epoch. What the data allow is told by the classifier that compares a sample with
the means of the two classes. Appends to bench/results/scale_learning.jsonl; of all that it holds writes
scale_learning.md and scale_learning.png beside it.
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
PROBLEMS: dict[str, dict[str, Any]] = {
    "easy": {"informative": 50, "redundant": 2000, "class_sep": 2.0, "clusters_per_class": 1},
    "hard": {"informative": 50, "redundant": 500, "class_sep": 1.0, "clusters_per_class": 1},
}
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


def report() -> None:
    """Write page and picture of all results."""
    found = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    names = {json.dumps(problem): name for name, problem in PROBLEMS.items()}
    histories, rows = {}, []
    for result in found:
        history = ts.History(result["history"])
        name = names[json.dumps(result["settings"]["problem"])]
        histories[f"{result['rule']}, {name}"] = history
        seconds = sum(row["train_seconds"] + row["evolve_seconds"] for row in history.rows) / len(history.rows)
        ends = [
            f"{values[0]:.3f} to {values[-1]:.3f}" for values in (history.loss, history.accuracy, history.val_accuracy)
        ]
        allowed = result["class_means_accuracy"]
        rows.append(
            f"| {name} | {result['rule']} | {len(history.rows)} | {' | '.join(ends)} | {allowed:.3f} | {seconds:.0f} |"
        )
    learning_curves(histories, RESULTS.with_suffix(".png"), title="A million neurons: test accuracy")
    text = [
        "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
        "# A million neurons: first and last epoch",
        "",
        f"65536-500000-500000-2, epsilon 10, {TRAIN:,} training samples, one seed, batch 128, "
        'SGD at 0.1 with `lr_scale="fan_in"`, `HeUniform("sparse", gain="signal")`, All-ReLU 0.25, no dropout, no '
        "decay; `python bench/scale/learning.py`, which says what the data are. Training figures are means over an "
        "epoch. Seconds were taken while other programs ran. Curves: scale_learning.png.",
        "",
        "| data | rule | epochs | training loss | training accuracy | test accuracy | nearest class mean, test | "
        "seconds an epoch |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    with replacing(RESULTS.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problem", choices=PROBLEMS, default="easy")
    options.add_argument("--rules", nargs="+", choices=rules(), default=list(rules()), metavar="RULE")
    options.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    options.add_argument("--samples-file", type=Path, help="where to keep the samples, 2.6 GB (default: nowhere)")
    options.add_argument("--note", default="", help="what else ran on the machine")
    options.add_argument("--report", action="store_true", help="run nothing")
    chosen = options.parse_args()
    if not chosen.report:
        run(chosen)
    report()


def run(chosen: argparse.Namespace) -> None:
    """Train with every rule, check and append what comes out."""
    problem = PROBLEMS[chosen.problem]
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.samples_file or Path(folder) / "X.npy"
        X, y = ts.artificial_classification(TRAIN + TEST, SIZES[0], seed=SEED, out=out, **problem)
        allowed = class_means_accuracy(X, y)
        facts = provenance(source_commit(Path(__file__).parent)) | {"note": chosen.note}
        for name in chosen.rules:
            rule, dtype = rules()[name]
            history, net = train(X, y, rule, dtype, chosen.epochs)
            test = net.evaluate(X[TRAIN:], y[TRAIN:])
            if test.accuracy != history.val_accuracy[-1] or not all(map(math.isfinite, history.loss)):
                raise RuntimeError(f"{name}: the history is not what the network gives: this is a bug")
            found = {
                "benchmark": "learning",
                "rule": name,
                "settings": {"topology": rule.to_config(), "activation_dtype": dtype, "problem": problem},
                "connections": net.connections,
                "class_means_accuracy": allowed,
                "history": history.rows,
            }
            records.append(RESULTS, found, facts)
            print(json.dumps({"rule": name, "test_accuracy": test.accuracy}), flush=True)


if __name__ == "__main__":
    main()
