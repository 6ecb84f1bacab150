# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse reproduce`: the paper's tables on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from trulysparse.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "reproduce",
        help="the paper's tables on this machine",
        description='Train what a table of "Truly Sparse Neural Networks at Scale" takes, and print it beside the '
        "paper's figures. Runs that are done are not run again, and one that was stopped goes on from its checkpoint; "
        "tables share runs.",
        epilog="Examples: trulysparse reproduce table2 --datasets madelon --data DIR; "
        "trulysparse reproduce table2 --data DIR --seeds 5 (days); trulysparse reproduce table2 --data DIR --epochs 5 "
        "(a short look); trulysparse reproduce table2 --data DIR --list (what there is to run)",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="table2")
    add("--datasets", nargs="+", metavar="NAME", help="data sets (default: those of the table)")
    add("--seeds", type=int, default=1, metavar="N", help="runs a row; the paper has 5 (default: 1)")
    add("--epochs", type=int, metavar="N", help="epochs of a run; the paper has 500 (default: 500)")
    add("--jobs", type=int, metavar="N", help="runs at once, which share the cores (default: as many as cores)")
    add("--data", nargs="+", type=Path, default=[Path()], metavar="DIR", help="where NAME.npz is (default: here)")
    add(
        "--out",
        type=Path,
        default=Path("reproduce"),
        metavar="DIR",
        help="runs and tables go here (default: reproduce)",
    )
    add("--workers", type=int, default=2, metavar="N", help="workers of parallel runs (default: 2)")
    add(
        "--dense-minutes",
        type=float,
        default=0.0,
        metavar="M",
        help="train the dense rows of table2 too, for M minutes each (default: 0, not at all)",
    )
    add("--no-augment", action="store_true", help="leave out the rows with augmented images")
    add("--report", action="store_true", help="run nothing, print what the results say")
    add("--list", action="store_true", help="run nothing, list the runs and how far they are")
    add("--json", type=Path, metavar="FILE", help="write the table to FILE as JSON, too")
    add("--quiet", action="store_true", help="no progress, only the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run what is missing, then print and write the table."""
    from trulysparse._files import write_text
    from trulysparse.reproduce import schedule
    from trulysparse.reproduce.cases import PAPER_EPOCHS
    from trulysparse.reproduce.catalog import find_table
    from trulysparse.reproduce.table import Options, Results, cases_of, dumps
    from trulysparse.trainer import TrainingInterrupted

    table = find_table(arguments.table)
    for name, least in (("seeds", 1), ("epochs", 1), ("jobs", 1), ("workers", 1), ("dense_minutes", 0)):
        value = getattr(arguments, name)
        if value is not None and not value >= least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give at least {least}")
    options = Options(
        places=tuple(arguments.data),
        out=arguments.out,
        datasets=None if arguments.datasets is None else tuple(arguments.datasets),
        seeds=arguments.seeds,
        epochs=PAPER_EPOCHS if arguments.epochs is None else arguments.epochs,
        workers=arguments.workers,
        dense_minutes=arguments.dense_minutes,
        augment=not arguments.no_augment,
    )
    rows = table.all_rows(options)
    cases = cases_of(rows, options.seeds)
    if arguments.list:
        print(schedule.listing(cases, options.out))
        return
    if not arguments.report:
        outcome = schedule.run_cases(cases, options.out, options.places, jobs=arguments.jobs, quiet=arguments.quiet)
        if outcome.signal is not None:
            raise TrainingInterrupted(outcome.signal, f"in {options.out} (the same command)")
        for name, why in outcome.failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        for name in outcome.elsewhere:
            print(f"left out: {name}: another process works on it", file=sys.stderr)
    text, data = table.render(table, rows, Results(options.out), options)
    write_text(options.out / f"{table.name}.md", text)
    if arguments.json is not None:
        write_text(arguments.json, dumps(data))
    print(text)
