# SPDX-License-Identifier: BSD-3-Clause
"""Train with the paper's settings and compare the test accuracy with an independent simulation of the algorithm.

    python bench/accuracy/paper_curve.py fashion_mnist --data DIR [--epochs 40] [--threads 1] [--seeds 0 1 2]
    python bench/accuracy/paper_curve.py madelon --data DIR --pruning --epochs 500

Settings: "Truly Sparse Neural Networks at Scale", table 7 (`trulysparse train NAME` uses the same). The simulation
that Fashion-MNIST is compared with is dense with masks, one seed. Appends one JSON line a seed to
bench/results/paper_curve.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import trulysparse as ts
from trulysparse.bench import records
from trulysparse.bench.machine import provenance, source_commit
from trulysparse.cli.config import RunConfig
from trulysparse.recipes.paper import sequential_preset

RESULTS = Path(__file__).parents[1] / "results" / "paper_curve.jsonl"

# Test accuracy after so many epochs.
SIMULATION = {
    "fashion_mnist": {
        1: 0.62,
        2: 0.75,
        3: 0.78,
        4: 0.81,
        5: 0.82,
        10: 0.8515,
        16: 0.862,
        21: 0.8675,
        29: 0.872,
        40: 0.877,
    }
}


def main() -> None:
    """Run every seed, print the curve beside the simulation's, append the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["fashion_mnist", "madelon", "mnist", "cifar10", "higgs"])
    parser.add_argument("--data", required=True, help="directory of NAME.npz, or the file")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--pruning",
        action="store_true",
        help="importance pruning, the paper's 20 %% every 10 epochs from 200",
    )
    parser.add_argument("--compat", action="store_true", help="the cut-offs of the paper's released code")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        run(arguments, seed)


def run(arguments: argparse.Namespace, seed: int) -> None:
    config = RunConfig(sequential_preset(arguments.name))
    config.set("data", "data", arguments.data)
    config.set("model", "seed", seed)
    config.set("trainer", "seed", seed)
    if arguments.pruning:
        config.set("pruning", "percentile", 20.0)
    if arguments.compat:
        config.set("topology", "compat", "wasap")
    data = config.load_data()
    net = config.build_net(data, arguments.threads)
    start = net.connections
    trainer = ts.Trainer(net, threads=arguments.threads, **config.trainer_arguments())
    history = trainer.fit(data.X_train, data.y_train, epochs=arguments.epochs, validation=(data.X_test, data.y_test))
    test = net.evaluate(data.X_test, data.y_test)
    if test.accuracy != history.val_accuracy[-1]:
        raise SystemExit("the last row of the history is not what the network gives: this is a bug")
    record = {
        "benchmark": "paper_curve",
        "data": arguments.name,
        "seed": seed,
        "threads": arguments.threads,
        "epochs": arguments.epochs,
        "settings": {k: v for k, v in config.tables.items() if k != "data"},
        "train_seconds_median": statistics.median(history.train_seconds),
        "train_seconds_quartiles": statistics.quantiles(history.train_seconds, n=4),
        "evolve_seconds_median": statistics.median(history.evolve_seconds[1:] or [0.0]),
        "connections_start": start,
        "connections_end": net.connections,
        "test_accuracy": history.val_accuracy,
        "best": max(history.val_accuracy),
        "last": history.val_accuracy[-1],
    }
    for epoch, expected in SIMULATION.get(arguments.name, {}).items():
        if epoch <= arguments.epochs:
            got = history.val_accuracy[epoch - 1]
            points = 100 * (got - expected)
            print(f"epoch {epoch:3}  simulation {expected:.4f}  here {got:.4f}  difference {points:+.2f} points")
    print(
        f"{arguments.name} seed {seed}: best {record['best']:.4f}, last {record['last']:.4f}, "
        f"connections {start:,} -> {net.connections:,}, {record['train_seconds_median']:.3f} s of training an epoch "
        f"(median) on {arguments.threads} thread(s)"
    )
    records.append(RESULTS, record, provenance(source_commit(Path(__file__).parent)))
    print(f"appended to {RESULTS}")


if __name__ == "__main__":
    main()
