# SPDX-License-Identifier: BSD-3-Clause
"""SparseProp (Nikdan et al. 2023): AVX2 kernels on CSR (n_out, n_in); one pass backward gives both gradients."""

from __future__ import annotations

import numpy as np

from trulysparse.bench.cases import Problem
from trulysparse.bench.rivals.base import Contestant, NotOffered, Operation


class SparseProp(Contestant):
    """Its kernels add to their results, so these are cleared first, as its layer does."""

    name = "sparseprop"

    def __init__(self, problem: Problem, threads: int) -> None:
        import backend  # what sparseprop installs its kernels as

        super().__init__(problem, threads)
        if problem.shape.nnz >= 2**31 or max(problem.shape.n_in, problem.shape.n_out) * problem.batch >= 2**31:
            raise NotOffered("it counts in 32 bits")
        self.backend = backend
        matrix = problem.transposed_matrix
        self.index = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        self.values = matrix.data

    def forward(self) -> Operation:
        y = np.empty((self.problem.shape.n_out, self.problem.batch), np.float32)

        def call() -> None:
            y.fill(0.0)
            self.backend.sparse_linear_vectorized_forward(self.problem.x, *self.index, self.values, y)

        return Operation(call, lambda: y)

    def dx(self) -> Operation:
        raise NotOffered("it computes dx and dw together")

    def dw(self) -> Operation:
        raise NotOffered("it computes dx and dw together")

    def backward(self) -> Operation:
        problem = self.problem
        dx = np.empty((problem.shape.n_in, problem.batch), np.float32)
        dw = np.empty(problem.shape.nnz, np.float32)

        def call() -> None:
            dx.fill(0.0)
            self.backend.sparse_linear_vectorized_backward(problem.x, *self.index, self.values, problem.dy, dx, dw)

        def read() -> object:
            in_order = np.empty_like(dw)
            in_order[problem.permutation] = dw
            return dx, in_order

        return Operation(call, read)
