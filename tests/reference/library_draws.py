# SPDX-License-Identifier: BSD-3-Clause
"""A `Draws` for the reference that makes the random choices of a library run.

All come from the independent Philox, but for the choice of grown cells, which is the library's own draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from trulysparse.model import Pattern

from . import philox


class LibraryDraws:
    """The draws of a trainer with this seed, for layers initialised with dense fan-in.

    Parameters
    ----------
    sizes : sequence of int
        Neurons of every layer.
    seed : int
        Of the trainer.
    dropout_thresholds : sequence of int
        Of the hidden layers, out of 65536.
    init : {"he_uniform", "xavier", "normal"}
        What grown weights are drawn from.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seed: int,
        dropout_thresholds: Sequence[int] = (),
        init: str = "he_uniform",
    ) -> None:
        self.sizes, self.seed, self.thresholds, self.init = sizes, seed, dropout_thresholds, init

    def order(self, n: int, epoch: int) -> NDArray[np.int64]:
        return philox.shuffle(n, seed=self.seed, step=epoch)

    def kept(self, layer: int, step: int, batch: int, neurons: int) -> NDArray[np.bool_]:
        return philox.dropout_kept(neurons, batch, self.thresholds[layer], seed=self.seed, layer=layer, step=step)

    def cells(self, layer: int, evolution: int, survivors: NDArray[np.bool_], count: int) -> NDArray[np.uint64]:
        csr = scipy.sparse.csr_array(survivors)
        pattern = Pattern(*survivors.shape, csr.indptr.astype(np.int32), csr.indices.astype(np.int32))
        return pattern.draw_missing(count, seed=self.seed, purpose="regrow_cells", layer=layer, step=evolution)

    def values(self, layer: int, evolution: int, cells: NDArray[np.uint64]) -> NDArray[Any]:
        n_in, n_out = self.sizes[layer : layer + 2]
        where = {"seed": self.seed, "purpose": "regrow_values", "layer": layer, "step": evolution}
        if self.init == "normal":
            return philox.normal_values(cells, 0.1, **where)
        return philox.uniform_values(cells, math.sqrt(6 / (n_in + (n_out if self.init == "xavier" else 0))), **where)
