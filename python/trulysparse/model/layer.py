# SPDX-License-Identifier: BSD-3-Clause
"""One layer: a pattern, the values of its connections, and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError, ShapeError
from trulysparse.model.frozen import FrozenLayer
from trulysparse.model.inference import Stored
from trulysparse.model.init import Initializer
from trulysparse.model.pattern import Pattern
from trulysparse.model.registry import nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["LINEAR", "STORAGES", "SparseLayer"]

F32 = npt.NDArray[np.float32]


def _check_values(name: str, array: F32, n: int, what: str) -> F32:
    if array.dtype != np.float32 or not array.flags.c_contiguous or not array.flags.writeable:
        state = "" if array.flags.writeable else "read-only, "
        state += "contiguous" if array.flags.c_contiguous else "not contiguous"
        raise TypeError(
            f"{name} must be a writable, contiguous float32 array, got {array.dtype}, {state}; "
            f"pass np.array({name}, dtype=np.float32)"
        )
    if array.shape != (n,):
        raise ShapeError(f"{name} must have shape ({n},), one {what}, got {array.shape}")
    return array


LINEAR = ("linear", 0.0)

STORAGES = ("balanced", "fast", "lean")
"""What a layer keeps for the forward pass, which walks the connections by target. "balanced": the second index with a
permutation into the weights (8 bytes a connection). "fast": the second index with a copy of the weights in its order,
which every step makes anew (8 bytes). "lean": nothing; each pass over a layer sorts its connections for itself."""


class SparseLayer:
    """A truly sparse layer: z = a W + b, where only the connections of `pattern` exist.

    Parameters
    ----------
    index
        0-based number of the layer.
    pattern
        Its connections.
    values
        float32 (nnz,), the weights in pattern order; kept, not copied, and changed in place by training.
    bias
        float32 (n_out,); likewise.
    activation
        ``(kind, slope)`` as `Activation.resolve` gives it; ("linear", 0.0) for the output layer. Read from a layer, a
        rectifier's slope is the one in use, trained or not.
    initializer
        Draws the values of grown connections.
    activation_parameters
        What is trained in the activation, as `Activation.draw_parameters` gives it: float32 arrays (n_out,), or (1,)
        for a shared slope; kept, not copied. Empty for fixed activations.

    Raises
    ------
    ShapeError
        Arrays that do not fit the pattern.
    TypeError
        Arrays that are not writable, contiguous float32.
    """

    def __init__(
        self,
        index: int,
        pattern: Pattern,
        values: F32,
        bias: F32,
        activation: tuple[str, float],
        initializer: Initializer,
        activation_parameters: Mapping[str, F32] | None = None,
    ) -> None:
        self.index = index
        self._activation = activation
        self.initializer = initializer
        self.version = 0
        self._view: _kernels.LayerView | None = None
        self._storage = "balanced"
        self._by_target: F32 | None = None
        self._set(pattern, values, bias, activation_parameters or {})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_view": None, "_by_target": None}  # a view holds addresses

    def _set(self, pattern: Pattern, values: F32, bias: F32, activation_parameters: Mapping[str, F32]) -> None:
        values = _check_values("values", values, pattern.nnz, "a connection")
        bias = _check_values("bias", bias, pattern.n_out, "a target neuron")
        for name, array in activation_parameters.items():
            length = 1 if name == "slope" and len(array) == 1 else pattern.n_out
            _check_values(f"activation_parameters[{name!r}]", array, length, "a target neuron")
        self._pattern, self._values, self._bias = pattern, values, bias
        self._activation_parameters = dict(activation_parameters)
        self._fed: int | None = None

    @property
    def pattern(self) -> Pattern:
        """The connections; `replace` changes them."""
        return self._pattern

    @property
    def values(self) -> F32:
        """The weights in pattern order, float32 (nnz,): the living array."""
        return self._values

    @property
    def bias(self) -> F32:
        """float32 (n_out,): the living array."""
        return self._bias

    @property
    def activation_parameters(self) -> dict[str, F32]:
        """What is trained in the activation, by name: the living arrays; empty for fixed activations."""
        return self._activation_parameters

    @property
    def activation(self) -> tuple[str, float]:
        """``(kind, slope)``, with the slope as it is now."""
        slope = self._activation_parameters.get("slope")
        return self._activation if slope is None or self.activation_apart else ("rectifier", float(slope[0]))

    @property
    def activation_apart(self) -> bool:
        """Whether the activation is a pass of its own over the sums: PReLU and SReLU, not rectifiers."""
        return bool(self._activation_parameters) and self._activation[0] != "rectifier"

    @property
    def fused_activation(self) -> tuple[str, float]:
        """What `_kernels.forward` applies; PReLU and SReLU follow in a pass of their own."""
        return LINEAR if self.activation_apart else self.activation

    @property
    def fed_neurons(self) -> int:
        """Number of target neurons that have incoming connections; counted once for each pattern."""
        if self._fed is None:
            self._fed = int(np.count_nonzero(self._pattern.in_degree()))
        return self._fed

    @property
    def n_in(self) -> int:
        """Number of source neurons."""
        return self._pattern.n_in

    @property
    def n_out(self) -> int:
        """Number of target neurons."""
        return self._pattern.n_out

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self._pattern.nnz

    @property
    def density(self) -> float:
        """Connections as a part of all cells."""
        return self._pattern.density

    @property
    def weights(self) -> csr_array[np.float32, tuple[int, int]]:
        """A snapshot of the weights, SciPy CSR of shape (n_in, n_out): a copy whose arrays are read-only."""
        values = self._values.copy()
        values.setflags(write=False)
        return self._pattern.to_scipy(values)

    @property
    def storage(self) -> str:
        """What the layer keeps for the forward pass: one of `STORAGES`."""
        return self._storage

    def store(self, storage: str) -> None:
        """Keep for the forward pass what `storage` says, from its next use or `prepare` on; let go of the rest now."""
        if storage not in STORAGES:
            raise ConfigError(
                f"storage must be one of {', '.join(STORAGES)}, got {storage!r}{nearest(str(storage), STORAGES)}"
            )
        if storage == self._storage:
            return
        self._storage, self._view, self._by_target = storage, None, None
        if storage == "lean":
            self._pattern.forget_second_index()

    def prepare(self, threads: int | None = None) -> None:
        """Make the second index now, on these threads, as far as it is kept; let go of what is not kept of it."""
        if self._storage == "balanced":
            self._pattern.transpose(threads)
        elif self._storage == "fast":
            self._pattern.second_index(threads)
        else:
            self._pattern.forget_second_index()
        if self._storage != "fast":
            self._by_target = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays that the layer holds now."""
        trained = sum(array.nbytes for array in self._activation_parameters.values())
        copy = 0 if self._by_target is None else self._by_target.nbytes
        return self._pattern.held_bytes + self._values.nbytes + self._bias.nbytes + trained + copy

    @property
    def view(self) -> _kernels.LayerView:
        """What the kernels take; made at first use and after every `replace`. See `operands` for the forward pass."""
        if self._view is None:
            p = self._pattern
            second: tuple[Any, Any, Any] = (None, None, None)
            if self._storage == "balanced":
                second = p.transposed
            elif self._storage == "fast":
                second = *p.second_index(), None
            index = (p.row_ptr, p.col_idx, *second)
            # A pattern was checked, or made by a kernel; only one that was pickled comes back writable.
            trusted = not any(array is not None and array.flags.writeable for array in index)
            self._view = _kernels.layer_view(p.n_in, p.n_out, *index, self._values, self._bias, trusted=trusted)
        return self._view

    def order_weights(self, threads: int) -> None:
        """Bring the copy of the weights that a "fast" layer reads up to date; others keep none."""
        if self._storage != "fast":
            return
        if self._by_target is None or self._by_target.size != self.nnz:
            self._by_target = None
            self._by_target = _kernels.aligned_empty(self.nnz)
        _kernels.weights_by_target(self.view, self._by_target, threads)

    def operands(self, threads: int) -> tuple[_kernels.LayerView, F32 | None]:
        """Return the view and the weights in its order (or None) for a forward pass, after `order_weights`.

        A "lean" layer sorts its connections for it; what it made is gone with what is returned.
        """
        if self._storage != "lean":
            return self.view, self._by_target
        p = self._pattern
        col_ptr, row_idx, weights = p.transpose_values(self._values, threads)
        index = (p.row_ptr, p.col_idx, col_ptr, row_idx, None)
        return _kernels.layer_view(p.n_in, p.n_out, *index, self._values, self._bias, trusted=True), weights

    def forward(self, x: Stored, y: Stored, threads: int) -> None:
        """Write ``f(x W + b)``, without dropout, of the activations x (n_in, ld) into y (n_out, ld)."""
        self.order_weights(threads)
        view, weights = self.operands(threads)
        _kernels.forward(view, x, y, activation=self.fused_activation, by_target=weights, threads=threads)
        if self.activation_apart:
            z = cast(F32, y)  # networks with such activations predict in float32
            _kernels.trained_forward(z, z, self._activation_parameters, threads=threads)

    def freeze(self, threads: int, *, lasting: bool = True) -> FrozenLayer:
        """Return the layer as it is now, for prediction alone.

        Parameters
        ----------
        lasting
            False: it may share arrays that the next training step writes to.
        """
        p = self._pattern
        if self._storage == "lean":
            col_ptr, row_idx, weights = p.transpose_values(self._values, threads)
        elif self._storage == "fast" and not lasting:
            self.order_weights(threads)
            assert self._by_target is not None
            (col_ptr, row_idx), weights = p.second_index(threads), self._by_target
        else:
            self.prepare(threads)
            col_ptr, row_idx = p.second_index(threads) if self._storage == "fast" else p.transpose(threads)[:2]
            weights = _kernels.aligned_empty(self.nnz)
            _kernels.weights_by_target(self.view, weights, threads)
        trained = self._activation_parameters if self.activation_apart else {}
        parameters = {name: array.copy() for name, array in trained.items()}
        return FrozenLayer(
            self.n_in, self.n_out, col_ptr, row_idx, weights, self._bias.copy(), self.fused_activation, parameters
        )

    def __repr__(self) -> str:
        return (
            f"SparseLayer({self.index}, {self.n_in} -> {self.n_out}, {self.nnz} connections, "
            f"density={self.density:.4g}, activation={self.activation})"
        )

    def replace(
        self,
        pattern: Pattern,
        values: F32,
        bias: F32 | None = None,
        activation_parameters: Mapping[str, F32] | None = None,
    ) -> None:
        """Give the layer another pattern and its weights; `version` goes up.

        Parameters
        ----------
        pattern
            Of the same shape, unless neurons were removed; then `bias` and `activation_parameters` are needed if
            n_out changed.
        values
            float32 (nnz,) in the order of `pattern`.
        bias
            None: the biases stay.
        activation_parameters
            None: they stay.
        """
        parameters = self._activation_parameters if activation_parameters is None else activation_parameters
        self._set(pattern, values, self._bias if bias is None else bias, parameters)
        self._view = None
        self.version += 1

    def draw_grown(self, cells: Any, *, seed: int, step: int, threads: int | None = None) -> F32:
        """Draw values of the cells (uint64) that evolution `step` grows, as the first weights were drawn."""
        return self.initializer.draw_grown(
            cells, self._pattern, seed=seed, layer=self.index, step=step, threads=threads
        )
