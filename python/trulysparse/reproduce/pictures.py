# SPDX-License-Identifier: BSD-3-Clause
"""The pictures beside the tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.plot.canvas import figure, line_look, write_png
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.summary import Spread, Summary, converged, judged
from trulysparse.reproduce.table import Options, Results, Row, Table

__all__ = ["Line", "curves_by_dataset", "draw_accuracies", "draw_panels", "draw_slopes", "mean_line", "picture_of"]

_WIDTH, _HEIGHT, _LEGEND_LINE = 4.4, 3.6, 0.19
_PANELS_A_ROW = 3
_BEGINNING = 0.1  # of the longest run: what happens in it would press all else together


@dataclass(frozen=True)
class Line:
    """Mean over some runs with the least and the largest; of one run all three are alike.

    Attributes
    ----------
    name : str
    place : int
        Of its row among those of the data set: what it looks like, whichever other rows have runs.
    x, mean, low, high : ndarray of float64
    """

    name: str
    place: int
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def mean_line(runs: Sequence[Mapping[str, Any]], key: str, name: str = "", place: int = 0) -> Line | None:
    """Return the mean of a curve over the runs that did not diverge, where all have measured it; None if nowhere.

    Epochs that `accuracy_of` does not judge are left out.

    Parameters
    ----------
    runs : sequence of mapping
        Results, one a seed.
    key : str
        A curve of them.
    name, place
        Of the line.
    """
    measured = []
    for run in converged(runs):
        epochs, values = run["curves"]["epoch"], run["curves"][key]
        measured.append({epochs[i]: values[i] for i in judged(run["curves"]) if values[i] is not None})
    shared = sorted(set.intersection(*map(set, measured))) if measured else []
    if not shared:
        return None
    found = np.array([[one[epoch] for epoch in shared] for one in measured], np.float64)
    return Line(name, place, np.array(shared, np.float64), found.mean(axis=0), found.min(axis=0), found.max(axis=0))


def curves_by_dataset(table: Table, rows: Sequence[Row], results: Results, key: str) -> dict[str, list[Line]]:
    """Return the lines of a curve by data set; those of rows that have none are absent."""
    places: dict[str, int] = {}
    found: dict[str, list[Line]] = {}
    for row in rows:
        place = places[row.dataset] = places.get(row.dataset, -1) + 1
        line = None if row.case is None else mean_line(results.of(row.case), key, _name_of(table, row), place)
        if line is not None:
            found.setdefault(row.dataset, []).append(line)
    return found


def _name_of(table: Table, row: Row) -> str:
    """Return what a row is called in a picture: a column that says yes is named, one that says no is not."""
    words = []
    for head, cell in zip(table.heads, row.cells, strict=True):
        if cell == "yes":
            words.append(head)
        elif cell.isdigit():
            words.append(f"{cell} {head}")
        elif cell not in ("no", "–", ""):
            words.append(cell)
    return ", ".join(words)


def draw_panels(
    lines: Mapping[str, Sequence[Line]], *, what: str, y_label: str, log: bool = False, factor: float = 1.0
) -> Any:
    """Return a figure with a panel a data set, its lines named below it.

    Parameters
    ----------
    lines : mapping of str to sequence of Line
        By data set.
    what : str
        What is drawn, for the error if matplotlib is missing.
    y_label : str
    log : bool
        Whether values stand on a logarithmic axis; if not, it leaves out what only the first tenth of the epochs has.
    factor : float
        What values are multiplied by.
    """
    columns = min(len(lines), _PANELS_A_ROW)
    height = -(-len(lines) // columns)
    most = max(len(named) for named in lines.values())
    made = figure(what, (_WIDTH * columns, (_HEIGHT + _LEGEND_LINE * most) * height))
    for number, (dataset, named) in enumerate(lines.items()):
        axis = made.add_subplot(height, columns, number + 1)
        for line in named:
            look = line_look(line.place)
            marker = "o" if len(line.x) == 1 else None
            axis.plot(line.x, factor * line.mean, linewidth=1.2, marker=marker, label=line.name, **look)
            axis.fill_between(
                line.x, factor * line.low, factor * line.high, color=look["color"], alpha=0.18, linewidth=0
            )
        if log:
            axis.set_yscale("log")
        else:
            axis.set_ylim(*(factor * end for end in _ends(named)))
        axis.xaxis.get_major_locator().set_params(integer=True)
        _dress(axis, source(dataset).title, "epoch", y_label if number % columns == 0 else "")
    return made


def _ends(lines: Sequence[Line]) -> tuple[float, float]:
    """Return values a little below and above all that lines have after the beginning of the longest."""
    first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    begun = first + _BEGINNING * (last - first)
    late = [np.append(line.x[:-1] >= begun, True) for line in lines]
    low = min(float(line.low[part].min()) for line, part in zip(lines, late, strict=True))
    high = max(float(line.high[part].max()) for line, part in zip(lines, late, strict=True))
    margin = 0.05 * max(high - low, 0.01)
    return low - margin, high + margin


def _dress(axis: Any, title: str, x_label: str, y_label: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16))


def draw_accuracies(table: Table, rows: Sequence[Row], results: Results) -> Any:
    """Return a figure of the test accuracy over the epochs; None if there is nothing to draw."""
    lines = curves_by_dataset(table, rows, results, "test_accuracy")
    if not lines:
        return None
    return draw_panels(lines, what="test accuracy", y_label="test accuracy, %", factor=100.0)


def draw_slopes(table: Table, rows: Sequence[Row], results: Results) -> Any:
    """Return a figure of the accuracy over All-ReLU's slope; None if there is nothing to draw."""
    datasets = list(dict.fromkeys(row.dataset for row in rows if _has_accuracy(results.summary(row))))
    if not datasets:
        return None
    made = figure("slopes", (5.6 * len(datasets), 5.0))
    for number, dataset in enumerate(datasets, start=1):
        axis = made.add_subplot(1, len(datasets), number)
        _slopes(axis, [row for row in rows if row.dataset == dataset], results)
        _dress(axis, source(dataset).title, "slope (0: ReLU)", "test accuracy, %" if number == 1 else "")
    return made


def _has_accuracy(summary: Summary | None) -> bool:
    return summary is not None and summary.best is not None


def _slopes(axis: Any, rows: Sequence[Row], results: Results) -> None:
    grid: dict[str, dict[float, Spread]] = {"best": {}, "selected": {}}
    paper: dict[float, float] = {}
    for row in rows:
        assert row.case is not None
        slope, summary = row.case.settings["model"]["activation"].get("alpha", 0.0), results.summary(row)
        if row.paper.accuracy is not None:
            paper[slope] = row.paper.accuracy
        for index, kind in enumerate(grid):
            spread = None if summary is None else getattr(summary, kind)
            if spread is None:
                continue
            if slope != "auto":
                grid[kind][slope] = spread
                continue
            axis.axhline(
                100 * spread.mean, linestyle="--", linewidth=1.2, color=line_look(index)["color"],
                label=f"slopes that choose themselves, {kind}",
            )  # fmt: skip
    for index, (kind, found) in enumerate(grid.items()):
        if not found:
            continue
        slopes = sorted(found)
        means, deviations = ([100 * getattr(found[x], part) for x in slopes] for part in ("mean", "deviation"))
        axis.errorbar(slopes, means, deviations, marker="o", capsize=2, linewidth=1.2, label=kind, **line_look(index))
    if paper:
        axis.plot(sorted(paper), [paper[x] for x in sorted(paper)], "x:", color="#444444", label="the paper's, best")


def picture_of(table: Table, rows: Sequence[Row], results: Results, options: Options) -> str:
    """Write the picture of a table beside it and return its name; an empty one if there is nothing to show.

    Without matplotlib it says so on stderr, and there is none.
    """
    file = options.out / f"{table.name}.png"
    try:
        drawn = None if table.draw is None else table.draw(table, rows, results)
        if drawn is None:
            return ""
        write_png(drawn, file)
    except ImportError as error:
        print(f"{file.name} skipped: {error}", file=sys.stderr)
        return ""
    return file.name
