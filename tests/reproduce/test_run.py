# SPDX-License-Identifier: BSD-3-Clause
"""One case: what it leaves behind, and that an interrupted one ends as if it had not been."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.bench.machine import provenance
from trulysparse.reproduce import run as module
from trulysparse.reproduce.accuracy_tables import TABLE_5
from trulysparse.reproduce.cases import Case, make_case
from trulysparse.reproduce.datasets import fingerprint_of
from trulysparse.reproduce.files import (
    CASE,
    CHECKPOINT,
    HISTORY,
    MODEL,
    PROGRESS,
    PRUNED,
    RESULT,
    Place,
    held,
    read_json,
)
from trulysparse.reproduce.measure import PROBE, Measure, halves
from trulysparse.reproduce.remarks import remarks
from trulysparse.reproduce.run import main, run_case
from trulysparse.reproduce.table import Options, Results
from trulysparse.trainer import History

CLOCKS = ("train_seconds", "evaluate_seconds", "evolve_seconds")


def _run(case: Case, out: Path, **options: Any) -> dict[str, Any]:
    place = Place(out, case)
    place.prepare()
    known = {"facts": {"jobs": 1}, "fingerprint": fingerprint_of("digits", None)}
    run_case(case, place.directory, ts.load_digits(), threads=1, **(known | options))
    return place.result()


def test_halves_are_fixed_and_stratified() -> None:
    labels = np.repeat(np.arange(3), [10, 7, 4])[np.random.default_rng(0).permutation(21)]
    first, second = halves(labels)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(21))
    assert abs(len(first) - len(second)) <= 1
    for label in range(3):
        assert abs(np.count_nonzero(labels[first] == label) - np.count_nonzero(labels[second] == label)) <= 1
    assert all(np.array_equal(a, b) for a, b in zip((first, second), halves(labels), strict=True))


def test_a_run_leaves_result_network_and_history(tmp_path: Path) -> None:
    case = make_case("digits", pruning=True, epochs=5)
    result = _run(case, tmp_path)
    directory = Place(tmp_path, case).directory
    assert {path.name for path in directory.iterdir()} == {CASE, RESULT, MODEL, HISTORY}  # no checkpoint stays
    data, curves = ts.load_digits(), result["curves"]
    net = ts.load(directory / MODEL)
    assert result["connections_end"] == net.connections == curves["connections"][-1]
    assert result["connections_start"] == curves["connections"][0]
    assert result["biases"] == 256 + 256 + 10
    assert result["case"] == case.to_json() and result["resolved"]["trainer"]["seed"] == 0
    assert {key: len(values) for key, values in curves.items()} == dict.fromkeys(curves, 5)
    assert net.score(data.X_test, data.y_test) == pytest.approx(curves["test_accuracy"][-1], abs=1e-9)
    first, second = halves(data.y_test)
    assert net.score(data.X_test[first], data.y_test[first]) == pytest.approx(curves["first_half_accuracy"][-1])
    assert net.score(data.X_test[second], data.y_test[second]) == pytest.approx(curves["second_half_accuracy"][-1])
    history = History.from_csv(directory / HISTORY)
    assert history.val_accuracy == curves["test_accuracy"] and history.loss == curves["train_loss"]
    assert result["wall_minutes"] * 60 >= sum(sum(curves[clock]) for clock in CLOCKS) * 0.99
    assert result["peak_bytes"] > 10e6 and {"cpu", "cores", "isa", "date", "commit"} <= result.keys()


def test_gradient_flow_is_measured_on_a_fixed_part_of_the_training_samples(tmp_path: Path) -> None:
    case = make_case("digits", epochs=2)
    result = _run(case, tmp_path)
    data = ts.load_digits()
    measure = Measure(data)
    net = ts.load(Place(tmp_path, case).directory / MODEL)
    assert len(measure._probe[0]) == PROBE
    expected = ts.gradient_flow(net, *measure._probe).total
    assert result["curves"]["gradient_flow"][-1] == pytest.approx(expected, rel=1e-6)
    assert result["curves"]["gradient_flow"][0] != result["curves"]["gradient_flow"][1]


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("digits", pruning=True, epochs=10)
    whole = _run(case, tmp_path / "whole")

    class Stop(Exception):
        pass

    class Interrupted(Measure):
        def on_epoch_start(self, trainer: ts.Trainer, epoch: int) -> None:
            if epoch == 6:
                trainer.save_checkpoint(trainer.checkpoint)  # type: ignore[arg-type]
                raise Stop

    Interrupted.__name__ = "Measure"  # what the checkpoint writes down
    monkeypatch.setattr(module, "Measure", Interrupted)
    with pytest.raises(Stop):
        _run(case, tmp_path / "parts", origin=provenance() | {"commit": "one"})
    monkeypatch.undo()
    directory = Place(tmp_path / "parts", case).directory
    assert (directory / CHECKPOINT).is_file() and not (directory / RESULT).exists()
    assert read_json(directory / PROGRESS)["epochs"] == 10
    parts = _run(case, tmp_path / "parts", origin=provenance() | {"commit": "two"})
    assert parts["commits"] == ["one", "two"] and parts["commit"] == "two"
    (begun, stopped), (resumed, ended) = parts["intervals"]
    assert begun < stopped <= resumed < ended and len(whole["intervals"]) == 1
    assert not (directory / CHECKPOINT).exists() and not (directory / PROGRESS).exists()
    for key, values in whole["curves"].items():
        assert key in CLOCKS or parts["curves"][key] == values, key
    for key in ("connections_start", "connections_end", "epochs"):
        assert parts[key] == whole[key]
    model = [(place / case.name / MODEL).read_bytes() for place in (tmp_path / "whole", tmp_path / "parts")]
    assert model[0] == model[1]


def test_the_seed_of_a_case_is_that_of_network_and_run(tmp_path: Path) -> None:
    results = [_run(make_case("digits", epochs=1, seed=seed), tmp_path) for seed in (0, 1)]
    assert [result["resolved"]["trainer"]["seed"] for result in results] == [0, 1]
    assert [result["resolved"]["model"]["seed"] for result in results] == [0, 1]
    assert results[0]["curves"]["train_loss"] != results[1]["curves"]["train_loss"]


def test_a_dense_run_ends_when_its_minutes_are_over(tmp_path: Path) -> None:
    case = make_case("digits", dense_minutes=1e-6)
    result = _run(case, tmp_path)
    assert result["epochs"] == 1 and "minutes that it was given" in result["stop_reason"]
    assert result["connections_start"] == 64 * 256 + 256 * 256 + 256 * 10


def test_a_run_that_diverges_is_a_result(tmp_path: Path) -> None:
    case = make_case("digits", epochs=3)
    case.settings["optimizer"]["lr"] = 1e30
    result = _run(case, tmp_path)
    assert "the loss became" in result["diverged"] and result["epochs"] == len(result["curves"]["epoch"]) < 3


def test_two_processes_never_work_on_the_same_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, make_case("digits", epochs=1))
    file = place.prepare()
    with held(place.directory) as mine:
        assert mine and place.taken
        assert main([str(file), "--threads", "1"]) == 3
    assert "another process works on this case" in capsys.readouterr().err
    assert not place.done and not place.taken
    assert main([str(file), "--threads", "1", "--facts", json.dumps({"jobs": 4})]) == 0
    assert place.result()["jobs"] == 4


def test_what_goes_wrong_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, make_case("madelon"))
    assert main([str(place.prepare())]) == 1
    assert "--data DIR says where madelon.npz is" in capsys.readouterr().err
    assert not place.done


def test_learned_slopes_are_in_the_result_and_under_the_table(tmp_path: Path) -> None:
    case = make_case("digits", activation={"name": "all_relu", "alpha": "auto", "start": 0.5}, epochs=2)
    result = _run(case, tmp_path)
    net = ts.load(Place(tmp_path, case).directory / MODEL)
    learned = [float(layer.activation_parameters["slope"][0]) for layer in net.layers[:-1]]
    assert result["slopes"] == learned and learned[0] < 0 < learned[1] and learned != [-0.5, 0.5]
    options = Options(out=tmp_path, datasets=("digits",), epochs=2)
    results = Results(tmp_path)
    said = remarks(TABLE_5.all_rows(options, results), results, options)
    assert f"digits, automatic slopes, seed 0: the layers learned {learned[0]:.2f}, {learned[1]:.2f}." in said
    assert _run(make_case("digits", epochs=1), tmp_path)["slopes"] is None


def test_an_augmented_case_is_trained_on_changed_images(tmp_path: Path) -> None:
    plain, augmented = make_case("digits", epochs=2), make_case("digits", epochs=2)
    augmented.settings["augment"] = {"name": "image", "shape": [1, 8, 8], "rotation": 10.0, "shift": 0.1, "flip": True}
    results = [_run(case, tmp_path) for case in (plain, augmented)]
    assert results[1]["resolved"]["trainer"]["augment"]["shape"] == [1, 8, 8]
    assert "augmented" in augmented.label and results[0]["connections_start"] == results[1]["connections_start"]
    assert results[0]["curves"]["train_loss"] != results[1]["curves"]["train_loss"]


def test_provenance_is_that_of_when_the_process_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["first", "later"])
    monkeypatch.setattr(module, "provenance", lambda: provenance() | {"commit": next(commits)})
    load = module.load

    def load_late(*arguments: Any) -> Any:
        assert next(commits) == "later"  # the source changed, after provenance was taken
        return load(*arguments)

    monkeypatch.setattr(module, "load", load_late)
    place = Place(tmp_path, make_case("digits", epochs=1))
    assert main([str(place.prepare()), "--threads", "1", "--facts", '{"jobs": 1}']) == 0
    assert place.result()["commit"] == "first" and place.result()["commits"] == ["first"]


def test_a_result_that_is_there_already_is_left_alone_and_no_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, make_case("madelon", epochs=1))
    file = place.prepare()
    (place.directory / RESULT).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("data were loaded"))
    assert main([str(file)]) == 0 and place.result() == {}


def test_looking_does_not_take_the_lock_and_an_owner_waits_for_those_who_look(tmp_path: Path) -> None:
    place = Place(tmp_path, make_case("digits", epochs=1))
    place.prepare()
    assert not place.taken and not (place.directory / "lock").exists()
    with held(place.directory) as mine:
        assert mine
    with (place.directory / "lock").open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)  # as one that looks
        assert not place.taken
        threading.Timer(0.2, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with held(place.directory) as mine:
            assert mine and place.taken
    assert not place.taken


def test_what_was_pruned_of_an_earlier_result_goes_with_it(tmp_path: Path) -> None:
    case = make_case("digits", epochs=1)
    directory = Place(tmp_path, case).prepare().parent
    (directory / PRUNED).write_text("{}", encoding="utf-8")
    _run(case, tmp_path)
    assert not (directory / PRUNED).exists()


def test_the_clock_starts_with_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure(ts.load_digits())
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr("trulysparse.reproduce.measure.time.monotonic", lambda: float(next(seconds)))
    measure.state_dict()
    assert measure.wall_seconds == 0.0
    measure.on_epoch_start(None, 1)  # type: ignore[arg-type]
    measure.on_epoch_start(None, 2)  # type: ignore[arg-type]  # does not start it anew
    measure.state_dict()
    assert measure.wall_seconds == 10.0
