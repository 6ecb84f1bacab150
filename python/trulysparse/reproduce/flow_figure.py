# SPDX-License-Identifier: BSD-3-Clause
"""Figure 5: how much gradient arrives at the connections over the epochs, ReLU against All-ReLU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.reproduce.accuracy_tables import activation_title, augmented
from trulysparse.reproduce.cases import RELU
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.measure import PROBE
from trulysparse.reproduce.pictures import curves_by_dataset, draw_panels, mean_line, picture_of
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.summary import converged, summarize
from trulysparse.reproduce.table import Options, Results, Row, Table, page

__all__ = ["FIGURE_5"]

Curve = NDArray[np.float64]
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
    for row in rows:
        runs = [] if row.case is None else results.of(row.case)
        line = mean_line(runs, "gradient_flow")
        cells = [source(row.dataset).title, *row.cells]
        if line is None:
            why = row.why or ("nothing measured: " + summarize(runs).runs if runs else "not run yet")
            lines.append([*cells, why, *("",) * (_PARTS - 1), ""])
            data.append({"dataset": row.dataset, "activation": row.cells[0], "why": why})
            continue
        lines.append([*cells, *(f"{mean:.3g}" for mean in _means(line.mean)), summarize(runs).runs])
        seeds = len(converged(runs))
        data.append({"dataset": row.dataset, "activation": row.cells[0], "flow": line.mean.tolist(), "seeds": seeds})
    picture = picture_of(table, rows, results, options)
    header = ["data set", *table.heads, *parts, "seeds"]
    return page(table, header, lines, data, remarks(rows, results, options, accuracies=False), picture=picture)


def _means(flow: Curve) -> list[float]:
    """Return the mean of each part; of fewer epochs than parts each part has the epoch that it lies in."""
    bounds = [part * len(flow) // _PARTS for part in range(_PARTS + 1)]
    return [float(np.mean(flow[a : max(a + 1, b)])) for a, b in itertools.pairwise(bounds)]


def _draw(table: Table, rows: Sequence[Row], results: Results) -> Any:
    lines = curves_by_dataset(table, rows, results, "gradient_flow")
    return draw_panels(lines, what="gradient flow", y_label="gradient flow", log=True) if lines else None


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
    draw=_draw,
)
