# SPDX-License-Identifier: BSD-3-Clause
"""Figure 5: how much gradient arrives at the connections over the epochs, ReLU against All-ReLU."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.plot.canvas import figure, write_png
from trulysparse.reproduce.accuracy_tables import activation_title, augmented
from trulysparse.reproduce.cases import RELU
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.measure import PROBE
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import converged, summarize
from trulysparse.reproduce.table import Options, Results, Row, Table, page

__all__ = ["FIGURE_5"]

Curve = NDArray[np.float64]
_COLOURS = ("#0072b2", "#d55e00")  # of Okabe and Ito: the colour-blind can tell them apart
_PARTS = 4


def _rows_of_figure5(dataset: str, options: Options, results: Results) -> list[Row]:
    """ReLU and All-ReLU of table 2, without importance pruning."""
    rows = []
    for activation in (RELU, None):
        case = options.case(dataset, activation=activation, augment=augmented(dataset, options))
        rows.append(Row(dataset, (activation_title(case.settings["model"]["activation"]),), case))
    return rows


def _render(table: Table, rows: Sequence[Row], results: Results, options: Options) -> tuple[str, dict[str, Any]]:
    parts = [f"{100 * part // _PARTS}–{100 * (part + 1) // _PARTS} %" for part in range(_PARTS)]
    lines: list[list[str]] = []
    data: list[dict[str, Any]] = []
    drawn: dict[str, dict[str, Curve]] = {}
    for row in rows:
        runs = [] if row.case is None else results.of(row.case)
        flow = _mean_flow(runs)
        cells = [source(row.dataset).title, *row.cells]
        if flow is None:
            why = row.why or ("nothing measured: " + summarize(runs).runs if runs else "not run yet")
            lines.append([*cells, why, *("",) * (_PARTS - 1), ""])
            data.append({"dataset": row.dataset, "activation": row.cells[0], "why": why})
            continue
        drawn.setdefault(row.dataset, {})[row.cells[0]] = flow
        lines.append([*cells, *(f"{mean:.3g}" for mean in _means(flow)), summarize(runs).runs])
        seeds = len(converged(runs))
        data.append({"dataset": row.dataset, "activation": row.cells[0], "flow": flow.tolist(), "seeds": seeds})
    picture = options.out / f"{table.name}.png"
    shown = ""
    if drawn:
        try:
            write_png(_draw(drawn), picture)
            shown = picture.name
        except ImportError as error:
            print(f"{picture.name} skipped: {error}", file=sys.stderr)
    header = ["data set", *table.heads, *parts, "seeds"]
    return page(table, header, lines, data, remarks(rows, results, options, accuracies=False), picture=shown)


def _means(flow: Curve) -> list[float]:
    """Return the mean of each part; of fewer epochs than parts each part has the epoch that it lies in."""
    bounds = [part * len(flow) // _PARTS for part in range(_PARTS + 1)]
    return [float(np.mean(flow[a : max(a + 1, b)])) for a, b in itertools.pairwise(bounds)]


def _mean_flow(runs: Sequence[Mapping[str, Any]]) -> Curve | None:
    """Return the mean over the seeds that did not diverge, for the epochs that all have; None without any."""
    curves = [[value for value in run["curves"]["gradient_flow"] if value is not None] for run in converged(runs)]
    length = min((len(curve) for curve in curves), default=0)
    return np.mean([curve[:length] for curve in curves], axis=0) if length else None


def _draw(curves: Mapping[str, Mapping[str, Curve]]) -> Any:
    made = figure("gradient flow", (4.0 * len(curves), 3.4))
    for number, (dataset, named) in enumerate(curves.items(), start=1):
        axis = made.add_subplot(1, len(curves), number)
        for colour, (name, flow) in zip(_COLOURS, named.items(), strict=False):
            axis.plot(np.arange(1, len(flow) + 1), flow, color=colour, linewidth=1.2, label=name)
        axis.set_yscale("log")
        axis.set_title(source(dataset).title, fontsize=11)
        axis.set_xlabel("epoch")
        if number == 1:
            axis.set_ylabel("gradient flow")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small")
    return made


FIGURE_5 = Table(
    "figure5",
    "Figure 5: gradient flow",
    ("cifar10", "fashion_mnist", "madelon"),
    _rows_of_figure5,
    _render,
    ("activation",),
    notes=(
        f"Squared norm of the gradient over all connections, on the same {PROBE} training samples after every epoch, "
        "dropout off; the mean over seeds and over each quarter of the epochs. The paper gives a picture, no figures.",
    ),
)
