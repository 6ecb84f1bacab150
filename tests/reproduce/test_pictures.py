# SPDX-License-Identifier: BSD-3-Clause
"""The pictures beside the tables: what is drawn, not how."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reproduce.conftest import put_data

from trulysparse.reproduce import pictures
from trulysparse.reproduce.cases import RELU, make_case
from trulysparse.reproduce.catalog import TABLES, find_table
from trulysparse.reproduce.table import Options, Results

pytest.importorskip("matplotlib")

Keep = Callable[..., dict[str, Any]]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    put_data("madelon", tmp_path)
    return Options(places=(tmp_path,), out=tmp_path / "out", datasets=("madelon",))


def _drawn(name: str, options: Options) -> Any:
    table, results = find_table(name), Results(options.out, options.places)
    assert table.draw is not None
    return table.draw(table, table.all_rows(options, results), results)


def _lines(axis: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axis.get_lines()}


def test_a_picture_has_the_mean_curve_of_every_row_that_has_runs_in_percent(options: Options, keep: Keep) -> None:
    keep(make_case("madelon", activation=RELU), [0.5, 0.6, 0.7, 0.8])
    keep(make_case("madelon", activation=RELU, seed=1), [0.7, 0.8, 0.9])
    keep(make_case("madelon", pruning=True), [0.5, 0.75])
    (axis,) = _drawn("table2", options).axes
    lines = _lines(axis)
    assert axis.get_title() == "Madelon" and set(lines) == {"ReLU", "All-ReLU (0.5), importance pruning"}
    assert np.allclose(lines["ReLU"].get_xydata(), [[1, 60], [2, 70], [3, 80]])  # where both seeds were measured
    low, high = axis.get_ylim()
    assert 55 < low < 60 and 90 < high < 95
    band = next(iter(axis.collections)).get_paths()[0].vertices
    assert {(1.0, 50.0), (1.0, 70.0), (3.0, 70.0), (3.0, 90.0)} <= {(x, round(y, 9)) for x, y in band}


def test_the_axis_leaves_out_what_only_the_beginning_has(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.1] * 4 + [0.6, 0.7] * 18)
    keep(make_case("madelon", activation=RELU), [0.2, 0.65])  # a short one does not widen it by its beginning
    (axis,) = _drawn("table2", options).axes
    assert axis.get_ylim() == pytest.approx((59.5, 70.5))


def test_a_run_of_one_epoch_is_a_mark(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.6])
    (axis,) = _drawn("table2", options).axes
    assert _lines(axis)["All-ReLU (0.5)"].get_marker() == "o"


def test_a_row_looks_alike_whichever_other_rows_have_runs(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.5, 0.6])
    alone = _lines(_drawn("table2", options).axes[0])["All-ReLU (0.5)"].get_color()
    keep(make_case("madelon", activation=RELU), [0.5, 0.6])
    lines = _lines(_drawn("table2", options).axes[0])
    assert lines["All-ReLU (0.5)"].get_color() == alone != lines["ReLU"].get_color()


def test_epochs_that_are_not_judged_are_not_drawn(options: Options, keep: Keep) -> None:
    result = keep(make_case("madelon"), [0.5, 0.6, 0.9])
    result["curves"]["first_half_accuracy"][2] = None  # one worker's network alone
    line = pictures.mean_line([result], "test_accuracy")
    assert line is not None and line.x.tolist() == [1, 2]


def test_a_run_that_diverged_is_in_no_curve(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.5, 0.6], diverged="the loss became nan")
    assert _drawn("table2", options) is None
    keep(make_case("madelon", seed=1), [0.7, 0.8])
    (axis,) = _drawn("table2", options).axes
    assert np.allclose(_lines(axis)["All-ReLU (0.5)"].get_ydata(), [70, 80])


def test_the_picture_of_table_5_is_accuracy_over_slope_beside_the_papers(tmp_path: Path, keep: Keep) -> None:
    put_data("fashion_mnist", tmp_path)
    options = Options(places=(tmp_path,), out=tmp_path / "out")
    keep(make_case("fashion_mnist", activation=RELU), [0.5, 0.6])
    keep(make_case("fashion_mnist"), [0.8, 0.7])
    keep(make_case("fashion_mnist", activation={"name": "all_relu", "alpha": "auto", "start": 0.5}), [0.9])
    (axis,) = _drawn("table5", options).axes
    lines = _lines(axis)
    assert np.allclose(lines["the paper's, best"].get_xydata()[[0, -1]], [[0, 90.48], [0.9, 91.02]])
    assert np.allclose(lines["slopes that choose themselves, best"].get_ydata(), 90)
    means = {bars.get_label(): bars[0].get_xydata() for bars in axis.containers}
    assert np.allclose(means["best"], [[0, 60], [0.6, 80]]) and np.allclose(means["selected"], means["best"])


def test_slopes_whose_runs_all_diverged_are_no_picture(tmp_path: Path, keep: Keep) -> None:
    put_data("fashion_mnist", tmp_path)
    keep(make_case("fashion_mnist"), [0.8], diverged="the loss became nan")
    assert _drawn("table5", Options(places=(tmp_path,), out=tmp_path / "out")) is None


def test_every_table_with_a_picture_shows_it_and_the_rest_go_without(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.5, 0.6])
    for name, table in TABLES.items():
        results = Results(options.out, options.places)
        if table.draw is None:
            continue
        text, _ = table.render(table, table.all_rows(options, results), results, options)
        file = options.out / f"{name}.png"
        assert f"![{table.title}]({name}.png)" in text and file.read_bytes().startswith(b"\x89PNG")
    assert [name for name, table in TABLES.items() if table.draw is None] == ["table6"]


def test_a_table_without_results_has_no_picture(options: Options) -> None:
    results = Results(options.out, options.places)
    for table in TABLES.values():
        assert pictures.picture_of(table, table.all_rows(options, results), results, options) == ""


def test_without_matplotlib_a_table_goes_without_its_picture_and_says_so(
    options: Options, keep: Keep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_figure(*_: Any) -> None:
        raise ImportError("drawing needs matplotlib")

    monkeypatch.setattr(pictures, "figure", no_figure)
    keep(make_case("madelon"), [0.5, 0.6])
    table, results = find_table("figure5"), Results(options.out, options.places)
    text, _ = table.render(table, table.all_rows(options, results), results, options)
    assert "0.1" in text and "![" not in text
    assert capsys.readouterr().err == "figure5.png skipped: drawing needs matplotlib\n"
