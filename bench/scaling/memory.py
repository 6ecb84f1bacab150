# SPDX-License-Identifier: BSD-3-Clause
"""Memory of a node that trains a large network in parallel, beside that of one process that trains it alone.

    python bench/scaling/memory.py [--workers 4] [--neurons 20000] [--connections 20000000]

Two layers of N x N neurons with half of the connections each, a small last layer, momentum SGD, random data, a small
batch; shared transport. Every process looks at its own memory all the time: private is RssAnon, less what the process
had before there was a network (a small one was trained by then, so that libraries are loaded), less its activations.
A node's memory is the private one of all ranks and, once, what they share (RssShmem of the rank that has most of it,
less the same before). Phase one is judged against one process, phase two against the budget that the run prints.
Results are checked: losses are numbers, connections stay what they were, gradients sent were applied. Appends to
bench/results/parallel_memory.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import trulysparse as ts
from trulysparse.bench import records
from trulysparse.bench.machine import provenance, source_commit
from trulysparse.parallel import WASAP
from trulysparse.parallel.budget import plan_budgets
from trulysparse.parallel.world import rank_memory

RESULTS = Path(__file__).parents[1] / "results" / "parallel_memory.jsonl"
BATCH = 16
BATCHES = 12
CLASSES = 10
TARGET = 1.9
TOLERANCE = 0.1

Sample = tuple[float, int, int]


class Watch:
    """Looks at this process's memory again and again, in a thread."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            memory = rank_memory()
            self.samples.append((time.monotonic(), memory["rss_anon"], memory["rss_shmem"]))


class Clock(ts.Callback):
    """Writes down when what happened; the clock is that of the machine, the same in all processes."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.epochs: list[float] = []

    def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
        self.steps.append(time.monotonic())

    def on_epoch_end(self, trainer: ts.Trainer, row: Any) -> None:
        self.epochs.append(time.monotonic())


def samples_of(neurons: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    count = BATCH * BATCHES
    return rng.standard_normal((count, neurons), dtype=np.float32), rng.integers(0, CLASSES, count)


def trainer_of(net: ts.SparseMLP, parallel: WASAP | None, callbacks: list[ts.Callback]) -> ts.Trainer:
    return ts.Trainer(
        net,
        batch_size=BATCH,
        threads=1,
        optimizer=ts.SGD(lr=1e-3, momentum=0.9),
        topology=ts.Static(),
        parallel=parallel,
        callbacks=callbacks,
        standardize=False,
        progress=False,
        seed=0,
    )


def network(options: argparse.Namespace) -> ts.SparseMLP:
    sizes = (options.neurons, options.neurons, options.neurons, CLASSES)
    return ts.SparseMLP(sizes, density=ts.Uniform(options.connections / 2 / options.neurons**2), seed=0, threads=1)


def activation_bytes(options: argparse.Namespace) -> int:
    """Return the bytes of one process's activations, signs included."""
    return (3 * options.neurons + CLASSES) * BATCH * 4 + 2 * options.neurons * BATCH // 8


def alone(options: argparse.Namespace) -> dict[str, Any]:
    """Train in this process; return the growth of its memory."""
    X, y = samples_of(options.neurons)
    trainer_of(ts.SparseMLP((options.neurons, 16, CLASSES), density=0.1), None, []).fit(X, y, epochs=1)
    before = rank_memory()["rss_anon"]
    clock = Clock()
    net = network(options)
    with Watch() as watch:
        history = trainer_of(net, None, [clock]).fit(X, y, epochs=2)
    check(net, history, net.connections)
    inside = [anon for at, anon, _ in watch.samples if clock.steps[2] <= at <= clock.steps[-1]]
    return {
        "connections": net.connections,
        "bytes": statistics.median(inside) - before - activation_bytes(options),
        "peak_bytes": max(anon for _, anon, _ in watch.samples) - before,
    }


def check(net: ts.SparseMLP, history: ts.History, connections: int) -> None:
    if net.connections != connections or not all(np.isfinite(history.loss)):
        raise RuntimeError(f"{net.connections} connections, losses {history.loss}: this is a bug")


def together(options: argparse.Namespace) -> dict[str, Any] | None:
    """Train on this rank; rank 0 returns what all used."""
    from mpi4py import MPI

    world, epochs = MPI.COMM_WORLD, 6
    X, y = samples_of(options.neurons)
    strategy = WASAP(phase_two=0.5, transport="shared", broadcast=False)
    trainer_of(ts.SparseMLP((options.neurons, 16, CLASSES), density=0.1), strategy, []).fit(X, y, epochs=2)
    first, clock = rank_memory(), Clock()
    with Watch() as watch:
        net = network(options) if world.rank == 0 else None
        config = world.bcast(None if net is None else net.to_config())
        net = ts.SparseMLP.outline(config) if net is None else net
        connections = net.connections
        trainer = trainer_of(net, strategy, [clock])
        history = trainer.fit(X, y, epochs=epochs)
    everything = world.gather((first, watch.samples))
    if everything is None:
        return None
    check(net, history, connections)
    report = trainer.parallel_report
    assert report is not None
    if report.lost_updates != 0:
        raise RuntimeError(f"{report.updates_sent} sent, {report.updates_applied} applied: this is a bug")
    budget = plan_budgets(net, trainer.optimizer.slots, [0] * world.size, shared=True, local=True)[0]
    # of the rows of the local epochs, those between which all workers were at it
    windows = {"one": (clock.steps[world.size], clock.steps[-1]), "two": (clock.epochs[3], clock.epochs[4])}
    phases = {}
    for phase, window in windows.items():
        private, shared = node_memory(everything, window, activation_bytes(options))
        phases[phase] = {"private_bytes": private, "shared_bytes": shared, "bytes": sum(private) + shared}
    ends = [max(a + s for _, a, s in samples) - b["rss_anon"] - b["rss_shmem"] for b, samples in everything]
    return {
        "connections": connections,
        "phases": phases,
        "rank_peak_bytes": ends,
        "budget": {
            "model_bytes": budget.model_bytes,
            "phase_one_bytes": budget.phase_one_bytes,
            "phase_two_bytes": budget.phase_two_bytes,
        },
    }


def node_memory(
    everything: list[tuple[dict[str, int], list[Sample]]], window: tuple[float, float], activations: int
) -> tuple[list[float], float]:
    """Return the private memory of each rank, and what they share, in a stretch of time."""
    private, shared = [], []
    for rank, (first, samples) in enumerate(everything):
        inside = [(anon, shmem) for at, anon, shmem in samples if window[0] <= at <= window[1]]
        if not inside:
            raise RuntimeError(f"rank {rank} did not look at its memory in {window[1] - window[0]:.2f} s")
        anon, shmem = (statistics.median(values) for values in zip(*inside, strict=True))
        private.append(anon - first["rss_anon"] - (activations if rank else 0))
        shared.append(shmem - first["rss_shmem"])
    return private, max(shared)


def start(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Carry out `alone` or `together` in processes of their own."""
    command = [sys.executable, __file__, "--one", kind]
    command += ["--neurons", str(options.neurons), "--connections", str(options.connections)]
    if kind == "together":
        command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(options.workers + 1), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--neurons", type=int, default=20_000)
    options.add_argument("--connections", type=int, default=20_000_000)
    options.add_argument("--note", default="", help="what else ran on the machine")
    options.add_argument("--one", choices=["alone", "together"], help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        measured = alone(arguments) if arguments.one == "alone" else together(arguments)
        if measured is not None:
            print(json.dumps(measured), flush=True)
        return
    single, several = start("alone", arguments), start("together", arguments)
    if single["connections"] != several["connections"]:
        raise RuntimeError(f"{single['connections']} and {several['connections']} connections: this is a bug")
    one, two = (several["phases"][phase]["bytes"] for phase in ("one", "two"))
    record = {
        "benchmark": "parallel_memory",
        "network": f"{arguments.neurons}-{arguments.neurons}-{arguments.neurons}-{CLASSES}",
        "batch": BATCH,
        "workers": arguments.workers,
        "one_process": single,
        **several,
        "phase_one_ratio": one / single["bytes"],
        "phase_two_of_budget": two / several["budget"]["phase_two_bytes"],
        "note": arguments.note,
    }
    records.append(RESULTS, record, provenance(source_commit(Path(__file__).parent)))
    print(f"{single['connections']:,} connections; one process: {single['bytes'] / 1e6:.0f} MB")
    for phase, taken in several["phases"].items():
        private = ", ".join(f"{b / 1e6:.0f}" for b in taken["private_bytes"])
        print(
            f"phase {phase}: {taken['bytes'] / 1e6:.0f} MB; private {private}; shared {taken['shared_bytes'] / 1e6:.0f}"
        )
    verdict = "met" if record["phase_one_ratio"] <= TARGET else "missed"
    print(f"phase one: {record['phase_one_ratio']:.2f} x one process; the target of {TARGET} is {verdict}")
    verdict = "met" if abs(record["phase_two_of_budget"] - 1) <= TOLERANCE else "missed"
    print(f"phase two: {record['phase_two_of_budget']:.2f} x its budget; the target of ±{TOLERANCE:.0%} is {verdict}")


if __name__ == "__main__":
    main()
