# SPDX-License-Identifier: BSD-3-Clause
"""Ranks that start together, talk, fail together, and say why they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

OPEN = """
import os, time, warnings
from trulysparse.errors import ParallelError, ParallelWarning
from trulysparse.parallel import world as module
from trulysparse.parallel.world import World, import_mpi

def message(call, *arguments, error=ParallelError):
    try:
        call(*arguments)
    except error as raised:
        return str(raised)
    raise AssertionError("nothing was raised")

"""


def test_ranks_know_each_other(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
assert world.size == 3 and world.comm.Get_size() == 3 and world.comm.Get_rank() == world.rank
assert (world.node_rank, world.node_size, world.nodes, world.node_of) == (world.rank, 3, 1, [0, 0, 0])
assert len(world.hosts) == 3 and world.library == world.mpi.get_vendor()[0]
assert module.launched()
world.barrier()
if world.rank == 0:
    print("well")
world.close()
"""
    assert run_mpi(3, OPEN + program).stdout == "well\n"


def test_json_travels_whatever_its_length(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
mine = {"rank": world.rank, "text": "ä" * 1000 * world.rank, "nothing": None}
every = [{"rank": r, "text": "ä" * 1000 * r, "nothing": None} for r in range(3)]
for root in range(3):
    assert world.broadcast_json(mine, root) == every[root]
    assert world.gather_json(mine, root) == (every if world.rank == root else None)
assert world.share_json(mine) == every
assert world.share_json(None) == [None, None, None]
"""
    run_mpi(3, OPEN + program)


def test_wait_ends_when_interrupted_or_out_of_time(run_mpi: Any) -> None:
    program = """
import numpy as np
world = World.open("wasap", 2)
word = np.zeros(1)
if world.rank == 0:
    request = world.comm.Irecv(word, 1, 7)
    assert not world.wait([request], timeout=0.01)
    asked = []
    assert not world.wait([request], interrupted=lambda: asked.append(1) or len(asked) == 3)
    assert len(asked) == 3
world.barrier()
if world.rank == 0:
    assert world.wait([request]) and word[0] == 5
else:
    assert world.wait([world.comm.Isend(word + 5, 0, 7)])
"""
    run_mpi(2, OPEN + program)


def test_a_rank_that_fails_fails_all(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
def load(failing, error):
    with world.together("loading the data"):
        if world.rank in failing:
            raise error
load((), None)
if world.rank == 1:
    assert message(load, (1,), ValueError("no such file"), error=ValueError) == "no such file"
else:
    said = message(load, (1,), ValueError("no such file"))
    assert said == "failed while loading the data: rank 1: ValueError: no such file", said
if world.rank == 1:
    said = message(load, (0, 2), KeyboardInterrupt())
    assert said == "failed while loading the data: ranks 0, 2: KeyboardInterrupt", said
else:
    message(load, (0, 2), KeyboardInterrupt(), error=KeyboardInterrupt)
assert message(world.agree, "bad" if world.rank == 2 else None) == "failed: rank 2: bad"
world.agree(None)
"""
    run_mpi(3, OPEN + program)


def test_abort_ends_ranks_that_wait(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
if world.rank == 1:
    world.abort("nothing helps")
world.barrier()
"""
    result = run_mpi(2, OPEN + program, check=False)
    assert result.returncode != 0
    assert "trulysparse: rank 1 ends the job: nothing helps" in result.stderr


def test_nothing_of_mpich_stays_in_shared_memory_when_ranks_are_killed(run_mpi: Any) -> None:
    program = """
import signal
mpi = import_mpi()
mapped = sorted({line.split()[5] for line in open("/proc/self/maps") if "/dev/shm/mpich_shm_" in line})
world = World.open("wasap", 2)
if world.rank == 0:
    print(world.library, *mapped, flush=True)
world.barrier()
assert world.share_json(1) == [1, 1]
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = run_mpi(2, OPEN + program, check=False)
    assert result.returncode != 0
    library, *mapped = result.stdout.splitlines()[0].split()
    if library != "MPICH":
        pytest.skip("only MPICH keeps such a file")
    assert len(mapped) == 1
    assert not Path(mapped[0]).exists()


@pytest.mark.parametrize(
    ("what", "patch", "cure"),
    [
        ("instruction set", "module._kernels.isa", "TRULYSPARSE_ISA"),
        ("version of trulysparse", "module._trulysparse_version", "install one version"),
    ],
)
def test_ranks_that_differ_are_refused_on_every_rank(run_mpi: Any, what: str, patch: str, cure: str) -> None:
    program = f"""
rank = import_mpi().COMM_WORLD.Get_rank()
{patch} = lambda: "one" if rank == 1 else "other"
said = message(World.open, "wasap", 2)
assert "same {what}" in said and "other on ranks 0, 2; one on rank 1" in said and "{cure}" in said, said
"""
    run_mpi(3, OPEN + program)


def test_too_few_ranks_are_refused_on_every_rank(run_mpi: Any) -> None:
    program = """
said = message(World.open, "wassp", 4)
assert "wassp needs at least 4 processes, and there are 2" in said, said
assert "mpiexec -n 4 trulysparse train ... --parallel wassp" in said, said
"""
    run_mpi(2, OPEN + program)


def test_ranks_bound_to_one_core_are_refused_if_they_want_more(run_mpi: Any) -> None:
    program = """
os.cpu_count = lambda: 8
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
world = World.open("wasap", 2)
said = message(world.check_cores, 1 if world.rank == 0 else 2, [1, 2])
assert "ranks 1, 2 should use 2 threads, but every rank is bound to one core of the 8" in said, said
assert {"MPICH": "-bind-to none", "Open MPI": "--bind-to none"}[world.library] in said, said
os.environ["SLURM_PROCID"] = "0"
os.environ.pop("OMPI_COMM_WORLD_SIZE", None)
assert "srun --cpus-per-task" in message(world.check_cores, 2, [1, 2])
"""
    run_mpi(3, OPEN + program)


def test_more_busy_ranks_than_cores_warn_once(run_mpi: Any) -> None:
    program = """
cores = {}
module._usable_cores = lambda: cores[world.rank]
world = World.open("wasap", 2)

def warned(threads, busy):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        world.check_cores(threads, busy)
    said = [str(one.message) for one in caught if one.category is ParallelWarning]
    assert world.rank == 0 or not said
    return world.broadcast_json(said)

os.cpu_count = lambda: 2
cores = {0: [0, 1], 1: [0, 1], 2: [0, 1]}
assert warned(1, [1, 2]) == []  # the master is not busy
assert warned(1, []) == []
(said,) = warned(1, [0, 1, 2])
assert "ranks 0, 1, 2 on" in said and "3 threads in all but may use only 2 of its 2 cores" in said, said
assert "use fewer ranks or threads" in said
assert len(warned(2, [1, 2])) == 1
os.cpu_count = lambda: 8
cores = {0: [0, 1], 1: [3], 2: [3]}
(said,) = warned(1, [1, 2])
assert "ranks 1, 2 on" in said and "only 1 of its 8 cores" in said and "bind-to none" in said, said
cores = {0: [0, 1], 1: [2], 2: [3]}
assert warned(1, [1, 2]) == []
"""
    run_mpi(3, OPEN + program)


def test_a_warning_made_an_error_stops_every_rank(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
error = ParallelWarning if world.rank == 0 else ParallelError
assert "threads in all" in message(world.check_cores, 10_000, [0, 1], error=error)
"""
    run_mpi(2, OPEN + program)


def test_too_little_shared_memory_is_refused_on_every_rank(run_mpi: Any) -> None:
    program = """
world = World.open("wasap", 2)
world.check_shm(0)
error = message(world.check_shm, 2**60)
assert "1073741824.00 GiB" in error and "--shm-size" in error and "--transport messages" in error, error
"""
    run_mpi(2, OPEN + program)


ALONE = OPEN + 'print(message(World.open, "wasap", 2))'


def _alone(**env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PMI", "OMPI", "SLURM"))}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE], capture_output=True, text=True, timeout=60, env={**clean, **env}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_one_process_is_told_how_to_start() -> None:
    pytest.importorskip("mpi4py")
    said = _alone()
    assert "wasap needs at least 2 processes, and this one is alone" in said
    assert "mpiexec -n 3 trulysparse train ... --parallel wasap" in said


@pytest.mark.parametrize(
    ("env", "launcher"),
    [
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, "MPICH's mpiexec (Hydra) started this process as one of 3"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI's mpiexec started this process as one of 2"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}, "srun started this process as one of 4"),
    ],
)
def test_mpiexec_of_another_library_is_refused(env: dict[str, str], launcher: str) -> None:
    pytest.importorskip("mpi4py")
    said = _alone(**env)
    assert launcher in said
    assert "belongs to another MPI library" in said and str(Path(sys.executable).parent) in said
