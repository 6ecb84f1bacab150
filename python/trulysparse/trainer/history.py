# SPDX-License-Identifier: BSD-3-Clause
"""What happened in each epoch, as rows in memory and as a CSV file."""

from __future__ import annotations

import csv
import io
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

from trulysparse._files import replacing
from trulysparse.errors import ConfigError, DataError

Row: TypeAlias = dict[str, float | None]

COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "connections",
    "train_seconds",
    "eval_seconds",
    "evolve_seconds",
)
_WHOLE = ("epoch", "connections")
_OPTIONAL = ("accuracy", "val_loss", "val_accuracy")


def metric_mode(metric: str, mode: str = "auto") -> str:
    """Return whether more or less of a metric is better.

    Parameters
    ----------
    metric : str
        A column of the history.
    mode : {"auto", "min", "max"}
        "auto" knows that accuracies are to grow and losses to shrink.

    Returns
    -------
    {"min", "max"}

    Raises
    ------
    ConfigError
        If the metric is no column, or the mode is unknown or cannot be told from the metric's name.
    """
    if metric not in COLUMNS:
        raise ConfigError(f"metric {metric!r} is not in the history; its columns are {', '.join(COLUMNS)}")
    if mode in ("min", "max"):
        return mode
    if mode != "auto":
        raise ConfigError(f'mode={mode!r} is unknown; use "auto", "min" or "max"')
    if metric.endswith("accuracy"):
        return "max"
    if metric.endswith("loss"):
        return "min"
    raise ConfigError(f'whether more or less {metric} is better must be said: mode="min" or mode="max"')


def _number(key: str, value: object) -> float | None:
    if value is None and key in _OPTIONAL:
        return None
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        return operator.index(value) if key in _WHOLE else float(operator.index(value))
    if isinstance(value, SupportsFloat) and key not in _WHOLE and not isinstance(value, bool):
        return float(value)
    kind = "a whole number" if key in _WHOLE else "a number or None" if key in _OPTIONAL else "a number"
    raise ConfigError(f"history column {key} needs {kind}, got {value!r}")


class History:
    """One row an epoch: losses and accuracies, number of connections, and where the time went.

    Columns are attributes that return lists (``history.loss``); rows are dictionaries (``history[-1]``). What
    was not measured is None: validation columns without a validation set, accuracies in a regression.

    Parameters
    ----------
    rows : iterable of mapping, optional
        Rows to start with, as `rows` returns them.
    """

    def __init__(self, rows: Iterable[Mapping[str, float | None]] = ()) -> None:
        self._rows: list[Row] = []
        for row in rows:
            self.append(row)

    def append(self, row: Mapping[str, float | None]) -> None:
        """Add the row of one more epoch.

        Parameters
        ----------
        row : mapping
            Numbers by column. Only the accuracies and ``val_loss`` may be absent or None; ``epoch`` grows.

        Raises
        ------
        ConfigError
            If a column is unknown or absent, a value is no number, or the epoch does not follow.
        """
        unknown = [key for key in row if key not in COLUMNS]
        if unknown:
            raise ConfigError(f"unknown history column {', '.join(unknown)}; the columns are {', '.join(COLUMNS)}")
        checked = {key: _number(key, row.get(key)) for key in COLUMNS}
        if self._rows and checked["epoch"] <= self._rows[-1]["epoch"]:  # type: ignore[operator]  # never None
            raise ConfigError(f"history row of epoch {checked['epoch']} cannot follow epoch {self._rows[-1]['epoch']}")
        self._rows.append(checked)

    @property
    def rows(self) -> list[Row]:
        """Copies of all rows: JSON-able, and what the constructor takes."""
        return [dict(row) for row in self._rows]

    @property
    def columns(self) -> dict[str, list[float | None]]:
        """All columns by name."""
        return {key: [row[key] for row in self._rows] for key in COLUMNS}

    def column(self, name: str) -> list[Any]:
        """Return one column.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        if name not in COLUMNS:
            raise ConfigError(f"the history has no column {name!r}; its columns are {', '.join(COLUMNS)}")
        return [row[name] for row in self._rows]

    @property
    def epoch(self) -> list[int]:
        """Epoch numbers."""
        return self.column("epoch")

    @property
    def loss(self) -> list[float]:
        """Mean training loss of each epoch, as met while training (dropout on)."""
        return self.column("loss")

    @property
    def accuracy(self) -> list[float | None]:
        """Share of training samples classified correctly, as met while training."""
        return self.column("accuracy")

    @property
    def val_loss(self) -> list[float | None]:
        """Mean loss on the validation samples after each epoch."""
        return self.column("val_loss")

    @property
    def val_accuracy(self) -> list[float | None]:
        """Accuracy on the validation samples after each epoch."""
        return self.column("val_accuracy")

    @property
    def connections(self) -> list[int]:
        """Connections of the network in each epoch."""
        return self.column("connections")

    @property
    def train_seconds(self) -> list[float]:
        """Time spent on training steps."""
        return self.column("train_seconds")

    @property
    def eval_seconds(self) -> list[float]:
        """Time spent on evaluation."""
        return self.column("eval_seconds")

    @property
    def evolve_seconds(self) -> list[float]:
        """Time spent on evolving the topology."""
        return self.column("evolve_seconds")

    def best(self, metric: str, mode: str = "auto") -> Row:
        """Return the row in which a metric was best; the first of equals.

        Parameters
        ----------
        metric : str
            A column.
        mode : {"auto", "min", "max"}
            Whether less or more is better; "auto" knows it for losses and accuracies.

        Raises
        ------
        ConfigError
            If the metric or mode is unknown.
        DataError
            If the metric was never measured.
        """
        sign = 1.0 if metric_mode(metric, mode) == "min" else -1.0
        scored = [(sign * v, i) for i, v in enumerate(self.column(metric)) if v is not None and not math.isnan(v)]
        if not scored:
            cure = "; pass validation= to fit" if metric.startswith("val_") else ""
            raise DataError(f"{metric} was never measured in {len(self)} epoch(s){cure}")
        return dict(self._rows[min(scored)[1]])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a header and one line an epoch; the file is replaced as a whole.

        Numbers are written so that reading them gives the same bits; what was not measured is an empty cell.
        """
        with replacing(path) as temporary:
            temporary.write_text(self._csv(), encoding="utf-8", newline="")

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(["" if v is None else repr(v) for v in row.values()] for row in self._rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> History:
        """Read a file that `to_csv` wrote.

        Raises
        ------
        DataError
            If the file is missing, is no history, or a line is broken.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            lines = list(csv.reader(text.splitlines()))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{file} cannot be read as a history: {error}") from error
        if not lines or tuple(lines[0]) != COLUMNS:
            got = ",".join(lines[0])[:80] if lines else "nothing"
            raise DataError(f"{file} is no history: its first line is {got!r}, expected {','.join(COLUMNS)!r}")
        if not text.endswith("\n"):
            raise DataError(f"{file} ends in the middle of line {len(lines)}; was it cut short?")
        history = cls()
        for number, cells in enumerate(lines[1:], start=2):
            try:
                history.append(
                    {
                        key: None if cell == "" else int(cell) if key in _WHOLE else float(cell)
                        for key, cell in zip(COLUMNS, cells, strict=True)
                    }
                )
            except ValueError as error:
                raise DataError(f"{file}, line {number} is broken ({error}); was the file cut short?") from error
        return history

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return dict(self._rows[index])

    def __eq__(self, other: object) -> bool:
        return self._csv() == other._csv() if isinstance(other, History) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        if not self._rows:
            return "History(no epochs)"
        last = ", ".join(
            f"{key}={value:,}" if key in _WHOLE else f"{key}={value:.4g}"
            for key, value in self._rows[-1].items()
            if value is not None and key != "epoch"
        )
        return f"History({len(self)} epochs; epoch {self._rows[-1]['epoch']}: {last})"
