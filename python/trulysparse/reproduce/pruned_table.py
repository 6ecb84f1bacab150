# SPDX-License-Identifier: BSD-3-Clause
"""Table 6: importance pruning of trained networks, without retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trulysparse._files import write_text
from trulysparse.errors import DataError
from trulysparse.model import load as load_network
from trulysparse.reproduce.accuracy_tables import augmented
from trulysparse.reproduce.datasets import load, locate, source
from trulysparse.reproduce.files import MODEL, read_json
from trulysparse.reproduce.paper import NO_FIGURE, TABLE6
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import Spread
from trulysparse.reproduce.table import Options, Results, Row, Table, dumps, markdown, number
from trulysparse.topology import ImportancePruning

__all__ = ["PERCENTILES", "TABLE_6"]

PERCENTILES = (0, 5, 10, 15, 20, 25)
"""0: the network as it was trained."""
_FILE = "pruned.json"


def _rows_of_table6(dataset: str, options: Options, results: Results) -> list[Row]:
    """All-ReLU of table 2, as the paper's rows are."""
    case = options.case(dataset, augment=augmented(dataset, options))
    return [Row(dataset, (), case)]


def measure_pruned(directory: Path, dataset: str, places: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return accuracy and connections of a case's network by percentile; measured once and kept beside it.

    Raises
    ------
    DataError
        If the data set is absent and nothing was measured before.
    """
    file = directory / _FILE
    if file.is_file():
        return read_json(file)
    path = locate(dataset, places)
    if path is None and source(dataset).files:
        raise DataError(f"the data set is absent: no {source(dataset).files[0]}.npz")
    data = load(dataset, path)
    found = {}
    for percentile in PERCENTILES:
        net = load_network(directory / MODEL)
        if percentile:
            ImportancePruning(percentile).prune(net)
        result = net.evaluate(data.X_test, data.y_test)
        found[str(percentile)] = {"accuracy": result.accuracy or 0.0, "connections": net.connections}
    write_text(file, dumps(found))
    return found


def _render(table: Table, rows: Sequence[Row], results: Results, options: Options) -> tuple[str, dict[str, Any]]:
    header = ["data set", "percentile", "paper %", "%", "paper connections", "connections", "seeds"]
    lines: list[list[str]] = []
    data: list[dict[str, Any]] = []
    for row in rows:
        runs = [] if row.case is None else [run for run in results.of(row.case) if not run["diverged"]]
        title, why = source(row.dataset).title, row.why or ("" if runs else "not run yet")
        measured: list[Mapping[str, Mapping[str, float]]] = []
        try:
            measured = [measure_pruned(results.place(run).directory, row.dataset, options.places) for run in runs]
        except DataError as error:
            why = str(error)
        if not measured:
            lines.append([title, "", "", why, "", "", ""])
            data.append({"dataset": row.dataset, "why": why})
        for percentile in PERCENTILES if measured else ():
            paper = TABLE6.get((row.dataset, percentile), NO_FIGURE)
            accuracy = Spread.of([one[str(percentile)]["accuracy"] for one in measured])
            connections = Spread.of([one[str(percentile)]["connections"] for one in measured])
            lines.append(
                [
                    title,
                    str(percentile) if percentile else "as trained",
                    number(paper.accuracy, 2),
                    accuracy.percent(),
                    number(paper.end),
                    number(connections.mean),
                    str(len(measured)),
                ]
            )
            data.append(
                {
                    "dataset": row.dataset,
                    "percentile": percentile,
                    "paper": {"accuracy": paper.accuracy, "connections": paper.end},
                    "accuracy": {"mean": accuracy.mean, "deviation": accuracy.deviation, "count": accuracy.count},
                    "connections": connections.mean,
                    "why": "",
                }
            )
    said = [*table.notes, *remarks(rows, results, options, accuracies=False)]
    text = f"# {table.title}\n\n{markdown(header, lines)}\n\n" + "".join(f"- {line}\n" for line in said)
    return text, {"table": table.name, "rows": data, "remarks": said}


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
