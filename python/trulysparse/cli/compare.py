# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse compare`: several runs in one table and one picture."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from trulysparse.cli.train import HISTORY
from trulysparse.errors import ConfigError, DataError
from trulysparse.trainer import History

_METRICS = ("val_accuracy", "accuracy", "val_loss", "loss")
_PICTURE = Path("curves.png")


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "compare",
        help="several runs in one table and one picture",
        description="Print what each run came to, and draw the learning curves of all of them in one picture.",
        epilog="Examples: trulysparse compare runs/set runs/rigl; "
        "trulysparse compare set=runs/a set=runs/b rigl=runs/c --x seconds --out speed.png",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN_DIR",
        help=f"a run directory or a {HISTORY}; runs of one NAME (seeds) are drawn as their mean with a band",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", help=f"the picture (default: {_PICTURE})")
    parser.add_argument(
        "--metric", choices=_METRICS, default=_METRICS[0], help="what is compared (default: %(default)s)"
    )
    parser.add_argument(
        "--x", choices=("epoch", "seconds"), default="epoch", help="what lies below the curves (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the picture."""
    out = _PICTURE if arguments.out is None else arguments.out
    if out.suffix.lower() != ".png" or out.is_dir():
        raise ConfigError(f"--out {out}: the picture is a PNG file; give it a name that ends in .png")
    named = _named(arguments.runs)
    histories = [_read(path) for _, path in named]
    names = [name for name, _ in named]
    # Runs of one name need their paths in the table, where each has a line of its own.
    lines = [name if names.count(name) == 1 else f"{name} ({path})" for name, path in named]
    print("\n".join(_table(lines, histories, arguments.metric)))
    groups: dict[str, list[History]] = {}
    for name, history in zip(names, histories, strict=True):
        groups.setdefault(name, []).append(history)
    from trulysparse.plot import learning_curves

    try:
        learning_curves(groups, out, metric=arguments.metric, x=arguments.x)
    except ImportError as error:
        if arguments.out is not None:
            raise
        print(f"{out} skipped: {error}", file=sys.stderr)
    else:
        print(f"written: {out}")


def _named(given: list[str]) -> list[tuple[str, Path]]:
    """Return name and path of each run; without NAME= the last part of the path, or all of it if that is ambiguous."""
    found: list[tuple[str | None, Path]] = []
    for text in given:
        name, equals, rest = text.partition("=")
        # a path may hold an equals sign too
        named = bool(equals) and not Path(text).exists()
        if named and not (name and rest):
            raise ConfigError(f"{text!r} names no run; give RUN_DIR or NAME=RUN_DIR")
        found.append((name, Path(rest)) if named else (None, Path(text)))
    files = [_file(path).resolve() for _, path in found]
    twice = next((str(path) for (_, path), file in zip(found, files, strict=True) if files.count(file) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice; name each run once")
    last = [file.parent.name for file in files]
    taken = {name for name, _ in found}
    return [
        (name or (short if last.count(short) == 1 and short not in taken else str(path)), path)
        for (name, path), short in zip(found, last, strict=True)
    ]


def _file(path: Path) -> Path:
    return path if path.suffix == ".csv" and not path.is_dir() else path / HISTORY


def _read(path: Path) -> History:
    file = _file(path)
    if not file.is_file():
        raise DataError(f"there is no history at {file}; give a directory that `trulysparse train --out` wrote")
    return History.from_csv(file)


def _table(names: list[str], histories: list[History], metric: str) -> list[str]:
    """Return a header and a line a run: the metric at the end and at its best, epochs, connections, seconds."""
    rows = [("run", f"final {metric}", "best", "at epoch", "epochs", "connections", "seconds")]
    for name, history in zip(names, histories, strict=True):
        values = [v for v in history.column(metric) if v is not None]
        if not values:
            others = [m for m in _METRICS if any(v is not None for v in history.column(m))]
            cure = f"; --metric {others[0]} compares what was" if others else ""
            raise DataError(f"{metric} was never measured in the run {name} of {len(history)} epoch(s){cure}")
        # a run that diverged at once has no best epoch
        best = None if all(map(math.isnan, values)) else history.best(metric)
        seconds = sum(history.train_seconds) + sum(history.evolve_seconds)
        rows.append(
            (
                name,
                f"{values[-1]:.4f}",
                "-" if best is None else f"{best[metric]:.4f}",
                "-" if best is None else f"{best['epoch']}",
                f"{len(history)}",
                f"{history.connections[-1]:,}",
                f"{seconds:,.1f}" if seconds >= 10 else f"{seconds:.2g}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([f"{row[0]:<{widths[0]}}", *map(str.rjust, row[1:], widths[1:])]) for row in rows]
