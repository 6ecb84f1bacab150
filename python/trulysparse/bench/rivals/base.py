# SPDX-License-Identifier: BSD-3-Clause
"""What a contestant is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from trulysparse.bench.cases import Problem

DENSE_LIMIT_BYTES = 1 << 30


class NotOffered(Exception):
    """A contestant has no such operation, or cannot hold the problem; the message says why."""


@dataclass(frozen=True)
class Operation:
    """One operation, ready to be timed.

    Attributes
    ----------
    call : callable
        Does it once.
    read : callable
        After one call (an update: two), returns the result as `Problem.check` wants it; an evolution checks itself and
        returns None.
    """

    call: Callable[[], object]
    read: Callable[[], Any]


class Contestant:
    """One way to hold a layer and compute with it.

    Subclasses write the methods of the operations they offer; each prepares what it needs, untimed, and returns an
    `Operation`.

    Parameters
    ----------
    problem : Problem
        Its arrays are not to be changed.
    threads : int
        Threads to use; the runtimes of OpenMP, BLAS and PyTorch are set to it already.
    """

    name: ClassVar[str]

    def __init__(self, problem: Problem, threads: int) -> None:
        self.problem = problem
        self.threads = threads

    def operation(self, name: str) -> Operation:
        """Return an operation by name, ready to be timed."""
        make: Callable[[], Operation] = getattr(self, name)
        return make()

    def forward(self) -> Operation:
        """Y = x W, of all targets and samples."""
        raise NotOffered("it has no sparse product")

    def dx(self) -> Operation:
        """Delta of the layer below: dy times the weights transposed."""
        raise NotOffered("it has no separate product for it")

    def dw(self) -> Operation:
        """Gradient of the weights, only where there are connections."""
        raise NotOffered("it has no product that is computed at the connections only")

    def backward(self) -> Operation:
        """Both gradients: here dx, then dw."""
        dx, dw = self.dx(), self.dw()

        def both() -> None:
            dx.call()
            dw.call()

        return Operation(both, lambda: (dx.read(), dw.read()))

    def update(self) -> Operation:
        """Momentum SGD on the weights with a given gradient."""
        raise NotOffered("it has no optimizer")

    def evolution(self) -> Operation:
        """One step of SET: drop the smallest 30 %, grow as many at random."""
        raise NotOffered("it has no evolution of topology")


def need_dense(problem: Problem, matrices: int = 1) -> None:
    """Raise NotOffered if dense matrices of this shape would not fit."""
    n_bytes = 4 * matrices * problem.shape.n_in * problem.shape.n_out
    if n_bytes > DENSE_LIMIT_BYTES * matrices:
        raise NotOffered(
            f"a dense matrix of {problem.shape.n_in} x {problem.shape.n_out} takes {n_bytes / 1e9:,.0f} GB"
        )
