# SPDX-License-Identifier: BSD-3-Clause
"""The door to the compiled core, and its only importer.

Arrays are NumPy and never convert silently: a wrong dtype or memory order is a ``TypeError``, a wrong shape
a :class:`~trulysparse.errors.ShapeError`, a malformed pattern a :class:`~trulysparse.errors.PatternError`.
Offset arrays (``row_ptr``, ``col_ptr``, ``perm``) are int32 or int64, all of one layer the same; ``col_idx``
and ``row_idx`` are int32; values float32; masks bool; cells uint64 (``source * n_out + target``). Activations
are float32 of shape (neurons, ld), 64-byte aligned, ld a multiple of ``LANE``; those that :func:`forward` and
:func:`backward` read and write may be bfloat16 instead, held as uint16.

The functions of one training step are the extension's own, so that a call costs no Python; they want
``threads`` as a number. All others take ``threads=None`` for :func:`default_threads`. :func:`forward` and
:func:`backward` refuse an empty batch (ld = 0).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import ConfigError, PatternError, TrulySparseError

try:
    from trulysparse import _core
except ImportError as error:
    raise ImportError(
        f"the compiled core of trulysparse cannot be loaded ({error}); build it with `pip install .` in a "
        "checkout of the project (a C++17 compiler is needed), and see that Python does not import "
        "trulysparse from the source folder instead"
    ) from error

from trulysparse._core import (
    FrozenLayer,
    FrozenNetwork,
    NotFiniteError,
    Sink,
    adam_step,
    add_word,
    available_isas,
    average,
    backward,
    binary_cross_entropy,
    forward,
    forward_frozen,
    load_csr,
    load_dense,
    load_word,
    mean_squared_error,
    probe_fma,
    probe_read,
    probe_rows,
    row_sums,
    scale,
    sgd_step,
    sigmoid,
    sink_accumulate,
    sink_none,
    sink_sgd,
    sink_store,
    softmax,
    softmax_cross_entropy,
    store_transposed,
    store_word,
    sum_of_squares,
    trained_backward,
    trained_forward,
    wait_word,
    wake_word,
    weights_by_target,
)

__all__ = [
    "LANE",
    "PURPOSES",
    "FrozenLayer",
    "FrozenNetwork",
    "LayerView",
    "NotFiniteError",
    "Sink",
    "accumulate_gradient",
    "adam_step",
    "add_word",
    "aligned_empty",
    "aligned_zeros",
    "artificial_cluster",
    "artificial_integers",
    "artificial_noise",
    "artificial_uniform",
    "augment_images",
    "available_isas",
    "average",
    "backward",
    "binary_cross_entropy",
    "build_info",
    "carry",
    "count_signs",
    "default_threads",
    "draw_missing",
    "draw_values",
    "draw_values_at",
    "drop_by_sign",
    "drop_incoming",
    "drop_smallest",
    "forward",
    "forward_frozen",
    "from_cells",
    "frozen_layer",
    "gradient_at",
    "in_degree",
    "incoming_strength",
    "isa",
    "keep",
    "layer_view",
    "load_csr",
    "load_dense",
    "load_word",
    "mean_squared_error",
    "offset_dtype",
    "padded",
    "philox",
    "probe_fma",
    "probe_read",
    "probe_rows",
    "resolve_threads",
    "rewire",
    "row_sums",
    "sample_bernoulli",
    "sample_exact",
    "sample_with_replacement",
    "scale",
    "select",
    "set_isa",
    "sgd_step",
    "shuffle",
    "sigmoid",
    "sink_accumulate",
    "sink_none",
    "sink_sgd",
    "sink_store",
    "softmax",
    "softmax_cross_entropy",
    "store_transposed",
    "store_word",
    "sum_of_squares",
    "top_missing_gradients",
    "top_missing_values",
    "trained_backward",
    "trained_forward",
    "transpose",
    "transpose_values",
    "unite",
    "validate_pattern",
    "wait_word",
    "wake_word",
    "weights_by_target",
]

Offsets: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
Indices: TypeAlias = NDArray[np.int32]
Cells: TypeAlias = NDArray[np.uint64]
Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Carrier: TypeAlias = tuple[Offsets, Indices, list[Floats]]
LayerView: TypeAlias = _core.LayerView32 | _core.LayerView64

LANE: int = _core.LANE
PURPOSES: dict[str, int] = _core.PURPOSES

P = ParamSpec("P")
R = TypeVar("R")


def _pattern_door(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (TrulySparseError, _core.NotFiniteError):
            raise
        except ValueError as error:
            raise PatternError(str(error)) from None

    return checked


def default_threads() -> int:
    """Return the number of cores this process may run on, capped by ``OMP_NUM_THREADS`` where that is set."""
    cores = _core.available_cores()
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores, int(wish)) if wish.isdecimal() and int(wish) > 0 else cores


def resolve_threads(threads: int | None) -> int:
    """Return `threads`, or the default for ``None``; a number below 1 is a ``ConfigError``.

    No computation uses more than ``MOST_THREADS``, so a larger number becomes that.
    """
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ConfigError(
            f"threads must be a whole number of at least 1, got {threads!r}; leave it out to use every core"
        )
    return min(int(threads), _core.MOST_THREADS)


def isa() -> str:
    """Return the name of the instruction set that the kernels use now."""
    return _core.isa()


def set_isa(name: str) -> None:
    """Make the kernels of this process use another instruction set, one of :func:`available_isas`."""
    _core.set_isa(name)


def build_info() -> dict[str, str]:
    """Return how the extension was built: version, compiler, build_type, flags, isas."""
    return {**_core.BUILD_INFO, "isas": " ".join(available_isas())}


def padded(batch: int) -> int:
    """Return the row length ``ld`` of the activations of `batch` samples: the next multiple of ``LANE``."""
    return -(-batch // LANE) * LANE


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return an uninitialised C-contiguous array that begins at a multiple of 64 bytes."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return a zeroed C-contiguous array that begins at a multiple of 64 bytes."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(
    allocate: Callable[..., NDArray[np.uint8]], shape: int | tuple[int, ...], dtype: DTypeLike
) -> NDArray[Any]:
    lengths = (shape,) if isinstance(shape, int) else shape
    n_bytes = np.dtype(dtype).itemsize
    for length in lengths:
        n_bytes *= int(length)
    memory = allocate(n_bytes + _core.ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % _core.ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(lengths)


def offset_dtype(nnz: int) -> np.dtype[Any]:
    """Return the dtype of the offset arrays of `nnz` connections: int32 below 2**31, else int64."""
    return np.dtype(np.int32 if nnz < 2**31 else np.int64)


def _purpose(name: str) -> int:
    try:
        return PURPOSES[name]
    except KeyError:
        raise ConfigError(f"unknown purpose {name!r} of random numbers; known are {', '.join(PURPOSES)}") from None


@_pattern_door
def validate_pattern(n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices) -> None:
    """Raise :class:`~trulysparse.errors.PatternError` unless this is a sorted CSR pattern without duplicates.

    Parameters
    ----------
    n_in, n_out : int
        Source and target neurons, below 2**31 each.
    row_ptr : int32 or int64 array (n_in + 1,)
        Where each source's connections begin.
    col_idx : int32 array (nnz,)
        Targets, strictly ascending within a source.
    """
    _core.validate_pattern(n_in, n_out, row_ptr, col_idx)


@_pattern_door
def transpose(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, threads: int | None = None
) -> tuple[Offsets, Indices, Offsets]:
    """Return the second index (col_ptr, row_idx, perm): the connections by (target, source).

    ``perm[k]`` is where the k-th of them stands in pattern order. The pattern must be valid, here and in all
    functions below: see :func:`validate_pattern`.
    """
    return _core.transpose(n_in, n_out, row_ptr, col_idx, resolve_threads(threads))


@_pattern_door
def in_degree(n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices) -> NDArray[np.int64]:
    """Return the number of incoming connections of each target, int64 (n_out,)."""
    return _core.in_degree(n_in, n_out, row_ptr, col_idx)


@_pattern_door
def transpose_values(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, values: Floats, threads: int | None = None
) -> tuple[Offsets, Indices, Floats]:
    """Return (col_ptr, row_idx, values): as :func:`transpose`, with the values (nnz,) float32 in that order.

    For a forward pass without a permutation: give the values to :func:`forward` as `by_target`.
    """
    return _core.transpose_values(n_in, n_out, row_ptr, col_idx, values, resolve_threads(threads))


@_pattern_door
def keep(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask,
    arrays: Sequence[Floats],
    threads: int | None = None,
) -> Carrier:
    """Return the connections whose `mask` (bool, (nnz,)) is True, and their entries of every array.

    Returns
    -------
    row_ptr, col_idx, arrays
        The new pattern, and a list of float32 arrays in its order.
    """
    return _core.keep(n_in, n_out, row_ptr, col_idx, mask, arrays, resolve_threads(threads))


@_pattern_door
def rewire(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    grown: Cells,
    arrays: Sequence[Floats],
    fills: Sequence[Floats | None],
    threads: int | None = None,
) -> Carrier:
    """Keep the connections of `mask` (None: all) and add the `grown` cells, in one pass.

    Parameters
    ----------
    n_in, n_out, row_ptr, col_idx
        The pattern.
    mask : bool array (nnz,) or None
        True where a connection stays.
    grown : uint64 array
        Cells ``source * n_out + target``, ascending, distinct, none of them among the kept.
    arrays : sequence of float32 arrays (nnz,)
        Carried along.
    fills : sequence of float32 arrays (len(grown),) or None
        What the grown cells get in each array; None means zeros.
    threads : int or None
        Threads to use.
    """
    return _core.rewire(n_in, n_out, row_ptr, col_idx, mask, grown, arrays, fills, resolve_threads(threads))


@_pattern_door
def unite(
    n_in: int,
    n_out: int,
    patterns: Sequence[tuple[Offsets, Indices]],
    arrays: Sequence[Sequence[Floats]],
    threads: int | None = None,
    *,
    divisor: float = 1.0,
) -> Carrier:
    """Return the union of patterns of one shape.

    ``arrays[k]`` are the arrays of pattern k; where connections coincide they are summed in the order of k. Sums are
    made in double, divided by `divisor` (finite, above 0) and rounded once, so the mean of equal arrays is that array,
    bit for bit; denormals count as 0.
    """
    return _core.unite(n_in, n_out, patterns, arrays, divisor, resolve_threads(threads))


@_pattern_door
def carry(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    onto_row_ptr: Offsets,
    onto_col_idx: Indices,
    arrays: Sequence[Floats],
    out: Sequence[Floats] | None = None,
    threads: int | None = None,
) -> list[Floats]:
    """Return arrays in the order of one pattern in the order of another of the same shape.

    RetainValidUpdates of WASAP-SGD (arXiv:2102.01732): a cell of the second pattern that the first lacks gets 0, and
    what only the first has is left out.

    Parameters
    ----------
    n_in, n_out, row_ptr, col_idx
        The pattern the arrays belong to.
    onto_row_ptr, onto_col_idx
        The other pattern; its offsets have the dtype of `row_ptr`.
    arrays : sequence of float32 arrays (nnz,)
        Carried over.
    out : sequence of float32 arrays (connections of the other pattern,) or None
        Written to and returned, so that nothing is allocated. None of them may share memory with another array.
    threads : int or None
        Threads to use.
    """
    return _core.carry(n_in, n_out, row_ptr, col_idx, onto_row_ptr, onto_col_idx, arrays, out, resolve_threads(threads))


@_pattern_door
def select(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    rows: Indices | None,
    cols: Indices | None,
    arrays: Sequence[Floats],
    threads: int | None = None,
) -> Carrier:
    """Return the pattern between some sources and some targets, renumbered (int32, ascending; None: all)."""
    return _core.select(n_in, n_out, row_ptr, col_idx, rows, cols, arrays, resolve_threads(threads))


@_pattern_door
def draw_missing(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    count: int,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    mask: Mask | None = None,
    threads: int | None = None,
) -> Cells:
    """Draw `count` distinct cells uniformly from those that have no connection; sorted.

    Connections whose `mask` (bool, (nnz,); None: all True) is False count as gone: the result is that of drawing
    after :func:`keep`.
    """
    return _core.draw_missing(
        n_in, n_out, row_ptr, col_idx, mask, count, seed, _purpose(purpose), layer, step, resolve_threads(threads)
    )


@_pattern_door
def from_cells(n_in: int, n_out: int, cells: Cells, threads: int | None = None) -> tuple[Offsets, Indices]:
    """Return the pattern (row_ptr, col_idx) of ascending, distinct cells."""
    return _core.from_cells(n_in, n_out, cells, resolve_threads(threads))


@_pattern_door
def sample_bernoulli(
    n_in: int,
    n_out: int,
    density: float,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    threads: int | None = None,
) -> tuple[Offsets, Indices]:
    """Draw a pattern in which every cell exists independently with probability `density`."""
    return _core.sample_bernoulli(n_in, n_out, density, seed, _purpose(purpose), layer, step, resolve_threads(threads))


@_pattern_door
def sample_with_replacement(
    n_in: int,
    n_out: int,
    draws: int,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    threads: int | None = None,
) -> tuple[Offsets, Indices]:
    """Draw a pattern: the distinct cells among `draws` uniform draws with replacement."""
    return _core.sample_with_replacement(
        n_in, n_out, draws, seed, _purpose(purpose), layer, step, resolve_threads(threads)
    )


@_pattern_door
def sample_exact(
    n_in: int,
    n_out: int,
    count: int,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    threads: int | None = None,
) -> tuple[Offsets, Indices]:
    """Draw a pattern of exactly `count` distinct cells."""
    return _core.sample_exact(n_in, n_out, count, seed, _purpose(purpose), layer, step, resolve_threads(threads))


@_pattern_door
def draw_values(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    distribution: str,
    scale: float | Floats,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    threads: int | None = None,
) -> Floats:
    """Draw a value for every connection, each a function of its cell alone.

    `distribution` is "uniform", U(-scale, scale), or "normal", N(0, scale**2); `scale` is a number or a
    float32 array (n_out,), one for each target.
    """
    return _core.draw_values(
        n_in,
        n_out,
        row_ptr,
        col_idx,
        distribution,
        scale,
        seed,
        _purpose(purpose),
        layer,
        step,
        resolve_threads(threads),
    )


@_pattern_door
def draw_values_at(
    cells: Cells,
    n_out: int,
    distribution: str,
    scale: float | Floats,
    *,
    seed: int,
    purpose: str,
    layer: int,
    step: int,
    threads: int | None = None,
) -> Floats:
    """Draw values for some cells: the same that :func:`draw_values` gives them."""
    return _core.draw_values_at(
        cells, n_out, distribution, scale, seed, _purpose(purpose), layer, step, resolve_threads(threads)
    )


def count_signs(values: Floats, threads: int | None = None) -> tuple[int, int, int]:
    """Return how many values are positive, negative and zero; NaN is a ``ValueError``."""
    return _core.count_signs(values, resolve_threads(threads))


def drop_by_sign(
    values: Floats, k_positive: int, k_negative: int, drop_zeros: bool = True, threads: int | None = None
) -> tuple[Mask, int]:
    """Mark what SET drops: the smallest positive and the largest negative values, and every zero.

    Returns
    -------
    mask : bool array
        True where a value stays. Among equal values the lower index is dropped.
    dropped : int
        How many do not.
    """
    return _core.drop_by_sign(values, k_positive, k_negative, drop_zeros, resolve_threads(threads))


def drop_smallest(values: Floats, k: int, threads: int | None = None) -> Mask:
    """Return a mask that is False for the `k` values of smallest magnitude (ties: the lower index)."""
    return _core.drop_smallest(values, k, resolve_threads(threads))


@_pattern_door
def incoming_strength(col_ptr: Offsets, perm: Offsets, values: Floats, threads: int | None = None) -> Floats:
    """Return the sum of ``|w|`` over the incoming connections of each target (arXiv:2102.01732, eq. 4)."""
    return _core.incoming_strength(col_ptr, perm, values, resolve_threads(threads))


@_pattern_door
def drop_incoming(
    n_in: int, n_out: int, row_ptr: Offsets, col_idx: Indices, targets: Mask, threads: int | None = None
) -> tuple[Mask, int]:
    """Return a mask, False for connections into marked `targets` (bool, (n_out,)), and how many are."""
    return _core.drop_incoming(n_in, n_out, row_ptr, col_idx, targets, resolve_threads(threads))


@_pattern_door
def top_missing_gradients(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    x: Floats,
    dy: Floats,
    k: int,
    threads: int | None = None,
) -> tuple[Cells, Floats]:
    """Return the cells without a connection whose gradient is largest: RigL (arXiv:1911.11134, Algorithm 1).

    The gradient of a cell is ``sum_b x[i, b] * dy[j, b]``. All of them are looked at, none is stored: memory is
    that of x, of dy and of `k` cells a thread.

    Parameters
    ----------
    n_in, n_out, row_ptr, col_idx
        The pattern.
    mask : bool array (nnz,) or None
        A connection that is False counts as missing. None: all stay.
    x, dy : float32 arrays (n_in, ld) and (n_out, ld)
        Activations and their deltas, already divided by the batch; columns beyond the batch zero in `dy`.
    k : int
        How many cells; all missing ones if there are fewer.
    threads : int or None
        Threads to use; the result is the same for any number.

    Returns
    -------
    cells : uint64 array
        ``source * n_out + target``, ascending. Of equal magnitudes the lower cell is taken.
    gradients : float32 array
        Their gradients, signed.

    Raises
    ------
    ValueError
        NaN or infinity in `x` or `dy`, or a gradient that is NaN (unless `k` is 0).
    """
    return _core.top_missing_gradients(n_in, n_out, row_ptr, col_idx, mask, x, dy, k, resolve_threads(threads))


@_pattern_door
def top_missing_values(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    mask: Mask | None,
    dense: Floats,
    k: int,
    threads: int | None = None,
) -> tuple[Cells, Floats]:
    """Return the cells without a connection where ``|dense|`` (float32, (n_in, n_out)) is largest, and its values.

    All else is as in :func:`top_missing_gradients`. NaN in a missing cell is a ``ValueError``.
    """
    return _core.top_missing_values(n_in, n_out, row_ptr, col_idx, mask, dense, k, resolve_threads(threads))


@_pattern_door
def gradient_at(n_in: int, n_out: int, cells: Cells, x: Floats, dy: Floats, threads: int | None = None) -> Floats:
    """Return the gradients ``sum_b x[i, b] * dy[j, b]`` of some cells (uint64, in any order).

    A cell's gradient depends on nothing but its two rows; it is rounded otherwise than in
    :func:`top_missing_gradients`.
    """
    return _core.gradient_at(n_in, n_out, cells, x, dy, resolve_threads(threads))


def accumulate_gradient(
    dense: Floats, x: Floats, dy: Floats, decay: float, weight: float, threads: int | None = None
) -> None:
    """Set ``dense = decay * dense + weight * x @ dy.T``, in place.

    `dense` is float32 (n_in, n_out); what it holds is not read if `decay` is 0. The gradients have the bits of
    those that :func:`top_missing_gradients` returns.
    """
    _core.accumulate_gradient(dense, x, dy, decay, weight, resolve_threads(threads))


def philox(seed: int, purpose: str, layer: int, step: int, index: int) -> NDArray[np.uint32]:
    """Return the four words of one draw of the counter-based generator (Philox4x32-10)."""
    return _core.philox(seed, _purpose(purpose), layer, step, index)


def shuffle(n: int, *, seed: int, purpose: str = "shuffle", layer: int = 0, step: int = 0) -> NDArray[np.int64]:
    """Return a random permutation of ``0 .. n - 1``."""
    return _core.shuffle(n, seed, _purpose(purpose), layer, step)


def artificial_uniform(seed: int, step: int, n: int, *, first: int = 0, threads: int | None = None) -> Floats:
    """Return numbers `first` to ``first + n - 1`` in [0, 1) of an ingredient of artificial data, four to a draw."""
    return _core.artificial_uniform(seed, step, first, n, resolve_threads(threads))


def artificial_integers(seed: int, step: int, n: int, bound: int, *, first: int = 0) -> NDArray[np.uint64]:
    """Return integers `first` to ``first + n - 1`` in [0, bound) of an ingredient of artificial data."""
    return _core.artificial_integers(seed, step, first, n, bound)


def artificial_noise(seed: int, step: int, first_row: int, out: Floats, *, threads: int | None = None) -> None:
    """Fill `out`, (rows, features) from row `first_row` of artificial data on, with standard normal numbers."""
    _core.artificial_noise(seed, step, first_row, out, resolve_threads(threads))


def artificial_cluster(
    seed: int,
    step: int,
    rows: NDArray[np.int64],
    first_row: int,
    mixing: Floats,
    centroid: Floats,
    combining: Floats,
    places: NDArray[np.int64],
    out: Floats,
    *,
    threads: int | None = None,
) -> None:
    """Write ``x = z @ mixing + centroid`` and ``x @ combining``, z ~ N(0, 1), for the rows of one cluster.

    Parameters
    ----------
    seed, step : int
        Where z comes from.
    rows : int64 array
        Rows of the data, all of them in `out`.
    first_row : int
        Row of the data that is the first of `out`.
    mixing, centroid, combining : float32 arrays (informative, informative), (informative,), (informative, redundant)
        What the cluster is.
    places : int64 array (informative + redundant,)
        Columns that take x and then its combinations.
    out : float32 array (rows, features)
        Changed in those columns.
    threads : int or None
        Threads to use; the result is the same for any number.
    """
    _core.artificial_cluster(
        seed, step, rows, first_row, mixing, centroid, combining, places, out, resolve_threads(threads)
    )


def augment_images(
    X: NDArray[Any],
    rows: NDArray[np.int64],
    out: Floats,
    channels: int,
    height: int,
    width: int,
    *,
    channels_last: bool,
    rotation: float,
    shift: float,
    flip: bool,
    nearest: bool,
    seed: int,
    step: int,
    threads: int | None = None,
) -> None:
    """Turn, shift and mirror images at random: a function of (`seed`, `step`, row) for each.

    Parameters
    ----------
    X : array (samples, channels * height * width)
        Of any dtype that :func:`load_dense` takes, with any strides.
    rows : int64 array (batch,)
        Which samples.
    out : float32 array (batch, channels * height * width)
        Written to.
    channels, height, width : int
        Of an image.
    channels_last : bool
        Whether features are (height, width, channels), not (channels, height, width).
    rotation, shift : float
        Bounds of the angle in degrees, at most 180, and of the shifts as parts of height and width, at most 1.
    flip : bool
        Whether one in two is mirrored, left to right.
    nearest : bool
        Beyond the edges lie the pixels of the edge; False: zeros.
    seed, step : int
        What the changes are drawn from.
    threads : int or None
        Threads to use; the result is the same for any number.
    """
    _core.augment_images(
        X,
        rows,
        out,
        channels,
        height,
        width,
        channels_last,
        rotation,
        shift,
        flip,
        nearest,
        seed,
        step,
        resolve_threads(threads),
    )


@_pattern_door
def layer_view(
    n_in: int,
    n_out: int,
    row_ptr: Offsets,
    col_idx: Indices,
    col_ptr: Offsets | None,
    row_idx: Indices | None,
    perm: Offsets | None,
    weights: Floats,
    bias: Floats,
    threads: int | None = None,
    *,
    trusted: bool = False,
) -> LayerView:
    """Check the arrays of one layer once and hold on to them, for :func:`forward` and :func:`backward`.

    `col_ptr`, `row_idx` and `perm` come from :func:`transpose`; `weights` (nnz,) and `bias` (n_out,) are
    float32 and are used in place. They may be read-only, unless :func:`backward` is given :func:`sink_sgd`.
    No number in the index arrays leads outside of them; whether they describe one pattern is the caller's care.
    Without `perm` the forward pass must be given the weights in its order (`by_target`); without a second index there
    is only a backward pass.
    `trusted` skips looking at those numbers: only for arrays that our own kernels made and nobody could write to.
    """
    wide = getattr(row_ptr, "dtype", None) == np.int64
    make: Callable[..., LayerView] = _core.LayerView64 if wide else _core.LayerView32
    return make(n_in, n_out, row_ptr, col_idx, col_ptr, row_idx, perm, weights, bias, trusted, resolve_threads(threads))


@_pattern_door
def frozen_layer(
    n_in: int,
    n_out: int,
    col_ptr: Offsets,
    row_idx: Indices,
    weights: Floats,
    bias: Floats,
    activation: tuple[str, float],
    threads: int | None = None,
    *,
    trained: dict[str, Floats] | None = None,
) -> FrozenLayer:
    """Check the arrays of one layer that only predicts and hold on to them, for :func:`forward_frozen`.

    `col_ptr` and `row_idx` come from :func:`transpose`, `weights` (nnz,) from :func:`weights_by_target`. `trained` are
    the parameters that :func:`trained_forward` takes; `activation` is then ``("linear", 0.0)``. Some of them,
    with the features' ``shift`` and ``factor`` or None, make a ``FrozenNetwork``, whose
    ``run(samples, out, threads)`` takes one sample after the other and returns False for one that is not finite.
    """
    return _core.frozen_layer(
        n_in, n_out, col_ptr, row_idx, weights, bias, activation, trained, resolve_threads(threads)
    )
