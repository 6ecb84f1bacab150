# SPDX-License-Identifier: BSD-3-Clause
"""Test accuracy of parallel training beside training in one process: two workers, Fashion-MNIST, the paper's settings.

    python bench/accuracy/parallel.py --data DIR --processes 1 [--epochs 60] [--seeds 3]

The network and settings of `trulysparse train fashion_mnist`; each mode as it is by default (WASAP with the paper's hot
start: twice the learning rate for the first five epochs), and variants: without hot start, and with connections that
stay what they are in phase two. The accuracy is that of the last epoch: nothing is chosen by looking at the test data.
In phase two the curve shows the network of one worker in turn, at its end the average. Writes
bench/results/parallel_accuracy.jsonl and .md, and the curves of all modes to parallel_curves.png.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grid

import trulysparse as ts
from trulysparse.cli.config import RunConfig
from trulysparse.parallel import PARALLEL
from trulysparse.plot import learning_curves
from trulysparse.recipes.paper import sequential_preset

RESULTS = grid.RESULTS / "parallel_accuracy.jsonl"
PICTURE = grid.RESULTS / "parallel_curves.png"
WORKERS = 2
SEQUENTIAL = "sequential"
MODES: dict[str, dict[str, Any] | None] = {
    SEQUENTIAL: None,
    "WASAP": {"name": "wasap", "transport": "shared", "hot_start": 2.0},
    "WASAP, no hot start": {"name": "wasap", "transport": "shared", "hot_start": 1.0},
    "WASAP, fixed in phase two": {"name": "wasap", "transport": "shared", "hot_start": 2.0, "local_topology": False},
    "WASSP": {"name": "wassp", "transport": "shared"},
    "WASSP, fixed in phase two": {"name": "wassp", "transport": "shared", "local_topology": False},
    "AllReduce": {"name": "allreduce"},
    "Decentralized": {"name": "decentralized"},
}


def cases(options: Any) -> list[grid.Case]:
    """Return every mode that this version has, with every seed."""
    known = {mode: how for mode, how in MODES.items() if how is None or how["name"] in PARALLEL.names()}
    return [
        {"mode": mode, "parallel": how, "workers": 1 if how is None else WORKERS, "epochs": options.epochs or 60,
         "seed": seed}
        for seed in range(options.seeds)
        for mode, how in known.items()
    ]  # fmt: skip


def run(case: grid.Case, data: str) -> dict[str, Any]:
    """Train in processes of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(case), data]
    if case["parallel"] is not None:
        ranks = case["workers"] + PARALLEL.get(case["parallel"]).masters
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def train(case: grid.Case, data: str) -> dict[str, Any] | None:
    """Train on this rank; rank 0 returns what was measured."""
    config = RunConfig(sequential_preset("fashion_mnist"))
    config.set("data", "data", data)
    config.set("model", "seed", case["seed"])
    config.set("trainer", "seed", case["seed"])
    samples = config.load_data()
    net = config.build_net(samples, 1)
    trainer = ts.Trainer(net, threads=1, parallel=case["parallel"], progress=False, **config.trainer_arguments())
    history = trainer.fit(
        samples.X_train, samples.y_train, epochs=case["epochs"], validation=(samples.X_test, samples.y_test)
    )
    report = trainer.parallel_report if case["parallel"] else None
    if case["parallel"] and report is None:
        return None
    test = net.evaluate(samples.X_test, samples.y_test)
    if test.accuracy != history.val_accuracy[-1] or len(history.rows) != case["epochs"]:
        raise RuntimeError(f"{case}: the history is not what the network gives: this is a bug")
    if report is not None and report.lost_updates != 0:
        raise RuntimeError(f"{case}: {report.updates_sent} sent, {report.updates_applied} applied: this is a bug")
    accuracy = test.accuracy
    return {
        "summary": f"test accuracy {100 * (accuracy or 0.0):.2f} %, train loss {history.loss[-1]:.4f}",
        "test_accuracy": accuracy,
        "test_loss": test.loss,
        "connections_end": net.connections,
        "history": history.rows,
        "phases": [] if report is None else report.to_dict()["phases"],
        "mean_staleness": None if report is None else report.mean_staleness,
    }


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    by_mode = {mode: [r for r in found if r["case"]["mode"] == mode] for mode in MODES}
    sequential = [r["test_accuracy"] for r in by_mode[SEQUENTIAL]]
    rows = []
    for mode, some in by_mode.items():
        if not some:
            continue
        accuracies = [r["test_accuracy"] for r in some]
        points = 100 * (grid.spread(accuracies)[0] - grid.spread(sequential)[0]) if sequential else float("nan")
        rows.append(
            [
                mode,
                grid.percent(accuracies),
                "" if mode == SEQUENTIAL else f"{points:+.2f}",
                " ".join(f"{100 * a:.2f}" for a in accuracies),
                f"{grid.spread([r['history'][-1]['loss'] for r in some])[0]:.4f}",
            ]
        )
    return "\n".join(
        [
            f"# Parallel training on Fashion-MNIST: test accuracy after {wanted[0]['epochs']} epochs",
            "",
            f"784-1000-1000-1000-10, epsilon 20, the paper's settings, {WORKERS} workers of one thread; mean ± "
            f"standard deviation over {options.seeds} seeds, in percent. `python bench/accuracy/parallel.py --data DIR "
            "--processes 1`. Curves: parallel_curves.png. All over the shared transport. The training loss of WASAP "
            "and WASSP is the mean of the workers' own networks in phase two, not that of the averaged network.",
            "",
            grid.table(["mode", "test accuracy", "points beside sequential", "by seed", "training loss"], rows),
        ]
    )


def draw(wanted: list[grid.Case]) -> None:
    """Draw the curves of all modes, each the mean of its seeds."""
    histories: dict[str, list[ts.History]] = {}
    for result in grid.results_of(RESULTS, wanted):
        histories.setdefault(result["case"]["mode"], []).append(ts.History(result["history"]))
    learning_curves(histories, PICTURE, title=f"Fashion-MNIST, test accuracy, {WORKERS} workers")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measured = train(json.loads(sys.argv[2]), sys.argv[3])
        if measured is not None:
            print(json.dumps(measured), flush=True)
        return
    wanted = grid.main(__doc__, RESULTS, cases, run, report)
    if wanted:
        draw(wanted)


if __name__ == "__main__":
    main()
