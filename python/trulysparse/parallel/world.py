# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations
import json, time
from contextlib import contextmanager
from typing import Any
import numpy as np
from trulysparse.errors import ParallelError


class Pause:
    def __init__(self) -> None:
        self._polls, self._seconds = 0, 20e-6

    def rest(self) -> None:
        self._polls += 1
        if self._polls > 50:
            time.sleep(self._seconds)
            self._seconds = min(self._seconds * 1.2, 2e-4)


def wait(requests: Any) -> None:
    pause = Pause()
    while not all(r.Test() for r in requests):
        pause.rest()


def check_shm(n: int) -> None:
    pass


class World:
    @classmethod
    def open(cls, name: str, minimum: int) -> World:
        from mpi4py import MPI
        w = cls()
        w.comm = MPI.COMM_WORLD.Dup()
        w.node = w.comm.Split_type(MPI.COMM_TYPE_SHARED)
        w.rank, w.size = w.comm.rank, w.comm.size
        w.nodes = 1; w.node_size = w.node.size; w.node_of = [0] * w.size
        w.library = MPI.get_vendor()[0]
        return w

    def barrier(self) -> None:
        wait([self.comm.Ibarrier()])

    def broadcast_json(self, obj: Any, root: int = 0) -> Any:
        return self.comm.bcast(obj, root)

    def share_json(self, obj: Any) -> list[Any]:
        return self.comm.allgather(obj)

    @contextmanager
    def together(self, what: str):
        error = None
        try:
            yield
        except Exception as e:
            error = e
        all_ = self.share_json(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, text in enumerate(all_):
            if text is not None:
                raise ParallelError(f"rank {rank} failed while {what}: {text}")
