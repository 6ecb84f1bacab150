# SPDX-License-Identifier: BSD-3-Clause
"""sparselab: padded CSR kernels for PyTorch. Its kernels are called as its autograd function calls them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from trulysparse.bench.cases import DROP_FRACTION, Problem, WrongResult
from trulysparse.bench.rivals.base import Contestant, NotOffered, Operation
from trulysparse.bench.rivals.torch_tensors import _csr_tensor, fused_sgd

_SET_LIMIT_CELLS = 20_000_000


class SparseLab(Contestant):
    """A `PaddedCSR` of (n_out, n_in), and its transpose with values that are up to date."""

    name = "sparselab"

    def __init__(self, problem: Problem, threads: int) -> None:
        from sparselab import _core

        super().__init__(problem, threads)
        self.core = _core
        self.weights = problem.share("sparselab", self._make)

    def _make(self) -> Any:
        from sparselab import layout

        return layout.from_torch_sparse_csr(_csr_tensor(self.problem.transposed_matrix))

    def forward(self) -> Operation:
        return self._product(self.weights, self.problem.x)

    def dx(self) -> Operation:
        from sparselab import layout

        transposed = self.problem.share("sparselab transposed", lambda: layout.transpose(self.weights))
        return self._product(transposed, self.problem.dy)

    def _product(self, matrix: Any, dense: Any) -> Operation:
        result: list[Any] = [None]

        def call() -> None:
            result[0] = self.core.spmm_simd(matrix, dense)

        return Operation(call, lambda: result[0])

    def dw(self) -> Operation:
        result: list[Any] = [None]

        def call() -> None:
            result[0] = self.core.spmm_grad_w_simd(self.weights, self.problem.dy, self.problem.x)

        return Operation(call, lambda: self._in_pattern_order(result[0]))

    def update(self) -> Operation:
        import torch

        weights = torch.from_numpy(np.array(self.weights.values))
        gradient = np.zeros(len(weights), np.float32)
        gradient[self._slots()] = self.problem.gradient[self.problem.permutation]
        step = fused_sgd(weights, torch.from_numpy(gradient))
        return Operation(step, lambda: self._in_pattern_order(weights.numpy()))

    def evolution(self) -> Operation:
        from sparselab import SET

        shape = self.problem.shape
        if shape.n_in * shape.n_out > _SET_LIMIT_CELLS:
            raise NotOffered("its SET walks every cell of the matrix in Python")
        rule = SET(sparsity=1 - shape.density, drop_fraction=DROP_FRACTION, update_freq=1)
        layer = SimpleNamespace(_csr=self._make())
        random = np.random.default_rng(0)

        def read() -> None:
            if abs(int(layer._csr.nnz) - shape.nnz) > shape.n_out:
                raise WrongResult(f"{self.name}: an evolution left {layer._csr.nnz} connections of {shape.nnz}")

        return Operation(lambda: rule._update_layer(layer, random), read)

    def _slots(self) -> Any:
        """Return the slots that are in use, in the order of `Problem.transposed_matrix`."""
        counts = np.asarray(self.weights.row_nnz)
        first = np.cumsum(counts) - counts
        return np.arange(counts.sum()) - np.repeat(first - np.asarray(self.weights.row_start), counts)

    def _in_pattern_order(self, slots: Any) -> Any:
        result = np.empty(self.problem.shape.nnz, np.float32)
        result[self.problem.permutation] = slots[self._slots()]
        return result
