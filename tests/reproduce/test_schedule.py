# SPDX-License-Identifier: BSD-3-Clause
"""Many cases: each once, some at a time, and what is stopped goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trulysparse.cli import main
from trulysparse.reproduce import schedule
from trulysparse.reproduce.cases import RELU, make_case
from trulysparse.reproduce.files import CHECKPOINT, LOG, PROGRESS, RESULT, Place, held
from trulysparse.reproduce.schedule import listing, run_cases


def _stamps(out: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in out.glob(f"*/{RESULT}")}


def test_each_case_runs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [make_case("digits", epochs=2), make_case("digits", activation=RELU, epochs=2)]
    assert listing(cases, tmp_path) == "\n".join(f"{case.name}: not begun" for case in cases)
    outcome = run_cases(cases, tmp_path, (), jobs=2)
    assert (outcome.finished, outcome.failed, outcome.signal) == (2, {}, None)
    told = capsys.readouterr().err
    assert "[1/2] digits-" in told and "[2/2] digits-" in told
    before = _stamps(tmp_path)
    assert set(before) == {case.name for case in cases}
    assert all(line.split(": ")[1] == "done" for line in listing(cases, tmp_path).splitlines())
    more = [*cases, make_case("digits", epochs=2, seed=1)]
    assert run_cases(more, tmp_path, (), jobs=1).finished == 1
    assert "2 of 3 results are there already" in capsys.readouterr().err
    after = _stamps(tmp_path)
    assert len(after) == 3 and before.items() <= after.items()
    result = json.loads((tmp_path / more[2].name / RESULT).read_text(encoding="utf-8"))
    assert result["jobs"] == 1 and result["threads"] >= 1


def test_a_case_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "madelon.npz").write_bytes(b"")
    arrays = {"y_train": np.zeros(64, np.uint8), "y_test": np.ones(8, np.uint8)}
    X = np.ones((64, 500), np.float32)
    X[0, 0] = np.nan
    np.savez(tmp_path / "madelon.npz", X_train=X, X_test=X[:8], **arrays)
    broken, fine = make_case("madelon", epochs=2), make_case("digits", epochs=1)
    outcome = run_cases([broken, fine], tmp_path / "out", (tmp_path,), jobs=1, quiet=True)
    assert outcome.finished == 1 and list(outcome.failed) == [broken.name]
    assert "NaN" in outcome.failed[broken.name] or "finite" in outcome.failed[broken.name]
    assert str(tmp_path / "out" / broken.name / LOG) in outcome.failed[broken.name]


def test_a_result_of_other_data_is_told_and_not_used_silently(tmp_path: Path) -> None:
    case = make_case("digits", epochs=1)
    assert run_cases([case], tmp_path, (), quiet=True).finished == 1
    file = tmp_path / case.name / RESULT
    result = json.loads(file.read_text(encoding="utf-8"))
    result["data"]["fingerprint"] = "other"
    file.write_text(json.dumps(result), encoding="utf-8")
    outcome = run_cases([case], tmp_path, (), quiet=True)
    assert outcome.finished == 0 and "of other data; remove" in outcome.failed[case.name]


def test_a_case_that_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    case = make_case("digits", epochs=1)
    place = Place(tmp_path, case)
    place.prepare()
    with held(place.directory):
        assert "running" in listing([case], tmp_path)
        outcome = run_cases([case], tmp_path, (), quiet=True)
    assert outcome.elsewhere == [case.name] and not place.done


def test_parallel_cases_run_alone_and_after_the_others() -> None:
    parallel, plain = make_case("digits", strategy="wasap"), make_case("digits")
    jobs = {case.strategy: schedule._Job(case, Place(Path(), case), None, 1.0) for case in (parallel, plain)}
    wasap, sequential = jobs["wasap"], jobs["sequential"]
    assert schedule._may_start(sequential, [], 2) and schedule._may_start(sequential, [sequential], 2)
    assert not schedule._may_start(sequential, [sequential] * 2, 2)
    assert schedule._may_start(wasap, [], 2) and not schedule._may_start(wasap, [sequential], 2)
    assert not schedule._may_start(sequential, [wasap], 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_command_leaves_checkpoints_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-m", "trulysparse", "reproduce", "figure5", "--datasets", "digits"]
    command += ["--jobs", "2", "--out", str(tmp_path), "--epochs", "4000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while len([f for f in tmp_path.glob("*/progress.json") if '"epoch": 0' not in f.read_text()]) < 2:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert "the runs were stopped and wrote checkpoints; the same command goes on with them" in err
    saved = list(tmp_path.glob(f"*/{CHECKPOINT}"))
    assert len(saved) == 2 and not _stamps(tmp_path)
    cases = [make_case("digits", activation=RELU, epochs=4000), make_case("digits", epochs=4000)]
    assert all("stopped after epoch" in line for line in listing(cases, tmp_path).splitlines())
    assert not any(Place(tmp_path, case).taken for case in cases)  # no process is left


def test_the_command_trains_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["reproduce", "table2", "--datasets", "digits", "madelon", "--data", str(tmp_path), "--out", str(out)]
    arguments += ["--epochs", "2", "--quiet"]
    told = [*arguments, "--json", str(tmp_path / "t.json"), "--collect", str(tmp_path / "all.jsonl")]
    assert main([*arguments, "--list"]) == 0
    assert capsys.readouterr().out.count("not begun") == 4
    assert main([*arguments, "--report"]) == 0 and not _stamps(out)
    assert capsys.readouterr().out.count("not run yet") == 4
    assert main(told) == 0
    captured = capsys.readouterr()
    assert (out / "table2.md").read_text(encoding="utf-8") == captured.out
    assert "the data set is absent: no madelon.npz" in captured.out
    assert captured.out.count("| digits | ") == 6 and "appended 4 results" in captured.err
    data = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert data["table"] == "table2" and len(data["rows"]) == 7
    assert len((tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["table1"], "known are table2, table3, table5, table6, figure5"),
        (["table2", "--datasets", "madeln"], "did you mean 'madelon'"),
        (["table2", "--seeds", "0"], "--seeds 0: give at least 1"),
        (["table2", "--epochs", "0"], "--epochs 0: give at least 1"),
        (["table2", "--jobs", "0"], "--jobs 0: give at least 1"),
        (["table3", "--workers", "0"], "--workers 0: give at least 1"),
        (["table2", "--dense-minutes", "-1"], "--dense-minutes -1.0: give at least 0"),
        (["table2", "--set", "optimizer.lr"], "is not key=value"),
        (["table2", "--set", "optimiser.lr=1"], "did you mean 'optimizer'"),
        (["table2", "--data", "no/such/place"], "there is no such directory"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_threads_are_shared_by_as_many_runs_as_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule._kernels, "default_threads", lambda: 2)
    case = make_case("digits", epochs=1)
    assert run_cases([case], tmp_path, (), jobs=8, quiet=True).finished == 1
    result = Place(tmp_path, case).result()
    assert (result["jobs"], result["threads"]) == (1, 2)


def test_progress_and_log_of_an_earlier_process_do_not_count(tmp_path: Path) -> None:
    place = Place(tmp_path, make_case("digits", epochs=1))
    place.prepare()
    (place.directory / PROGRESS).write_text('{"epoch": 3, "epochs": 9, "process": 1}', encoding="utf-8")
    (place.directory / LOG).write_text("of an earlier process", encoding="utf-8")
    job = schedule._Job(place.case, place, None, 1.0, started=time.time() + 1)
    assert place.progress() is not None and job.progress() is None
    with held(place.directory):  # another process owns them
        schedule._start(job, 1, 1)
        assert job.process is not None and job.process.wait() == 3
        assert place.progress() is not None
        assert (place.directory / LOG).read_text(encoding="utf-8").startswith("of an earlier process")
    schedule._start(job, 1, 1)
    assert job.process.wait() == 0 and place.progress() is None
    assert "earlier" not in (place.directory / LOG).read_text(encoding="utf-8")
