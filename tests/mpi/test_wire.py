# SPDX-License-Identifier: BSD-3-Clause
"""Arrays arrive as they were sent."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.mpi

START = """
import numpy as np
from trulysparse.errors import ParallelError
from trulysparse.parallel import wire
from trulysparse.parallel.world import World
world = World.open("wasap", 2)
rank, size = world.rank, world.size

def examples():
    rng = np.random.default_rng(0)
    arrays = {"nothing": np.zeros((0, 3), np.float32), "number": np.array(2.5), "ä": rng.random((5, 7)) < 0.5}
    for kind in "u1 i1 u2 i4 i8 u8 f2 f4 f8 c16".split():
        arrays[kind] = rng.integers(0, 100, (3, 11)).astype(kind)
    arrays["nan"] = np.array([np.nan, np.inf, -0.0], np.float32)
    return arrays

def check(received):
    sent = examples()
    assert list(received) == list(sent)
    for name, array in sent.items():
        other = received[name]
        assert other.dtype == array.dtype and other.shape == array.shape and other.tobytes() == array.tobytes(), name
        assert other.flags.writeable and other.flags.c_contiguous
"""


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, None])
def test_arrays_of_any_dtype_travel_in_pieces(run_mpi: Any, chunk_bytes: int | None) -> None:
    program = f"""
chunk = {chunk_bytes}
for tag, array in enumerate(examples().values()):
    if rank == 0:
        requests = wire.send(world, array, 1, tag, chunk_bytes=chunk)
        assert len(requests) == (-(-array.nbytes // chunk) if chunk else array.size > 0)
        world.wait(requests)
    elif rank == 1:
        into = np.zeros_like(array)
        world.wait(wire.receive_into(world, into, 0, tag, chunk_bytes=chunk))
        assert into.tobytes() == array.tobytes()
"""
    run_mpi(2, START + program)


@pytest.mark.parametrize("chunk_bytes", [5, None])
def test_named_arrays_arrive_in_order_and_aligned(run_mpi: Any, chunk_bytes: int | None) -> None:
    program = f"""
for sender in range(size):
    for other in (r for r in range(size) if r != sender):
        if rank == sender:
            wire.send_tensors(world, examples(), other, 3, chunk_bytes={chunk_bytes})
        elif rank == other:
            received = wire.receive_tensors(world, sender, 3, chunk_bytes={chunk_bytes})
            check(received)
            assert all(array.ctypes.data % 64 == 0 for array in received.values() if array.size)
if rank == 0:
    wire.send_tensors(world, {{}}, 1, 4)
elif rank == 1:
    assert wire.receive_tensors(world, 0, 4) == {{}}
    try:
        wire.receive_tensors(world, world.mpi.ANY_SOURCE)
    except ParallelError as error:
        assert "from one rank" in str(error)
    else:
        raise AssertionError("any source was taken")
"""
    run_mpi(3, START + program)


@pytest.mark.parametrize("ranks", [2, 3, 5, 8])
def test_broadcast_reaches_every_rank_from_any_root(run_mpi: Any, ranks: int) -> None:
    program = """
for root in range(size):
    check(wire.broadcast_tensors(world, examples() if rank == root else None, root, chunk_bytes=16))
"""
    run_mpi(ranks, START + program, timeout=120)


def test_broadcast_of_what_cannot_be_sent_fails_on_every_rank(run_mpi: Any) -> None:
    program = """
def fails(tensors, own):
    try:
        wire.broadcast_tensors(world, tensors, 1)
    except (own if rank == 1 else ParallelError) as error:
        assert rank == 1 or "failed while preparing a broadcast: rank 1" in str(error), error
    else:
        raise AssertionError("nothing was raised")
fails(None, ParallelError)
fails({"text": np.array(["a"])}, TypeError)
check(wire.broadcast_tensors(world, examples() if rank == 1 else None, 1))
"""
    run_mpi(3, START + program)


def test_is_done_looks_once(run_mpi: Any) -> None:
    program = """
array = np.zeros(4)
assert wire.is_done([])
if rank == 0:
    requests = wire.receive_into(world, array, 1, 1)
    assert not wire.is_done(requests)
world.barrier()
if rank == 1:
    wire.wait(wire.send(world, array + 1, 0, 1))
else:
    wire.wait(requests)
    assert wire.is_done(requests) and array.sum() == 4
"""
    run_mpi(2, START + program)


def test_an_error_of_mpi_is_not_a_death(run_mpi: Any) -> None:
    program = """
try:
    wire.send(world, np.zeros(1), 99, 0)
except wire.mpi_error() as error:
    assert not wire.is_death(error)
else:
    raise AssertionError("there is no rank 99")
death = world.mpi.Exception(world.mpi.ERR_PROC_FAILED)
assert wire.is_death(death)
assert not wire.is_death(ValueError())
"""
    run_mpi(2, START + program)


@pytest.mark.slow
def test_arrays_past_two_to_the_31_bytes_arrive_whole(run_mpi: Any) -> None:
    program = """
length = 2**31 + 12345
array = np.zeros(length, np.uint8)
marks = np.array([0, 2**30 - 1, 2**30, 2**31 - 1, 2**31, length - 1])
if rank == 0:
    array[marks] = np.arange(1, 7)
    world.wait(wire.send(world, array, 1, 0))
else:
    world.wait(wire.receive_into(world, array, 0, 0))
    assert (array[marks] == np.arange(1, 7)).all() and np.count_nonzero(array) == 6
"""
    run_mpi(2, START + program, timeout=300)
