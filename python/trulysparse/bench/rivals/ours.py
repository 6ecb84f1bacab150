# SPDX-License-Identifier: BSD-3-Clause
"""trulysparse itself, through the functions that its training step calls."""

from __future__ import annotations

import math

import numpy as np

from trulysparse import _kernels
from trulysparse.bench.cases import DROP_FRACTION, LR, MOMENTUM, Problem, WrongResult
from trulysparse.bench.rivals.base import Contestant, Operation
from trulysparse.engine import apply_delta
from trulysparse.model import HeUniform, SparseLayer
from trulysparse.topology import SET, Signals


class TrulySparse(Contestant):
    """A `SparseLayer`."""

    name = "trulysparse"

    def __init__(self, problem: Problem, threads: int) -> None:
        super().__init__(problem, threads)
        bias = _kernels.aligned_zeros(problem.shape.n_out)
        values = _kernels.aligned_empty(problem.shape.nnz)
        values[...] = problem.values
        self.layer = SparseLayer(0, problem.pattern, values, bias, ("linear", 0.0), HeUniform())

    def forward(self) -> Operation:
        problem, view, threads = self.problem, self.layer.view, self.threads
        y = _kernels.aligned_empty((problem.shape.n_out, problem.ld))

        def call() -> None:
            _kernels.forward(view, problem.x_padded, y, activation=("linear", 0.0), threads=threads)

        return Operation(call, lambda: y[:, : problem.batch])

    def dx(self) -> Operation:
        return self._backward(with_dx=True, with_dw=False)

    def dw(self) -> Operation:
        return self._backward(with_dx=False, with_dw=True)

    def backward(self) -> Operation:
        return self._backward(with_dx=True, with_dw=True)

    def _backward(self, *, with_dx: bool, with_dw: bool) -> Operation:
        problem, view, threads = self.problem, self.layer.view, self.threads
        dx = _kernels.aligned_empty((problem.shape.n_in, problem.ld)) if with_dx else None
        dw = _kernels.aligned_empty(problem.shape.nnz) if with_dw else None
        sink = _kernels.sink_none() if dw is None else _kernels.sink_store(dw)

        def call() -> None:
            _kernels.backward(view, problem.dy_padded, problem.x_padded, dx, sink=sink, threads=threads)

        def read() -> object:
            delta = None if dx is None else dx[:, : problem.batch]
            return dw if delta is None else delta if dw is None else (delta, dw)

        return Operation(call, read)

    def update(self) -> Operation:
        weights, velocity = (
            _kernels.aligned_empty(self.problem.shape.nnz),
            _kernels.aligned_zeros(self.problem.shape.nnz),
        )
        weights[...] = self.problem.values
        gradient, threads = self.problem.gradient, self.threads

        def call() -> None:
            _kernels.sgd_step(
                weights, velocity, gradient, lr=LR, momentum=MOMENTUM, decay=0.0, form="l2", nesterov=False,
                threads=threads,
            )  # fmt: skip

        return Operation(call, lambda: weights)

    def evolution(self) -> Operation:
        problem, threads = self.problem, self.threads
        values = _kernels.aligned_empty(problem.shape.nnz)
        values[...] = problem.values
        bias = _kernels.aligned_zeros(problem.shape.n_out)
        layer = SparseLayer(0, problem.pattern, values, bias, ("linear", 0.0), HeUniform())
        slots = {"velocity": _kernels.aligned_zeros(problem.shape.nnz)}
        rule = SET(DROP_FRACTION)
        number = 0

        def call() -> None:
            nonlocal number
            delta = rule.evolve(layer, Signals(problem.seed, number, threads), number)
            if delta is not None:
                apply_delta(layer, slots, delta, seed=problem.seed, evolution=number, threads=threads)
            number += 1

        def read() -> None:
            check_evolution(problem, layer, self.name)

        return Operation(call, read)


def check_evolution(problem: Problem, layer: SparseLayer, contestant: str) -> None:
    """Compare a layer after its first evolution with what SET says, worked out with NumPy.

    Raises
    ------
    WrongResult
        Another number of connections, a survivor that is absent or has another weight.
    """
    if layer.nnz != problem.shape.nnz:
        raise WrongResult(f"{contestant}: an evolution left {layer.nnz} connections of {problem.shape.nnz}")
    values = problem.values
    survives = values != 0
    for sign in (1.0, -1.0):
        of_sign = np.flatnonzero(sign * values > 0)
        dropped = math.floor(DROP_FRACTION * of_sign.size + 0.5)
        order = np.argsort(np.abs(values[of_sign]), kind="stable")
        survives[of_sign[order[:dropped]]] = False
    cells, after = problem.pattern.cells()[survives], layer.pattern.cells()
    places = np.searchsorted(after, cells)
    places[places == after.size] = 0
    if not np.array_equal(after[places], cells) or not np.array_equal(layer.values[places], values[survives]):
        raise WrongResult(f"{contestant}: an evolution lost or changed connections that should have stayed")
