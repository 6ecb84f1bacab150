# SPDX-License-Identifier: BSD-3-Clause
"""The command line as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.cli import main
from trulysparse.cli.config import RunConfig
from trulysparse.errors import ConfigError

SMALL = ["--epochs", "3", "--set", "hidden=[32]", "--quiet"]


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 10)) * 2
    arrays = {}
    for part, n in (("train", 200), ("test", 60)):
        y = rng.integers(0, 3, n)
        arrays[f"X_{part}"] = (centres[y] + rng.normal(size=(n, 10))).astype(np.float32)
        arrays[f"y_{part}"] = y
    np.savez(tmp_path / "blobs.npz", **arrays)
    return tmp_path / "blobs.npz"


def test_train_on_digits_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    names = {p.name for p in out.iterdir()}
    assert names == {"model.safetensors", "history.csv", "run.toml", "curve.png", "checkpoint.safetensors"}
    printed = capsys.readouterr().out
    assert "test accuracy 0." in printed and "connections of" in printed
    header, *rows = (out / "history.csv").read_text().splitlines()
    assert header == ("epoch,loss,accuracy,val_loss,val_accuracy,connections,train_seconds,eval_seconds,evolve_seconds")
    assert len(rows) == 3
    assert (out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["evaluate", str(out)]) == 0
    evaluated = capsys.readouterr().out
    assert printed.splitlines()[0].split(",")[0] == evaluated.split(",")[0]
    assert main(["info", str(out)]) == 0
    assert "64" in capsys.readouterr().out


def test_train_takes_a_data_file_by_path_and_evaluate_finds_it_again(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(data_file), *SMALL, "--out", str(tmp_path / "r")]) == 0
    assert main(["evaluate", str(tmp_path / "r" / "model.safetensors"), "--data", str(data_file)]) == 0
    assert "on 60 samples" in capsys.readouterr().out


def test_the_written_run_file_repeats_the_run(data_file: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["train", str(data_file), *SMALL, "--lr", "0.02", "--seed", "4", "--out", str(a)]) == 0
    assert main(["train", str(a / "run.toml"), "--quiet", "--out", str(b)]) == 0
    assert (a / "run.toml").read_text() == (b / "run.toml").read_text()
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def test_resume_continues_to_more_epochs_bit_for_bit(data_file: Path, tmp_path: Path) -> None:
    arguments = ["train", str(data_file), "--set", "hidden=[32, 16]", "--quiet"]
    assert main([*arguments, "--epochs", "6", "--out", str(tmp_path / "whole")]) == 0
    assert main([*arguments, "--epochs", "2", "--out", str(tmp_path / "parts")]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--epochs", "6", "--quiet"]) == 0
    models = [ts.load(tmp_path / run / "model.safetensors") for run in ("whole", "parts")]
    for a, b in zip(models[0].layers, models[1].layers, strict=True):
        assert a.values.tobytes() == b.values.tobytes()
        assert a.pattern.cells().tobytes() == b.pattern.cells().tobytes()
    assert len((tmp_path / "parts" / "history.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_leaves_a_checkpoint_that_resumes(
    number: signal.Signals, data_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "trulysparse", "train"]
    process = subprocess.Popen(
        [
            *command,
            str(data_file),
            "--epochs",
            "1000000",
            "--set",
            "hidden=[64]",
            "--out",
            str(out),
            "--quiet",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "continues it" in errors and "Traceback" not in errors
    done = ts.Trainer.resume(out, progress=False).state.epoch
    resumed = subprocess.run(
        [*command, "--resume", str(out), "--epochs", str(done + 1), "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert resumed.returncode == 0, resumed.stderr


def test_an_existing_run_is_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "r")
    assert main(["train", *SMALL, "--out", out]) == 0
    before = (tmp_path / "r" / "model.safetensors").read_bytes()
    assert main(["train", *SMALL, "--seed", "1", "--out", out]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == before
    assert main(["train", *SMALL, "--seed", "1", "--out", out, "--overwrite"]) == 0
    assert (tmp_path / "r" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "fashion_mnits"], "fashion_mnist"),
        (["train", "nowhere.npz"], "nowhere.npz"),
        (["train", "nowhere.toml"], "there is no run file"),
        (["train", "--set", "drop_fractoin=0.2"], "did you mean"),
        (["train", "--set", "optimizer.momentun=0.2"], "did you mean 'momentum'"),
        (["train", "--set", "seed=3"], "which one"),
        (["train", "--set", "momentum"], "key=value"),
        (["train", "--topology", "rigel"], "allowed are"),
        (["train", "--epochs", "-1"], "epochs"),
        (["train", "--lr", "-1"], "lr"),
        (["train", "--batch-size", "100000"], "larger than the"),
        (["train", "--resume", "nowhere"], "no checkpoint"),
        (["train", "--checkpoint-every", "2"], "--out"),
        (["train", "--threads", "0"], "threads"),
        (["evaluate", "nowhere"], "no model"),
        (["info", "nowhere"], "no model"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *(["--quiet"] if arguments[0] == "train" else [])]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_resume_refuses_arguments_that_would_change_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", str(tmp_path / "r")]) == 0
    assert main(["train", "--resume", str(tmp_path / "r"), "--lr", "1", "--seed", "2"]) == 2
    assert "does not take --lr, --seed" in capsys.readouterr().err


def test_run_file_unknown_keys_suggest_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    for text, words in (
        ("[model]\nepsilonn = 3", "did you mean 'epsilon'"),
        ("[optimiser]\nlr = 3", "did you mean 'optimizer'"),
        ("epochs = 3", "outside any table"),
        ("[fit\n", "not valid TOML"),
        ("[topology]\nname = 'sett'", "did you mean 'set'"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            RunConfig.from_file(file)


def test_set_reaches_every_table_and_types_follow_toml() -> None:
    config = RunConfig({"model": {"hidden": [5]}})
    for assignment in ("drop_fraction=0.25", "model.seed=9", "init=xavier", "nesterov=true", "hidden=[3, 4]"):
        config.set_text(assignment)
    assert config.tables == {
        "model": {"hidden": [3, 4], "seed": 9, "init": "xavier"},
        "topology": {"drop_fraction": 0.25},
        "optimizer": {"nesterov": True},
    }
    assert RunConfig(__import__("tomllib").loads(config.to_toml())).tables == config.tables


def test_early_stopping_from_a_run_file(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f"[data]\nname = '{data_file}'\n[model]\nhidden = [32]\n[trainer]\nbatch_size = 50\n"
        "[fit]\nepochs = 500\n[early_stopping]\npatience = 3\n"
    )
    assert main(["train", str(file), "--quiet"]) == 0
    assert "stopped early" in capsys.readouterr().out


def test_help_names_every_command_and_exits_0() -> None:
    result = subprocess.run([sys.executable, "-m", "trulysparse", "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "evaluate", "info"):
        assert command in result.stdout


def test_info_describes_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert ts.__version__ in printed and "isa in use" in printed
    assert os.cpu_count() is not None
