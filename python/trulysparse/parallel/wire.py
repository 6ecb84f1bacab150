# SPDX-License-Identifier: BSD-3-Clause
"""Arrays over MPI as they lie in memory: never pickled, and in pieces, so that no count passes 2^31."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ParallelError
from trulysparse.parallel.world import World, _decode, _encode, wait

__all__ = [
    "CHUNK_BYTES",
    "broadcast_tensors",
    "is_death",
    "is_done",
    "mpi_error",
    "receive_into",
    "receive_tensors",
    "send",
    "send_tensors",
    "wait",
]

CHUNK_BYTES = 2**30
"""The longest message."""

_KINDS = "biufc"
_BROADCAST_TAG = 32_001


def mpi_error() -> type[Exception]:
    """Return the class of what MPI raises."""
    from mpi4py import MPI

    error: type[Exception] = MPI.Exception
    return error


def is_death(error: BaseException) -> bool:
    """Whether an error of MPI says that another rank died: only an MPI with fault tolerance lives to tell."""
    from mpi4py import MPI

    codes = {MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED}
    return isinstance(error, MPI.Exception) and error.Get_error_class() in codes


def is_done(requests: Sequence[Any]) -> bool:
    """Whether all requests are complete; looks once."""
    pending = [request for request in requests if not request.Test()]
    return not pending


def _pieces(array: NDArray[Any], chunk_bytes: int | None, *, write: bool) -> list[NDArray[np.uint8]]:
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"arrays of dtype {array.dtype} cannot be sent; only bool and numbers can")
    if not array.flags.c_contiguous:
        raise TypeError("only C-contiguous arrays can be sent and received; copy it with numpy.ascontiguousarray")
    if write and not array.flags.writeable:
        raise TypeError("the array to receive into cannot be written to")
    chunk = CHUNK_BYTES if chunk_bytes is None else chunk_bytes
    if not 1 <= chunk < 2**31:
        raise ValueError(f"chunk_bytes={chunk}; it must be at least 1 and below 2**31")
    if array.size == 0:
        return []
    flat = array.reshape(-1).view(np.uint8)
    return [flat[start : start + chunk] for start in range(0, flat.size, chunk)]


def send(world: World, array: NDArray[Any], dest: int, tag: int = 0, *, chunk_bytes: int | None = None) -> list[Any]:
    """Start to send an array; it may not change before the requests are complete.

    Parameters
    ----------
    world : World
    array : ndarray
        C-contiguous, of any shape and any numeric dtype.
    dest, tag : int
    chunk_bytes : int, optional
        ``CHUNK_BYTES`` by default; the same on both sides.

    Returns
    -------
    list of mpi4py.MPI.Request
        For :meth:`World.wait`; empty for an empty array.
    """
    return [world.comm.Isend([piece, world.mpi.BYTE], dest, tag) for piece in _pieces(array, chunk_bytes, write=False)]


def receive_into(
    world: World, array: NDArray[Any], source: int, tag: int = 0, *, chunk_bytes: int | None = None
) -> list[Any]:
    """Start to receive an array of known shape and dtype that `source` sends by :func:`send`.

    Parameters and result are those of :func:`send`; the array is complete when the requests are.
    """
    return [world.comm.Irecv([piece, world.mpi.BYTE], source, tag) for piece in _pieces(array, chunk_bytes, write=True)]


def _header(tensors: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    for name, array in tensors.items():
        if array.dtype.kind not in _KINDS or not array.flags.c_contiguous:
            raise TypeError(f"{name!r} is of dtype {array.dtype} or not C-contiguous; such arrays cannot be sent")
    return _encode([[name, array.dtype.str, list(array.shape)] for name, array in tensors.items()])


def _empty_tensors(header: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    return {name: _kernels.aligned_empty(tuple(shape), np.dtype(dtype)) for name, dtype, shape in _decode(header)}


def _start_sending(
    world: World, tensors: dict[str, NDArray[Any]], dest: int, tag: int, chunk_bytes: int | None
) -> list[Any]:
    header = _header(tensors)
    requests = send(world, np.array([header.size], np.int64), dest, tag)
    for array in (header, *tensors.values()):
        requests += send(world, array, dest, tag, chunk_bytes=chunk_bytes)
    return requests


def send_tensors(
    world: World, tensors: dict[str, NDArray[Any]], dest: int, tag: int = 0, *, chunk_bytes: int | None = None
) -> None:
    """Send named arrays, and wait until they are gone; two ranks may not do this to each other at once.

    Parameters
    ----------
    world : World
    tensors : dict of str to ndarray
        C-contiguous, of any shape (empty too) and any numeric dtype or bool.
    dest, tag : int
    chunk_bytes : int, optional
        ``CHUNK_BYTES`` by default; the same on both sides.
    """
    wait(_start_sending(world, tensors, dest, tag, chunk_bytes))


def receive_tensors(
    world: World, source: int, tag: int = 0, *, chunk_bytes: int | None = None
) -> dict[str, NDArray[Any]]:
    """Return the named arrays that `source` sends by :func:`send_tensors`, each 64-byte aligned, in its order."""
    if source < 0:
        raise ParallelError(f"source={source}; named arrays are received from one rank, not from any")
    length = np.empty(1, np.int64)
    wait(receive_into(world, length, source, tag))
    header = np.empty(int(length[0]), np.uint8)
    wait(receive_into(world, header, source, tag, chunk_bytes=chunk_bytes))
    tensors = _empty_tensors(header)
    requests: list[Any] = []
    for array in tensors.values():
        requests += receive_into(world, array, source, tag, chunk_bytes=chunk_bytes)
    wait(requests)
    return tensors


def broadcast_tensors(
    world: World, tensors: dict[str, NDArray[Any]] | None, root: int = 0, *, chunk_bytes: int | None = None
) -> dict[str, NDArray[Any]]:
    """Return the root's named arrays on every rank; all ranks call it.

    Parameters
    ----------
    world : World
    tensors : dict of str to ndarray, or None
        As for :func:`send_tensors` on the root, where they are returned as they are; ignored elsewhere.
    root : int
    chunk_bytes : int, optional
        ``CHUNK_BYTES`` by default; the same on all ranks.
    """
    with world.together("preparing a broadcast"):
        if world.rank == root:
            if tensors is None:
                raise ParallelError(f"rank {root} is the root of the broadcast and has nothing to send")
            _header(tensors)
    # a binomial tree of our own: a broadcast of MPI moves on only when it is polled, and we sleep between polls
    relative = (world.rank - root) % world.size
    step = relative & -relative if relative else 1 << (world.size - 1).bit_length()
    if relative:
        parent = (relative - step + root) % world.size
        tensors = receive_tensors(world, parent, _BROADCAST_TAG, chunk_bytes=chunk_bytes)
    assert tensors is not None
    requests: list[Any] = []
    while step > 1:
        step //= 2
        if relative + step < world.size:
            child = (relative + step + root) % world.size
            requests += _start_sending(world, tensors, child, _BROADCAST_TAG, chunk_bytes)
    wait(requests)
    return tensors
