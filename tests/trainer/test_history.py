# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trulysparse.errors import ConfigError, DataError
from trulysparse.trainer.history import COLUMNS, History, Row


def _row(epoch: int, **values: Any) -> Row:
    row: Row = {
        "epoch": epoch,
        "loss": 1.0 / epoch,
        "accuracy": 0.1 * epoch,
        "val_loss": 0.3,
        "val_accuracy": 0.7,
        "connections": 1000 - epoch,
        "train_seconds": 0.1,
        "eval_seconds": 0.0,
        "evolve_seconds": 1e-300,
    }
    return row | values


def test_columns_are_attributes() -> None:
    history = History([_row(1), _row(2)])
    assert history.loss == [1.0, 0.5]
    assert history.connections == [999, 998]
    assert history.epoch == [1, 2]
    assert history.columns == {name: getattr(history, name) for name in COLUMNS}
    assert (len(history), history[-1]["epoch"], [r["epoch"] for r in history]) == (2, 2, [1, 2])


def test_rows_are_copies() -> None:
    history = History([_row(1)])
    history.rows[0]["loss"] = 7.0
    history[0]["loss"] = 7.0
    assert history.loss == [1.0]


def test_numpy_numbers_become_python_numbers() -> None:
    history = History([_row(1, connections=np.int64(3), loss=np.float32(0.5), val_loss=1)])
    assert json.loads(json.dumps(history.rows)) == history.rows
    assert type(history.connections[0]) is int
    assert type(history.loss[0]) is type(history.val_loss[0]) is float


@pytest.mark.parametrize(
    "row",
    [
        _row(1, loss=0.1 + 0.2, accuracy=np.nextafter(0.5, 1), train_seconds=5e-324),
        _row(1, accuracy=None, val_loss=None, val_accuracy=None),
        _row(1, loss=math.inf, val_loss=math.nan),
    ],
)
def test_csv_round_trip_is_exact(tmp_path: Path, row: Row) -> None:
    history = History([row, _row(2)])
    path = tmp_path / "new" / "history.csv"
    history.to_csv(path)
    assert History.from_csv(path) == history
    assert History(json.loads(json.dumps(history.rows))) == history
    assert [p.name for p in path.parent.iterdir()] == ["history.csv"]


def test_csv_is_plain(tmp_path: Path) -> None:
    History([_row(1, val_loss=None, val_accuracy=None, train_seconds=2.5, evolve_seconds=0.0)]).to_csv(
        tmp_path / "h.csv"
    )
    assert (tmp_path / "h.csv").read_bytes() == (
        b"epoch,loss,accuracy,val_loss,val_accuracy,connections,train_seconds,eval_seconds,evolve_seconds\n"
        b"1,1.0,0.1,,,999,2.5,0.0,0.0\n"
    )


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    History([_row(1)]).to_csv(path)
    before = path.read_bytes()

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        History([_row(1), _row(2)]).to_csv(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "first line is 'nothing'"),
        ("epoch,loss\n1,2\n", "is no history"),
        (",".join(COLUMNS) + "\n1,0.5,,,\n", "line 2 is broken"),
        (",".join(COLUMNS) + "\n1,0.5,x,,,3,0,0,0\n", "line 2 is broken"),
        (",".join(COLUMNS) + "\n1,,,,,3,0,0,0\n", "line 2 is broken .*loss needs a number"),
        (",".join(COLUMNS) + "\n1,0.5,,,,3,0,0,0.12", "ends in the middle of line 2"),
        (",".join(COLUMNS) + "\n2,0.5,,,,3,0,0,0\n1,0.5,,,,3,0,0,0\n", "line 3 is broken .*cannot follow"),
    ],
)
def test_broken_csv_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "history.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        History.from_csv(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (_row(2) | {"speed": 3.0}, "unknown history column speed"),
        (_row(1), "epoch 1 cannot follow epoch 1"),
        (_row(2, loss=None), "loss needs a number, got None"),
        (_row(2, loss="0.5"), "loss needs a number"),
        (_row(2, connections=1.5), "connections needs a whole number"),
        (_row(2, accuracy=True), "accuracy needs a number or None"),
    ],
)
def test_wrong_rows_are_refused(row: Row, message: str) -> None:
    history = History([_row(1)])
    with pytest.raises(ConfigError, match=message):
        history.append(row)
    assert len(history) == 1


def test_best() -> None:
    values = [(0.5, 0.2), (0.4, 0.9), (math.nan, math.nan), (0.4, 0.9), (None, None)]
    history = History(_row(i + 1, val_loss=v, val_accuracy=a) for i, (v, a) in enumerate(values))
    assert history.best("val_loss")["epoch"] == 2
    assert history.best("val_accuracy")["epoch"] == 2
    assert history.best("val_loss", mode="max")["epoch"] == 1
    assert history.best("connections", mode="min")["epoch"] == 5


def test_best_needs_a_measured_metric_and_a_direction() -> None:
    history = History([_row(1, val_loss=None)])
    with pytest.raises(DataError, match=r"never measured.*pass validation="):
        history.best("val_loss")
    with pytest.raises(ConfigError, match='mode="min" or mode="max"'):
        history.best("connections")
    with pytest.raises(ConfigError, match="is unknown"):
        history.best("loss", mode="least")
    with pytest.raises(ConfigError, match="metric 'speed' is not in the history"):
        history.best("speed")
    with pytest.raises(ConfigError, match="no column 'speed'"):
        history.column("speed")


def test_repr_and_equality() -> None:
    assert repr(History()) == "History(no epochs)"
    assert repr(History([_row(1, accuracy=None)])).startswith("History(1 epochs; epoch 1: loss=1, val_loss=0.3")
    assert History([_row(1)]) == History([_row(1)])
    assert History([_row(1)]) != History([_row(1, loss=1.0000000000000002)])
    assert History() != []
