# SPDX-License-Identifier: BSD-3-Clause
"""Intel MKL's sparse products through sparse_dot_mkl; it has no product that is computed at the connections only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trulysparse.bench.rivals.base import Contestant, Operation


def import_mkl() -> Any:
    """Import sparse_dot_mkl, and help it find the library that ``pip install mkl`` puts beside Python."""
    # Its threads would spin for 200 ms after each product, on the cores of the contestant whose turn is next.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
    libraries = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if libraries:
        os.environ.setdefault("MKL_RT", str(libraries[-1]))
    import sparse_dot_mkl

    return sparse_dot_mkl


class MKL(Contestant):
    """Both orientations are kept as CSR, each with its values; results go to arrays that are there."""

    name = "mkl"

    def forward(self) -> Operation:
        return self._product(self.problem.transposed_matrix, self.problem.x)

    def dx(self) -> Operation:
        return self._product(self.problem.matrix, self.problem.dy)

    def _product(self, matrix: Any, dense: Any) -> Operation:
        from scipy.sparse import csr_matrix

        mkl = import_mkl()
        own = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        vector = self.problem.batch == 1
        operand = dense[:, 0].copy() if vector else dense
        result = np.zeros((matrix.shape[0],) if vector else (matrix.shape[0], self.problem.batch), np.float32)

        def call() -> None:
            mkl.dot_product_mkl(own, operand, out=result, out_scalar=0.0)

        return Operation(call, lambda: result.reshape(matrix.shape[0], self.problem.batch))
