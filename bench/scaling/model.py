# SPDX-License-Identifier: BSD-3-Clause
"""Predict the updates a second of phase one for 2 to 1,000 workers on 1 to 64 nodes, from what one update takes.

    python bench/scaling/model.py [--check] [--cores 64] [--gigabits 100] [--latency-microseconds 2]

The paper's network for Fashion-MNIST (784-1000-1000-1000-10, epsilon 20, batch 128, momentum SGD), random data, WASAP
with one worker on this machine gives the times: the gradient alone (median), what the master's process computes for an
update, and what is left of the time between two updates: waking up, and what travels where messages are used. The model
is `trulysparse.bench.scaling`: a closed queueing network, the master one server, its network another, one each way.
On one node the shared transport's times are taken, on several those of messages.

`--check` also runs 1 to 8 workers here, more processes than cores, and compares; one worker gave the times, so it says
nothing. Results are checked: gradients sent were applied, losses are numbers. Appends to
bench/results/parallel_scaling.jsonl, and draws parallel_scaling.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import trulysparse as ts
from trulysparse._files import replacing
from trulysparse.bench import records
from trulysparse.bench.machine import Neighbours, provenance, source_commit
from trulysparse.bench.scaling import Cluster, Costs, Prediction, predict
from trulysparse.engine import Engine
from trulysparse.model import Inputs
from trulysparse.parallel import WASAP

RESULTS = Path(__file__).parents[1] / "results" / "parallel_scaling.jsonl"
SIZES = (784, 1000, 1000, 1000, 10)
BATCH, BATCHES, EPOCHS = 128, 100, 7
WINDOW = 50  # updates
WORKERS = (2, 4, 8, 16, 32, 64, 125, 250, 500, 1000)
NODES = (1, 2, 4, 8, 16, 32, 64)
CHECKED = range(1, 9)
TARGET = 0.25


class Clock(ts.Callback):
    """Writes down the time, and what this process computed, after every update."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def update_seconds(self) -> tuple[float, float]:
        """Return the time between two updates (median over windows), and what the master computed for one."""
        times = self.times[WINDOW:]  # what is slow at first is over
        ends = times[::WINDOW]
        between = [(after[0] - before[0]) / WINDOW for before, after in pairwise(ends)]
        computed = [(after[1] - before[1]) / WINDOW for before, after in pairwise(ends)]
        return statistics.median(between), statistics.median(computed)


def network() -> ts.SparseMLP:
    return ts.SparseMLP(SIZES, density=ts.ErdosRenyi(20), activation=ts.AllReLU(0.6), dropout=0.3, seed=0, threads=1)


def samples() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    count = BATCH * BATCHES
    return rng.standard_normal((count, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], count)


def compute_seconds() -> float:
    """Return the time of a gradient on one core that does nothing else (median)."""
    (X, y), net = samples(), network()
    engine = Engine(net, ts.SGD(lr=0.01), seed=0, threads=1)
    inputs, targets = Inputs(X, SIZES[0], None, "X"), net.loss.check_targets(y, SIZES[-1], "y")
    rows = np.arange(BATCH * BATCHES, dtype=np.int64).reshape(BATCHES, BATCH)
    taken = []
    for turn in range(5):
        for some in rows:
            started = time.perf_counter()
            engine.compute(inputs, targets, some)
            if turn:
                taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def crowd(processes: int, seconds: float = 2.0) -> float:
    """Return the time of a core that a gradient takes when so many processes compute theirs, each for itself."""
    begin = time.time() + 3.0 + 0.3 * processes  # all are there by then
    command = [sys.executable, __file__, "--one", "gradients", "--between", str(begin), str(begin + seconds)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(processes)
    ]
    made = [int(process.communicate(timeout=120)[0]) for process in running]
    return min(processes, len(os.sched_getaffinity(0))) * seconds / sum(made)


def count_gradients(begin: float, end: float) -> int:
    """Return how many gradients this process computes between two times of the clock."""
    (X, y), net = samples(), network()
    engine = Engine(net, ts.SGD(lr=0.01), seed=0, threads=1)
    inputs, targets = Inputs(X, SIZES[0], None, "X"), net.loss.check_targets(y, SIZES[-1], "y")
    rows = np.arange(BATCH * BATCHES, dtype=np.int64).reshape(BATCHES, BATCH)
    made = done = 0
    while time.time() < end:
        engine.compute(inputs, targets, rows[done % BATCHES])
        done += 1
        made += time.time() >= begin
    return made


def run(transport: str) -> dict[str, Any] | None:
    """Train on this rank; rank 0 returns what was measured."""
    X, y = samples()
    clock = Clock()
    trainer = ts.Trainer(
        network(),
        batch_size=BATCH,
        threads=1,
        optimizer=ts.SGD(lr=0.01, momentum=0.9, weight_decay=2e-4),
        topology=ts.Static(),
        parallel=WASAP(phase_two=0, transport=transport, broadcast=False),
        callbacks=[clock],
        standardize=False,
        progress=False,
        seed=0,
    )
    history = trainer.fit(X, y, epochs=EPOCHS)
    report = trainer.parallel_report
    if report is None:
        return None
    if report.lost_updates != 0 or not all(np.isfinite(history.loss)):
        raise RuntimeError(f"{report.updates_sent} sent, {report.updates_applied} applied, losses {history.loss}")
    between, computed = clock.update_seconds()
    return {
        "update_seconds": between,
        "master_seconds": computed,
        "gradient_bytes": round(report.bytes_sent_per_update),
        "model_bytes": round(report.bytes_received_per_update),
    }


def start(workers: int, transport: str) -> dict[str, Any]:
    """Carry out `run` in processes of its own."""
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    command = [mpiexec, "-n", str(workers + 1), sys.executable, __file__, "--one", transport]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def costs(transport: str, rounds: int, apart: float, crowding: float) -> Costs:
    """Measure what an update takes: the round with the least time, as others' programs can only add to it.

    What one worker needs of its own is told by a gradient on a machine that does nothing else; what many need, by
    gradients while all cores are busy, which share memory and clock (`apart`).
    """
    compute = min(compute_seconds() for _ in range(rounds))
    alone = min((start(1, transport) for _ in range(rounds)), key=lambda m: m["update_seconds"])
    left = alone["update_seconds"] - compute - alone["master_seconds"]
    travels = transport == "messages"
    return Costs(
        compute_seconds=max(compute, apart),
        service_seconds=alone["master_seconds"],
        wake_seconds=max(0.0, left),
        gradient_bytes=alone["gradient_bytes"] if travels else 0,
        model_bytes=alone["model_bytes"] if travels else 0,
        crowding=crowding,
    )


def draw(path: Path, found: dict[int, Prediction], most: int, checks: list[dict[str, Any]]) -> None:
    """Draw the predictions of each number of nodes, and what was measured here."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    for nodes, prediction in found.items():
        last = min(most, len(prediction.rates))
        axes.loglog(range(1, last + 1), prediction.rates[:last], label=f"{nodes} node" + "s" * (nodes > 1))
    if checks:
        counts = [c["workers"] for c in checks]
        axes.loglog(counts, [c["predicted"] for c in checks], "k:", label="this machine, predicted")
        axes.loglog(counts, [c["measured"] for c in checks], "ko", markersize=4, label="this machine, measured")
    axes.set_xlabel("workers")
    axes.set_ylabel("updates a second")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize=8)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="run 1 to 8 workers here and compare")
    options.add_argument("--rounds", type=int, default=3, help="of each measurement (default: %(default)s)")
    options.add_argument("--cores", type=int, default=64, help="of a node (default: %(default)s)")
    options.add_argument("--gigabits", type=float, default=100.0, help="a second, of a node (default: %(default)s)")
    options.add_argument("--latency-microseconds", type=float, default=2.0, help="of a message (default: %(default)s)")
    options.add_argument("--note", default="", help="what else ran on the machine")
    options.add_argument("--one", choices=["shared", "messages", "gradients"], help=argparse.SUPPRESS)
    options.add_argument("--between", type=float, nargs=2, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one == "gradients":
        print(count_gradients(*arguments.between))
        return
    if arguments.one:
        measured = run(arguments.one)
        if measured is not None:
            print(json.dumps(measured), flush=True)
        return
    facts = provenance(source_commit(Path(__file__).parent)) | {"note": arguments.note}
    cores = len(os.sched_getaffinity(0))
    apart, packed = (statistics.median(crowd(n) for _ in range(arguments.rounds)) for n in (cores, 3 * cores))
    crowding = max(0.0, packed / apart - 1)
    print(f"a gradient takes {1e6 * apart:.0f} us with a core to each worker, {crowding:.0%} more where they share one")
    times = {transport: costs(transport, arguments.rounds, apart, crowding) for transport in ("shared", "messages")}
    for transport, cost in times.items():
        records.append(RESULTS, {"benchmark": "costs", "transport": transport, **dataclasses.asdict(cost)}, facts)
        parts = (cost.compute_seconds, cost.service_seconds, cost.wake_seconds)
        compute, service, wake = (f"{1e6 * seconds:.0f}" for seconds in parts)
        print(f"{transport}: gradient {compute} us, master {service} us, waking and travelling {wake} us an update")
    checks = check(times["shared"], arguments.rounds, facts) if arguments.check else []
    found = {}
    for nodes in NODES:
        cluster = Cluster(nodes, arguments.cores, arguments.gigabits * 1e9 / 8, 1e-6 * arguments.latency_microseconds)
        found[nodes] = predict(max(WORKERS), times["shared" if nodes == 1 else "messages"], cluster)
        some = {str(k): found[nodes].rates[k - 1] for k in WORKERS}
        record = {
            "benchmark": "prediction",
            **dataclasses.asdict(cluster),
            "rates": some,
            "most": found[nodes].most,
            "limit": found[nodes].limit,
            "saturation_workers": found[nodes].saturation,
        }
        records.append(RESULTS, record, facts)
        p = found[nodes]
        print(f"{nodes} node(s): at most {p.most:,.0f} updates/s ({p.limit}), reached by {p.saturation:.0f} workers")
    draw(RESULTS.with_suffix(".png"), found, max(WORKERS), checks)


def check(cost: Costs, rounds: int, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the model with runs on this machine."""
    cluster = Cluster(1, len(os.sched_getaffinity(0)))
    prediction = predict(max(CHECKED), cost, cluster)
    others, checks = Neighbours(), []
    for workers in CHECKED:
        measured = max(1 / start(workers, "shared")["update_seconds"] for _ in range(rounds))
        predicted = prediction.rates[workers - 1]
        checks.append({"workers": workers, "measured": measured, "predicted": predicted})
        error = predicted / measured - 1
        record = {"benchmark": "check", **checks[-1], "error": error, "machine_cores": cluster.cores}
        records.append(RESULTS, record | {"other_cores": others.cores()}, facts)
        print(f"{workers} worker(s): {measured:,.0f} updates/s, predicted {predicted:,.0f} ({error:+.0%})", flush=True)
    worst = max(abs(c["predicted"] / c["measured"] - 1) for c in checks if c["workers"] > 1)
    print(f"largest error of 2 to {max(CHECKED)} workers: {worst:.0%}; the target of {TARGET:.0%} is "
          + ("met" if worst <= TARGET else "missed"))  # fmt: skip
    return checks


if __name__ == "__main__":
    main()
