# SPDX-License-Identifier: BSD-3-Clause
"""What the experiments share: many training runs, one process a core, each result a JSON line as soon as it is there.

A case whose line is in the results file already, from the same settings, is not run again: an interrupted experiment
goes on where it was. `--fresh` runs all of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import trulysparse as ts
from trulysparse._files import replacing
from trulysparse._memory import peak_bytes
from trulysparse.bench import records
from trulysparse.bench.machine import provenance, source_commit

RESULTS = Path(__file__).parents[1] / "results"
Case = dict[str, Any]


def parser(description: str, seeds: int = 3) -> argparse.ArgumentParser:
    """Return the options that all experiments have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="directory of NAME.npz, or the file")
    options.add_argument("--full", action="store_true", help="the papers' sizes, not the default ones: takes days")
    options.add_argument("--seeds", type=int, default=seeds, help="runs a setting (default: %(default)s)")
    options.add_argument("--epochs", type=int, help="epochs of a run of simple length")
    options.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="runs at the same time")
    options.add_argument("--fresh", action="store_true", help="run also what the results file holds already")
    options.add_argument("--report", action="store_true", help="run nothing, print what the results file says")
    return options


def main(
    description: str,
    results: Path,
    cases: Callable[[Any], list[Case]],
    run: Callable[[Case, str], Mapping[str, Any]],
    report: Callable[[Any, list[Case]], str],
    *,
    seeds: int = 3,
    variants: Mapping[str, Sequence[str]] | None = None,
) -> list[Case]:
    """Run an experiment as the command line says, and print its report.

    The report of the default sizes, epochs and seeds is also written beside the results, once all runs are there; then
    the cases are returned, else none. `variants` are options with their choices, the first one the default; another
    choice is part of the report's name.
    """
    options = parser(description, seeds)
    variants = variants or {}
    for name, choices in variants.items():
        options.add_argument(f"--{name}", choices=choices, default=choices[0])
    arguments = options.parse_args()
    wanted = cases(arguments)
    if not arguments.report:
        run_all(wanted, run, results, arguments)
    text = report(arguments, wanted)
    print(text)
    chosen = {name: getattr(arguments, name) for name in variants}
    default = cases(options.parse_args(["--data", arguments.data, *(f"--{k}={v}" for k, v in chosen.items())]))
    held = [r["case"] for r in results_of(results, wanted)]
    if not [_key(c) for c in wanted] == [_key(c) for c in default] == [_key(c) for c in held]:
        return []
    other = [chosen[name] for name, choices in variants.items() if chosen[name] != choices[0]]
    with replacing(results.with_name("_".join([results.stem, *other]) + ".md")) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return wanted


def load(name: str, data: str) -> ts.Dataset:
    """Load a data set by name from a directory or file."""
    return ts.load_dataset(name, data=data)


def run_all(cases: Sequence[Case], run: Callable[[Case, str], Mapping[str, Any]], results: Path, options: Any) -> None:
    """Run the cases that have no result yet, and append each result when it is there.

    Parameters
    ----------
    cases
        Plain values; what tells one run from another, its settings included.
    run
        A function of a module's top level: takes a case and the place of the data, returns what it measured.
    results
        JSON lines.
    options
        Of `parser`.
    """
    known = set() if options.fresh or not results.exists() else {_key(r["case"]) for r in _lines(results)}
    todo = [case for case in cases if _key(case) not in known]
    if len(todo) < len(cases):
        print(f"{len(cases) - len(todo)} of {len(cases)} results are there already; --fresh runs them again")
    started = time.perf_counter()
    # a process of its own for each run, so that its peak memory is its own
    pool = multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1)
    with pool:
        outcomes = pool.imap_unordered(functools.partial(_timed, run, options.data), todo)
        for done, (case, measured) in enumerate(outcomes, start=1):
            records.append(results, {"case": case, **measured}, {"processes": options.processes})
            spent = time.perf_counter() - started
            left = spent / done * (len(todo) - done)
            label = " ".join(str(v) for v in case.values() if not isinstance(v, Mapping))
            print(f"[{done}/{len(todo)}, {left / 60:.0f} min left] {label}: {measured['summary']}", flush=True)


def _timed(run: Callable[[Case, str], Mapping[str, Any]], data: str, case: Case) -> tuple[Case, dict[str, Any]]:
    started = time.perf_counter()
    measured = dict(run(case, data))
    peak = peak_bytes()
    measured |= provenance(source_commit(Path(__file__).parent))
    return case, measured | {"run_seconds": time.perf_counter() - started, "peak_bytes": peak}


def _key(case: Mapping[str, Any]) -> str:
    return json.dumps(case, sort_keys=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def results_of(path: Path, cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Return the latest result of each case, without those that have none."""
    found = {_key(line["case"]): line for line in _lines(path)} if path.exists() else {}
    return [found[_key(case)] for case in cases if _key(case) in found]


def train(
    case: Case,
    net: ts.SparseMLP,
    data: ts.Dataset,
    *,
    topology: ts.Topology,
    optimizer: Any,
    epochs: int,
    callbacks: Sequence[ts.Callback] = (),
) -> tuple[ts.Trainer, dict[str, Any]]:
    """Train on one thread without looking at the test data, then test once; check what can be checked."""
    start = net.connections
    trainer = ts.Trainer(
        net,
        optimizer=optimizer,
        topology=topology,
        batch_size=case.get("batch_size", 128),
        threads=1,
        seed=case["seed"],
        callbacks=list(callbacks),
        progress=False,
    )
    history = trainer.fit(data.X_train, data.y_train, epochs=epochs)
    test = net.evaluate(data.X_test, data.y_test)
    final = net.evaluate(data.X_train, data.y_train)
    right = np.mean(net.predict(data.X_test) == data.y_test)
    if abs(right - test.accuracy) > 1e-9 or not np.isfinite(final.loss):
        raise RuntimeError(f"{case}: evaluate and predict disagree ({test.accuracy}, {right}): this is a bug")
    cells = sum(layer.n_in * layer.n_out for layer in net.layers)
    forward, dense = 2.0 * net.connections, 2.0 * cells
    return trainer, {
        "summary": f"test accuracy {100 * test.accuracy:.2f} %, train loss {final.loss:.4f}",
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "train_loss": final.loss,
        "sizes": list(net.sizes),
        "connections_start": start,
        "connections_end": net.connections,
        "density_end": net.connections / cells,
        "steps": trainer.state.step,
        "train_seconds": sum(history.train_seconds),
        "evolve_seconds": sum(history.evolve_seconds),
        "step_flops_of_dense": topology.training_flops(forward, dense) / (3.0 * dense),
        "topology": topology.to_config(),
        "loss_curve": history.loss,
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (of the sample; 0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def percent(values: Sequence[float]) -> str:
    """Return "mean ± deviation" of accuracies, in percent."""
    mean, deviation = spread([100 * v for v in values])
    return f"{mean:.2f} ± {deviation:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
