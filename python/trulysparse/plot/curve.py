# SPDX-License-Identifier: BSD-3-Clause
"""The learning curve of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trulysparse.errors import DataError
from trulysparse.plot.canvas import figure, write_png

if TYPE_CHECKING:
    from trulysparse.trainer.history import History

_TRAIN, _VALIDATION, _CONNECTIONS = "#1f5a99", "#d1601f", "#8a8a8a"


def learning_curve(history: History, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Draw loss, accuracy and number of connections over the epochs, and write them as a PNG file.

    Parameters
    ----------
    history : History
        At least one epoch. Without accuracies (a regression) there is one panel, else two.
    path : str or PathLike
        File to write; it appears only when complete.
    title : str, optional
        Text above the panels.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    DataError
        If the history is empty.
    """
    if len(history) == 0:
        raise DataError("the history has no epochs yet, so there is no learning curve to draw")
    columns = history.columns
    metrics = [m for m in ("loss", "accuracy") if _measured(columns[m]) or _measured(columns[f"val_{m}"])]
    drawn = figure("a learning curve", (5.2 * len(metrics), 3.6))
    panels = drawn.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(panels, metrics, strict=True):
        _panel(axis, columns, metric)
    if title is not None:
        drawn.suptitle(title)
    return write_png(drawn, path)


def _measured(values: list[float | None]) -> bool:
    return any(v is not None for v in values)


def _panel(axis: Any, columns: dict[str, list[float | None]], metric: str) -> None:
    """Draw one metric, with the number of connections behind it on a scale of its own."""
    epochs = columns["epoch"]
    marker = "o" if len(epochs) == 1 else None
    twin = axis.twinx()
    style = {"color": _CONNECTIONS, "linewidth": 0.8, "linestyle": ":", "marker": marker}
    twin.plot(epochs, columns["connections"], drawstyle="steps-mid", **style)
    twin.set_ylim(bottom=0)
    twin.set_ylabel("connections", color=_CONNECTIONS)
    twin.yaxis.set_major_formatter("{x:,.0f}")
    twin.tick_params(axis="y", colors=_CONNECTIONS, labelsize="small")
    axis.set_zorder(twin.get_zorder() + 1)
    axis.patch.set_visible(False)
    for key, label, colour in ((metric, "training", _TRAIN), (f"val_{metric}", "validation", _VALIDATION)):
        if _measured(columns[key]):
            values = [float("nan") if v is None else v for v in columns[key]]
            axis.plot(epochs, values, color=colour, label=label, linewidth=1.4, marker=marker)
    axis.set_xlabel("epoch")
    axis.set_ylabel(metric)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
