# SPDX-License-Identifier: BSD-3-Clause
"""Samples a second of parallel training beside training in one process, by phases, in turns.

    python bench/scaling/throughput.py --data DIR [--rounds 5] [--epochs 12] [--only "wasap shared"]

The paper's network for Fashion-MNIST (784-1000-1000-1000-10, epsilon 20, All-ReLU 0.6, dropout 0.3, batch 128, SET),
two workers of one thread each and a master, against one process with one thread and with two. Half of the epochs
belong to phase one, half to phase two; no validation, evolution included. A process of its own for each run, in turns
(one thread, two threads, each parallel mode, and again), rates by wall clock: an epoch's train_seconds +
evolve_seconds of the sequential run (median over epochs), phases of the report of the parallel one. A ratio is taken
within a round, and the median over rounds is given. Results are checked: the loss falls, and every gradient that was
sent was applied. Appends to bench/results/parallel_throughput.jsonl, writes parallel_throughput.md from it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import trulysparse as ts
from trulysparse._files import write_text
from trulysparse.bench import records
from trulysparse.bench.machine import Neighbours, provenance, source_commit

RESULTS = Path(__file__).parents[1] / "results" / "parallel_throughput.jsonl"
SIZES = (784, 1000, 1000, 1000, 10)
BATCH = 128
WORKERS = 2
MODES = ("wasap shared", "wassp shared", "wasap messages", "wassp messages")
TARGET = 1.6


def run(kind: str, way: str, data: str, epochs: int) -> dict[str, Any] | None:
    """Train once and return what was measured; None on a rank that has nothing to say."""
    from trulysparse.parallel import PARALLEL

    samples = ts.load_dataset("fashion_mnist", data=data)
    net = ts.SparseMLP(SIZES, epsilon=20, activation=ts.AllReLU(0.6), dropout=0.3, init="he_uniform", seed=0)
    sequential = kind == "sequential"
    trainer = ts.Trainer(
        net,
        batch_size=BATCH,
        threads=int(way) if sequential else 1,
        progress=False,
        optimizer=ts.SGD(lr=0.01, momentum=0.9, weight_decay=2e-4),
        topology=ts.SET(0.3),
        parallel=None if sequential else PARALLEL.get({"name": kind, "phase_two": 0.5, "transport": way}),
        seed=0,
    )
    history = trainer.fit(samples.X_train, samples.y_train, epochs=epochs)
    report = None if sequential else trainer.parallel_report
    if not sequential and report is None:
        return None
    first, last = history.loss[0], history.loss[-1]
    if not last < first:
        raise RuntimeError(f"{kind} {way}: the loss went from {first} to {last}: this is a bug")
    if sequential:
        seconds = np.array(history.train_seconds) + np.array(history.evolve_seconds)
        count = len(samples.y_train) // BATCH * BATCH
        return {"samples_per_second": count / float(np.median(seconds)), "loss": last}
    assert report is not None
    if report.lost_updates != 0:
        raise RuntimeError(f"{kind} {way}: {report.updates_sent} sent, {report.updates_applied} applied: this is a bug")
    rates = {phase.name: phase.samples_per_second for phase in report.phases}
    return {
        "phase_one": rates["one"],
        "phase_two": rates["two"],
        "loss": last,
        "updates": report.updates,
        "compute_seconds": report.compute_seconds,
        "idle_seconds": report.idle_seconds,
        "apply_seconds": report.apply_seconds,
        "evolve_seconds": report.evolve_seconds,
        "master_idle_seconds": report.master_idle_seconds,
        "seconds": {phase.name: phase.seconds for phase in report.phases},
        "bytes_sent_per_update": report.bytes_sent_per_update,
        "bytes_received_per_update": report.bytes_received_per_update,
        "parameters_bytes": report.parameters_bytes,
    }


def start(kind: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Carry out `run` in processes of its own."""
    command = [sys.executable, __file__, "--data", options.data, "--epochs", str(options.epochs), "--one", kind, way]
    if kind != "sequential":
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(WORKERS + 1), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def report(record: dict[str, Any]) -> str:
    """Return the table of a record."""
    lines = [
        "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
        f"Samples a second on Fashion-MNIST, {'-'.join(map(str, SIZES))}, epsilon 20, batch {BATCH}; {WORKERS} workers "
        f"of one thread and a master on {record['cores']} cores ({record['cpu']}, {record['isa']}), {record['date']}, "
        f"commit {record['commit']}.",
        f"Medians of {record['rounds']} rounds; ratios within a round, [least, largest]. Other programs used "
        f"{record['other_cores']} cores on average. {record['note']}",
        "",
        "| | samples/s, phase one | samples/s, phase two | x one thread, phase one | phase two |",
        "|---|---|---|---|---|",
    ]
    for name, row in record["modes"].items():
        rates = [f"{row[phase]:,.0f}" for phase in ("phase_one", "phase_two")]
        ratios = [
            f"{statistics.median(r):.2f} [{min(r):.2f}, {max(r):.2f}]" for r in (row["ratio_one"], row["ratio_two"])
        ]
        lines.append(f"| {name} | " + " | ".join([*rates, *ratios]) + " |")
    for threads in ("1", "2"):
        rate, ratios = record["sequential"][threads], record["sequential_ratios"][threads]
        middle = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        lines.append(f"| one process, {threads} thread(s) | {rate:,.0f} | | {middle} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="directory of fashion_mnist.npz, or the file")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--epochs", type=int, default=12, help="of a run; half belong to each phase")
    options.add_argument("--only", choices=MODES, nargs="+", default=MODES)
    options.add_argument("--note", default="", help="what else ran on the machine")
    options.add_argument("--dry", action="store_true", help="print only, write nothing")
    options.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        measured = run(*arguments.one, arguments.data, arguments.epochs)
        if measured is not None:
            print(json.dumps(measured), flush=True)
        return
    facts = provenance(source_commit(Path(__file__).parent))
    others = Neighbours()
    single: dict[str, list[float]] = {"1": [], "2": []}
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in arguments.only}
    for number in range(arguments.rounds):
        for threads in single:
            single[threads].append(start("sequential", threads, arguments)["samples_per_second"])
        for mode, measured in runs.items():
            measured.append(start(*mode.split(), arguments))
            one, two = (measured[-1][p] / single["1"][-1] for p in ("phase_one", "phase_two"))
            print(f"round {number + 1}, {mode}: {one:.2f} and {two:.2f} x one thread", flush=True)
    modes = {}
    for mode, measured in runs.items():
        modes[mode] = {
            "phase_one": statistics.median(m["phase_one"] for m in measured),
            "phase_two": statistics.median(m["phase_two"] for m in measured),
            "ratio_one": [m["phase_one"] / s for m, s in zip(measured, single["1"], strict=True)],
            "ratio_two": [m["phase_two"] / s for m, s in zip(measured, single["1"], strict=True)],
            "last": measured[-1],
        }
    record = {
        "benchmark": "parallel_throughput",
        "network": "-".join(map(str, SIZES)),
        "batch": BATCH,
        "workers": WORKERS,
        "rounds": arguments.rounds,
        "epochs": arguments.epochs,
        "sequential": {threads: statistics.median(rates) for threads, rates in single.items()},
        "sequential_ratios": {t: [r / s for r, s in zip(single[t], single["1"], strict=True)] for t in single},
        "modes": modes,
        "other_cores": others.cores(),
        "note": arguments.note,
    }
    text = report(record | facts)
    if not arguments.dry:
        records.append(RESULTS, record, facts)
        write_text(RESULTS.with_suffix(".md"), text)
    print(text)
    for mode, row in modes.items():
        if mode.endswith("shared"):
            least = min(statistics.median(row["ratio_one"]), statistics.median(row["ratio_two"]))
            verdict = "met" if least >= TARGET else "missed"
            print(f"{mode}: {least:.2f} in the slower phase; the target of {TARGET} is {verdict}")


if __name__ == "__main__":
    main()
