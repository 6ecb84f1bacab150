# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse train --parallel` under mpiexec: what is written and printed, how it stops, goes on and fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.trainer import History

pytestmark = pytest.mark.mpi


def command(ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command line; skip where there is no MPI."""
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("no mpiexec; the test extra brings one")
    return [mpiexec, "-n", str(ranks), sys.executable, "-W", "error", "-m", "trulysparse", "train", *arguments]


def train(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(command(ranks, arguments), capture_output=True, text=True, timeout=90, check=False)


def test_wasap_writes_a_run_like_any_other_and_its_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(3, "--parallel", "wasap", "--out", str(run), "--epochs", "10", "--threads", "1")
    assert result.returncode == 0, result.stderr
    files = {path.name for path in run.iterdir()}
    assert {"model.safetensors", "history.csv", "run.toml", "parallel.json", "checkpoint.safetensors"} <= files
    assert not [name for name in files if "worker" in name]  # their networks are in the average
    history = History.from_csv(run / "history.csv")
    assert history.epoch == list(range(1, 11))
    assert all(accuracy is not None for accuracy in history.val_accuracy)
    report = json.loads((run / "parallel.json").read_text(encoding="utf-8"))
    assert report["workers"] == 2 and report["transport"] == "shared"
    assert report["updates"] == sum(report["updates_sent"]) == 7 * (1438 // 32)
    assert [phase["name"] for phase in report["phases"]] == ["one", "two"]
    assert report["bytes_sent_per_update"] <= 1.1 * report["parameters_bytes"]
    net = ts.load(run / "model.safetensors")
    digits = ts.load_digits()
    assert net.score(digits.X_test, digits.y_test) == pytest.approx(history.val_accuracy[-1], abs=1e-6)
    assert result.stdout.count("test accuracy") == 1  # rank 0 alone prints
    assert "2 workers, transport shared; memory for models: phase one" in result.stderr


@pytest.mark.parametrize("epochs", ["200", "400"])
def test_sigterm_on_any_rank_ends_with_a_checkpoint_that_goes_on(tmp_path: Path, epochs: str) -> None:
    run = tmp_path / "run"
    arguments = ["--parallel", "wassp", "--out", str(run), "--epochs", epochs, "--threads", "1"]
    if epochs == "400":  # the signal comes in phase two
        arguments += ["--set", "parallel.phase_two=1.0"]
    process = subprocess.Popen(command(3, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        worker = _await_worker(process.pid, run / "history.csv")
        os.kill(worker, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "training was stopped by SIGTERM" in err and err.count("continues it") == 1
    saved = ts.Trainer.resume(run)
    done = saved.state.epoch
    assert 0 < done < int(epochs)
    assert (saved.notes["phase"] == 2) is (epochs == "400")
    assert len(list(run.glob("checkpoint.worker*"))) == (2 if epochs == "400" else 0)
    more = done + 20
    if epochs == "400":  # its workers are on their own, for so many epochs
        refused = train(3, "--resume", str(run), "--epochs", str(more))
        assert refused.returncode == 2 and "finish it with epochs=400 first" in refused.stderr, refused.stderr
        more = 400
    resumed = train(3, "--resume", str(run), "--epochs", str(more))
    assert resumed.returncode == 0, resumed.stderr
    assert History.from_csv(run / "history.csv").epoch == list(range(1, more + 1))
    assert not list(run.glob("checkpoint.worker*"))


def _await_worker(mpiexec: int, file: Path) -> int:
    """Return the process of a rank other than 0, once epochs have been written."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.05)
        if not file.exists() or len(file.read_text(encoding="utf-8").splitlines()) < 2:
            continue
        for entry in Path("/proc").iterdir():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"PMI_RANK=1" in environment and str(file.parent).encode() in line:
                return int(entry.name)
    pytest.fail("the run wrote no history in a minute")


def test_what_is_wrong_everywhere_is_said_once(tmp_path: Path) -> None:
    for arguments, words in (
        (["--parallel", "wasapp"], "did you mean 'wasap'"),
        (["no_such_data", "--parallel", "wasap"], "unknown data set"),
        (["--parallel", "wasap", "--batch-size", "1000"], "start at most 1 workers"),
        (["--parallel", "wasap", "--topology", "top_kast"], "parallel training does not do"),
    ):
        result = train(3, *arguments, "--quiet")
        assert result.returncode == 2, (arguments, result.stderr)
        assert result.stderr.count("error:") == 1 and words in result.stderr, (arguments, result.stderr)


def test_what_is_wrong_on_one_rank_is_said_there_and_ends_all(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 5)).astype(np.float32), np.arange(200) % 2
    np.savez(data, X_train=X, y_train=y, X_test=X, y_test=y)
    script = tmp_path / "breaks.py"
    script.write_text(
        "import os, trulysparse.cli.config as config\n"
        "if os.environ.get('PMI_RANK') == '2':\n"
        "    def broken(self):\n"
        "        raise OSError('the disk of this node is gone')\n"
        "    config.RunConfig.load_data = broken\n",
        encoding="utf-8",
    )
    arguments = [str(data), "--parallel", "wasap", "--epochs", "2", "--quiet", "--import", "breaks"]
    arguments += ["--set", "model.hidden=[20]", "--set", "model.density=0.5"]
    result = subprocess.run(
        command(3, arguments), capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "rank 2" in result.stderr and "the disk of this node is gone" in result.stderr


def test_one_process_alone_is_told_how_to_start() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trulysparse", "train", "--parallel", "wasap"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "mpiexec -n 3 trulysparse train ... --parallel wasap" in result.stderr
