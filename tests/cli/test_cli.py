# SPDX-License-Identifier: BSD-3-Clause
"""The command line as a user meets it."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.cli import main, train
from trulysparse.cli.config import RunConfig
from trulysparse.errors import ConfigError, DensityWarning

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
    described = capsys.readouterr().out
    assert "64 x 32" in described and "32 x 10" in described
    assert f"{ts.load(out / 'model.safetensors').connections:,}" in described
    assert "memory to train it" in described and "memory to predict" in described
    header = next(line for line in described.splitlines() if "balanced" in line)
    assert header.split() == ["balanced", "fast", "lean"]


def test_train_with_its_own_defaults_is_good_sparse_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always", DensityWarning)
        assert main(["train", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    accuracy = re.search(r"test accuracy (\d\.\d+)", printed.out)
    absent = re.search(r"([\d.]+) % of the dense weights are absent", printed.out)
    assert accuracy is not None and float(accuracy[1]) >= 0.96
    assert absent is not None and float(absent[1]) >= 80


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


def test_bfloat16_activations_are_a_setting_that_the_run_file_and_a_resumed_run_keep(
    data_file: Path, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    setting = ["--set", "activation_dtype=bfloat16"]
    assert main(["train", str(data_file), *SMALL, *setting, "--out", str(a)]) == 0
    assert tomllib.loads((a / "run.toml").read_text())["trainer"]["activation_dtype"] == "bfloat16"
    assert main(["train", str(a / "run.toml"), "--quiet", "--out", str(b)]) == 0
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert ts.Trainer.resume(a, progress=False).activation_dtype == "bfloat16"


def test_augmentation_is_a_table_that_the_run_file_and_a_resumed_run_keep(data_file: Path, tmp_path: Path) -> None:
    shape = ts.load_dataset(str(data_file)).n_features
    whole, again, parts, plain = (tmp_path / name for name in ("whole", "again", "parts", "plain"))
    train = ["train", str(data_file), *SMALL, "--set", "standardize=global"]
    augment = ["--augment", f"1,1,{shape}", "--set", "augment.channels=first", "--set", "rotation=5"]
    assert main([*train, *augment, "--epochs", "3", "--out", str(whole)]) == 0
    tables = tomllib.loads((whole / "run.toml").read_text())
    assert tables["augment"] == {
        "name": "image", "shape": [1, 1, shape], "rotation": 5.0, "shift": 0.1, "flip": True, "fill": "nearest",
        "channels": "first",
    }  # fmt: skip
    assert tables["trainer"]["standardize"] == "global" and "augment" not in tables["trainer"]
    assert main(["train", str(whole / "run.toml"), "--quiet", "--out", str(again)]) == 0
    assert main([*train, *augment, "--epochs", "2", "--out", str(parts)]) == 0
    assert main(["train", "--resume", str(parts), "--epochs", "3", "--quiet"]) == 0
    assert main([*train, "--epochs", "3", "--out", str(plain)]) == 0
    models = [(directory / "model.safetensors").read_bytes() for directory in (whole, again, parts, plain)]
    assert models[0] == models[1] == models[2] != models[3]


def test_receptive_fields_are_a_table_that_the_run_file_keeps(tmp_path: Path) -> None:
    given, a, b = tmp_path / "given.toml", tmp_path / "a", tmp_path / "b"
    given.write_text(
        "[model]\nhidden = [32, 16]\n"
        'density = {name = "receptive_fields", shape = [1, 8, 8], epsilon = 3, windows = [0.3, 0.5]}\n'
    )
    assert (
        main(["train", str(given), "--epochs", "1", "--set", "density.windows=0.25", "--quiet", "--out", str(a)]) == 0
    )
    tables = tomllib.loads((a / "run.toml").read_text())
    fields = {"name": "receptive_fields", "shape": [1, 8, 8], "epsilon": 3.0, "windows": [0.25]}
    assert tables["model"]["density"] == fields
    assert main(["train", str(a / "run.toml"), "--quiet", "--out", str(b)]) == 0
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert ts.load(a / "model.safetensors").density == ts.ReceptiveFields((1, 8, 8), 3, 0.25)


def test_the_written_run_file_is_resolved(data_file: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.toml"
    given.write_text(
        f"[data]\nname = '{data_file}'\n[model]\nhidden = [16, 8]\nactivation = 'all_relu'\ninit = 'normal'\n"
        "density = 0.5\ndropout = [0.1, 0.2]\n[optimizer]\n"
        "lr = {name = 'warmup', then = {name = 'cosine', lr = 0.05}}\n"
        "[topology]\ndrop_fraction = 0.2\n[pruning]\nstart = 1\nperiod = 2\n[trainer]\nbatch_size = 50\n"
        "[fit]\nepochs = 6\nvalidation = 0.2\n[early_stopping]\npatience = 50\n"
    )
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["train", str(given), "--quiet", "--out", str(a)]) == 0
    assert main(["train", str(a / "run.toml"), "--quiet", "--out", str(b)]) == 0
    assert (a / "run.toml").read_bytes() == (b / "run.toml").read_bytes()
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    tables = tomllib.loads((a / "run.toml").read_text())
    assert tables["model"]["seed"] == 0 and tables["trainer"]["seed"] == 0
    assert tables["model"]["init"] == {"name": "normal", "std": 0.1, "fan_in": "dense"}
    assert tables["model"]["density"] == {"name": "erk", "density": 0.5, "power": 1.0, "dense": []}
    assert tables["trainer"]["standardize"] is True
    assert tables["optimizer"]["name"] == "sgd" and tables["topology"]["name"] == "set"
    assert tables["optimizer"]["momentum"] == 0.9 and tables["early_stopping"]["monitor"] == "val_loss"
    flags = {"remove_outgoing": False, "compact": False, "regrow_into_pruned": True}
    assert tables["pruning"] == {"percentile": 20.0, "start": 1, "period": 2} | flags


def test_a_compacted_run_keeps_the_sizes_it_began_with_in_its_run_file(data_file: Path, tmp_path: Path) -> None:
    settings = ["--set", "pruning.compact=true", "--set", "pruning.start=0", "--set", "period=1"]
    whole, parts, again = tmp_path / "whole", tmp_path / "parts", tmp_path / "again"
    train = ["train", str(data_file), "--set", "hidden=[40]", "--set", "pruning.percentile=30", *settings, "--quiet"]
    assert main([*train, "--epochs", "5", "--out", str(whole)]) == 0
    assert main([*train, "--epochs", "3", "--out", str(parts)]) == 0
    assert ts.load(parts / "model.safetensors").sizes[1] < 40
    assert main(["train", "--resume", str(parts), "--epochs", "5", "--quiet"]) == 0
    tables = tomllib.loads((parts / "run.toml").read_text())
    assert tables["model"]["hidden"] == [40]
    assert tables["pruning"]["compact"] is True and tables["pruning"]["remove_outgoing"] is True
    assert main(["train", str(parts / "run.toml"), "--quiet", "--out", str(again)]) == 0
    models = [(directory / "model.safetensors").read_bytes() for directory in (whole, parts, again)]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize("loss", ["'binary_cross_entropy'", "{name = 'binary_cross_entropy'}"])
def test_the_written_run_file_repeats_a_network_with_one_output(loss: str, data_file: Path, tmp_path: Path) -> None:
    with np.load(data_file) as arrays:
        np.savez(data_file, **{k: np.minimum(v, 1) if k[0] == "y" else v for k, v in dict(arrays).items()})
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["train", str(data_file), *SMALL, "--set", f"loss={loss}", "--out", str(a)]) == 0
    assert main(["train", str(a / "run.toml"), "--quiet", "--out", str(b)]) == 0
    assert ts.load(a / "model.safetensors").sizes == (10, 32, 1)
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


@pytest.mark.parametrize("as_directory", [False, True])
def test_a_relative_data_path_is_found_from_another_directory(
    as_directory: bool, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "blobs.npz"
    if as_directory:
        name = "blobs"
        (tmp_path / name).mkdir()
        with np.load(data_file) as arrays:
            for key, array in arrays.items():
                np.save(tmp_path / name / f"{key}.npy", array)
    monkeypatch.chdir(tmp_path)
    assert main(["train", name, *SMALL, "--out", "r"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--resume", "../r", "--epochs", "4", "--quiet"]) == 0
    assert main(["evaluate", "../r"]) == 0


def test_data_repairs_a_moved_file(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "r")
    assert main(["train", str(data_file), *SMALL, "--out", run]) == 0
    (tmp_path / "new").mkdir()
    moved = data_file.rename(tmp_path / "new" / "blobs.npz")
    assert main(["evaluate", run]) == 2
    for place in (moved, moved.parent):
        assert main(["evaluate", run, "--data", str(place)]) == 0
    assert main(["train", "--resume", run, "--epochs", "4", "--quiet", "--data", str(moved.parent)]) == 0
    assert main(["evaluate", run]) == 0
    assert "on 60 samples" in capsys.readouterr().out


def test_evaluate_takes_other_data_by_name_and_by_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "r")
    assert main(["train", *SMALL, "--out", run]) == 0
    digits: Any = ts.load_dataset("digits")
    arrays = {key: getattr(digits, key) for key in ("X_train", "y_train", "X_test", "y_test")}
    np.savez(tmp_path / "digits.npz", **(arrays | {"X_test": digits.X_test[:50], "y_test": digits.y_test[:50]}))
    capsys.readouterr()
    for data, samples in (("digits", 359), (str(tmp_path), 50), (str(tmp_path / "digits.npz"), 50)):
        assert main(["evaluate", run, "--data", data]) == 0
        assert f"on {samples} samples" in capsys.readouterr().out
    assert main(["evaluate", run, "--data", "digitz"]) == 2
    assert "did you mean 'digits'" in capsys.readouterr().err


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
    number: signal.Signals, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    for reader in ("evaluate", "info"):
        assert main([reader, str(out)]) == 0
        assert capsys.readouterr().err.count("checkpoint.safetensors") == 1
    done = ts.Trainer.resume(out, progress=False).state.epoch
    resumed = subprocess.run(
        [*command, "--resume", str(out), "--epochs", str(done + 1), "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert resumed.returncode == 0, resumed.stderr


def test_a_signal_in_the_last_moment_does_not_cost_the_model(
    data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, trainer: ts.Trainer, row: Mapping[str, Any]) -> None:
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train._Writer, "on_epoch_end", interrupt)
    assert main(["train", str(data_file), *SMALL, "--out", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "model.safetensors").exists()


def _content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(
    "mistake",
    [
        ["--set", "lr=foo"],
        ["--set", "optimizer.decay=l3"],
        ["--batch-size", "100000"],
        ["--validation", "2"],
        ["--epochs", "-1"],
        ["--data", "nowhere"],
    ],
)
def test_a_mistake_leaves_the_run_directory_untouched(mistake: list[str], tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert main(["train", *SMALL, "--out", str(tmp_path / "new"), *mistake]) == 2
    assert not (tmp_path / "new").exists()
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    before = _content(out)
    assert main(["train", *SMALL, "--out", str(out), "--overwrite", *mistake]) == 2
    assert _content(out) == before


def test_a_failed_resume_leaves_the_run_directory_untouched(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    assert main(["train", str(data_file), *SMALL, "--out", str(out)]) == 0
    with np.load(data_file) as arrays:
        np.savez(tmp_path / "wrong.npz", **{key: array[::-1] for key, array in arrays.items()})
    before = _content(out)
    resume = ["train", "--resume", str(out), "--quiet"]
    assert main([*resume, "--data", str(tmp_path / "wrong.npz")]) == 2
    assert main([*resume, "--epochs", "2"]) == 2
    assert "3 epochs are done" in capsys.readouterr().err
    assert _content(out) == before
    assert main(resume) == 0
    assert "nothing is left to train" in capsys.readouterr().err
    assert _content(out)["run.toml"] == before["run.toml"]


def test_resume_takes_the_checkpoint_file(data_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert main(["train", str(data_file), *SMALL, "--out", str(out)]) == 0
    for epochs, name in (("4", "checkpoint.safetensors"), ("5", "run.toml")):
        assert main(["train", "--resume", str(out / name), "--epochs", epochs, "--quiet"]) == 0
    assert len((out / "history.csv").read_text().splitlines()) == 6


def test_resume_of_a_run_from_python_names_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", str(tmp_path)]) == 0
    (tmp_path / "run.toml").unlink()
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "ts.Trainer.resume" in capsys.readouterr().err


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
        (["train", "--out", "file.txt"], "is a file; name a directory"),
        (["train", "--out", "file.txt/r"], "is a file; name a directory"),
        (["train", "directory.toml"], "is a directory"),
        (["train", "latin1.toml"], "not UTF-8"),
        (["train", "file.npz", "--data", "."], "leave out --data"),
        (["train", "--set", "validation=abc"], "not a number between 0 and 1"),
        (["train", "--set", "micro_batch=abc"], "micro_batch"),
        (["train", "--set", "activation_dtype=bfloat"], "did you mean 'bfloat16'"),
        (["train", "--set", "standardize=yes"], "standardize"),
        (["train", "--augment", "3,9,9"], "samples have 64 features"),
        (["train", "--augment", "8,8"], "shape must be (channels, height, width)"),
        (["train", "--set", "augment.rotation=5"], "'image' needs shape"),
        (["train", "--set", "augment.rotations=5"], "did you mean 'rotation'"),
        (["train", "--augment", "1,8,8", "--resume", "nowhere"], "does not take --augment"),
        (["train", "--set", "density={name='receptive_fields', shape=[3, 9, 9]}"], "the network has 64 inputs"),
        (["train", "--set", "density={name='receptive_fields'}"], "needs shape"),
        (["train", "--set", "data=3"], "in quotes"),
        (["train", "--set", "data.name=3"], "in quotes"),
        (["train", "--set", "optimizer=adam"], "optimizer.name=adam"),
        (["train", "--set", "topology=static"], "--topology static"),
        (["train", "--set", "model=3"], "model.KEY=VALUE"),
        (["train", "--set", "threads=1"], "--threads"),
        (["train", "--set", "trainer.threads=1"], "--threads"),
        (["train", "--set", "hiden=[3]"], "did you mean 'hidden'"),
        (["train", "--set", "optimizer.lr.final=0"], "not a table"),
        (["train", "--set", "model.activation.alfa=0"], "did you mean 'alpha'"),
        (["evaluate", "latin1.toml"], "not a network; give its directory"),
        (["info", "latin1.toml"], "not a network; give its directory"),
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
    (tmp_path / "file.txt").touch()
    (tmp_path / "directory.toml").mkdir()
    (tmp_path / "latin1.toml").write_bytes("# é".encode("latin1"))
    assert main([*arguments, *(["--quiet"] if arguments[0] == "train" else [])]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


@pytest.mark.parametrize("name", ["rigl", "snip", "gmp", "granet"])
def test_every_topology_trains_by_its_name(name: str, tmp_path: Path) -> None:
    out = tmp_path / "r"
    more = [] if name == "rigl" else ["--set", "model.density=1.0"]
    more += [] if name == "snip" else ["--set", "update_every=20"]
    assert main(["train", *SMALL, *more, "--topology", name, "--out", str(out)]) == 0
    assert tomllib.loads((out / "run.toml").read_text())["topology"]["name"] == name
    net = ts.load(out / "model.safetensors")
    if name != "rigl":
        assert net.connections == round(0.1 * (64 * 32 + 32 * 10))


def test_an_unknown_topology_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--topology", "rigel", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in ("gmp", "granet", "rigl", "set", "snip", "static"))
    assert "did you mean 'rigl'" in error


def test_resume_refuses_arguments_that_would_change_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--out", str(tmp_path / "r")]) == 0
    assert main(["train", "--resume", str(tmp_path / "r"), "--lr", "1", "--seed", "2", "--overwrite"]) == 2
    assert "does not take --lr, --seed, --overwrite" in capsys.readouterr().err


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
    assert RunConfig(tomllib.loads(config.to_toml())).tables == config.tables


def test_epsilon_and_density_replace_each_other() -> None:
    config = RunConfig({"model": {"epsilon": 20}})
    config.set_text("density=0.1")
    assert config.tables == {"model": {"density": 0.1}}
    config.set_text("epsilon=3")
    assert config.tables == {"model": {"epsilon": 3}}
    assert main(["train", *SMALL, "--set", "density=0.1"]) == 0


def test_set_leads_into_inline_tables() -> None:
    config = RunConfig({"model": {"activation": {"name": "all_relu", "alpha": 0.6}}, "optimizer": {"lr": 0.1}})
    for assignment in (
        "model.activation.alpha=0.3",
        "init.fan_in=sparse",
        "optimizer.lr={name='warmup', then={name='cosine'}}",
        "optimizer.lr.then.final=0.01",
    ):
        config.set_text(assignment)
    assert config.tables == {
        "model": {
            "activation": {"name": "all_relu", "alpha": 0.3},
            "init": {"name": "he_uniform", "fan_in": "sparse"},
        },
        "optimizer": {"lr": {"name": "warmup", "then": {"name": "cosine", "final": 0.01}}},
    }
    config.set_text("activation.name=relu")
    assert config.get("model", "activation") == {"name": "relu"}


def test_settings_of_very_wide_networks_are_kept_by_run_file_and_resumed_run(data_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    settings = ("optimizer.lr_scale=fan_in", "init.fan_in=sparse", "init.gain=signal", "topology.grown_scale=match")
    given = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", str(data_file), *SMALL, *given, "--out", str(out)]) == 0
    tables = tomllib.loads((out / "run.toml").read_text())
    assert tables["optimizer"]["lr_scale"] == "fan_in"
    assert (tables["model"]["init"]["fan_in"], tables["model"]["init"]["gain"]) == ("sparse", "signal")
    assert tables["topology"]["grown_scale"] == "match"
    trainer = ts.Trainer.resume(out / "checkpoint.safetensors", progress=False)
    assert trainer.optimizer.lr_scale == "fan_in" and trainer.net.init.gain == "signal"
    assert trainer.net.layers[0].initializer.scale(trainer.net.layers[0].pattern).size == 32
    assert trainer.topology.to_config()["grown_scale"] == "match"


def test_density_warnings_of_given_settings_are_sentences(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(data_file), "--epochs", "0", "--quiet", "--set", "hidden=[32]", "--set", "batch_size=50"]
    with warnings.catch_warnings():
        warnings.simplefilter("always", DensityWarning)
        assert main([*arguments, "--set", "epsilon=4"]) == 0
    assert re.fullmatch(r"warning: layer 1 \(32 -> 3\).*\n", capsys.readouterr().err)


def test_output_that_nobody_reads_ends_the_command_quietly() -> None:
    command = [sys.executable, "-m", "trulysparse", "info"]
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_run_that_stopped_early_goes_on_only_if_asked(
    data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    stopping = ["--set", "early_stopping.patience=1", "--set", "early_stopping.min_delta=100", "--validation", "0.2"]
    assert main(["train", str(data_file), "--set", "hidden=[32]", "--quiet", *stopping, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "stopped early" in printed.out and "warning" not in printed.err
    before = _content(out)
    assert main(["train", "--resume", str(out), "--quiet"]) == 0
    assert "the run stopped early" in capsys.readouterr().err
    assert {k: v for k, v in _content(out).items() if k != "curve.png"} == {
        k: v for k, v in before.items() if k != "curve.png"
    }
    assert main(["train", "--resume", str(out), "--quiet", "--epochs", "600"]) == 0
    assert len((out / "history.csv").read_text().splitlines()) == 4


def test_early_stopping_from_a_run_file(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f"[data]\nname = '{data_file}'\n[model]\nhidden = [32]\n[trainer]\nbatch_size = 50\n"
        "[fit]\nepochs = 500\n[early_stopping]\npatience = 3\n"
    )
    assert main(["train", str(file), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert "stopped early" in printed.out
    assert printed.err.count("warning:") == 1 and "--validation 0.1" in printed.err


def test_help_names_every_command_and_exits_0() -> None:
    result = subprocess.run([sys.executable, "-m", "trulysparse", "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "evaluate", "info", "compare", "bench"):
        assert command in result.stdout


def test_info_describes_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in printed.splitlines())
    assert facts["version"] == ts.__version__ and facts["isa in use"] in facts["isas"].split()
    assert int(facts["threads"]) == len(os.sched_getaffinity(0))
    assert all(value.strip() for value in facts.values())


def test_small_dense_trains_the_dense_network_of_as_many_parameters(tmp_path: Path) -> None:
    arguments = ["train", "--epochs", "1", "--set", "hidden=[64, 32]", "--set", "density=0.1", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "sparse")]) == 0
    assert main([*arguments, "--set", "small_dense=true", "--out", str(tmp_path / "dense")]) == 0
    sparse, dense = (ts.load(tmp_path / name / "model.safetensors") for name in ("sparse", "dense"))
    assert all(layer.density == 1.0 for layer in dense.layers)
    assert max(dense.sizes[1:-1]) < 32
    assert 0.7 < (dense.connections + sum(dense.sizes[1:])) / (sparse.connections + sum(sparse.sizes[1:])) <= 1.0
    with pytest.raises(ConfigError, match="neither true nor false"):
        RunConfig({"model": {"small_dense": 3}})


def test_a_rule_of_ones_own_trains_and_resumes_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules_of_a_test.py").write_text(
        "import trulysparse as ts\n"
        "@ts.register_topology('half_random')\n"
        "class HalfRandom(ts.SET):\n"
        "    def __init__(self, layers: str = 'all'):\n"
        "        super().__init__(0.5, layers=layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    own = ["--topology", "half_random", "--import", "rules_of_a_test"]
    with pytest.raises(ConfigError, match="unknown topology 'half_random'"):
        RunConfig({"topology": {"name": "half_random"}})
    assert main(["train", *SMALL, *own, "--out", "run"]) == 0
    assert tomllib.loads(Path("run/run.toml").read_text())["topology"]["name"] == "half_random"
    resume = ["train", "--resume", "run", "--epochs", "4", "--quiet", "--import", "rules_of_a_test"]
    assert main(resume) == 0
    assert len(Path("run/history.csv").read_text().splitlines()) == 5
    with pytest.raises(ConfigError, match="No module named 'no_such_rules'"):
        train.run(argparse.Namespace(imports=["no_such_rules"]))


@pytest.mark.parametrize("name", ["gmp", "snip", "granet"])
def test_a_rule_that_prunes_starts_from_a_dense_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--epochs", "3", "--set", "hidden=[32]", "--topology", name, "--out", str(tmp_path / "r")]
    arguments += [] if name == "snip" else ["--set", "update_every=20"]
    assert main(arguments) == 0
    assert f"{name} prunes a dense network" in capsys.readouterr().out
    assert tomllib.loads((tmp_path / "r" / "run.toml").read_text())["model"]["density"]["density"] == 1.0
    assert ts.load(tmp_path / "r" / "model.safetensors").connections == round(0.1 * (64 * 32 + 32 * 10))


def test_a_dense_start_does_not_diverge_with_the_preset(tmp_path: Path) -> None:
    assert main(["train", "--epochs", "12", "--topology", "gmp", "--quiet", "--out", str(tmp_path / "r")]) == 0
    losses = [float(line.split(",")[1]) for line in (tmp_path / "r" / "history.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.5 * losses[0]
    assert tomllib.loads((tmp_path / "r" / "run.toml").read_text())["optimizer"]["lr"] == 0.01


def test_pruning_that_never_comes_due_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["train", *SMALL, "--set", "pruning.percentile=30"]) == 0
    assert "warning: importance pruning with start=200" in capsys.readouterr().err


def test_train_keeps_to_a_memory_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", *SMALL, "--memory", "10kB"]) == 2
    assert "memory budget of 9.8 KiB is too small" in capsys.readouterr().err
    assert main(["train", *SMALL, "--memory", "1GB", "--out", str(out)]) == 0
    settings = tomllib.loads((out / "run.toml").read_text())["trainer"]
    assert settings["storage"] == "balanced" and "memory_budget" not in settings
    assert main(["train", "--resume", str(out), "--memory", "1GB"]) == 2
    assert "--memory" in capsys.readouterr().err
