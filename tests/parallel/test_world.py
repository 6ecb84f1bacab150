# SPDX-License-Identifier: BSD-3-Clause
"""What can be said of ranks without any MPI."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trulysparse.errors import ParallelError
from trulysparse.parallel import wire, world

IMPORT = """
from trulysparse.errors import ParallelError
from trulysparse.parallel.world import import_mpi
try:
    import_mpi()
except ParallelError as error:
    print(error)
"""


def _import_with(before: str, path: Path | None = None) -> str:
    env = {**os.environ, **({} if path is None else {"PYTHONPATH": str(path)})}
    result = subprocess.run([sys.executable, "-c", before + IMPORT], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_missing_mpi4py_says_what_to_install() -> None:
    said = _import_with("import sys; sys.modules['mpi4py'] = None")
    assert "needs mpi4py" in said and "pip install 'trulysparse[mpi]' mpich" in said


def test_missing_mpi_library_says_what_to_install(tmp_path: Path) -> None:
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("class rc: pass\n")
    (package / "MPI.py").write_text("raise RuntimeError('cannot load\\nMPI library')\n")
    said = _import_with("", tmp_path)
    assert "finds no MPI library (cannot load MPI library)" in said
    assert "pip install 'trulysparse[mpi]' mpich" in said


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        ({"PMI_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PMIX_RANK": "0"}, True),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, False),  # the script of sbatch itself
        ({"PMI_SIZE": "many"}, False),
    ],
)
def test_launched_reads_the_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: bool) -> None:
    for name in list(os.environ):
        if name.startswith(("PMI", "OMPI", "SLURM")):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert world.launched() is expected


class _Request:
    def __init__(self, polls: int) -> None:
        self.polls = polls

    def Test(self) -> bool:
        assert self.polls > 0, "asked again after it was complete"
        self.polls -= 1
        return self.polls == 0


def test_a_wait_polls_and_then_sleeps_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(world, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: 0.0))
    assert world.wait([_Request(3), _Request(201)])
    assert len(slept) == 200 - 50
    assert slept == sorted(slept) and slept[0] == 20e-6 and slept[-1] == 500e-6
    assert world.wait([])


def test_rank_memory_counts_what_was_taken() -> None:
    if not Path("/proc/self/status").exists():
        assert world.rank_memory() == {}
        return
    gc.collect()  # nothing that earlier tests left may go meanwhile
    before = world.rank_memory()
    taken = np.ones(256 << 20, np.uint8)
    after = world.rank_memory()
    assert set(after) == {"rss_anon", "rss_shmem", "peak"}
    assert 0.9 * taken.nbytes < after["rss_anon"] - before["rss_anon"] < 1.1 * taken.nbytes
    assert after["peak"] >= after["rss_anon"] + after["rss_shmem"]


def _shm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, blocks: int, free: int) -> None:
    room = SimpleNamespace(f_bavail=free, f_blocks=blocks, f_frsize=4096)
    monkeypatch.setattr(world, "_SHM", tmp_path)
    monkeypatch.setattr(world.os, "statvfs", lambda path: room)


def test_too_little_shared_memory_says_how_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _shm(monkeypatch, tmp_path, blocks=16384, free=8192)
    world.check_shm(32 << 20)
    with pytest.raises(ParallelError, match=r"96\.0 MiB in .*32\.0 MiB of 64\.0 MiB are free: 64\.0 MiB too little"):
        world.check_shm(96 << 20)


def test_shared_memory_without_a_limit_has_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _shm(monkeypatch, tmp_path, blocks=0, free=0)
    world.check_shm(1 << 40)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 4))[:, ::2], "C-contiguous"),
        (np.array(["text"]), "only bool and numbers"),
        (np.array([None]), "only bool and numbers"),
    ],
)
def test_arrays_that_cannot_travel_are_refused(array: Any, match: str) -> None:
    nowhere: Any = None
    with pytest.raises(TypeError, match=match):
        wire.send(nowhere, array, 1, 0)
    with pytest.raises(TypeError, match=r"'a' is of dtype|C-contiguous"):
        wire.send_tensors(nowhere, {"a": array}, 1, 0)


def test_receiving_into_read_only_memory_is_refused() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    nowhere: Any = None
    with pytest.raises(TypeError, match="cannot be written"):
        wire.receive_into(nowhere, array, 1, 0)


@pytest.mark.parametrize("chunk_bytes", [0, -1, 2**31])
def test_chunks_have_at_least_one_byte_and_fewer_than_mpi_counts(chunk_bytes: int) -> None:
    nowhere: Any = None
    with pytest.raises(ValueError, match="chunk_bytes"):
        wire.send(nowhere, np.zeros(3), 1, 0, chunk_bytes=chunk_bytes)
