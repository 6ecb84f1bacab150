# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations
import json
from typing import Any
import numpy as np
from trulysparse import _kernels
from trulysparse.parallel.world import Pause, wait


def mpi_error():
    from mpi4py import MPI
    return MPI.Exception


def is_death(error) -> bool:
    return False


def is_done(requests) -> bool:
    return all(r.Test() for r in requests)


def send(world, array, dest, tag):
    return [world.comm.Isend([array.reshape(-1).view(np.uint8), "B"], dest, tag)]


def receive_into(world, array, source, tag):
    return [world.comm.Irecv([array.reshape(-1).view(np.uint8), "B"], source, tag)]


def send_tensors(world, tensors, dest, tag):
    head = np.frombuffer(json.dumps([[n, str(a.dtype), list(a.shape)] for n, a in tensors.items()]).encode(), np.uint8)
    reqs = send(world, np.array([head.size], np.int64), dest, tag) + send(world, head, dest, tag)
    for a in tensors.values():
        reqs += send(world, np.ascontiguousarray(a), dest, tag)
    wait(reqs)


def receive_tensors(world, source, tag):
    n = np.zeros(1, np.int64)
    wait(receive_into(world, n, source, tag))
    head = np.zeros(int(n[0]), np.uint8)
    wait(receive_into(world, head, source, tag))
    out = {}
    for name, dtype, shape in json.loads(head.tobytes()):
        a = _kernels.aligned_empty(tuple(shape), dtype)
        wait(receive_into(world, a, source, tag))
        out[name] = a
    return out


def broadcast_tensors(world, tensors, root=0):
    if world.rank == root:
        for r in range(world.size):
            if r != root: send_tensors(world, tensors, r, 77)
        return tensors
    return receive_tensors(world, root, 77)
