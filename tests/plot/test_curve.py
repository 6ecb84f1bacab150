# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest

from trulysparse.errors import DataError
from trulysparse.plot import learning_curve
from trulysparse.trainer.history import History, Row


def _row(epoch: int, **values: Any) -> Row:
    row: Row = {"epoch": epoch, "loss": 1.0 / epoch, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4}
    row |= {"connections": 900, "train_seconds": 0.1, "eval_seconds": 0.0, "evolve_seconds": 0.0}
    return row | values


def _size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_two_panels_are_written_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "curve.png"
    assert learning_curve(History(_row(e) for e in range(1, 6)), target, title="a run") == target
    width, height = _size(target)
    assert width > 2 * height
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    "rows",
    [
        [_row(e, accuracy=None, val_accuracy=None) for e in range(1, 4)],
        [_row(e, accuracy=None, val_accuracy=None, val_loss=None) for e in range(1, 4)],
    ],
)
def test_a_regression_has_one_panel(tmp_path: Path, rows: list[Row]) -> None:
    learning_curve(History(rows), tmp_path / "curve.png")
    width, height = _size(tmp_path / "curve.png")
    assert width < 2 * height


@pytest.mark.parametrize("values", [[0.5], [None, 0.5, None, 0.7], [float("nan"), float("inf")]])
def test_gaps_and_single_epochs_are_drawn(tmp_path: Path, values: list[float | None]) -> None:
    learning_curve(History(_row(i + 1, val_loss=v) for i, v in enumerate(values)), tmp_path / "curve.png")
    assert _size(tmp_path / "curve.png")[0] > 0


def test_empty_history_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no epochs"):
        learning_curve(History(), tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_pyplot_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    learning_curve(History([_row(1)]), tmp_path / "curve.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_missing_matplotlib_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'trulysparse\[plot\]'"):
        learning_curve(History([_row(1)]), tmp_path / "curve.png")
