# SPDX-License-Identifier: BSD-3-Clause
"""What ranks that have no master say to each other; whoever waits hears of a rank that failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ParallelError
from trulysparse.parallel import wire
from trulysparse.parallel.world import World

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]

_FAILURE_TAG, _NUMBERS_TAG, _REDUCE_TAG, _SHARE_TAG, _PAIR_TAG = 9_100, 9_101, 9_102, 9_103, 9_104
_TEXT_BYTES = 512
_TELL_SECONDS = 2.0

_abandoned: list[Any] = []
"""Requests that will never be complete, because a rank failed: MPI may still write to what they refer to."""


class Sharing:
    """A few numbers of every rank, on their way to every other."""

    def __init__(self, link: Link, mine: Sequence[float]) -> None:
        world = link.world
        self._link = link
        self._table: Numbers = np.empty((world.size, len(mine)))
        self._table[world.rank] = mine
        self._requests: list[Any] = []
        for other in link.others:
            self._requests += wire.receive_into(world, self._table[other], other, _NUMBERS_TAG)
        for other in link.others:
            self._requests += wire.send(world, self._table[world.rank], other, _NUMBERS_TAG)

    def finish(self) -> Numbers:
        """Wait for all, and return one row a rank."""
        self._link.wait(self._requests)
        return self._table


class Link:
    """The connection of one rank to all others.

    Whatever is shared must be shared by all ranks in the same order.

    Parameters
    ----------
    world : World

    Attributes
    ----------
    others : list of int
        The other ranks, the next one first, so that not all talk to one at once.
    idle_seconds : float
        Spent waiting.
    bytes_sent : int
        Of parameters and gradients.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.others = [(world.rank + i) % world.size for i in range(1, world.size)]
        self.idle_seconds = 0.0
        self.bytes_sent = 0
        self._heard: str | None = None

    # failing

    def wait(self, requests: Sequence[Any]) -> None:
        """Wait until requests are complete.

        Raises
        ------
        ParallelError
            Another rank failed, and told, or died, and the MPI library lived to tell.
        """
        started = time.perf_counter()
        try:
            done = wire.wait(requests, interrupted=self._hears)
        except wire.mpi_error() as error:
            _abandoned.extend(requests)
            raise ParallelError(
                f"rank {self.world.rank} lost another rank ({error}); resume from the last checkpoint with --resume"
            ) from error
        self.idle_seconds += time.perf_counter() - started
        if not done:
            _abandoned.extend(requests)
            raise ParallelError(self._heard)

    def _hears(self) -> bool:
        comm, mpi = self.world.comm, self.world.mpi
        status = mpi.Status()
        if not comm.Iprobe(mpi.ANY_SOURCE, _FAILURE_TAG, status):
            return False
        text = np.zeros(_TEXT_BYTES, np.uint8)
        comm.Recv([text, mpi.BYTE], status.Get_source(), _FAILURE_TAG)
        said = text.tobytes().rstrip(b"\0").decode("utf-8", "ignore")
        self._heard = f"rank {status.Get_source()} failed: {said}"
        return True

    def tell(self, error: BaseException) -> None:
        """Tell all other ranks that this one failed, unless it was one of them that told."""
        if self._heard is not None:
            return
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        text = np.zeros(_TEXT_BYTES, np.uint8)
        encoded = np.frombuffer(words.encode("utf-8", "replace")[:_TEXT_BYTES], np.uint8)
        text[: encoded.size] = encoded
        for other in self.others:
            try:
                requests = wire.send(self.world, text, other, _FAILURE_TAG)
                wire.wait(requests, timeout=_TELL_SECONDS)
                _abandoned.extend(requests)
            except wire.mpi_error() as death:
                error.add_note(f"trulysparse could not tell rank {other}: {death}")

    # numbers

    def start_sharing(self, mine: Sequence[float]) -> Sharing:
        """Begin to share a few numbers, as many on every rank."""
        return Sharing(self, mine)

    def share(self, mine: Sequence[float]) -> Numbers:
        """Return the numbers of all ranks, one row a rank, on every rank."""
        return self.start_sharing(mine).finish()

    # flat arrays

    def exchange(self, mine: Floats, other: int) -> Floats:
        """Give an array to another rank, and return the one that it gives: of the same size."""
        theirs: Floats = _kernels.aligned_empty(mine.size)
        requests = wire.receive_into(self.world, theirs, other, _PAIR_TAG)
        requests += wire.send(self.world, mine, other, _PAIR_TAG)
        self.bytes_sent += mine.nbytes
        self.wait(requests)
        return theirs


class Mean:
    """The mean of an array over all ranks, the same bits on each, whatever the MPI library.

    Every rank averages its part of the array, which all others send to it, in the order of the ranks; then it sends the
    result to all. So a rank sends, and receives, 2 (K - 1) / K times the array, and every element is added up once.

    Parameters
    ----------
    link : Link
    size : int
        Of the array.
    threads : int
    """

    def __init__(self, link: Link, size: int, threads: int) -> None:
        self._link, self._threads = link, threads
        ranks, lines = link.world.size, -(-size // _kernels.LANE)
        ends = [min(size, lines * rank // ranks * _kernels.LANE) for rank in range(ranks + 1)]
        ends[-1] = size
        self.parts = [slice(start, end) for start, end in pairwise(ends)]
        own = self.parts[link.world.rank]
        self._received: dict[int, Floats] = {
            other: _kernels.aligned_empty(own.stop - own.start) for other in link.others
        }

    def of(self, flat: Floats) -> None:
        """Replace a C-contiguous array, 64-byte aligned, by the mean of the arrays of all ranks."""
        link, world = self._link, self._link.world
        own = flat[self.parts[world.rank]]
        requests: list[Any] = []
        for other in link.others:
            requests += wire.receive_into(world, self._received[other], other, _REDUCE_TAG)
        for other in link.others:
            requests += self._send(flat[self.parts[other]], other, _REDUCE_TAG)
        link.wait(requests)
        if own.size and link.others:
            arrays = [own if rank == world.rank else self._received[rank] for rank in range(world.size)]
            _kernels.average(arrays, own, self._threads)
        requests = []
        for other in link.others:
            requests += wire.receive_into(world, flat[self.parts[other]], other, _SHARE_TAG)
        for other in link.others:
            requests += self._send(own, other, _SHARE_TAG)
        link.wait(requests)

    def _send(self, part: Floats, other: int, tag: int) -> list[Any]:
        self._link.bytes_sent += part.nbytes
        return wire.send(self._link.world, part, other, tag)
