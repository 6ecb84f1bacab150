# SPDX-License-Identifier: BSD-3-Clause
"""Tables 2, 3 and 5: runs of some variants, and their accuracy beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

from trulysparse import recipes
from trulysparse.recipes.paper import SEQUENTIAL_DECAY, preset
from trulysparse.reproduce.cases import PAPER_EPOCHS, RELU, Case, recipe_case
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.files import find_mpiexec
from trulysparse.reproduce.paper import NO_FIGURE, TABLE2, TABLE2_DENSE, TABLE3, TABLE5
from trulysparse.reproduce.pictures import draw_accuracies, draw_slopes, picture_of
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import Summary
from trulysparse.reproduce.table import Options, Results, Row, Table, number, page

__all__ = ["TABLE_2", "TABLE_3", "TABLE_5", "TABLE_OF_RECIPES", "activation_title", "augmented", "render_accuracies"]

_YES = {True: "yes", False: "no"}
_AUTOMATIC: tuple[Mapping[str, Any], ...] = ({"name": "all_relu", "alpha": "auto", "start": 0.5},)


def _augmentations(dataset: str, options: Options) -> tuple[bool, ...]:
    """Return whether to train with augmentation, and without: both where the paper augments, its own way first."""
    return (True, False) if augmented(dataset, options) else (False,)


def augmented(dataset: str, options: Options) -> bool:
    """Return whether to train with augmentation where only one of both is wanted."""
    return source(dataset).image is not None and options.augment


def activation_title(activation: Mapping[str, Any]) -> str:
    """Return what tables call an activation."""
    if activation["name"] == "all_relu":
        alpha = activation["alpha"]
        return f"All-ReLU ({'automatic' if alpha == 'auto' else alpha})"
    return {"relu": "ReLU"}.get(activation["name"], str(activation["name"]))


def _title(case: Case) -> str:
    words = {"dense": case.dense, "augmented": "augment" in case.settings}
    name = activation_title(case.settings["model"]["activation"])
    return ", ".join([name, *(word for word, so in words.items() if so)])


def _rows_of_table2(dataset: str, options: Options, results: Results) -> list[Row]:
    """ReLU and All-ReLU, without and with importance pruning; dense networks."""
    rows = []
    for augment in _augmentations(dataset, options):
        for name, activation in (("relu", RELU), ("all_relu", None)):
            for pruning in (False, True):
                case = options.case(dataset, activation=activation, pruning=pruning, augment=augment)
                paper = results.beside(case, TABLE2.get((dataset, name, pruning)))
                rows.append(Row(dataset, (_title(case), _YES[pruning]), case, paper))
    rows += _with_decay(rows, options, results) if options.both_decays else []
    return rows + _dense_rows(dataset, options, results)


def _with_decay(rows: Sequence[Row], options: Options, results: Results) -> list[Row]:
    """Return rows for the runs with the sequential program's weight decay that are there."""
    found = []
    for row in rows:
        assert row.case is not None
        settings = deepcopy(row.case.settings)
        settings["optimizer"]["weight_decay"] = SEQUENTIAL_DECAY
        case = replace(row.case, settings=settings)
        if case != row.case and results.of(case):
            title, *others = row.cells
            found.append(replace(row, cells=(f"{title}, weight decay 2e-4", *others), case=case, further=True))
    return found


def _dense_rows(dataset: str, options: Options, results: Results) -> list[Row]:
    rows = []
    for name, activation in (("relu", RELU), ("all_relu", None)):
        case = options.case(
            dataset,
            activation=activation,
            augment=augmented(dataset, options),
            dense_minutes=options.dense_minutes,
        )
        paper = results.beside(case, TABLE2_DENSE.get((dataset, name)))
        if options.dense_minutes > 0:
            rows.append(Row(dataset, (_title(case), _YES[False]), case, paper, seeds=1))
        elif longest := _of_any_length(case, results):
            rows.append(Row(dataset, (_title(case), _YES[False]), longest, paper, seeds=1))
        else:
            why = "left out; --dense-minutes M trains it for M minutes"
            rows.append(Row(dataset, (_title(case), _YES[False]), None, paper, why=why))
    return rows


def _of_any_length(case: Case, results: Results) -> Case | None:
    """Return the case of which there are results that differs in its minutes only; the longest of several."""
    found = [
        other
        for other in results.cases
        if (other.dataset, other.revision) == (case.dataset, case.revision)
        and _timeless(other) == _timeless(case)
        and "stop" in other.settings
    ]
    return max(found, key=lambda other: float(other.settings["stop"]["minutes"]), default=None)


def _timeless(case: Case) -> dict[str, Any]:
    return {key: table for key, table in case.settings.items() if key != "stop"}


def _rows_of_table3(dataset: str, options: Options, results: Results) -> list[Row]:
    """WASSP and WASAP without and with importance pruning, and the sequential runs of table 2."""
    rows = []
    missing = find_mpiexec() is None
    for strategy in ("wassp", "wasap", "sequential"):
        for pruning in (False, True):
            case = options.case(
                dataset,
                pruning=pruning,
                augment=augmented(dataset, options),
                strategy=strategy,
                workers=options.workers,
            )
            why = ""
            if missing and strategy != "sequential":
                why = "needs MPI: pip install 'trulysparse[mpi]' and an mpiexec"
            cells = (
                strategy.upper() if strategy != "sequential" else "sequential",
                str(options.workers) if strategy != "sequential" else "–",
                _YES[pruning],
            )
            rows.append(
                Row(dataset, cells, case, results.beside(case, TABLE3.get((dataset, strategy, pruning))), why=why)
            )
    return rows


def _rows_of_table5(dataset: str, options: Options, results: Results) -> list[Row]:
    """ReLU, All-ReLU with several slopes, and with slopes that choose themselves."""
    of_paper = preset(dataset)["model"]["activation"]["alpha"]
    slopes = sorted({slope for slope in TABLE5 if slope} | {of_paper})
    activations = [RELU, *({"name": "all_relu", "alpha": slope} for slope in slopes), *_AUTOMATIC]
    rows = []
    for activation in activations:
        slope = activation.get("alpha", 0.0)
        case = options.case(dataset, activation=activation, augment=augmented(dataset, options))
        paper = results.beside(case, TABLE5.get(slope)) if dataset == "fashion_mnist" else NO_FIGURE
        rows.append(Row(dataset, (activation_title(activation),), case, paper))
    return rows


def _rows_of_recipes(dataset: str, options: Options, results: Results) -> list[Row]:
    """Set the tuned recipe beside the paper's settings with All-ReLU, without and with importance pruning."""
    rows = []
    for pruning in (False, True):
        paper = options.case(dataset, pruning=pruning, augment=augmented(dataset, options))
        figure = results.beside(paper, TABLE2.get((dataset, "all_relu", pruning)))
        title = activation_title(paper.settings["model"]["activation"])
        rows.append(Row(dataset, ("the paper's", title, _YES[pruning]), paper, figure))
    if dataset in recipes.names("tuned"):
        tuned = recipe_case(dataset, epochs=None if options.epochs == PAPER_EPOCHS else options.epochs)
        title = activation_title(tuned.settings["model"]["activation"])
        rows.append(Row(dataset, ("tuned recipe", title, _YES[False]), tuned, further=True))
    return rows


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
        paper = number(row.paper.accuracy, 2)
        lines.append([source(row.dataset).title, *row.cells, paper, *_columns(row, summary)])
        data.append(
            {
                "dataset": row.dataset,
                **dict(zip(table.heads, row.cells, strict=True)),
                "paper": asdict(row.paper),
                "case": None if row.case is None else row.case.to_json(),
                "ours": None if summary is None else summary.to_json(),
                "why": row.why,
            }
        )
    picture = picture_of(table, rows, results, options)
    return page(table, header, lines, data, remarks(rows, results, options), picture=picture)


def _columns(row: Row, summary: Summary | None) -> list[str]:
    """Return the columns behind the paper's accuracy."""
    paper = _connections(row.paper.start, row.paper.end)
    minutes = number(row.paper.minutes, 1)
    if summary is None:
        return [row.why or "not run yet", "", "", paper, "", minutes, "", "", "", ""]
    # the paper counts the biases of dense networks
    biases = summary.biases if row.case is not None and row.case.dense else 0
    accuracies = [
        "–" if spread is None else spread.percent() for spread in (summary.best, summary.selected, summary.last)
    ]
    fewest, most = summary.epochs or (None, None)
    return [
        *accuracies,
        paper,
        _connections(summary.start, summary.end, biases),
        minutes,
        number(None if summary.minutes is None else summary.minutes.mean, 1),
        number(summary.peak_mb),
        summary.runs,
        number(most) if fewest == most else f"{fewest}–{most}",
    ]


def _connections(start: float | None, end: float | None, biases: int = 0) -> str:
    if start is None:
        return "–"
    if end is None or end == start:
        return number(start + biases)
    return f"{number(start + biases)} → {number(end + biases)}"


TABLE_2 = Table(
    "table2",
    "Table 2: sparse training on one core",
    ("leukemia", "nakayama", "higgs", "madelon", "fashion_mnist", "cifar10"),
    _rows_of_table2,
    render_accuracies,
    ("activation", "importance pruning"),
    draw=draw_accuracies,
)
TABLE_3 = Table(
    "table3",
    "Table 3: parallel training",
    ("higgs", "fashion_mnist", "cifar10"),
    _rows_of_table3,
    render_accuracies,
    ("strategy", "workers", "importance pruning"),
    draw=draw_accuracies,
)
TABLE_5 = Table(
    "table5",
    "Table 5: All-ReLU's slope",
    ("fashion_mnist",),
    _rows_of_table5,
    render_accuracies,
    ("activation",),
    ("Of the paper's figures those of slopes other than 0.6 are read off its text.",),
    draw=draw_slopes,
)
TABLE_OF_RECIPES = Table(
    "recipes",
    "Recipes: the paper's settings and tuned ones, with no more connections",
    ("higgs", "madelon", "fashion_mnist", "cifar10"),
    _rows_of_recipes,
    render_accuracies,
    ("settings", "activation", "importance pruning"),
    (
        "Tuned recipes were chosen on samples held out of the training part, never on the test part; they train on all "
        "of it here. `--set` changes the rows with the paper's settings only.",
    ),
    draw=draw_accuracies,
)
