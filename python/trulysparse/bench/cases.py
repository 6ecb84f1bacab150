# SPDX-License-Identifier: BSD-3-Clause
"""What is measured: layers of given shapes with reproducible contents, and what every operation on them must give."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.bench.roofline import Roofline
from trulysparse.errors import ConfigError
from trulysparse.model import Pattern

__all__ = ["DROP_FRACTION", "LR", "MOMENTUM", "OPERATIONS", "Problem", "Roof", "Shape", "WrongResult", "parse_shape"]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

OPERATIONS = ("forward", "dx", "dw", "backward", "update", "evolution")
"""y = x W; dL/dx; dL/dW at the connections; both in one; a step of momentum SGD; a step of SET."""
BATCHED = ("forward", "dx", "dw", "backward")

EPSILON = 20.0
LR, MOMENTUM, DROP_FRACTION = 0.01, 0.9, 0.3
_FULL_CHECK = 20_000_000  # multiply-adds up to which every result is checked, not a sample
_SAMPLED_ROWS = 128
_SAMPLED_CONNECTIONS = 50_000
_TOLERANCE = 1e-5  # of the sum of magnitudes: what rounding in any order stays below


class WrongResult(AssertionError):
    """A contestant computed something else: its time means nothing."""


@dataclass(frozen=True)
class Shape:
    """A layer's size.

    Attributes
    ----------
    n_in, n_out : int
    nnz : int
        Connections, drawn uniformly.
    """

    n_in: int
    n_out: int
    nnz: int

    @property
    def density(self) -> float:
        """Connections as a part of all cells."""
        return self.nnz / (self.n_in * self.n_out)

    def __str__(self) -> str:
        return f"{self.n_in}x{self.n_out}@{_number(self.nnz) if self.density < 1e-3 else _percent(self.density)}"


def _percent(density: float) -> str:
    return f"{100 * density:.3g}%"


def _number(n: int) -> str:
    return f"{n / 1e6:g}M" if n % 100_000 == 0 else str(n)


def parse_shape(text: str) -> Shape:
    """Return the shape that a text names.

    Parameters
    ----------
    text : str
        ``784x1000`` has the density of epsilon 20; ``4096x4096@5%`` has 5 % of all connections, ``500000x500000@10M``
        ten million of them.

    Raises
    ------
    ConfigError
        For any other text.
    """
    sizes, _, amount = text.partition("@")
    try:
        n_in, n_out = (int(n) for n in sizes.lower().split("x"))
        if min(n_in, n_out) < 1:
            raise ValueError
        cells = n_in * n_out
        if not amount:
            nnz = round(min(EPSILON * (n_in + n_out), cells))
        elif amount.endswith("%"):
            nnz = round(float(amount[:-1]) / 100 * cells)
        else:
            scale = {"k": 1_000, "m": 1_000_000}.get(amount[-1].lower(), 1)
            nnz = round(float(amount.rstrip("kKmM")) * scale)
        if not 0 < nnz <= cells:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a shape; write 784x1000 (epsilon 20), 4096x4096@5% or 500000x500000@10M"
        ) from None
    return Shape(n_in, n_out, nnz)


@dataclass(frozen=True)
class Roof:
    """What bounds an operation.

    Attributes
    ----------
    gflops : float
        What the operation could reach, counted in useful flops.
    bound : str
        What bounds it.
    """

    gflops: float
    bound: str


class Problem:
    """A layer, a batch and a gradient, the same for all contestants, and the results they must give.

    Activations are feature-major, (neurons, batch); `x` and `dy` are also there padded as trulysparse wants them.

    Parameters
    ----------
    shape : Shape
    batch : int
    seed : int, optional
        Of everything random.
    pattern : Pattern, optional
        Of this shape; default drawn.
    shared : dict, optional
        What problems with the same shape and seed, but another batch, share: matrices, and what contestants make of
        them once.
    """

    def __init__(
        self,
        shape: Shape,
        batch: int,
        *,
        seed: int = 0,
        pattern: Pattern | None = None,
        shared: dict[str, Any] | None = None,
    ) -> None:
        self.shape, self.batch, self.seed = shape, batch, seed
        self.shared: dict[str, Any] = {} if shared is None else shared
        self.pattern = draw_pattern(shape, seed) if pattern is None else pattern
        self.ld = _kernels.padded(batch)
        random = np.random.default_rng(seed)
        self.values: F32 = _uniform(random, shape.nnz)
        self.gradient: F32 = _uniform(random, shape.nnz)
        self.x_padded = _padded(random, shape.n_in, batch)
        self.dy_padded = _padded(random, shape.n_out, batch)
        self._random = random
        self._references: dict[str, tuple[Any, F64, F64]] = {}

    @functools.cached_property
    def x(self) -> F32:
        """The inputs, (n_in, batch)."""
        return np.ascontiguousarray(self.x_padded[:, : self.batch])

    @functools.cached_property
    def dy(self) -> F32:
        """The deltas, (n_out, batch)."""
        return np.ascontiguousarray(self.dy_padded[:, : self.batch])

    @functools.cached_property
    def matrix(self) -> Any:
        """The weights as SciPy CSR (n_in, n_out)."""
        return self.pattern.to_scipy(self.values)

    def share(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` makes, once for all batches."""
        if name not in self.shared:
            self.shared[name] = make()
        return self.shared[name]

    @property
    def transposed_matrix(self) -> Any:
        """The weights as SciPy CSR (n_out, n_in)."""
        return self.share("transposed matrix", self._transpose)

    def _transpose(self) -> Any:
        from scipy.sparse import csr_array

        col_ptr, row_idx, perm = self.pattern.transposed
        matrix = csr_array((self.values[perm], row_idx, col_ptr), shape=(self.shape.n_out, self.shape.n_in))
        matrix.has_canonical_format = True
        return matrix

    @property
    def permutation(self) -> NDArray[Any]:
        """Where each entry of `transposed_matrix` stands in pattern order."""
        permutation: NDArray[Any] = self.pattern.transposed[2]
        return permutation

    def flops(self, operation: str) -> int:
        """Return the useful flops, two a multiply-add; of an update, four a weight, of an evolution none."""
        work = {"forward": 2, "dx": 2, "dw": 2, "backward": 4}
        if operation in work:
            return work[operation] * self.shape.nnz * self.batch
        return 4 * self.shape.nnz if operation == "update" else 0

    def bytes_moved(self, operation: str) -> int:
        """Return the bytes that trulysparse's way of doing it loads into registers or stores."""
        nnz, row = self.shape.nnz, 4 * self.ld
        x, y = self.shape.n_in * row, self.shape.n_out * row
        return {
            "forward": nnz * (row + 12) + y,  # weight, source and permutation of each connection
            "dx": nnz * (row + 8) + x,
            "dw": nnz * (row + 12) + x,
            "backward": nnz * (row + 12) + 2 * x,
            "update": nnz * 20,
            "evolution": nnz * 40,  # weight, velocity, column, row and permutation, read and written
        }[operation]

    def roof(self, operation: str, roofline: Roofline, threads: int) -> Roof | None:
        """Return what bounds an operation, None for an evolution.

        A kernel whose connections each load a row of activations cannot be faster than those very loads without the
        rest, which are measured in the order of the connections; nor than its multiply-adds; nor than reading its
        connections once a tile of columns. The best width of tiles counts. Fewer than 16 columns are a vector that
        caches hold: then the connections bound it.
        """
        flops = self.flops(operation)
        if operation == "evolution":
            return None
        if operation == "update":
            gbs = roofline.stream_gbs(12 * self.shape.nnz, threads)
            return Roof(flops * gbs / (12 * self.shape.nnz), "weights, velocity and gradient in order")
        forward = operation == "forward"
        rows = self.shape.n_in if forward else self.shape.n_out
        order = self.pattern.transposed[1] if forward else self.pattern.col_idx
        nnz, name = self.shape.nnz, f"{self.shape} {'by target' if forward else 'by source'}"
        fma = flops / roofline.machine(threads).fma_gflops
        stream_gbs = roofline.stream_gbs(8 * nnz, threads)
        if self.batch < _kernels.LANE:
            seconds = max((fma, "multiply-adds"), (8 * nnz / stream_gbs, "connections in order"))
            return Roof(flops / seconds[0], seconds[1])
        options = []
        for width in _tile_widths(self.ld):
            load = 4 * nnz * self.ld / roofline.rows_gbs(rows, 4 * width, threads, order, name)
            stream = 8 * nnz * (self.ld // width) / stream_gbs
            where = f"rows of {4 * width} B from {roofline.level(4 * width * rows)}"
            options.append(max((fma, "multiply-adds"), (load, where), (stream, "connections in order")))
        nanoseconds, bound = min(options)
        return Roof(flops / nanoseconds, bound)

    def level_roof(self, operation: str, roofline: Roofline, threads: int) -> Roof | None:
        """Return the bound of reading in order from the cache that holds all rows; None where there is none."""
        if operation not in BATCHED or self.batch < _kernels.LANE:
            return None
        rows = self.shape.n_in if operation == "forward" else self.shape.n_out
        level = roofline.level(4 * self.ld * rows)
        machine = roofline.machine(threads)
        gbs = {"L1": machine.l1_gbs, "L2": machine.l2_gbs, "L3": machine.l3_gbs, "memory": machine.dram_gbs}[level]
        flops = self.flops(operation)
        return Roof(min(machine.fma_gflops, flops / (4 * self.shape.nnz * self.ld / gbs)), level)

    def check(self, operation: str, result: Any, contestant: str) -> None:
        """Compare a result with the reference, computed in float64, on a sample where it is large.

        Parameters
        ----------
        operation : str
            One of `OPERATIONS` but "evolution", which contestants check themselves.
        result : ndarray or tuple of ndarray
            forward: (n_out, batch); dx: (n_in, batch); dw: (nnz,) in pattern order; backward: dx and dw; update: the
            weights after two steps from zero velocity.
        contestant : str
            Whom to blame.

        Raises
        ------
        WrongResult
            If it differs.
        """
        if operation == "backward":
            self.check("dx", result[0], contestant)
            self.check("dw", result[1], contestant)
            return
        where, expected, magnitude = self._expected(operation)
        full = {"forward": (self.shape.n_out, self.batch), "dx": (self.shape.n_in, self.batch)}
        shape = full.get(operation, (self.shape.nnz,))
        if result.shape != shape:
            raise WrongResult(f"{contestant}: {operation} gave an array of shape {result.shape} instead of {shape}")
        error = np.abs(result[where].astype(np.float64) - expected)
        wrong = ~(error <= _TOLERANCE * magnitude + 1e-30)  # NaN is wrong too
        if wrong.any():
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise WrongResult(
                f"{contestant}: {operation} of {self.shape}, batch {self.batch}, is wrong in {int(wrong.sum())} of "
                f"{wrong.size} places that were checked; the first is {result[where][at]:.7g} instead of "
                f"{expected[at]:.7g}"
            )

    def _expected(self, operation: str) -> tuple[Any, F64, F64]:
        """Return which part of a result is checked, what it must be, and the sum of magnitudes; worked out once."""
        if operation not in self._references:
            make = {"forward": self._forward, "dx": self._dx, "dw": self._dw, "update": self._update}[operation]
            self._references[operation] = make()
        return self._references[operation]

    def _forward(self) -> tuple[Any, F64, F64]:
        return self._product(self.transposed_matrix, self.x)

    def _dx(self) -> tuple[Any, F64, F64]:
        return self._product(self.matrix, self.dy)

    def _product(self, matrix: Any, dense: F32) -> tuple[Any, F64, F64]:
        from scipy.sparse import csr_array

        where: Any = slice(None)
        if self.shape.nnz * self.batch > _FULL_CHECK:
            where = np.sort(self._random.choice(matrix.shape[0], min(_SAMPLED_ROWS, matrix.shape[0]), replace=False))
            matrix = matrix[where]
        columns, places = np.unique(matrix.indices, return_inverse=True)
        small = csr_array(
            (matrix.data.astype(np.float64), places, matrix.indptr), shape=(matrix.shape[0], len(columns))
        )
        some = dense[columns].astype(np.float64)
        return where, small @ some, abs(small) @ np.abs(some)

    def _dw(self) -> tuple[Any, F64, F64]:
        where: Any = np.arange(self.shape.nnz)
        if self.shape.nnz * self.batch > _FULL_CHECK:
            where = self._random.integers(self.shape.nnz, size=_SAMPLED_CONNECTIONS)
        sources = np.searchsorted(self.pattern.row_ptr, where, side="right") - 1
        x = self.x[sources].astype(np.float64)
        dy = self.dy[self.pattern.col_idx[where]].astype(np.float64)
        return where, np.einsum("kb,kb->k", x, dy), np.einsum("kb,kb->k", np.abs(x), np.abs(dy))

    def _update(self) -> tuple[Any, F64, F64]:
        step = LR * (2.0 + MOMENTUM) * self.gradient.astype(np.float64)
        return slice(None), self.values - step, np.abs(self.values) + np.abs(step)


def draw_pattern(shape: Shape, seed: int) -> Pattern:
    """Return connections drawn uniformly, the same for the same seed."""
    row_ptr, col_idx = _kernels.sample_exact(
        shape.n_in, shape.n_out, shape.nnz, seed=seed, purpose="user", layer=0, step=0
    )
    return Pattern(shape.n_in, shape.n_out, row_ptr, col_idx, validate=False)


def _uniform(random: np.random.Generator, n: int) -> F32:
    values: F32 = _kernels.aligned_empty(n)
    random.random(dtype=np.float32, out=values)
    values -= np.float32(0.5)
    return values


def _padded(random: np.random.Generator, n: int, batch: int) -> F32:
    array: F32 = _kernels.aligned_zeros((n, _kernels.padded(batch)))
    if array.shape[1] == batch:
        random.random(dtype=np.float32, out=array)
        array -= np.float32(0.5)
    else:
        array[:, :batch] = random.random((n, batch), dtype=np.float32) - np.float32(0.5)
    return array


def _tile_widths(ld: int) -> list[int]:
    return [width for width in (16, 32, 64, 128) if width <= ld] or [16]
