# SPDX-License-Identifier: BSD-3-Clause
"""A network for prediction alone: smaller, and made for single samples too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.model.inference import F32_DTYPE, Stage, Stored
from trulysparse.model.inputs import InputScaling
from trulysparse.model.losses import Loss
from trulysparse.model.predictor import Predictor

__all__ = ["FrozenLayer", "FrozenMLP"]

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

FEW = 2
"""Samples up to which one after the other is faster than a batch, whose 16 columns are all computed."""


class FrozenLayer:
    """One layer of a `FrozenMLP`: its connections by target, with their weights in that order.

    Parameters
    ----------
    n_in, n_out
        Numbers of source and target neurons.
    col_ptr, row_idx
        Where the connections of each target begin, and their sources; as `Pattern.transposed` gives them.
    weights
        float32 (nnz,), in the order of `row_idx`.
    bias
        float32 (n_out,).
    activation
        ``(kind, slope)``.
    activation_parameters
        What was trained in the activation, which is then ``("linear", 0.0)``; see `SparseLayer`.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        col_ptr: Array,
        row_idx: npt.NDArray[np.int32],
        weights: F32,
        bias: F32,
        activation: tuple[str, float],
        activation_parameters: Mapping[str, F32] | None = None,
    ) -> None:
        self.n_in, self.n_out, self.activation = n_in, n_out, activation
        self.activation_parameters = dict(activation_parameters or {})
        self._arrays = col_ptr, row_idx, weights, bias
        self._handle: _kernels.FrozenLayer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}  # it holds addresses

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in (*self._arrays, *self.activation_parameters.values()))

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return len(self._arrays[1])

    @property
    def handle(self) -> _kernels.FrozenLayer:
        """What the kernels take."""
        if self._handle is None:
            self._handle = _kernels.frozen_layer(
                self.n_in, self.n_out, *self._arrays, self.activation, trained=self.activation_parameters or None
            )
        return self._handle

    def forward(self, x: Stored, y: Stored, threads: int) -> None:
        """Write ``f(x W + b)`` of the activations x (n_in, ld) into y (n_out, ld)."""
        _kernels.forward_frozen(self.handle, x, y, threads)


class FrozenMLP(Predictor):
    """A network that only predicts; `SparseMLP.freeze` makes it.

    It holds 8 bytes a connection (a network that can train 16, and its optimizer's state) and takes one or two samples
    one after the other, without filling a batch: for a service that gets single samples. Their outputs may differ in
    the last bits from those in a batch, because sums are grouped otherwise. Changes of the network it was made of do
    not reach it.

    Parameters
    ----------
    layers
        At least one; inputs first.
    loss
        Says what outputs mean.
    scaling
        Applied to the features; None: taken as they are.
    classes
        Names of the classes, or None.
    threads
        None: all cores.
    """

    def __init__(
        self,
        layers: Sequence[FrozenLayer],
        loss: Loss,
        scaling: InputScaling | None,
        classes: list[str | int] | None,
        *,
        threads: int | None = None,
    ) -> None:
        self.layers = list(layers)
        self.loss, self.scaling, self.classes, self.threads = loss, scaling, classes, threads
        self._network: _kernels.FrozenNetwork | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_network": None}  # it holds addresses

    def __repr__(self) -> str:
        return f"FrozenMLP({self.sizes}, {self.connections} connections, {self.nbytes} bytes)"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer, inputs first."""
        return self.layers[0].n_in, *(layer.n_out for layer in self.layers)

    @property
    def connections(self) -> int:
        """Weights that exist, biases not included."""
        return sum(layer.nnz for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def _stages(self, batches: int, threads: int) -> Sequence[Stage]:
        return self.layers

    @property
    def _trained_activations(self) -> bool:
        return any(layer.activation_parameters for layer in self.layers)

    def _rows(
        self,
        X: Any,
        batch_size: int,
        threads: int | None,
        loss: Loss | None = None,
        dtype: np.dtype[Any] = F32_DTYPE,
    ) -> F32:
        batch_size, threads = self._batching(batch_size, threads)
        rows = self._one_by_one(X, threads) if dtype == F32_DTYPE else None
        if rows is None:
            return super()._rows(X, batch_size, threads, loss, dtype)
        if loss is not None:
            z = _kernels.aligned_zeros((rows.shape[1], _kernels.padded(len(rows))))
            z[:, : len(rows)] = rows.T
            loss.proba(z, len(rows), z, threads)
            rows[...] = z[:, : len(rows)].T
        return rows

    def _one_by_one(self, X: Any, threads: int) -> F32 | None:
        """Return the outputs of a few samples; None where there are more, or anything is wrong with them."""
        n_in = self.sizes[0]
        if type(X) is not np.ndarray or X.dtype != np.float32 or X.ndim != 2 or not X.flags.c_contiguous:
            if not 0 < getattr(X, "shape", (0,))[0] <= FEW:
                return None
            X = self._inputs(X).X
            X = np.ascontiguousarray(X.toarray() if hasattr(X, "toarray") else X, np.float32)
        if not (0 < X.shape[0] <= FEW and X.shape[1] == n_in):
            return None
        if self._network is None:
            shift, factor = (None, None) if self.scaling is None else (self.scaling.shift, self.scaling.factor)
            self._network = _kernels.FrozenNetwork([layer.handle for layer in self.layers], shift, factor)
        rows = np.empty((X.shape[0], self.sizes[-1]), np.float32)
        return rows if self._network.run(X, rows, threads) else None
