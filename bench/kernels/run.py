# SPDX-License-Identifier: BSD-3-Clause
"""The full measurement: every case against every rival, appended to bench/results/kernels.jsonl.

    python bench/kernels/run.py                    # everything, about 15 minutes on a quiet machine
    python bench/kernels/run.py --only epochs      # a part of it; `--fresh` begins anew, otherwise finished cases stay
    python bench/kernels/run.py --summary          # no measurement: the table of what is there, and the picture

Run it with a Python that has trulysparse and all rivals; see README.md beside it. Each shape runs in a child process,
so that memory is given back and a rival that crashes stops nobody else. A case that is in the file for this commit,
from a quiet moment, is not measured again: an interrupted or disturbed run goes on when it is started once more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from trulysparse.bench import records
from trulysparse.bench.cases import Shape, parse_shape
from trulysparse.bench.machine import Neighbours, provenance, source_commit
from trulysparse.bench.networks import NETWORKS, Data, Network
from trulysparse.bench.picture import roofline_picture
from trulysparse.bench.report import kernel_header, line, table
from trulysparse.bench.rivals import RIVALS, Missing, find_rivals
from trulysparse.bench.suite import Plan, measure
from trulysparse.errors import DataError

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
HUGE = "500000x500000@10M"
SHAPES = (
    "784x1000",
    "1000x1000",
    "3072x4000",
    "4000x1000",
    "4096x4096@1%",
    "4096x4096@5%",
    "4096x4096@10%",
    "4096x4096@20%",
    HUGE,
)
# What one child process measures: a part, and a shape or a network where it has one.
JOBS = (
    ("roofline", None),
    ("inference", None),
    *(("epochs", name) for name in NETWORKS),
    ("busy", "fashion_mnist"),
    ("break-even", None),
    *(("kernels", shape) for shape in SHAPES),
)


def main() -> None:
    """Do what the command line says."""
    arguments = _parse()
    if arguments.summary:
        summarise(arguments)
    elif arguments.child is not None:
        child(arguments, *arguments.child)
    else:
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure every job in a process of its own."""
    commit = source_commit(HERE.parents[1])
    if arguments.fresh:
        arguments.results.unlink(missing_ok=True)
    if arguments.install:
        install()
    _, missing = find_rivals()
    for rival in missing:
        print(f"not measured: {rival}", flush=True)
    if missing and not arguments.incomplete:
        raise SystemExit("the committed run has all rivals; install them (README.md), or add --incomplete")
    started = time.perf_counter()
    failed = []
    for part, what in JOBS:
        if part not in arguments.only or (what in SHAPES and arguments.shapes and what not in arguments.shapes):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--child", part, what or "-", commit or "unknown"]
        command = [argument for argument in command if argument not in ("--fresh", "--install")]
        if subprocess.run(command).returncode:
            failed.append(f"{part} {what or ''}".strip())
    print(f"{time.perf_counter() - started:.0f} s, appended to {arguments.results}")
    if failed:
        raise SystemExit(f"failed, and not in the file: {', '.join(failed)}; run again to go on")
    noisy = [r for r in records.read(arguments.results) if (r["foreign_cores"] or 0) > arguments.quiet]
    summarise(arguments)
    if noisy:
        print(f"{len(noisy)} of these were measured while other programs were busy; run again to replace them")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = tuple(dict.fromkeys(part for part, _ in JOBS))
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to measure")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="shapes to measure")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.06, help="for each contestant in each kernel case")
    parser.add_argument("--epoch-seconds", type=float, default=5.0, help="for each contestant in each network")
    parser.add_argument(
        "--quiet",
        type=float,
        default=0.1,
        metavar="CORES",
        help="measure again what was measured while other programs used more than this",
    )
    parser.add_argument("--data", type=Path, help="directory of fashion_mnist.npz and cifar10.npz; default artificial")
    parser.add_argument("--results", type=Path, default=RESULTS / "kernels.jsonl")
    parser.add_argument("--picture", type=Path, default=RESULTS / "roofline.png")
    parser.add_argument("--fresh", action="store_true", help="delete the results first")
    parser.add_argument("--install", action="store_true", help="pip install what is missing, and keep pip's errors")
    parser.add_argument("--incomplete", action="store_true", help="go on without the rivals that are missing")
    parser.add_argument("--summary", action="store_true", help="only print the table and draw the picture")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(arguments: argparse.Namespace, part: str, what: str, commit: str) -> None:
    """Measure one job in this process."""
    rivals, missing = find_rivals()
    facts: dict[str, Any] = {**provenance(commit), "versions": versions(), "missing": with_pip(missing)}
    done = frozenset(
        records.identity(record)
        for record in (records.read(arguments.results) if arguments.results.exists() else [])
        if record["commit"] == commit and (record["foreign_cores"] or 0) <= arguments.quiet
    )
    plan = Plan(
        parts=(part,),
        shapes=(parse_shape(what),) if part == "kernels" else (),
        batches=batches,
        threads=arguments.threads,
        networks=(NETWORKS[what],) if what in NETWORKS else (),
        seconds=arguments.seconds,
        epoch_seconds=arguments.epoch_seconds,
        data=lambda network: load(network, arguments.data),
        done=done,
    )
    headed = False
    neighbours = Neighbours()
    for measured in measure(plan, rivals, print):
        record = {**measured, "foreign_cores": neighbours.cores()}
        records.append(arguments.results, record, facts)
        if record["benchmark"] == "kernels" and not headed:
            headed = True
            print(kernel_header())
        print(line(record), flush=True)


def batches(shape: Shape) -> tuple[int, ...]:
    """Return the batch sizes of a shape: also 16 where micro-batches matter."""
    return (128, 32, 16, 1) if shape.n_in >= 100_000 else (128, 32, 1)


def load(network: Network, directory: Path | None) -> Data:
    """Return real data if a directory is given, else artificial."""
    if directory is None:
        return Data(network)
    with np.load(directory / f"{network.name}.npz") as file:
        return Data(network, file["X_train"].reshape(len(file["X_train"]), -1), file["y_train"].ravel())


def versions() -> dict[str, str]:
    """Return the installed versions of the rivals' packages."""
    from importlib import metadata

    found = {}
    for package in sorted({p for rival in RIVALS.values() for p in rival.packages.split()} | {"numpy"}):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def install() -> None:
    """Install the packages of rivals that are missing, one by one; pip's errors are kept for the results."""
    _, missing = find_rivals()
    for package in dict.fromkeys(p for rival in missing for p in RIVALS[rival.name].packages.split()):
        done = subprocess.run([sys.executable, "-m", "pip", "install", package], capture_output=True, text=True)
        errors = [text for text in done.stderr.splitlines() if "error" in text.lower()]
        log = pip_log(package)
        log.unlink(missing_ok=True)
        if done.returncode:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(" | ".join(errors[-3:] or done.stderr.splitlines()[-3:]), encoding="utf-8")


def pip_log(package: str) -> Path:
    """Return where pip's error for a package is kept."""
    return Path(sys.prefix) / "trulysparse-bench" / f"{package}.pip-error"


def with_pip(missing: list[Missing]) -> list[str]:
    """Return a line for each missing rival, with pip's error if its installation failed."""
    lines = []
    for rival in missing:
        logs = [pip_log(package) for package in RIVALS[rival.name].packages.split()]
        said = [f"pip: {log.read_text(encoding='utf-8')}" for log in logs if log.exists()]
        lines.append("; ".join([str(rival), *said]))
    return lines


def summarise(arguments: argparse.Namespace) -> None:
    """Print the table of everything in the file and draw the picture."""
    found = records.read(arguments.results)
    print(table(found))
    try:
        print("drawn:", roofline_picture(found, arguments.picture))
    except (ImportError, DataError) as error:  # no matplotlib, or no kernel measured yet
        print(error)


if __name__ == "__main__":
    main()
