# SPDX-License-Identifier: BSD-3-Clause
"""Tables 2, 3 and 5: runs of some variants, and their accuracy beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trulysparse.reproduce.cases import RELU, Case, make_case
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.paper import NO_FIGURE, TABLE2, TABLE2_DENSE, Figure
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import Summary
from trulysparse.reproduce.table import Options, Results, Row, Table, markdown, number

__all__ = ["TABLE_2", "render_accuracies"]

_YES = {True: "yes", False: "no"}


def _rows_of_table2(dataset: str, options: Options) -> list[Row]:
    """ReLU and All-ReLU, without and with importance pruning; dense networks."""
    rows = []
    augmentations = (False, True) if source(dataset).image is not None and options.augment else (False,)
    for augment in augmentations:
        for name, activation in (("relu", RELU), ("all_relu", None)):
            for pruning in (False, True):
                case = make_case(
                    dataset, activation=activation, pruning=pruning, augment=augment, epochs=options.epochs
                )
                # the paper's figures are those with augmentation, where it augments at all
                comparable = augment or source(dataset).image is None
                paper = TABLE2.get((dataset, name, pruning), NO_FIGURE) if comparable else NO_FIGURE
                cells = (_activation(case) + (", augmented" if augment else ""), _YES[pruning])
                rows.append(Row(dataset, cells, case, paper))
    for name, activation in (("relu", RELU), ("all_relu", None)):
        paper = TABLE2_DENSE.get((dataset, name), NO_FIGURE)
        if options.dense_minutes > 0:
            case = make_case(dataset, activation=activation, dense_minutes=options.dense_minutes, epochs=options.epochs)
            rows.append(Row(dataset, (f"{_activation(case)}, dense", "no"), case, paper, seeds=1))
        elif paper != NO_FIGURE:
            why = "left out; --dense-minutes M trains it for M minutes"
            rows.append(Row(dataset, ({"relu": "ReLU"}.get(name, "All-ReLU") + ", dense", "no"), None, paper, why=why))
    return rows


def _activation(case: Case) -> str:
    """Return what tables call an activation."""
    activation = case.settings["model"]["activation"]
    if activation["name"] == "all_relu":
        return f"All-ReLU ({activation['alpha']})"
    return {"relu": "ReLU"}.get(activation["name"], str(activation["name"]))


def render_accuracies(
    table: Table, rows: Sequence[Row], results: Results, options: Options
) -> tuple[str, dict[str, Any]]:
    """Return a table of accuracies, connections, minutes and memory."""
    header = [
        "data set", *table.heads, "paper %", "best %", "selected %", "last %", "paper start → end", "start → end",
        "paper min", "min", "peak MB", "seeds", "epochs",
    ]  # fmt: skip
    lines, data = [], []
    for row in rows:
        summary = results.summary(row)
        paper = row.paper
        theirs = [number(paper.accuracy, 2), _connections(paper.start, paper.end)]
        lines.append([source(row.dataset).title, *row.cells, theirs[0], *_ours(row, summary, theirs[1], paper)])
        data.append(
            {
                "dataset": row.dataset,
                **dict(zip(table.heads, row.cells, strict=True)),
                "paper": asdict(paper),
                "case": None if row.case is None else row.case.to_json(),
                "ours": None if summary is None else summary.to_json(),
                "why": row.why,
            }
        )
    said = remarks(rows, results, options)
    text = f"# {table.title}\n\n{markdown(header, lines)}\n\n" + "".join(f"- {line}\n" for line in said)
    return text, {"table": table.name, "rows": data, "remarks": said}


def _ours(row: Row, summary: Summary | None, paper_connections: str, paper: Figure) -> list[str]:
    minutes = number(paper.minutes, 1)
    if summary is None:
        return [row.why or "not run yet", "", "", paper_connections, "", minutes, "", "", "", ""]
    biases = 0.0
    start, end = summary.start + biases, summary.end + biases
    accuracies = [
        "diverged" if spread is None else spread.percent() for spread in (summary.best, summary.selected, summary.last)
    ]
    seeds = str(len(summary.seeds)) + (f" ({len(summary.diverged)} diverged)" if summary.diverged else "")
    fewest, most = summary.epochs
    return [
        *accuracies,
        paper_connections,
        _connections(start, end),
        minutes,
        number(summary.minutes.mean, 1),
        number(summary.peak_mb),
        seeds,
        str(most) if fewest == most else f"{fewest}–{most}",
    ]


def _connections(start: float | None, end: float | None) -> str:
    if start is None:
        return "–"
    return number(start) if end in (None, start) else f"{number(start)} → {number(end)}"


TABLE_2 = Table(
    "table2",
    "Table 2: sparse training on one core",
    ("leukemia", "nakayama", "higgs", "madelon", "fashion_mnist", "cifar10"),
    _rows_of_table2,
    render_accuracies,
    ("activation", "importance pruning"),
)
