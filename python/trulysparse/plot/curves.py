# SPDX-License-Identifier: BSD-3-Clause
"""Learning curves of several runs in one picture."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError, DataError
from trulysparse.plot.canvas import figure, line_look, write_png

if TYPE_CHECKING:
    from trulysparse.trainer.history import History

_Values: TypeAlias = NDArray[np.float64]

_AXES = {"epoch": "epoch", "seconds": "seconds of training and evolution"}
_LONGEST_NAME = 32
_INCHES_A_NAME = 0.19


class _Curve(NamedTuple):
    """One name: its position, mean, least and largest value of all its histories."""

    name: str
    x: _Values
    mean: _Values
    low: _Values
    high: _Values
    runs: int


@overload
def learning_curves(
    histories: Mapping[str, History | Sequence[History]],
    path: str | os.PathLike[str],
    *,
    metric: str = ...,
    x: str = ...,
    title: str | None = ...,
) -> Path: ...


@overload
def learning_curves(
    histories: Mapping[str, History | Sequence[History]],
    path: None = None,
    *,
    metric: str = ...,
    x: str = ...,
    title: str | None = ...,
) -> Any: ...


def learning_curves(
    histories: Mapping[str, History | Sequence[History]],
    path: str | os.PathLike[str] | None = None,
    *,
    metric: str = "val_accuracy",
    x: str = "epoch",
    title: str | None = None,
) -> Any:
    """Draw one metric of several runs in one picture; the names stand beside it in the order in which the lines end.

    Parameters
    ----------
    histories : mapping of str to History or sequence of History
        Runs by name. Several histories under one name (seeds) become their mean, with a band from the least to the
        largest, over the epochs in which all of them were measured.
    path : str or PathLike, optional
        PNG file to write; it appears only when complete. None: nothing is written.
    metric : str
        A column of the history.
    x : {"epoch", "seconds"}
        What lies below: epochs, or the seconds of training and evolution up to the end of each (evaluation apart; of
        several histories under one name, their mean at the same epoch).
    title : str, optional
        Text above the picture.

    Returns
    -------
    Path or matplotlib.figure.Figure
        The file, or without `path` the figure.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ConfigError
        If there is no run, a value of `histories` is something else, or `metric` or `x` is unknown.
    DataError
        If a history is empty or the metric was never measured in it, or those of one name share no epoch.
    """
    if x not in _AXES:
        raise ConfigError(f"x of learning_curves must be one of {', '.join(_AXES)}, got {x!r}")
    if not isinstance(histories, Mapping) or not histories:
        raise ConfigError(f"learning_curves takes histories by name, such as {{'SET': history}}, got {histories!r}")
    curves = [_curve(str(name), _several(name, given), metric, x) for name, given in histories.items()]
    drawn = figure("learning curves", (7.8, max(3.8, 0.6 + _INCHES_A_NAME * len(curves))))
    axis = drawn.subplots()
    for number, curve in enumerate(curves):
        _draw(axis, curve, number)
    axis.set_xlabel(_AXES[x])
    axis.set_ylabel(metric)
    if x == "epoch":
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axis.set_title(title, fontsize=11)
    _name(drawn, axis, curves)
    return drawn if path is None else write_png(drawn, path)


def _several(name: object, given: object) -> list[History]:
    from trulysparse.trainer.history import History

    several = [given] if isinstance(given, History) else given
    if not isinstance(several, Sequence) or not several or not all(isinstance(one, History) for one in several):
        raise ConfigError(f"learning_curves takes a History or several of them for {name!r}, got {given!r}")
    return list(several)


def _curve(name: str, histories: list[History], metric: str, x: str) -> _Curve:
    """Return what is drawn for one name: mean and range over the epochs that all of its histories measured."""
    runs = [_measured(name, history, metric, x) for history in histories]
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    if not epochs:
        raise DataError(f"the {len(runs)} histories of {name!r} share no epoch in which {metric} was measured")
    places, values = (np.array([[run[epoch][part] for run in runs] for epoch in epochs]) for part in (0, 1))
    return _Curve(name, places.mean(axis=1), values.mean(axis=1), values.min(axis=1), values.max(axis=1), len(runs))


def _measured(name: str, history: History, metric: str, x: str) -> dict[int, tuple[float, float]]:
    """Return place on the x axis and value by epoch, where the metric was measured."""
    values = history.column(metric)
    if x == "epoch":
        places: list[float] = [float(epoch) for epoch in history.epoch]
    else:
        spent = zip(history.train_seconds, history.evolve_seconds, strict=True)
        places = list(accumulate(train + evolve for train, evolve in spent))
    found = {
        epoch: (place, value)
        for epoch, place, value in zip(history.epoch, places, values, strict=True)
        if value is not None
    }
    if not found:
        others = [key for key, column in history.columns.items() if any(v is not None for v in column)]
        instead = f"; measured were {', '.join(others)}" if others else ", which has no epochs yet"
        cure = "; pass validation= to fit" if others and metric.startswith("val_") else ""
        raise DataError(f"{metric} was never measured in the run {name!r}{instead}{cure}")
    return found


def _draw(axis: Any, curve: _Curve, number: int) -> None:
    look = line_look(number)
    marker = "o" if len(curve.x) == 1 else None
    axis.plot(curve.x, curve.mean, linewidth=1.5, marker=marker, **look)
    if curve.runs > 1:
        axis.fill_between(curve.x, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0)


def _name(drawn: Any, axis: Any, curves: Sequence[_Curve]) -> None:
    """List the names beside the picture in the order in which the lines end, highest first."""
    lines = axis.get_lines()
    order = sorted(range(len(curves)), key=lambda i: -_last_finite(curves[i].mean))
    drawn.legend(
        [lines[i] for i in order],
        [_label(curves[i]) for i in order],
        loc="outside right upper",
        frameon=False,
        fontsize="small",
        handlelength=2.6,
    )


def _last_finite(values: _Values) -> float:
    """Return the last number that is one: a run that diverged ends in NaN."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else -math.inf


def _label(curve: _Curve) -> str:
    """Return the name, long ones without their middle, and how many runs it stands for."""
    name, half = curve.name, (_LONGEST_NAME - 1) // 2
    if len(name) > _LONGEST_NAME:
        name = f"{name[:half]}…{name[-half:]}"
    if name.startswith("_"):
        name = f" {name}"  # matplotlib hides labels that begin with one
    name = name.replace("$", r"\$")  # and sets what stands between two as a formula
    return f"{name} ({curve.runs} runs)" if curve.runs > 1 else name
