# SPDX-License-Identifier: BSD-3-Clause
"""Figure 5: how much gradient arrives at the connections over the epochs, ReLU against All-ReLU."""

from __future__ import annotations

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
from trulysparse.reproduce.table import Options, Results, Row, Table, markdown

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
        flow = _mean_flow(results, row)
        cells = [source(row.dataset).title, *row.cells]
        if flow is None:
            lines.append([*cells, row.why or "not run yet", *("",) * (_PARTS - 1), ""])
            data.append({"dataset": row.dataset, "activation": row.cells[0], "why": row.why or "not run yet"})
            continue
        drawn.setdefault(row.dataset, {})[row.cells[0]] = flow
        means = [float(np.mean(part)) for part in np.array_split(flow, _PARTS) if part.size]
        seeds = len(results.of(row.case)) if row.case is not None else 0
        lines.append([*cells, *(f"{mean:.3g}" for mean in means), *("–",) * (_PARTS - len(means)), str(seeds)])
        data.append({"dataset": row.dataset, "activation": row.cells[0], "flow": flow.tolist(), "seeds": seeds})
    said = [*table.notes, *remarks(rows, results, options, accuracies=False)]
    picture = options.out / f"{table.name}.png"
    shown = ""
    if drawn:
        try:
            write_png(_draw(drawn), picture)
            shown = f"![gradient flow]({picture.name})\n\n"
        except ImportError as error:
            print(f"{picture.name} skipped: {error}", file=sys.stderr)
    header = ["data set", *table.heads, *parts, "seeds"]
    text = f"# {table.title}\n\n{shown}{markdown(header, lines)}\n\n" + "".join(f"- {line}\n" for line in said)
    return text, {"table": table.name, "rows": data, "remarks": said}


def _mean_flow(results: Results, row: Row) -> Curve | None:
    """Return the mean over seeds, for the epochs that all have; None without any."""
    runs = [] if row.case is None else results.of(row.case)
    curves = [[value for value in run["curves"]["gradient_flow"] if value is not None] for run in runs]
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
