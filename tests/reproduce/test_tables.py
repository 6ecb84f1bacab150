# SPDX-License-Identifier: BSD-3-Clause
"""The tables: their rows, the runs they share, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reproduce.conftest import put_data

import trulysparse as ts
from trulysparse.bench import records
from trulysparse.data import files as data_files
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.reproduce import accuracy_tables
from trulysparse.reproduce.cases import RELU, REVISION, Case, comparable, make_case, recipe_case
from trulysparse.reproduce.catalog import TABLES, find_table
from trulysparse.reproduce.collect import collect
from trulysparse.reproduce.datasets import SOURCES, Shape, fingerprint_of, locate, shape_of
from trulysparse.reproduce.files import PRUNED, RESULT, read_json
from trulysparse.reproduce.paper import TABLE2, TABLE3, TABLE5, TABLE6
from trulysparse.reproduce.pruned_table import PERCENTILES
from trulysparse.reproduce.remarks import union_seconds
from trulysparse.reproduce.run import run_case
from trulysparse.reproduce.table import Options, Results, Row, cases_of

Keep = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any) -> None:
        pytest.fail("a table may not download")

    monkeypatch.setattr(data_files, "_fetch", fetch)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Data sets as large as the paper's, and nothing in them: their content is never read for the rows."""
    for name in ("madelon", "fashion_mnist", "cifar10", "higgs"):
        put_data(name, tmp_path)
    return Options(places=(tmp_path,), out=tmp_path / "out")


def _rows(name: str, options: Options) -> list[Row]:
    return find_table(name).all_rows(options, Results(options.out, options.places))


def _render(name: str, options: Options) -> tuple[str, dict[str, Any]]:
    table, results = find_table(name), Results(options.out, options.places)
    return table.render(table, table.all_rows(options, results), results, options)


def test_table_2_has_the_papers_rows_and_all_its_figures(options: Options) -> None:
    rows = _rows("table2", options)
    sparse = [row for row in rows if row.case is not None]
    assert len([row for row in sparse if row.dataset == "fashion_mnist"]) == 4
    assert len([row for row in sparse if row.dataset == "cifar10"]) == 8  # without and with augmentation
    compared = {row.paper for row in rows}
    present = {"madelon", "fashion_mnist", "cifar10", "higgs"}
    assert {figure for (name, _, _), figure in TABLE2.items() if name in present} <= compared
    dense = [row for row in rows if "dense" in row.cells[0]]
    assert len(dense) == 8 and all(row.case is None and "--dense-minutes" in row.why for row in dense)


def test_an_absent_data_set_is_a_line_and_never_a_download(options: Options) -> None:
    for name, table in TABLES.items():
        rows = _rows(name, options)
        absent = [row for row in rows if row.why.startswith("the data set is absent")]
        assert {row.dataset for row in absent} == set(table.datasets) & {"leukemia", "nakayama"}
        assert all(row.case is None for row in absent)
        text, _ = _render(name, options)
        assert ("no leukemia.npz where --data says" in text) is ("leukemia" in table.datasets)
        assert str(options.places[0]) not in text and str(options.out) not in text


def test_the_figures_that_the_paper_gives_without_augmentation_are_none(options: Options) -> None:
    rows = [row for row in _rows("table2", options) if row.dataset == "cifar10" and row.case is not None]
    for row in rows:
        assert (row.paper.accuracy is not None) is ("augment" in row.case.settings)  # type: ignore[union-attr]


def test_tables_share_runs(options: Options) -> None:
    of_table2 = {case.name for case in cases_of(_rows("table2", options), 1)}
    for name in ("table6", "figure5"):
        assert {case.name for case in cases_of(_rows(name, options), 1)} <= of_table2
    sequential = {case.name for case in cases_of(_rows("table3", options), 1) if case.strategy == "sequential"}
    assert len(sequential) == 6 and sequential <= of_table2
    of_table5 = {case.name for case in cases_of(_rows("table5", options), 1)}
    assert len(of_table5 & of_table2) == 2  # ReLU, and the paper's slope


def test_the_table_of_recipes_has_the_papers_settings_and_the_tuned_ones(options: Options) -> None:
    rows = _rows("recipes", options)
    assert [(row.cells[0], row.cells[2]) for row in rows] == [
        ("the paper's", "no"), ("the paper's", "yes"), ("tuned recipe", "no"),
    ] * 4  # fmt: skip
    for paper, pruned, tuned in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert paper.case is not None and pruned.case is not None and tuned.case is not None
        assert {paper.case.name, pruned.case.name} <= {case.name for case in cases_of(_rows("table2", options), 1)}
        assert paper.paper == TABLE2[paper.dataset, "all_relu", False] and tuned.paper.accuracy is None
        assert pruned.paper == TABLE2[paper.dataset, "all_relu", True]
        recipe = ts.recipes.get(tuned.dataset)
        assert tuned.case.epochs == recipe.epochs and tuned.case.settings == recipe.tables
    short = _rows("recipes", replace(options, epochs=3))
    assert {row.case.epochs for row in short if row.case is not None} == {3}


def test_table_3_has_both_strategies_with_and_without_pruning(options: Options) -> None:
    rows = _rows("table3", options)
    assert {row.paper for row in rows} == set(TABLE3.values()) and len(rows) == 18
    cases = cases_of(rows, 1)
    assert {case.workers for case in cases if case.strategy != "sequential"} == {2}
    assert all("augment" in case.settings for case in cases if case.dataset == "cifar10")


def test_table_3_says_what_its_parallel_rows_do(options: Options) -> None:
    _, data = _render("table3", options)
    said = "\n".join(data["remarks"])
    assert "2 workers and a master, the paper has 5" in said and "by 2: the paper has a larger rate" in said
    _, data = _render("table3", Options(out=options.out, datasets=("digits",), workers=3))
    said = "\n".join(data["remarks"])
    assert "3 workers and a master" in said and "a larger rate" not in said  # digits have no hot start


def test_table_3_says_what_is_missing_where_there_is_no_mpi(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_tables, "find_mpiexec", lambda: None)
    text, _ = _render("table3", options)
    assert text.count("needs MPI: pip install 'trulysparse[mpi]'") == 12


def test_table_5_has_the_grid_of_slopes_and_the_automatic_one(options: Options) -> None:
    rows = _rows("table5", options)
    assert [row.paper.accuracy for row in rows[:11]] == [TABLE5[slope].accuracy for slope in sorted(TABLE5)]
    assert rows[11].cells == ("All-ReLU (automatic)",)
    assert rows[11].case is not None and rows[11].paper.accuracy is None


def test_table_5_also_has_the_slope_of_another_data_set(options: Options) -> None:
    rows = _rows("table5", Options(places=options.places, out=options.out, datasets=("cifar10",)))
    assert "All-ReLU (0.75)" in [row.cells[0] for row in rows]
    assert all(row.paper.accuracy is None for row in rows)


def test_more_seeds_come_after_the_first_of_all_rows(options: Options) -> None:
    cases = cases_of(_rows("table2", options), 3)
    assert [case.seed for case in cases] == sorted(case.seed for case in cases)
    assert len(cases) == 3 * len([case for case in cases if case.seed == 0])
    with_dense = Options(places=options.places, out=options.out, datasets=("madelon",), dense_minutes=1)
    dense = [case for case in cases_of(_rows("table2", with_dense), 3) if case.dense]
    assert [case.seed for case in dense] == [0, 0]  # one seed a dense row, as its line says


def test_a_table_shows_all_seeds_there_are_beside_the_paper(options: Options, keep: Keep) -> None:
    for seed, best in enumerate((0.7, 0.75, 0.8)):
        keep(make_case("madelon", activation=RELU, seed=seed), [0.5, best])
    keep(make_case("madelon", activation=RELU, dense_minutes=5), [0.6])
    text, data = _render("table2", Options(places=options.places, out=options.out, datasets=("madelon",)))
    line = next(line for line in text.splitlines() if line.startswith("| Madelon | ReLU | no |"))
    assert line == (
        "| Madelon | ReLU | no | 68.50 | 75.00 ± 5.00 | 75.00 ± 5.00 | 75.00 ± 5.00 | 19,000 | 100 → 60 "
        "| 3.6 | 1.5 | 5 | 3 | 2 |"
    )
    assert "| Madelon | ReLU | yes | 75.00 | not run yet |" in text
    # weights and biases, as the paper counts them; found although no --dense-minutes was given
    assert "| Madelon | ReLU, dense | no | 59.66 | 60.00 | 60.00 | 60.00 | 281,702 | 122 → 82 |" in text
    assert "as many epochs as 5 minutes allow" in text
    ours = data["rows"][0]["ours"]
    assert ours["best"] == pytest.approx({"mean": 0.75, "deviation": 0.05, "count": 3}) and ours["seeds"] == [0, 1, 2]


def test_minutes_of_all_rows_are_added_where_all_are_there(options: Options, keep: Keep) -> None:
    of_madelon = Options(places=options.places, out=options.out, datasets=("madelon",))
    for activation in (None, RELU):
        for pruning in (False, True):
            text, _ = _render("table2", of_madelon)
            assert "one after the other" not in text
            keep(make_case("madelon", activation=activation, pruning=pruning), [0.6])
    text, _ = _render("table2", of_madelon)
    assert "Madelon: one seed of all 4 rows, one after the other, takes 6.0 minutes; the paper's 14." in text


def test_weight_decay_and_how_it_was_chosen_is_said(options: Options) -> None:
    said = {name: _render(name, options)[1]["remarks"] for name in ("table2", "table3", "table5")}
    for name, titles in (("table2", "CIFAR-10, Fashion-MNIST"), ("table5", "Fashion-MNIST")):
        line = next(line for line in said[name] if line.startswith(f"No weight decay: {titles}."))
        assert "The paper names 2e-4" in line and "with the outcome in view" in line
        assert "--set optimizer.weight_decay=0.0002 gives the other form" in line
    assert "Parallel rows have no weight decay, as the paper's parallel program." in said["table3"]
    assert not any("Parallel rows" in line for line in said["table2"])
    told = replace(options, datasets=("madelon",), changes={"optimizer.weight_decay": 0.0})
    changed = _render("table2", told)[1]["remarks"]
    assert "Settings other than the paper's: optimizer.weight_decay = 0.0." in changed
    assert not any("No weight decay" in line for line in changed)  # nobody but the user chose that


def test_both_decays_shows_the_runs_of_the_other_form_that_are_there(options: Options, keep: Keep) -> None:
    other = {"optimizer.weight_decay": 2e-4}
    keep(make_case("fashion_mnist", changes=other), [0.8])
    keep(make_case("fashion_mnist"), [0.9])
    for both in (False, True):
        told = Options(places=options.places, out=options.out, datasets=("fashion_mnist", "madelon"), both_decays=both)
        text, _ = _render("table2", told)
        line = "| Fashion-MNIST | All-ReLU (0.6), weight decay 2e-4 | no | 91.38 | 80.00 |"
        assert (line in text) is both and text.count("weight decay 2e-4") == both
        assert "| Fashion-MNIST | All-ReLU (0.6) | no | 91.38 | 90.00 |" in text


def test_changed_settings_are_runs_of_their_own_and_said(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.6])
    changed = Options(
        places=options.places, out=options.out, datasets=("madelon",), changes={"trainer.standardize": "global"}
    )
    text, _ = _render("table2", changed)
    assert text.count("not run yet") == 4
    assert "- Settings other than the paper's: trainer.standardize = 'global'." in text


def test_what_differs_from_the_paper_is_said(options: Options, keep: Keep) -> None:
    put_data("higgs", options.places[0], 1000)
    data = {"n_train": 1000, "fingerprint": fingerprint_of("higgs", options.places[0] / "higgs.npz")}
    keep(make_case("higgs", epochs=10), [0.6], data=data, commits=["abc", "def+changes"])
    short = Options(places=options.places, out=options.out, datasets=("higgs", "nakayama"), epochs=10)
    text, data = _render("table2", short)
    assert "Higgs: 1,000 training samples, the paper has 105,000; its figures do not compare and are left out" in text
    assert "Made from commit abc, def+changes; +changes: the source was not quite that of the commit." in text
    assert "Its library: SciPy and Numba for sparse rows, Keras for dense ones" in text
    assert "10 epochs, the paper has 500; start and period of importance pruning are in proportion" in text
    assert all(row["paper"]["accuracy"] is row["paper"]["minutes"] is None for row in data["rows"])
    assert "Nakayama: stands in for Leukemia" in text and "Machine: a processor, 2 cores, avx2" in text
    assert all(f"- {remark}" in text for remark in data["remarks"])


def test_a_result_is_shown_where_its_data_is_absent(tmp_path: Path, keep: Keep) -> None:
    keep(make_case("madelon"), [0.7])
    text, _ = _render("table2", Options(places=(tmp_path,), out=tmp_path / "out", datasets=("madelon",)))
    assert "| Madelon | All-ReLU (0.5) | no | 71.33 | 70.00 |" in text and "absent" not in text


def test_table_6_prunes_the_networks_of_table_2(tmp_path: Path) -> None:
    case = make_case("digits", epochs=5)
    directory = tmp_path / case.name
    directory.mkdir()
    run_case(
        case, directory, ts.load_digits(), threads=1, facts={"jobs": 1}, fingerprint=fingerprint_of("digits", None)
    )
    options = Options(out=tmp_path, datasets=("digits",), epochs=5)
    text, data = _render("table6", options)
    rows = data["rows"]
    assert [row["percentile"] for row in rows] == list(PERCENTILES)
    digits, net = ts.load_digits(), ts.load(directory / "model.safetensors")
    assert rows[0]["connections"] == net.connections
    assert rows[0]["accuracy"]["mean"] == pytest.approx(net.score(digits.X_test, digits.y_test))
    ts.ImportancePruning(25.0).prune(net)
    assert rows[-1]["connections"] == net.connections < rows[0]["connections"]
    assert rows[-1]["accuracy"]["mean"] == pytest.approx(net.score(digits.X_test, digits.y_test))
    (directory / "model.safetensors").unlink()
    assert _render("table6", options) == (text, data)  # measured once
    result = read_json(directory / RESULT)
    (directory / RESULT).write_text(json.dumps(result | {"date": "2027"}), encoding="utf-8")
    with pytest.raises(CheckpointError):  # of another result, so measured again: the network is not there
        _render("table6", options)
    assert {name for name, _ in TABLE6} == {"leukemia", "higgs", "madelon", "fashion_mnist", "cifar10"}


def test_a_best_epoch_from_before_the_pruning_is_said(options: Options, keep: Keep) -> None:
    keep(make_case("madelon", pruning=True), [0.5, 0.8, 0.7])
    keep(make_case("madelon", activation=RELU, pruning=True), [0.5, 0.6, 0.7])
    said = [line for line in _render("table2", options)[1]["remarks"] if "pruned: the best epoch" in line]
    assert said == [
        "Madelon, All-ReLU (0.5), pruned: the best epoch is number 2 on average, with 100 connections. Of the epochs "
        "with about as few as in the end (5 % more at most) the best has 70.00 %."
    ]


def test_settings_of_a_recipe_are_not_taken_for_the_papers(options: Options, keep: Keep) -> None:
    keep(recipe_case("higgs"), [0.7])
    told = Options(places=options.places, out=options.out, datasets=("higgs",))
    assert not any("No weight decay" in line for line in _render("recipes", told)[1]["remarks"])


def test_figure_5_is_the_mean_flow_over_seeds_in_figures_and_a_picture(options: Options, keep: Keep) -> None:
    keep(make_case("madelon", activation=RELU), [0.5, 0.6, 0.7, 0.8])
    keep(make_case("madelon", activation=RELU, seed=1), [0.5, 0.6, 0.7, 0.8, 0.8])
    keep(make_case("madelon"), [0.5, 0.6])
    text, data = _render("figure5", Options(places=options.places, out=options.out, datasets=("madelon",)))
    flows = {row["activation"]: row["flow"] for row in data["rows"]}
    assert np.allclose(flows["ReLU"], [0.1, 0.2, 0.3, 0.4]) and np.allclose(flows["All-ReLU (0.5)"], [0.1, 0.2])
    assert "| Madelon | ReLU | 0.1 | 0.2 | 0.3 | 0.4 | 2 |" in text
    assert "| Madelon | All-ReLU (0.5) | 0.1 | 0.1 | 0.2 | 0.2 | 1 |" in text  # the first epoch is the first half
    assert (options.out / "figure5.png").read_bytes().startswith(b"\x89PNG")


def test_collected_results_are_small_lines_and_each_once(tmp_path: Path, keep: Keep) -> None:
    result = keep(make_case("madelon"), [epoch / 1000 for epoch in range(500)])
    file = tmp_path / "results.jsonl"
    assert collect([result], file) == 1 and collect([result], file) == 0
    other = keep(make_case("madelon", seed=1), [0.5])
    assert collect([result, other], file) == 1
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["case"]["seed"] for line in lines] == [0, 1]
    curves = lines[0]["curves"]
    assert curves["epoch"] == list(range(10, 501, 10)) and curves["test_accuracy"][-1] == 0.499
    accuracy = dict.fromkeys(("best", "last", "selected", "best_in_the_end"), 0.499)
    assert lines[0]["accuracy"] == accuracy | {"best_epoch": 500, "best_connections": 60}
    assert lines[0]["seconds"]["train"] == 500.0


def test_what_is_collected_is_read_as_records_and_the_last_line_of_a_case_counts(tmp_path: Path, keep: Keep) -> None:
    file, case = tmp_path / "results.jsonl", make_case("madelon")
    first, other = keep(case, [0.5]), keep(make_case("madelon", seed=1), [0.6])
    again = keep(case, [0.7], date="2026-02-02", threads=2)
    assert collect([first, other], file) == 2 and collect([again, other], file) == 1
    found = {record["name"]: record for record in records.read(file)}
    assert len(found) == len(records.read(file)) == 2
    assert found[case.name]["accuracy"]["best"] == 0.7 and found[case.name]["date"] == "2026-02-02"
    assert Case.from_json(found[case.name]["case"]) == case


def test_data_is_found_by_name_in_any_of_the_places(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    arrays = {"y_train": np.zeros(5, np.uint8), "y_test": np.zeros(3, np.uint8)}
    np.savez(tmp_path / "a" / "higgs_26k.npz", X_train=np.zeros((5, 28)), X_test=np.zeros((3, 28)), **arrays)
    places = (tmp_path, tmp_path / "a")
    file = locate("higgs", places)
    assert file == tmp_path / "a" / "higgs_26k.npz" and shape_of("higgs", file) == Shape(5, 3, 28)
    assert locate("higgs", (file,)) == file and locate("madelon", (file,)) is None
    (tmp_path / "higgs.npz").touch()
    assert locate("higgs", places) == tmp_path / "higgs.npz"


def test_an_unknown_table_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'table2'"):
        find_table("tabel2")


def test_diverged_runs_are_in_no_column(options: Options, keep: Keep) -> None:
    bad = {"diverged": "the loss became nan", "wall_minutes": 99.0, "peak_bytes": 10**9, "connections_end": 1}
    for seed, changes in enumerate(({}, {}, bad)):
        keep(make_case("madelon", activation=RELU, seed=seed), [0.6, 0.7, 0.7, 0.7], **changes)
    keep(make_case("madelon"), [0.1], **bad)
    told = Options(places=options.places, out=options.out, datasets=("madelon",))
    text, _ = _render("table2", told)
    line = next(line for line in text.splitlines() if line.startswith("| Madelon | ReLU | no |"))
    assert line.endswith("| 100 → 60 | 3.6 | 1.5 | 5 | mean of 2 of 3 seeds, 1 diverged | 4 |")
    line = next(line for line in text.splitlines() if line.startswith("| Madelon | All-ReLU (0.5) | no |"))
    assert line.endswith("| – | – | – | 19,011 | – | 3.6 | – | – | mean of 0 of 1 seeds, 1 diverged | – |")
    text, data = _render("figure5", told)
    assert "| 0.1 | 0.2 | 0.3 | 0.4 | mean of 2 of 3 seeds, 1 diverged |" in text
    assert data["rows"][0]["seeds"] == 2 and "flow" not in data["rows"][1]


def test_results_of_other_data_or_another_revision_are_left_out_and_said(options: Options, keep: Keep) -> None:
    keep(make_case("madelon"), [0.6])
    keep(make_case("madelon", seed=1), [0.9], data={"n_train": 2000, "fingerprint": "other"})
    keep(replace(make_case("madelon"), revision=REVISION - 1), [0.9])
    told = Options(places=options.places, out=options.out, datasets=("madelon",))
    text, data = _render("table2", told)
    ours = next(row for row in data["rows"] if row["ours"])["ours"]
    assert ours["best"] == {"mean": 0.6, "deviation": 0.0, "count": 1} and ours["seeds"] == [0]
    assert "Madelon: 2 results are left out, of other data than those that are there now" in text


def test_of_absent_data_the_newest_result_says_which_count(tmp_path: Path, keep: Keep) -> None:
    for seed, (fingerprint, date) in enumerate((("old", "2025"), ("new", "2026"))):
        data = {"n_train": 2000, "fingerprint": fingerprint}
        keep(make_case("madelon", seed=seed), [0.6 + 0.1 * seed], data=data, date=date)
    results = Results(tmp_path / "out")
    assert [run["case"]["seed"] for run in results.of(make_case("madelon"))] == [1]
    assert results.left_out == {"madelon": 1}


def test_the_papers_figures_stand_beside_the_papers_data_and_augmentation_in_all_tables(options: Options) -> None:
    assert comparable(make_case("madelon"), 2000) and not comparable(make_case("madelon"), 1999)
    assert not comparable(make_case("cifar10"), 50_000) and comparable(make_case("cifar10", augment=True), 50_000)
    assert not comparable(make_case("nakayama"), 10) and not comparable(make_case("madelon"), None)
    plain = Options(places=options.places, out=options.out, datasets=("cifar10",), augment=False, dense_minutes=1.0)
    for name in ("table2", "table3"):
        assert {row.paper.accuracy for row in _rows(name, plain)} == {None}
    for known in SOURCES.values():
        if known.name not in ("digits", "leukemia"):
            put_data(known.name, options.places[0], 10)
    for name in ("table2", "table3", "table5"):
        rows = _rows(name, Options(places=options.places, out=options.out, dense_minutes=1.0))
        assert {row.paper.accuracy for row in rows if row.case is not None} == {None}
    assert "the paper's" not in _render("table2", plain)[0].split("one after the other")[-1].splitlines()[0]


def test_the_time_by_the_clock_counts_what_overlaps_once(options: Options, keep: Keep) -> None:
    assert union_seconds([[0, 10], [5, 20], [30, 40], [32, 33]]) == 30 and union_seconds([]) == 0
    keep(make_case("madelon"), [0.6], intervals=[[0.0, 60.0], [120.0, 180.0]])
    keep(make_case("madelon", activation=RELU), [0.6], intervals=[[30.0, 90.0]])
    text, _ = _render("table2", Options(places=options.places, out=options.out, datasets=("madelon",)))
    assert "Madelon: the 2 runs of this table took 2.5 minutes by the clock" in text


def test_table_6_marks_the_papers_doubtful_figure(tmp_path: Path, keep: Keep) -> None:
    case = make_case("cifar10", augment=True)
    put_data("cifar10", tmp_path)
    result = keep(case, [0.6])
    networks = {str(p): {"accuracy": 0.6, "connections": 100} for p in PERCENTILES}
    kept = json.dumps({"of": result["date"], "networks": networks})
    (tmp_path / "out" / case.name / PRUNED).write_text(kept, encoding="utf-8")
    text, _ = _render("table6", Options(places=(tmp_path,), out=tmp_path / "out", datasets=("cifar10",)))
    assert "| CIFAR-10 | 25 | 66.57 | 60.00 | 276,349? | 100 | 1 |" in text
    assert "- ?: the paper's 276,349 is out of line" in text
