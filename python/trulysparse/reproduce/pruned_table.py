# SPDX-License-Identifier: BSD-3-Clause
"""Table 6: importance pruning of trained networks, without retraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trulysparse._files import write_text
from trulysparse.model import load as load_network
from trulysparse.reproduce.accuracy_tables import augmented
from trulysparse.reproduce.datasets import load, locate, source
from trulysparse.reproduce.files import MODEL, PRUNED, RESULT, read_json
from trulysparse.reproduce.paper import TABLE6
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import Spread, summarize
from trulysparse.reproduce.table import Options, Results, Row, Table, absence, dumps, number, page
from trulysparse.topology import ImportancePruning

__all__ = ["PERCENTILES", "TABLE_6"]

PERCENTILES = (0, 5, 10, 15, 20, 25)
"""0: the network as it was trained."""
DOUBTFUL = 276_349
"""CIFAR-10 at 25: 44 thousand fewer than at 20, where every other step takes some 16 thousand."""


def _rows_of_table6(dataset: str, options: Options, results: Results) -> list[Row]:
    """All-ReLU of table 2, as the paper's rows are."""
    case = options.case(dataset, augment=augmented(dataset, options))
    return [Row(dataset, (), case)]


def measure_pruned(directory: Path, dataset: str, places: Sequence[Path]) -> dict[str, dict[str, float]] | None:
    """Return accuracy and connections of a case's network by percentile; measured once and kept beside its result.

    What was measured of an earlier result (of another date) is measured again. None if the data set is absent and
    nothing was measured before.
    """
    file, of = directory / PRUNED, read_json(directory / RESULT)["date"]
    kept = read_json(file) if file.is_file() else {}
    if kept.get("of") == of:
        return dict(kept["networks"])
    path = locate(dataset, places)
    if path is None and source(dataset).files:
        return None
    data = load(dataset, path)
    found = {}
    for percentile in PERCENTILES:
        net = load_network(directory / MODEL)
        if percentile:
            ImportancePruning(percentile).prune(net)
        result = net.evaluate(data.X_test, data.y_test)
        found[str(percentile)] = {"accuracy": result.accuracy or 0.0, "connections": net.connections}
    write_text(file, dumps({"of": of, "networks": found}))
    return found


def _render(table: Table, rows: Sequence[Row], results: Results, options: Options) -> tuple[str, dict[str, Any]]:
    header = ["data set", "percentile", "paper %", "%", "paper connections", "connections", "seeds"]
    lines: list[list[str]] = []
    data: list[dict[str, Any]] = []
    for row in rows:
        everything = [] if row.case is None else results.of(row.case)
        runs = [run for run in everything if not run["diverged"]]
        title = source(row.dataset).title
        networks = [measure_pruned(results.place(run).directory, row.dataset, options.places) for run in runs]
        measured = [found for found in networks if found is not None]
        if not measured:
            unseen = absence(row.dataset) if runs else "all runs diverged" if everything else "not run yet"
            why = row.why or unseen
            lines.append([title, "", "", why, "", "", ""])
            data.append({"dataset": row.dataset, "why": why})
        for percentile in PERCENTILES if measured else ():
            assert row.case is not None  # it was measured
            paper = results.beside(row.case, TABLE6.get((row.dataset, percentile)))
            doubt = "?" if paper.end == DOUBTFUL else ""
            accuracy = Spread.of([one[str(percentile)]["accuracy"] for one in measured])
            connections = Spread.of([one[str(percentile)]["connections"] for one in measured])
            lines.append(
                [
                    title,
                    str(percentile) if percentile else "as trained",
                    number(paper.accuracy, 2),
                    accuracy.percent(),
                    number(paper.end) + doubt,
                    number(connections.mean),
                    summarize(everything).runs,
                ]
            )
            data.append(
                {
                    "dataset": row.dataset,
                    "percentile": percentile,
                    "paper": {"accuracy": paper.accuracy, "connections": paper.end},
                    "accuracy": accuracy.to_json(),
                    "connections": connections.mean,
                    "why": "",
                }
            )
    said = remarks(rows, results, options, accuracies=False)
    if any(row.dataset == "cifar10" for row in rows):
        said = [f"?: the paper's {DOUBTFUL:,} is out of line with its other rows; a misprint, perhaps.", *said]
    return page(table, header, lines, data, said)


TABLE_6 = Table(
    "table6",
    "Table 6: importance pruning after training",
    ("leukemia", "nakayama", "higgs", "madelon", "fashion_mnist", "cifar10"),
    _rows_of_table6,
    _render,
    notes=(
        "The networks are those of the last epoch of table 2's All-ReLU runs; the paper's first row is its best "
        "accuracy.",
    ),
)
