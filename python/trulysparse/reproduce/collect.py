# SPDX-License-Identifier: BSD-3-Clause
"""Results as lines of one small file, to be kept with the source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trulysparse.bench import records
from trulysparse.reproduce.cases import Case
from trulysparse.reproduce.summary import accuracy_of

__all__ = ["collect", "compact"]

_POINTS = 50


def compact(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its accuracies and some points of each curve: every k-th epoch, and the last."""
    curves, accuracy = result["curves"], accuracy_of(result["curves"])
    name, count = Case.from_json(result["case"]).name, len(curves["epoch"])
    every = max(1, -(-count // _POINTS))
    kept = sorted({*range(every - 1, count, every), *([count - 1] if count else [])})
    facts = {key: value for key, value in result.items() if key not in ("curves", "resolved", "threads")}
    thin = {key: [_rounded(values[i]) for i in kept] for key, values in curves.items()}
    return {
        # what `records.identity` looks at: the name alone, so that a run that is made again replaces the earlier one
        "benchmark": "reproduce",
        "network": name,
        "name": name,
        **facts,
        "run_threads": result["threads"],
        "accuracy": None if accuracy is None else asdict(accuracy),
        "seconds": {part: round(sum(curves[f"{part}_seconds"]), 3) for part in ("train", "evaluate", "evolve")},
        "curves": thin,
    }


def collect(results: Iterable[dict[str, Any]], file: Path) -> int:
    """Append results that a file of JSON lines does not hold yet; return how many.

    `trulysparse.bench.records.read` returns them; of several lines of a case the last.

    Parameters
    ----------
    results : iterable of dict
        As the directories of cases hold them.
    file : Path
        Made if it is missing. A result made again replaces nothing: it is one more line, and the last one counts.
    """
    known = {(line.get("name"), line["date"]) for line in records.read(file)} if file.exists() else set()
    added = 0
    for result in results:
        line = compact(result)
        if (line["name"], line["date"]) not in known:
            records.append(file, line, {})
            added += 1
    return added


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
