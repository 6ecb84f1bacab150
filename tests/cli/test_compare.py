# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse compare` as a user meets it."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from trulysparse.cli import main
from trulysparse.trainer import History


def _write(directory: Path, *accuracies: float | None, seconds: float = 1.0, connections: int = 1234) -> None:
    times = {"train_seconds": seconds, "eval_seconds": 100.0, "evolve_seconds": 0.5}
    History(
        {"epoch": i, "loss": 1 / i, "val_accuracy": v, "connections": connections, **times}
        for i, v in enumerate(accuracies, start=1)
    ).to_csv(directory / "history.csv")


def _cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_compared_in_a_table_and_a_picture(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(elsewhere / "runs" / "set", 0.5, 0.9, 0.8, None, seconds=10.0)
    _write(elsewhere / "runs" / "rigl", 0.6, 0.7, seconds=0.2, connections=99)
    assert main(["compare", "runs/set", "runs/rigl/history.csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "final", "val_accuracy", "best", "at", "epoch", "epochs", "connections", "seconds"]
    assert rows[0].split() == ["set", "0.8000", "0.9000", "2", "4", "1,234", "42.0"]
    assert rows[1].split() == ["rigl", "0.7000", "0.7000", "2", "2", "99", "1.4"]
    assert len({len(line) for line in (header, *rows[:2])}) == 1
    assert rows[2] == "written: curves.png"
    assert (elsewhere / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_train_wrote_is_compared(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "2", "--set", "hidden=[16]", "--quiet", "--out", "a"]) == 0
    capsys.readouterr()
    assert main(["compare", "a", "--out", "new/speed.png", "--x", "seconds"]) == 0
    written = History.from_csv("a/history.csv")
    row = _cells(capsys.readouterr().out)[1]
    assert row[:2] == ["a", f"{written.val_accuracy[-1]:.4f}"]
    assert (elsewhere / "new" / "speed.png").is_file() and not (elsewhere / "curves.png").exists()


@pytest.mark.parametrize(("metric", "best"), [("loss", "0.3333"), ("val_accuracy", "0.9000")])
def test_the_best_is_the_least_loss_and_the_largest_accuracy(
    metric: str, best: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(elsewhere / "a", 0.5, 0.9, 0.8)
    assert main(["compare", "a", "--metric", metric]) == 0
    assert _cells(capsys.readouterr().out)[1][2] == best


def _drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keep what the picture is made of instead of drawing it."""
    seen: dict[str, Any] = {}

    def keep(groups: dict[str, list[History]], path: Path, **options: Any) -> Path:
        seen.update(groups=groups, path=path, **options)
        return path

    monkeypatch.setattr("trulysparse.plot.learning_curves", keep)
    return seen


def test_runs_of_one_name_are_drawn_together_and_listed_apart(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _drawn(monkeypatch)
    for name in ("a", "b", "c"):
        _write(elsewhere / name, 0.5)
    assert main(["compare", "set=a", "set=b", "c", "--x", "seconds", "--metric", "loss", "--out", "d.png"]) == 0
    assert {name: len(histories) for name, histories in seen["groups"].items()} == {"set": 2, "c": 1}
    assert (seen["x"], seen["metric"], seen["path"]) == ("seconds", "loss", Path("d.png"))
    assert [row[:2] for row in _cells(capsys.readouterr().out)[1:3]] == [["set", "(a)"], ["set", "(b)"]]


def test_names_are_the_shortest_that_tell_runs_apart(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _drawn(monkeypatch)
    for name in ("x/seed0", "y/seed0", "y/seed1", "y/b=c", "z"):
        _write(elsewhere / name, 0.5)
    assert main(["compare", "x/seed0", "y/seed0/history.csv", "seed1=y/seed1", "y/b=c", "y/../z/"]) == 0
    assert list(seen["groups"]) == ["x/seed0", "y/seed0/history.csv", "seed1", "b=c", "z"]


def test_a_given_name_is_not_joined_by_a_directory_of_that_name(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _drawn(monkeypatch)
    for name in ("a", "x/set"):
        _write(elsewhere / name, 0.5)
    assert main(["compare", "set=a", "x/set"]) == 0
    assert list(seen["groups"]) == ["set", "x/set"]


def test_a_run_that_diverged_at_once_is_listed(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(elsewhere / "a", float("nan"), float("nan"))
    assert main(["compare", "a"]) == 0
    assert _cells(capsys.readouterr().out)[1][:4] == ["a", "nan", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no history at nowhere/history.csv"),
        (["good", "broken"], "is no history"),
        (["good", "good/history.csv"], "given twice"),
        (["good", "x=good"], "given twice"),
        (["x="], "names no run"),
        (["=good"], "names no run"),
        (["good", "unmeasured"], "never measured in the run unmeasured of 2 epoch(s); --metric loss"),
        (["good", "--out", "good"], "ends in .png"),
        (["good", "--out", "curves.pdf"], "ends in .png"),
    ],
)
def test_mistakes_get_one_sentence_and_no_picture(
    arguments: list[str], words: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(elsewhere / "good", 0.5)
    _write(elsewhere / "unmeasured", None, None)
    (elsewhere / "broken").mkdir()
    (elsewhere / "broken" / "history.csv").write_text("a,b\n")
    assert main(["compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert not list(elsewhere.rglob("*.png"))


@pytest.mark.parametrize(("asked", "code"), [(False, 0), (True, 2)])
def test_without_matplotlib_the_table_is_printed_and_a_picture_that_was_asked_for_is_an_error(
    asked: bool, code: int, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(elsewhere / "a", 0.5)
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["compare", "a", *(["--out", "b.png"] if asked else [])]) == code
    printed = capsys.readouterr()
    assert "0.5000" in printed.out
    assert "pip install 'trulysparse[plot]'" in printed.err
