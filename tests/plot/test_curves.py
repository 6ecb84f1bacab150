# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trulysparse.errors import ConfigError, DataError
from trulysparse.plot import learning_curves
from trulysparse.trainer.history import History, Row


def _row(epoch: int, **values: Any) -> Row:
    row: Row = {"epoch": epoch, "loss": 1.0 / epoch, "accuracy": 0.5, "val_loss": 1.1, "val_accuracy": 0.4}
    row |= {"connections": 900, "train_seconds": 0.1, "eval_seconds": 0.0, "evolve_seconds": 0.0}
    return row | values


def _history(*accuracies: float | None, **values: Any) -> History:
    return History(_row(i, val_accuracy=v, **values) for i, v in enumerate(accuracies, start=1))


def _lines(drawn: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in drawn.axes[0].get_lines()]


def _names(drawn: Any) -> list[str]:
    drawn.canvas.draw()  # what cannot be drawn fails here
    return [text.get_text() for text in drawn.legends[0].get_texts()]


def test_every_run_is_a_line_of_its_own_with_its_name() -> None:
    runs = {"set": _history(0.2, 0.5, 0.6), "rigl": _history(0.3, 0.6, 0.8), "static": _history(0.1, 0.7)}
    drawn = learning_curves(runs)
    assert _lines(drawn) == [
        ([1, 2, 3], [0.2, 0.5, 0.6]),
        ([1, 2, 3], [0.3, 0.6, 0.8]),
        ([1, 2], [0.1, 0.7]),
    ]
    assert _names(drawn) == ["rigl", "static", "set"]  # as the lines end, from the top
    assert not drawn.axes[0].collections


def test_a_path_gets_the_picture_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "curves.png"
    assert learning_curves({"a": _history(0.1, 0.2)}, target, title="runs") == target
    assert target.read_bytes().startswith(b"\x89PNG\r\n")
    assert list(target.parent.iterdir()) == [target]


def test_seconds_are_cumulated_training_and_evolution_without_evaluation() -> None:
    rows = [
        _row(1, train_seconds=1.0, evolve_seconds=0.0, eval_seconds=9.0),
        _row(2, train_seconds=2.0, evolve_seconds=0.5, eval_seconds=9.0),
    ]
    (line,) = _lines(learning_curves({"a": History(rows)}, x="seconds"))
    assert line[0] == [1.0, 3.5]


def test_seconds_of_unmeasured_epochs_count() -> None:
    ((x, y),) = _lines(learning_curves({"a": _history(None, 0.5, None, 0.7, train_seconds=2.0)}, x="seconds"))
    assert (x, y) == ([4.0, 8.0], [0.5, 0.7])


def test_several_histories_of_a_name_are_a_mean_with_a_band_from_least_to_largest() -> None:
    drawn = learning_curves({"set": [_history(0.2, 0.5), _history(0.4, 0.6), _history(0.3, 1.0)]})
    ((x, y),) = _lines(drawn)
    assert x == [1, 2] and y == pytest.approx([0.3, 0.7])
    (band,) = drawn.axes[0].collections
    corners = band.get_paths()[0].vertices
    for epoch, low, high in ((1, 0.2, 0.4), (2, 0.5, 1.0)):
        heights = corners[corners[:, 0] == epoch][:, 1]
        assert (heights.min(), heights.max()) == (low, high)
    assert _names(drawn) == ["set (3 runs)"]


def test_the_mean_is_over_epochs_that_every_history_measured() -> None:
    ((x, y),) = _lines(learning_curves({"a": [_history(0.1, None, 0.3, 0.9), _history(0.3, 0.4, 0.5)]}))
    assert x == [1, 3] and y == pytest.approx([0.2, 0.4])


def test_several_histories_stand_at_their_mean_seconds() -> None:
    runs = {"a": [_history(0.1, 0.2, train_seconds=1.0), _history(0.1, 0.2, train_seconds=3.0)]}
    ((x, _),) = _lines(learning_curves(runs, x="seconds"))
    assert x == [2.0, 4.0]


def test_the_first_28_lines_all_look_different() -> None:
    drawn = learning_curves({f"run {i}": _history(0.1, 0.2) for i in range(28)})
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].get_lines()}
    assert len(looks) == 28
    assert len(_names(drawn)) == 28


@pytest.mark.parametrize("metric", ["loss", "accuracy", "val_loss", "connections"])
def test_any_column_can_be_drawn(metric: str) -> None:
    drawn = learning_curves({"a": History([_row(1), _row(2)])}, metric=metric)
    assert _lines(drawn)[0][1] == History([_row(1), _row(2)]).column(metric)
    assert drawn.axes[0].get_ylabel() == metric


def test_diverged_runs_leave_a_gap_and_come_last() -> None:
    nan = float("nan")
    runs = {"lost": _history(nan, nan), "good": _history(0.1, 0.2), "half": [_history(0.3, nan), _history(0.3, 0.4)]}
    drawn = learning_curves(runs)
    assert _names(drawn) == ["half (2 runs)", "good", "lost"]
    assert np.isnan(_lines(drawn)[2][1]).tolist() == [False, True]


def test_one_epoch_is_a_point() -> None:
    (line,) = learning_curves({"a": _history(0.5)}).axes[0].get_lines()
    assert line.get_marker() == "o"


def test_names_are_taken_literally_and_long_ones_lose_their_middle() -> None:
    runs = {
        "$a_1": _history(0.9),
        "_hidden": _history(0.8),
        "$\\frac{$": _history(0.7),
        "d" * 60 + "/end": _history(0.6),
    }
    names = _names(learning_curves(runs))
    assert [name.strip().replace(r"\$", "$") for name in names[:3]] == ["$a_1", "_hidden", "$\\frac{$"]
    assert names[3].startswith("ddd") and "…" in names[3] and names[3].endswith("/end") and len(names[3]) <= 32


@pytest.mark.parametrize("given", [{}, [], None, {"a": []}, {"a": 3}, {"a": [_history(0.1), None]}, _history(0.1)])
def test_only_histories_by_name_are_taken(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learning_curves takes"):
        learning_curves(given, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_unknown_metrics_and_axes_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"no column 'acuracy'; its columns are epoch, loss"):
        learning_curves({"a": _history(0.1)}, metric="acuracy")
    with pytest.raises(ConfigError, match=r"x of learning_curves must be one of epoch, seconds, got 'time'"):
        learning_curves({"a": _history(0.1)}, x="time")


def test_a_run_without_the_metric_is_named_with_what_it_has() -> None:
    with pytest.raises(DataError, match=r"val_accuracy was never measured in the run 'b'; measured were epoch, loss"):
        learning_curves({"a": _history(0.1), "b": _history(None, None)})
    with pytest.raises(DataError, match=r"'b', which has no epochs yet"):
        learning_curves({"a": _history(0.1), "b": History()})
    with pytest.raises(DataError, match=r"2 histories of 'a' share no epoch"):
        learning_curves({"a": [_history(0.1, None), _history(None, 0.1)]})


def test_missing_matplotlib_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'trulysparse\[plot\]'"):
        learning_curves({"a": _history(0.1)})
