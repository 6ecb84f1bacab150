# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse reproduce`: the paper's tables on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trulysparse.errors import ConfigError

if TYPE_CHECKING:
    from trulysparse.reproduce.table import Options


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "reproduce",
        help="the paper's tables on this machine",
        description='Train what a table of "Truly Sparse Neural Networks at Scale" takes, and print it beside the '
        "paper's figures. Runs that are done are not run again, and one that was stopped goes on from its checkpoint; "
        "tables share runs.",
        epilog="Examples: trulysparse reproduce table2 --datasets madelon --data DIR; "
        "trulysparse reproduce table2 --data DIR --epochs 5 (a short look); "
        "trulysparse reproduce table2 --data DIR --list (what there is to run); "
        "trulysparse reproduce table2 --data DIR --seeds 5 (as the paper: days)",
    )
    add = parser.add_argument
    add("table", metavar="TABLE", help="table2, table3, table5, table6, figure5 or recipes")
    add("--datasets", nargs="+", metavar="NAME", help="data sets (default: the table's; one that is absent is a line)")
    add("--seeds", type=int, default=1, metavar="N", help="runs a row; the paper has 5 (default: 1)")
    add("--epochs", type=int, metavar="N", help="epochs of a run (default: the paper's 500, a recipe's own)")
    add("--jobs", type=int, metavar="N", help="runs at once, which share the cores (default: as many as cores)")
    add("--data", nargs="+", type=Path, default=[Path()], metavar="DIR", help="where NAME.npz is (default: here)")
    add("--out", type=Path, default=Path("reproduce"), metavar="DIR", help="runs and tables (default: ./reproduce)")
    add("--workers", type=int, default=2, metavar="N", help="workers of the parallel runs of table3 (default: 2)")
    add(
        "--dense-minutes",
        type=float,
        default=0.0,
        metavar="M",
        help="train the dense rows of table2 too, for M minutes each (default: 0, not at all)",
    )
    add("--no-augment", action="store_true", help="never change images at random, as the paper does with CIFAR-10")
    add(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        dest="settings",
        help="train all rows with another setting than the paper's, e.g. --set optimizer.lr=0.02",
    )
    add("--both-decays", action="store_true", help="table2: also show runs with weight decay 0.0002 that are there")
    add("--report", action="store_true", help="run nothing, print what the results say")
    add("--list", action="store_true", help="run nothing, list the runs and how far they are")
    add("--json", type=Path, metavar="FILE", help="write the table to FILE as JSON, too")
    add("--collect", type=Path, metavar="FILE.jsonl", help="append each result to FILE as one line")
    add("--quiet", action="store_true", help="no progress, only the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run what is missing, then print and write the table."""
    from trulysparse._files import write_text
    from trulysparse.reproduce import schedule
    from trulysparse.reproduce.catalog import find_table
    from trulysparse.reproduce.collect import collect
    from trulysparse.reproduce.table import Results, cases_of, dumps, runnable

    table, options = find_table(arguments.table), _options(arguments)
    rows = table.all_rows(options, Results(options.out, options.places))
    cases = cases_of(rows, options.seeds)
    if arguments.list:
        print(schedule.listing(cases, options.out))
        return
    if not arguments.report:
        possible = [case for case in cases if runnable(case, options.places)]
        outcome = schedule.run_cases(possible, options.out, options.places, jobs=arguments.jobs, quiet=arguments.quiet)
        for name, why in outcome.failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        for name in outcome.elsewhere:
            print(f"left out: {name}: another process works on it", file=sys.stderr)
        if outcome.signal is not None:
            print("\nthe runs were stopped and wrote checkpoints; the same command goes on with them", file=sys.stderr)
            raise SystemExit(128 + outcome.signal)
    results = Results(options.out, options.places)
    rows = table.all_rows(options, results)
    text, data = table.render(table, rows, results, options)
    write_text(options.out / f"{table.name}.md", text)
    if arguments.json is not None:
        write_text(arguments.json, dumps(data))
    print(text, end="")
    if arguments.collect is not None:
        found = [result for row in rows if row.case is not None for result in results.of(row.case)]
        print(f"appended {collect(found, arguments.collect)} results to {arguments.collect}", file=sys.stderr)
    if not arguments.report and outcome.failed:
        raise SystemExit(1)


def _options(arguments: argparse.Namespace) -> Options:
    """Check the numbers and places."""
    from trulysparse.reproduce.cases import PAPER_EPOCHS, read_changes
    from trulysparse.reproduce.table import Options

    for name, least in (("seeds", 1), ("epochs", 1), ("jobs", 1), ("workers", 1), ("dense_minutes", 0)):
        value = getattr(arguments, name)
        if value is not None and not value >= least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give at least {least}")
    for place in arguments.data:
        if not place.exists():
            raise ConfigError(f"--data {place}: there is no such directory or file; it is where NAME.npz are")
    return Options(
        places=tuple(arguments.data),
        out=arguments.out,
        datasets=None if arguments.datasets is None else tuple(arguments.datasets),
        seeds=arguments.seeds,
        epochs=PAPER_EPOCHS if arguments.epochs is None else arguments.epochs,
        workers=arguments.workers,
        dense_minutes=arguments.dense_minutes,
        augment=not arguments.no_augment,
        changes=read_changes(arguments.settings),
        both_decays=arguments.both_decays,
    )
