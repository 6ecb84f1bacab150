# SPDX-License-Identifier: BSD-3-Clause
"""SciPy CSR: products of its own C++, on one thread; the rest as NumPy users write it."""

from __future__ import annotations

from typing import Any

import numpy as np

from trulysparse.bench.cases import LR, MOMENTUM
from trulysparse.bench.rivals.base import Contestant, Operation

_BLOCK_FLOATS = 1 << 16


class SciPy(Contestant):
    """Both orientations are kept as CSR, each with its values."""

    name = "scipy"

    def forward(self) -> Operation:
        return self._product(self.problem.transposed_matrix, self.problem.x)

    def dx(self) -> Operation:
        return self._product(self.problem.matrix, self.problem.dy)

    def _product(self, matrix: Any, dense: Any) -> Operation:
        result: list[Any] = [None]
        operand = dense[:, 0].copy() if self.problem.batch == 1 else dense

        def call() -> None:
            result[0] = matrix @ operand

        return Operation(call, lambda: result[0].reshape(matrix.shape[0], self.problem.batch))

    def dw(self) -> Operation:
        problem = self.problem
        sources, targets = problem.pattern.sources(), problem.pattern.col_idx
        x, dy = problem.x, problem.dy
        result = np.empty(problem.shape.nnz, np.float32)
        block = max(1, _BLOCK_FLOATS // problem.batch)  # gathered rows stay in cache

        def call() -> None:
            for k in range(0, result.size, block):
                some = slice(k, k + block)
                np.einsum("kb,kb->k", x[sources[some]], dy[targets[some]], out=result[some])

        return Operation(call, lambda: result)

    def update(self) -> Operation:
        w, g = self.problem.values.copy(), self.problem.gradient
        v, step = np.zeros_like(w), np.empty_like(w)

        def call() -> None:
            np.multiply(v, MOMENTUM, out=v)
            np.multiply(g, LR, out=step)
            np.subtract(v, step, out=v)
            np.add(w, v, out=w)

        return Operation(call, lambda: w)
