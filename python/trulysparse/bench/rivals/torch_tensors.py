# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch: dense matrices, dense matrices with a mask, and its CSR tensors (which call MKL)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from trulysparse.bench.cases import DROP_FRACTION, LR, MOMENTUM, Problem, WrongResult
from trulysparse.bench.rivals.base import Contestant, NotOffered, Operation, need_dense


def fused_sgd(weights: Any, gradient: Any) -> Any:
    """Return a callable: PyTorch's fastest momentum SGD on one tensor."""
    import torch

    parameter = torch.nn.Parameter(weights)
    parameter.grad = gradient
    optimizer = torch.optim.SGD([parameter], lr=LR, momentum=MOMENTUM, fused=True)
    return optimizer.step


class TorchDense(Contestant):
    """Full matrices; zeros are multiplied."""

    name = "torch-dense"

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        super().__init__(problem, threads)
        need_dense(problem)
        self.weights = torch.from_numpy(problem.matrix.toarray())
        self.transposed = self.weights.t().contiguous()
        self.x, self.dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)

    def forward(self) -> Operation:
        import torch

        y = torch.empty(self.problem.shape.n_out, self.problem.batch)
        return Operation(lambda: torch.mm(self.transposed, self.x, out=y), y.numpy)

    def dx(self) -> Operation:
        import torch

        dx = torch.empty(self.problem.shape.n_in, self.problem.batch)
        return Operation(lambda: torch.mm(self.weights, self.dy, out=dx), dx.numpy)

    def dw(self) -> Operation:
        import torch

        dw = torch.empty(self.problem.shape.n_in, self.problem.shape.n_out)
        return Operation(lambda: torch.mm(self.x, self.dy.t(), out=dw), lambda: self._at_connections(dw))

    def update(self) -> Operation:
        import torch

        weights = self.weights.clone()
        gradient = torch.zeros_like(weights)
        sources, targets = self._cells()
        gradient[sources, targets] = torch.from_numpy(self.problem.gradient)
        return Operation(fused_sgd(weights, gradient), lambda: self._at_connections(weights))

    def _cells(self) -> tuple[Any, Any]:
        import torch

        pattern = self.problem.pattern
        return torch.from_numpy(pattern.sources().astype(np.int64)), torch.from_numpy(pattern.col_idx.astype(np.int64))

    def _at_connections(self, matrix: Any) -> Any:
        return matrix.numpy()[self.problem.pattern.sources(), self.problem.pattern.col_idx]


class TorchMasked(TorchDense):
    """What most dynamic sparse training does: full matrices, multiplied by a mask of zeros and ones."""

    name = "torch-masked"

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        super().__init__(problem, threads)
        self.mask = torch.zeros_like(self.weights)
        self.mask[self._cells()] = 1  # not where weights are nonzero: a drawn value may be zero
        self.masked = torch.empty_like(self.weights)

    def forward(self) -> Operation:
        import torch

        y = torch.empty(self.problem.shape.n_out, self.problem.batch)

        def call() -> None:
            torch.mul(self.weights, self.mask, out=self.masked)
            torch.mm(self.masked.t(), self.x, out=y)

        return Operation(call, y.numpy)

    def dw(self) -> Operation:
        import torch

        dw = torch.empty(self.problem.shape.n_in, self.problem.shape.n_out)

        def call() -> None:
            torch.mm(self.x, self.dy.t(), out=dw)
            dw.mul_(self.mask)

        return Operation(call, lambda: self._at_connections(dw))

    def evolution(self) -> Operation:
        import torch

        weights, mask = self.weights.clone(), self.mask.clone()
        drop = round(DROP_FRACTION * self.problem.shape.nnz)
        infinity = float("inf")

        def call() -> None:
            sizes = torch.where(mask > 0, weights.abs(), infinity).flatten()
            mask.flatten()[torch.topk(sizes, drop, largest=False, sorted=False).indices] = 0
            free = torch.where(mask > 0, -1.0, torch.rand_like(mask)).flatten()
            grown = torch.topk(free, drop, sorted=False).indices
            mask.flatten()[grown] = 1
            weights.flatten()[grown] = torch.rand(drop) - 0.5

        def read() -> None:
            if int(mask.sum()) != self.problem.shape.nnz:
                raise WrongResult(f"{self.name}: an evolution left {int(mask.sum())} connections")

        return Operation(call, read)


class TorchCSR(Contestant):
    """CSR tensors of both orientations, each with its values."""

    name = "torch-csr"

    def __init__(self, problem: Problem, threads: int) -> None:
        import torch

        super().__init__(problem, threads)
        if problem.shape.nnz >= 2**31:
            raise NotOffered("it counts connections in 32 bits")
        self.weights = _csr_tensor(problem.matrix)
        self.transposed = _csr_tensor(problem.transposed_matrix)
        self.x, self.dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)

    def forward(self) -> Operation:
        return self._product(self.transposed, self.x)

    def dx(self) -> Operation:
        return self._product(self.weights, self.dy)

    def _product(self, matrix: Any, dense: Any) -> Operation:
        result: list[Any] = [None]

        def call() -> None:
            result[0] = matrix @ dense

        return Operation(call, lambda: result[0].numpy())

    def dw(self) -> Operation:
        import torch

        result: list[Any] = [None]

        def call() -> None:
            result[0] = torch.sparse.sampled_addmm(self.weights, self.x, self.dy.t(), beta=0.0)

        return Operation(call, lambda: result[0].values().numpy())

    def update(self) -> Operation:
        import torch

        weights = torch.from_numpy(self.problem.values.copy())
        return Operation(fused_sgd(weights, torch.from_numpy(self.problem.gradient)), weights.numpy)


def _csr_tensor(matrix: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # beta state, and checks that are off
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.copy()),
            torch.from_numpy(matrix.indices.copy()),
            torch.from_numpy(matrix.data.copy()),
            matrix.shape,
        )
