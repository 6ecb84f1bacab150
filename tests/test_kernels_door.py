# SPDX-License-Identifier: BSD-3-Clause
"""What the door to the compiled core lets in, what it says to the rest, and the pattern algebra behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from trulysparse import _kernels as k
from trulysparse.errors import ConfigError, PatternError, ShapeError

N_IN, N_OUT, LD = 30, 20, 32
STREAM = {"seed": 3, "purpose": "user", "layer": 1, "step": 2}
LINEAR = ("linear", 0.0)
RELU = ("rectifier", 0.0)


@dataclass
class Layer:
    row_ptr: k.Offsets
    col_idx: k.Indices
    second: tuple[k.Offsets, k.Indices, k.Offsets]
    weights: k.Floats
    bias: k.Floats
    view: k.LayerView
    x: NDArray[Any]
    y: NDArray[Any]


def _layer(offset: type = np.int32) -> Layer:
    row_ptr, col_idx = k.sample_bernoulli(N_IN, N_OUT, 0.3, **STREAM)
    row_ptr = row_ptr.astype(offset)
    second = k.transpose(N_IN, N_OUT, row_ptr, col_idx)
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(col_idx.size, dtype=np.float32)
    bias = generator.standard_normal(N_OUT, dtype=np.float32)
    x, y = k.aligned_zeros((N_IN, LD)), k.aligned_zeros((N_OUT, LD))
    x[:] = generator.standard_normal(x.shape)
    view = k.layer_view(N_IN, N_OUT, row_ptr, col_idx, *second, weights, bias)
    return Layer(row_ptr, col_idx, second, weights, bias, view, x, y)


@pytest.fixture
def layer() -> Layer:
    return _layer()


def _dense(layer: Layer) -> NDArray[np.float64]:
    matrix = np.zeros((N_IN, N_OUT))
    rows = np.repeat(np.arange(N_IN), np.diff(layer.row_ptr))
    matrix[rows, layer.col_idx] = layer.weights
    return matrix


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _misaligned(shape: tuple[int, int], dtype: type = np.float32) -> NDArray[Any]:
    room = k.aligned_zeros(shape[0] * shape[1] + 1, dtype)
    return room[1:].reshape(shape)


def _bf16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to bfloat16; no NaN here."""
    stored: NDArray[np.uint16] = k.aligned_empty(array.shape, np.uint16)
    words = array.view(np.uint32)
    stored[...] = (words + 0x7FFF + (words >> 16 & 1)) >> 16
    return stored


def _wide(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    wide: NDArray[np.float32] = k.aligned_empty(stored.shape)
    wide[...] = (stored.astype(np.uint32) << 16).view(np.float32)
    return wide


# What passes


@pytest.mark.parametrize("offset", [np.int32, np.int64])
def test_forward_and_backward_equal_dense_algebra(offset: type, each_isa: str) -> None:
    layer = _layer(offset)
    assert type(layer.view).__name__ == ("LayerView32" if offset is np.int32 else "LayerView64")
    assert (layer.view.n_in, layer.view.n_out, layer.view.nnz) == (N_IN, N_OUT, layer.col_idx.size)
    assert layer.view.weights is layer.weights
    dense = _dense(layer)
    k.forward(layer.view, layer.x, layer.y, activation=LINEAR, threads=2)
    np.testing.assert_allclose(layer.y, dense.T @ layer.x + layer.bias[:, None], rtol=1e-4, atol=1e-4)

    dx, sums = k.aligned_empty((N_IN, LD)), np.empty(N_IN, np.float32)
    gradient = np.full(layer.col_idx.size, np.nan, np.float32)
    k.backward(layer.view, layer.y, layer.x, dx, row_sum=sums, sink=k.sink_store(gradient), threads=2)
    full = layer.x.astype(np.float64) @ layer.y.T
    rows = np.repeat(np.arange(N_IN), np.diff(layer.row_ptr))
    np.testing.assert_allclose(gradient, full[rows, layer.col_idx], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(dx, dense @ layer.y, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sums, dx.sum(axis=1), rtol=1e-3, atol=1e-3)


def test_bfloat16_activations_pass_the_door_as_uint16(layer: Layer, each_isa: str) -> None:
    x = _bf16(layer.x)
    k.forward(layer.view, _wide(x), layer.y, activation=LINEAR, threads=2)
    y = k.aligned_zeros((N_OUT, LD), np.uint16)
    k.forward(layer.view, x, y, activation=LINEAR, threads=2)
    np.testing.assert_array_equal(y, _bf16(layer.y))

    expected, gradients = k.aligned_empty((N_IN, LD)), np.empty((2, layer.col_idx.size), np.float32)
    k.backward(layer.view, _wide(y), _wide(x), expected, sink=k.sink_store(gradients[0]), threads=2)
    k.backward(layer.view, y, x, x, sink=k.sink_store(gradients[1]), threads=2)
    np.testing.assert_array_equal(x, _bf16(expected))
    np.testing.assert_array_equal(*gradients)


def test_sinks_agree(layer: Layer) -> None:
    delta = k.aligned_zeros((N_OUT, LD))
    delta[:] = np.random.default_rng(1).standard_normal(delta.shape)
    nnz, before = layer.col_idx.size, layer.weights.copy()
    stored, added = np.empty(nnz, np.float32), np.ones(nnz, np.float32)
    k.backward(layer.view, delta, layer.x, None, sink=k.sink_store(stored), threads=1)
    k.backward(layer.view, delta, layer.x, None, sink=k.sink_accumulate(added), threads=1)
    np.testing.assert_allclose(added, stored + 1, rtol=1e-5, atol=1e-5)
    k.backward(layer.view, delta, layer.x, None, sink=k.sink_none(), threads=1)
    np.testing.assert_array_equal(layer.weights, before)

    hyper: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "decay": 0.01, "form": "paper", "nesterov": False}
    velocity = np.full(nnz, 0.5, np.float32)
    apart, apart_velocity = before.copy(), velocity.copy()
    k.backward(layer.view, delta, layer.x, None, sink=k.sink_sgd(velocity, **hyper), threads=1)
    k.sgd_step(apart, apart_velocity, stored, **hyper)
    np.testing.assert_allclose(layer.weights, apart, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(velocity, apart_velocity, rtol=1e-5, atol=1e-6)


def test_view_keeps_its_arrays_alive() -> None:
    layer = _layer()
    expected = _dense(layer).T @ layer.x + layer.bias[:, None]
    view, x, y = layer.view, layer.x, layer.y
    del layer
    for _ in range(50):
        np.full(4096, np.nan, np.float32)
    k.forward(view, x, y, activation=LINEAR, threads=1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_results_own_their_memory() -> None:
    row_ptr, col_idx = k.sample_exact(50, 40, 300, **STREAM)
    copy = col_idx.copy()
    del row_ptr
    for _ in range(50):
        k.sample_exact(50, 40, 300, seed=9, purpose="user", layer=0, step=0)
    np.testing.assert_array_equal(col_idx, copy)
    assert col_idx.flags.writeable


def test_arrays_may_come_from_a_generator(layer: Layer) -> None:
    """Nobody else holds such an array: its memory must live as long as the kernel reads it."""
    n_in, n_out, nnz = 400, 300, 30000
    row_ptr, col_idx = k.sample_exact(n_in, n_out, nnz, **STREAM)
    grown = k.draw_missing(n_in, n_out, row_ptr, col_idx, nnz, **STREAM)
    half = np.arange(nnz) % 2 == 0

    def made(size: int) -> Any:
        for value in (1.0, 2.0, 3.0):
            yield np.full(size, value, np.float32)

    def values(carrier: k.Carrier) -> list[set[float]]:
        return [set(np.unique(array)) for array in carrier[2]]

    pattern = (n_in, n_out, row_ptr, col_idx)
    assert values(k.keep(*pattern, half, made(nnz))) == [{1.0}, {2.0}, {3.0}]
    assert values(k.select(*pattern, None, None, made(nnz))) == [{1.0}, {2.0}, {3.0}]
    fills = (array * 10 for array in made(nnz))
    grown_too = k.rewire(*pattern, None, grown, made(nnz), fills)
    assert values(grown_too) == [{1.0, 10.0}, {2.0, 20.0}, {3.0, 30.0}]
    for array in grown_too[2]:
        assert (array < 4).sum() == nnz

    class Fresh(list[Any]):
        """A sequence that keeps nothing: every item is made when it is asked for."""

        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(index)()

    pair = Fresh([row_ptr.copy, col_idx.copy])
    united = k.unite(n_in, n_out, [pair, pair], Fresh([lambda: made(nnz)] * 2))
    np.testing.assert_array_equal(united[1], col_idx)
    assert values(united) == [{2.0}, {4.0}, {6.0}]


def test_rewire_with_no_mask_keeps_everything(layer: Layer) -> None:
    pattern = (N_IN, N_OUT, layer.row_ptr, layer.col_idx)
    none = k.rewire(*pattern, None, np.zeros(0, np.uint64), [layer.weights], [None])
    every = k.keep(*pattern, np.ones(layer.col_idx.size, bool), [layer.weights])
    for one, other in zip((*none[:2], none[2][0]), (*every[:2], every[2][0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_are_only_read_may_be_read_only(layer: Layer) -> None:
    weights, bias = _read_only(layer.weights), _read_only(layer.bias)
    view = k.layer_view(N_IN, N_OUT, layer.row_ptr, layer.col_idx, *layer.second, weights, bias)
    expected = k.aligned_empty((N_OUT, LD))
    k.forward(layer.view, layer.x, expected, activation=LINEAR, threads=1)
    k.forward(view, layer.x, layer.y, activation=LINEAR, threads=1)
    np.testing.assert_array_equal(layer.y, expected)
    gradients = np.empty((2, layer.col_idx.size), np.float32)
    for each, gradient in zip((layer.view, view), gradients, strict=True):
        k.backward(each, layer.y, layer.x, None, sink=k.sink_store(gradient), threads=1)
    np.testing.assert_array_equal(*gradients)


def test_kept_bits_mean_nothing_without_dropout(layer: Layer) -> None:
    stale = np.zeros((N_IN, LD // 16), np.uint16)
    with_bits, without = k.aligned_empty((N_IN, LD)), k.aligned_empty((N_IN, LD))
    k.forward(layer.view, layer.x, layer.y, activation=LINEAR, threads=1)
    k.backward(layer.view, layer.y, layer.x, with_bits, below_kept=stale, sink=k.sink_none(), threads=1)
    k.backward(layer.view, layer.y, layer.x, without, sink=k.sink_none(), threads=1)
    np.testing.assert_array_equal(with_bits, without)
    assert with_bits.any()


def test_trained_kept_bits_mean_nothing_without_dropout(layer: Layer) -> None:
    slope = {"slope": np.full(N_OUT, 0.5, np.float32)}
    stale = np.zeros((N_OUT, LD // 16), np.uint16)
    layer.y[:] = -2.0
    out, delta = k.aligned_zeros((N_OUT, LD)), k.aligned_zeros((N_OUT, LD))
    k.trained_forward(layer.y, out, slope, kept=stale, threads=1)
    assert np.all(out == -1.0)
    delta[:] = 1.0
    k.trained_backward(layer.y, delta, slope, {"slope": np.empty(N_OUT, np.float32)}, kept=stale, threads=1)
    assert np.all(delta == 0.5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"parameters": [1.0]}, TypeError, "parameters must be a dict of arrays, got list"),
        ({"parameters": {}}, ValueError, r"parameters must have the key 'slope', or .*, got \[\]"),
        ({"parameters": {"alpha": np.zeros(N_OUT, np.float32)}}, ValueError, r"got \['alpha'\]"),
        ({"parameters": {"slope": np.zeros(3, np.float32)}}, ShapeError, r"parameters\['slope'\] must have 20 .*or 1"),
        ({"parameters": {"slope": np.zeros(N_OUT)}}, TypeError, r"parameters\['slope'\] must be an array of float32"),
        ({"gradients": {"slope": np.zeros(1, np.float32)}}, ShapeError, "keys and lengths of parameters"),
        ({"gradients": {"slope": _read_only(np.zeros(N_OUT, np.float32))}}, ValueError, "read-only"),
        ({"delta": None}, ValueError, "delta shares memory with z"),
        ({"dropout_threshold": 9}, ValueError, "dropout needs kept"),
        ({"dropout_threshold": 65536}, ValueError, "dropout_threshold must be between 0"),
        ({"row_sum": np.zeros(3, np.float32)}, ShapeError, "row_sum must have shape"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
    ],
)
def test_trained_backward_refuses(change: dict[str, Any], error: type[Exception], message: str, layer: Layer) -> None:
    slopes = np.zeros((2, N_OUT), np.float32)
    arguments: dict[str, Any] = {
        "z": layer.y,
        "delta": k.aligned_zeros((N_OUT, LD)),
        "parameters": {"slope": slopes[0]},
        "gradients": {"slope": slopes[1]},
        "threads": 1,
    }
    k.trained_backward(**arguments)
    arguments |= change
    if arguments["delta"] is None:
        arguments["delta"] = layer.y
    with pytest.raises(error, match=message):
        k.trained_backward(**arguments)


def test_trained_forward_refuses_what_it_cannot_write(layer: Layer) -> None:
    slope = {"slope": np.zeros(1, np.float32)}
    overlapping = layer.y.view(np.uint16).ravel()[: N_OUT * LD].reshape(N_OUT, LD)
    with pytest.raises(ValueError, match="bfloat16 y shares memory with z"):
        k.trained_forward(layer.y, overlapping, slope, threads=1)
    with pytest.raises(ValueError, match="dropout needs kept"):
        k.trained_forward(layer.y, layer.y, slope, dropout_threshold=9, threads=1)
    with pytest.raises(ValueError, match="column_offset must be a multiple of 8"):
        k.trained_forward(layer.y, layer.y, slope, column_offset=4, threads=1)
    with pytest.raises(ShapeError, match="no columns"):
        k.trained_forward(k.aligned_zeros((N_OUT, 0)), k.aligned_zeros((N_OUT, 0)), slope, threads=1)


def test_scale_may_be_zero_or_a_number_of_numpy(layer: Layer) -> None:
    assert not _draw(layer, 0).any()
    np.testing.assert_array_equal(_draw(layer, np.float64(0.5)), _draw(layer, 0.5))
    np.testing.assert_array_equal(_draw(layer, np.float32(0.5)), _draw(layer, np.full(N_OUT, 0.5, np.float32)))


def test_load_dense_takes_any_strides_and_eight_dtypes() -> None:
    base = np.random.default_rng(0).integers(0, 100, (2 * N_IN, 40))
    rows = np.array([5, 0, 19], np.int64)
    shift = np.linspace(0, 1, N_IN, dtype=np.float32)
    factor = np.linspace(1, 2, N_IN, dtype=np.float32)
    for dtype in ("u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8"):
        X = base.astype(dtype).T[::2, ::-2]
        out = k.aligned_empty((N_IN, 16))
        k.load_dense(X, rows, out, shift, factor, 2)
        np.testing.assert_allclose(out[:, :3], ((X[rows] - shift) * factor).T, rtol=1e-5, atol=1e-5)
        assert not out[:, 3:].any()


def test_load_csr_and_store_transposed() -> None:
    X = np.random.default_rng(0).integers(0, 3, (12, N_IN)).astype(np.float64)
    indptr = np.concatenate([[0], np.cumsum((X != 0).sum(axis=1))]).astype(np.int32)
    indices, data = np.nonzero(X)[1].astype(np.int32), X[X != 0]
    rows, out, back = (
        np.array([3, 11], np.int64),
        k.aligned_empty((N_IN, 16)),
        np.empty((2, N_IN), np.float32),
    )
    k.load_csr(data, indices, indptr, rows, N_IN, out, None, 1)
    k.store_transposed(out, 2, back, 1)
    np.testing.assert_array_equal(back, X[rows])
    with pytest.raises(ValueError, match="points outside"):
        k.load_csr(
            data,
            indices,
            indptr,
            rows,
            int(indices.max()),
            k.aligned_empty((int(indices.max()), 16)),
            None,
            1,
        )


# What is refused


def _onto_itself(layer: Layer) -> tuple[int, int, k.Offsets, k.Indices, k.Offsets, k.Indices]:
    return N_IN, N_OUT, layer.row_ptr, layer.col_idx, layer.row_ptr, layer.col_idx


Refused = tuple[Callable[[Layer], object], type[Exception], str]
REFUSED: dict[str, Refused] = {
    "average of nothing": (
        lambda a: k.average([], np.zeros(3, np.float32)),
        ValueError,
        "mean of no arrays is not defined",
    ),
    "average of another length": (
        lambda a: k.average([np.zeros(3, np.float32), np.zeros(4, np.float32)], np.zeros(3, np.float32)),
        ShapeError,
        r"arrays\[1\] must have shape \(3,\)",
    ),
    "average of float64": (
        lambda a: k.average([np.zeros(3)], np.zeros(3, np.float32)),  # type: ignore[list-item]
        TypeError,
        r"arrays\[0\] must be an array of float32",
    ),
    "average into a part of an array": (
        lambda a: k.average([a.weights[:-1]], a.weights[1:]),
        ValueError,
        r"out shares only a part of its memory with arrays\[0\]",
    ),
    "average into read-only": (
        lambda a: k.average([a.weights], _read_only(a.weights)),
        ValueError,
        "out is a read-only array",
    ),
    "unite over zero": (
        lambda a: k.unite(N_IN, N_OUT, [(a.row_ptr, a.col_idx)], [[]], divisor=0),
        PatternError,
        "sums cannot be divided by 0.000000; give a finite divisor above 0",
    ),
    "carry into an array that is carried": (
        lambda a: k.carry(*_onto_itself(a), [a.weights], [a.weights]),
        PatternError,
        r"out\[0\] shares memory with an array that is carried",
    ),
    "carry into one array twice": (
        lambda a: k.carry(*_onto_itself(a), [a.weights, a.weights], [np.zeros_like(a.weights)] * 2),
        PatternError,
        r"out\[1\] shares memory with another array of out",
    ),
    "carry into too few arrays": (
        lambda a: k.carry(*_onto_itself(a), [a.weights], []),
        ShapeError,
        "out must have one array for each of the 1 arrays, got 0",
    ),
    "carry into another length": (
        lambda a: k.carry(*_onto_itself(a), [a.weights], [np.zeros(3, np.float32)]),
        ShapeError,
        r"out\[0\] must have shape",
    ),
    "carry into read-only": (
        lambda a: k.carry(*_onto_itself(a), [a.weights], [_read_only(a.weights.copy())]),
        PatternError,
        r"out\[0\] is a read-only array",
    ),
    "carry onto other offsets": (
        lambda a: k.carry(N_IN, N_OUT, a.row_ptr, a.col_idx, a.row_ptr.astype(np.int64), a.col_idx, [a.weights]),
        TypeError,
        "onto_row_ptr must be an array of int32, got int64",
    ),
    "carry onto a torn pattern": (
        lambda a: k.carry(N_IN, N_OUT, a.row_ptr, a.col_idx, a.row_ptr, a.col_idx[:-1], [a.weights]),
        PatternError,
        "onto_row_ptr must begin with 0 and end with the length of onto_col_idx",
    ),
    "x float64": (
        lambda a: k.forward(a.view, a.x.astype(np.float64), a.y, activation=LINEAR, threads=1),
        TypeError,
        r"x must be an array of float32, or of uint16 holding bfloat16, got float64 of shape \(30, 32\).*astype",
    ),
    "x list": (
        lambda a: k.forward(a.view, a.x.tolist(), a.y, activation=LINEAR, threads=1),
        TypeError,
        "x must be a NumPy array of float32, or of uint16 holding bfloat16, got list",
    ),
    "x Fortran order": (
        lambda a: k.forward(a.view, np.asfortranarray(a.x), a.y, activation=LINEAR, threads=1),
        TypeError,
        "x must be C-contiguous.*ascontiguousarray",
    ),
    "x big-endian": (
        lambda a: k.forward(a.view, a.x.astype(">f4"), a.y, activation=LINEAR, threads=1),
        TypeError,
        "x must be an array of float32",
    ),
    "x bfloat16 of other byte order": (
        lambda a: k.forward(a.view, a.x.astype(">u2"), a.y, activation=LINEAR, threads=1),
        TypeError,
        "x must be an array of float32, or of uint16",
    ),
    "x bfloat16 in Fortran order": (
        lambda a: k.forward(a.view, np.asfortranarray(_bf16(a.x)), a.y, activation=LINEAR, threads=1),
        TypeError,
        "x must be C-contiguous.*ascontiguousarray",
    ),
    "x bfloat16 misaligned": (
        lambda a: k.forward(a.view, _misaligned((N_IN, LD), np.uint16), a.y, activation=LINEAR, threads=1),
        ValueError,
        "x must begin at a multiple of 64 bytes",
    ),
    "y bfloat16 in x float32": (
        lambda a: k.forward(
            a.view, a.x, a.x.view(np.uint16).ravel()[: N_OUT * LD].reshape(N_OUT, LD), activation=LINEAR, threads=1
        ),
        ValueError,
        "y shares memory with x",
    ),
    "dx of another dtype than x": (
        lambda a: k.backward(a.view, a.y, _bf16(a.x), k.aligned_zeros((N_IN, LD)), sink=k.sink_none(), threads=1),
        TypeError,
        r"dx must have the dtype of x, got float32 of shape \(30, 32\) beside uint16",
    ),
    "row_sums of bfloat16": (
        lambda a: k.row_sums(_bf16(a.y), np.zeros(N_OUT, np.float32), 1),  # type: ignore[arg-type]
        TypeError,
        "delta must be an array of float32, got uint16",
    ),
    "load into bfloat16": (
        lambda a: k.load_dense(np.zeros((4, N_IN)), np.array([0]), _bf16(a.x), None, None, 1),  # type: ignore[arg-type]
        TypeError,
        "out must be an array of float32, got uint16",
    ),
    "x wrong rows": (
        lambda a: k.forward(a.view, a.x[:-1], a.y, activation=LINEAR, threads=1),
        ShapeError,
        r"x must have shape \(30, ld\), got \(29, 32\)",
    ),
    "x one dimension": (
        lambda a: k.forward(a.view, a.x[0], a.y, activation=LINEAR, threads=1),
        ShapeError,
        r"got \(32,\)",
    ),
    "ld not a multiple of 16": (
        lambda a: k.forward(a.view, k.aligned_zeros((N_IN, 24)), a.y, activation=LINEAR, threads=1),
        ShapeError,
        "multiple of 16",
    ),
    "ld differs": (
        lambda a: k.forward(a.view, a.x, k.aligned_zeros((N_OUT, 16)), activation=LINEAR, threads=1),
        ShapeError,
        r"y must have shape \(20, 32\), got \(20, 16\)",
    ),
    "x misaligned": (
        lambda a: k.forward(a.view, _misaligned((N_IN, LD)), a.y, activation=LINEAR, threads=1),
        ValueError,
        "x must begin at a multiple of 64 bytes.*aligned_empty",
    ),
    "y read-only": (
        lambda a: k.forward(a.view, a.x, _read_only(a.y), activation=LINEAR, threads=1),
        ValueError,
        "y is a read-only array",
    ),
    "bits of wrong shape": (
        lambda a: k.forward(a.view, a.x, a.y, activation=RELU, negative=np.zeros((N_OUT, 1), np.uint16), threads=1),
        ShapeError,
        r"negative must have shape \(20, 2\)",
    ),
    "activation unknown": (
        lambda a: k.forward(a.view, a.x, a.y, activation=("gelu", 0.0), threads=1),
        ValueError,
        "'rectifier'.*got 'gelu'",
    ),
    "activation no tuple": (
        lambda a: k.forward(a.view, a.x, a.y, activation="tanh", threads=1),  # type: ignore[arg-type]
        TypeError,
        "must be a tuple",
    ),
    "column offset": (
        lambda a: k.forward(a.view, a.x, a.y, activation=LINEAR, column_offset=4, threads=1),
        ValueError,
        "multiple of 8",
    ),
    "dropout threshold": (
        lambda a: k.forward(a.view, a.x, a.y, activation=LINEAR, dropout_threshold=65536, threads=1),
        ValueError,
        "dropout_threshold",
    ),
    "no threads": (
        lambda a: k.forward(a.view, a.x, a.y, activation=LINEAR, threads=0),
        ValueError,
        "threads must be at least 1",
    ),
    "view is none": (
        lambda a: k.forward(None, a.x, a.y, activation=LINEAR, threads=1),  # type: ignore[arg-type]
        TypeError,
        "incompatible function arguments",
    ),
    "dx in part x": (
        lambda a: k.backward(
            a.view, k.aligned_zeros((N_OUT, LD)), *_overlapping(N_IN, LD), sink=k.sink_none(), threads=1
        ),
        ValueError,
        "dx shares only a part",
    ),
    "row_sum without dx": (
        lambda a: k.backward(a.view, a.y, a.x, None, row_sum=np.zeros(N_IN, np.float32), sink=k.sink_none(), threads=1),
        ValueError,
        "needs a dx",
    ),
    "slope gradient without a rectifier": (
        lambda a: k.backward(
            a.view, a.y, a.x, a.x, below_slope_gradient=np.zeros(1, np.float32), sink=k.sink_none(), threads=1
        ),
        ValueError,
        "below_slope_gradient needs a rectifier below",
    ),
    "slope gradient without dx": (
        lambda a: k.backward(
            *(a.view, a.y, a.x, None),
            below=("rectifier", 0.5),
            below_slope_gradient=np.zeros(1, np.float32),
            sink=k.sink_none(),
            threads=1,
        ),
        ValueError,
        "below_slope_gradient needs .* a dx",
    ),
    "slope gradient of slope 0": (
        lambda a: k.backward(
            *(a.view, a.y, a.x, a.x),
            below=RELU,
            below_negative=np.zeros((N_IN, LD // 16), np.uint16),
            below_slope_gradient=np.zeros(1, np.float32),
            sink=k.sink_none(),
            threads=1,
        ),
        ValueError,
        "the slope below must not be 0",
    ),
    "slope gradient of wrong length": (
        lambda a: k.backward(
            *(a.view, a.y, a.x, a.x),
            below=("rectifier", 0.5),
            below_negative=np.zeros((N_IN, LD // 16), np.uint16),
            below_slope_gradient=np.zeros(N_IN, np.float32),
            sink=k.sink_none(),
            threads=1,
        ),
        ShapeError,
        "below_slope_gradient must have shape",
    ),
    "rectifier without bits": (
        lambda a: k.backward(a.view, a.y, a.x, a.x, below=RELU, sink=k.sink_none(), threads=1),
        ValueError,
        "below_negative",
    ),
    "dropout without bits": (
        lambda a: k.backward(a.view, a.y, a.x, a.x, below_dropout_threshold=9, sink=k.sink_none(), threads=1),
        ValueError,
        "below_kept",
    ),
    "sink of wrong length": (
        lambda a: k.backward(a.view, a.y, a.x, None, sink=k.sink_store(np.zeros(3, np.float32)), threads=1),
        ShapeError,
        "the sink's gradient must have shape",
    ),
    "sink read-only": (
        lambda a: k.sink_store(_read_only(np.zeros(3, np.float32))),
        ValueError,
        "read-only",
    ),
    "nesterov in micro-batches": (
        lambda a: k.sink_sgd(np.zeros(3, np.float32), 0.1, 0.9, 0.0, "l2", True, first=True, last=False),
        ValueError,
        "Nesterov",
    ),
    "decay form": (
        lambda a: k.sink_sgd(np.zeros(3, np.float32), 0.1, 0.9, 0.0, "L2", False),
        ValueError,
        "'paper' or 'l2', got 'L2'",
    ),
    "weights read-only": (
        lambda a: k.backward(
            k.layer_view(N_IN, N_OUT, a.row_ptr, a.col_idx, *a.second, _read_only(a.weights), a.bias),
            *(a.y, a.x, None),
            sink=k.sink_sgd(np.zeros(a.weights.size, np.float32), 0.1, 0.9, 0.0, "l2", False),
            threads=1,
        ),
        ValueError,
        "weights is a read-only array",
    ),
    "sink is weights": (
        lambda a: k.backward(a.view, a.y, a.x, None, sink=k.sink_store(a.weights), threads=1),
        ValueError,
        "the sink's array shares memory with weights",
    ),
    "velocity is weights": (
        lambda a: k.backward(a.view, a.y, a.x, None, sink=k.sink_sgd(a.weights, 0.1, 0.9, 0.0, "l2", False), threads=1),
        ValueError,
        "the sink's array shares memory with weights",
    ),
    "empty batch forward": (
        lambda a: k.forward(
            a.view, k.aligned_zeros((N_IN, 0)), k.aligned_zeros((N_OUT, 0)), activation=LINEAR, threads=1
        ),
        ShapeError,
        "x has no columns.*batch of no samples",
    ),
    "empty batch backward": (
        lambda a: k.backward(
            a.view,
            k.aligned_zeros((N_OUT, 0)),
            k.aligned_zeros((N_IN, 0)),
            None,
            sink=k.sink_store(np.zeros(a.weights.size, np.float32)),
            threads=1,
        ),
        ShapeError,
        "dy has no columns",
    ),
    "columns of the view outside": (
        lambda a: _view_with(a, "col_idx", 5, N_OUT),
        PatternError,
        "col_idx holds 20 at position 5; numbers below 20",
    ),
    "row_ptr of the view falls": (
        lambda a: _view_with(a, "row_ptr", 3, 10**6),
        PatternError,
        "row_ptr falls from 1000000 to .* at position 3",
    ),
    "col_ptr of the view falls": (
        lambda a: _view_with(a, "col_ptr", 3, -1),
        PatternError,
        "col_ptr falls from .* to -1 at position 2",
    ),
    "col_ptr of the view ends elsewhere": (
        lambda a: _view_with(a, "col_ptr", -1, -1),
        PatternError,
        "col_ptr must begin with 0 and end with the number of connections",
    ),
    "row_idx of the view negative": (
        lambda a: _view_with(a, "row_idx", 7, -1),
        PatternError,
        "row_idx holds -1 at position 7; numbers below 30",
    ),
    "row_idx of the view too large": (lambda a: _view_with(a, "row_idx", 7, N_IN), PatternError, "row_idx holds 30"),
    "perm of the view negative": (lambda a: _view_with(a, "perm", 0, -5), PatternError, "perm holds -5 at position 0"),
    "perm of the view too large": (
        lambda a: _view_with(a, "perm", 9, a.col_idx.size),
        PatternError,
        "perm holds .* at position 9",
    ),
    "strength of a negative end": (
        lambda a: k.incoming_strength(np.array([0, -1], np.int32), np.zeros(0, np.int32), a.weights),
        ShapeError,
        r"values must have shape \(0,\)",
    ),
    "strength beyond perm": (
        lambda a: k.incoming_strength(np.array([0, -1], np.int32), np.zeros(3, np.int32), np.ones(3, np.float32)),
        PatternError,
        "col_ptr must begin with 0 and end with the number of connections .3., got 0 and -1",
    ),
    "strength with a col_ptr that falls": (
        lambda a: k.incoming_strength(np.array([0, 900, 3], np.int32), np.zeros(3, np.int32), np.ones(3, np.float32)),
        PatternError,
        "col_ptr falls from 900 to 3",
    ),
    "strength with perm outside": (
        lambda a: k.incoming_strength(np.array([0, 1], np.int32), np.array([1], np.int32), np.ones(1, np.float32)),
        PatternError,
        "perm holds 1 at position 0",
    ),
    "values of cells without columns": (
        lambda a: k.draw_values_at(np.array([3], np.uint64), 0, "uniform", np.zeros(0, np.float32), **STREAM),
        ValueError,
        "1 cells of a layer without columns",
    ),
    "scale nan": (lambda a: _draw(a, float("nan")), ValueError, "scale must be a finite .* got nan"),
    "scale negative": (lambda a: _draw(a, -1.0), ValueError, r"at least 0, got -1\.0"),
    "scale beyond float32": (lambda a: _draw(a, 1e39), ValueError, r"finite float32 .* got 1e\+39"),
    "scale infinite": (lambda a: _draw(a, float("inf")), ValueError, "got inf"),
    "scale text": (lambda a: _draw(a, "x"), TypeError, "scale must be a number or a float32 array .* got str"),
    "scale array with nan": (
        lambda a: _draw(a, np.array([1.0] * 19 + [np.nan], np.float32)),
        ValueError,
        "got nan at position 19",
    ),
    "scale array negative": (
        lambda a: _draw(a, np.full(N_OUT, -0.5, np.float32)),
        ValueError,
        r"got -0\.5 at position 0",
    ),
    "delta in part z": (
        lambda a: _loss_of(*_overlapping(N_OUT, LD), k.aligned_zeros((N_OUT, LD))),
        ValueError,
        "delta shares only a part of its memory with z",
    ),
    "delta in part z of labels": (
        lambda a: _labelled(*_overlapping(N_OUT, LD)),
        ValueError,
        "delta shares only a part of its memory with z",
    ),
    "delta on targets": (
        lambda a: _loss_of(a.y, *[k.aligned_zeros((N_OUT, LD))] * 2),
        ValueError,
        "delta shares memory with targets",
    ),
    "proba in part z": (
        lambda a: _softmax(*_overlapping(N_OUT, LD)),
        ValueError,
        "proba shares only a part of its memory with z",
    ),
    "more draws than memory": (
        lambda a: k.sample_with_replacement(5, 5, 2**50, **STREAM),
        MemoryError,
        r"1125899906842624 draws with replacement needs about 16777216.0 GiB but [\d.]+ GiB are available",
    ),
    "more connections than memory": (
        lambda a: k.sample_exact(2**31 - 1, 2**31 - 1, 2**50, **STREAM),
        MemoryError,
        "drawing 1125899906842624 connections needs about",
    ),
    "more expected connections than memory": (
        lambda a: k.sample_bernoulli(2**31 - 1, 2**31 - 1, 0.5, **STREAM),
        MemoryError,
        "about .* connections needs about",
    ),
    "more cells than memory": (
        lambda a: k.draw_missing(
            2**20, 2**31 - 1, np.zeros(2**20 + 1, np.int32), np.zeros(0, np.int32), 2**50, **STREAM
        ),
        MemoryError,
        "drawing 1125899906842624 cells needs about",
    ),
    "more draws from fewer cells": (lambda a: k.sample_exact(5, 5, 2**50, **STREAM), PatternError, "only 25 cells"),
    "mask of bytes, the cure": (
        lambda a: k.keep(N_IN, N_OUT, a.row_ptr, a.col_idx, [True], []),  # type: ignore[arg-type]
        TypeError,
        r"np\.array\(\.\.\., dtype=bool\)",
    ),
    "mask of another length": (
        lambda a: k.draw_missing(N_IN, N_OUT, a.row_ptr, a.col_idx, 1, **STREAM, mask=np.ones(3, bool)),
        ShapeError,
        "mask must have shape",
    ),
    "mixed offsets": (
        lambda a: k.layer_view(N_IN, N_OUT, a.row_ptr.astype(np.int64), a.col_idx, *a.second, a.weights, a.bias),
        TypeError,
        "col_ptr must be an array of int64, got int32",
    ),
    "offsets of floats": (
        lambda a: k.transpose(N_IN, N_OUT, a.row_ptr.astype(np.float64), a.col_idx),  # type: ignore[arg-type]
        TypeError,
        "row_ptr must be an array of int32",
    ),
    "mask of bytes": (
        lambda a: k.keep(N_IN, N_OUT, a.row_ptr, a.col_idx, np.ones(a.col_idx.size, np.uint8), []),  # type: ignore[arg-type]
        TypeError,
        "mask must be an array of bool, got uint8",
    ),
    "mask too short": (
        lambda a: k.keep(N_IN, N_OUT, a.row_ptr, a.col_idx, np.ones(3, bool), []),
        ShapeError,
        "mask must have shape",
    ),
    "carried array too long": (
        lambda a: k.keep(
            N_IN, N_OUT, a.row_ptr, a.col_idx, np.ones(a.col_idx.size, bool), [np.zeros(10**4, np.float32)]
        ),
        ShapeError,
        r"arrays\[0\] must have shape",
    ),
    "fills missing": (
        lambda a: k.rewire(N_IN, N_OUT, a.row_ptr, a.col_idx, None, np.zeros(0, np.uint64), [a.weights], []),
        ShapeError,
        "one entry .* for each of the 1 arrays, got 0",
    ),
    "grown exists": (
        lambda a: k.rewire(N_IN, N_OUT, a.row_ptr, a.col_idx, None, np.array([a.col_idx[0]], np.uint64), [], []),
        PatternError,
        "grown cell",
    ),
    "columns descend": (
        lambda a: k.validate_pattern(1, 5, np.array([0, 2], np.int32), np.array([3, 1], np.int32)),
        PatternError,
        "row 0",
    ),
    "column twice": (
        lambda a: k.validate_pattern(1, 5, np.array([0, 2], np.int32), np.array([3, 3], np.int32)),
        PatternError,
        "row 0",
    ),
    "column out of range": (
        lambda a: k.validate_pattern(1, 5, np.array([0, 1], np.int32), np.array([5], np.int32)),
        PatternError,
        "row 0",
    ),
    "row_ptr of wrong length": (
        lambda a: k.validate_pattern(2, 5, np.array([0, 1], np.int32), np.array([4], np.int32)),
        ShapeError,
        r"row_ptr must have shape \(3,\)",
    ),
    "ends disagree": (
        lambda a: k.transpose(1, 5, np.array([0, 3], np.int32), np.array([4], np.int32)),
        PatternError,
        "end with the length of col_idx",
    ),
    "too many neurons": (
        lambda a: k.sample_exact(2**31, 5, 1, **STREAM),
        PatternError,
        "n_in must be between 0 and 2147483647",
    ),
    "too many missing": (
        lambda a: k.draw_missing(1, 5, np.array([0, 1], np.int32), np.array([4], np.int32), 5, **STREAM),
        PatternError,
        "5",
    ),
    "negative count": (lambda a: k.sample_exact(3, 5, -1, **STREAM), PatternError, "must not be negative"),
    "density above 1": (lambda a: k.sample_bernoulli(3, 5, 1.5, **STREAM), PatternError, "between 0 and 1"),
    "density nan": (lambda a: k.sample_bernoulli(3, 5, float("nan"), **STREAM), PatternError, "nan"),
    "purpose": (
        lambda a: k.shuffle(3, seed=0, purpose="lottery"),
        ConfigError,
        "unknown purpose 'lottery'.*shuffle",
    ),
    "distribution": (
        lambda a: k.draw_values(N_IN, N_OUT, a.row_ptr, a.col_idx, "cauchy", 1.0, **STREAM),
        ValueError,
        "'uniform' or 'normal', got 'cauchy'",
    ),
    "nan among weights": (
        lambda a: k.count_signs(np.array([1, np.nan], np.float32)),
        ValueError,
        "(?i)nan",
    ),
    "threads None resolved": (lambda a: k.count_signs(a.weights, threads=0), ConfigError, "at least 1"),
    "labels out of range": (
        lambda a: k.softmax_cross_entropy(a.y, np.array([0, 20], np.int32), 1.0, None, 1),
        ValueError,
        "between 0 and 19, got 20 at position 1",
    ),
    "labels int64": (
        lambda a: k.softmax_cross_entropy(a.y, np.array([0, 1]), 1.0, None, 1),  # type: ignore[arg-type]
        TypeError,
        "labels must be an array of int32, got int64",
    ),
    "batch beyond ld": (
        lambda a: k.softmax(a.y, LD + 1, a.y, 1),
        ShapeError,
        "batch must be between 0 and the columns of z",
    ),
    "rows out of range": (
        lambda a: k.load_dense(np.zeros((4, N_IN)), np.array([4]), a.x, None, None, 1),
        ValueError,
        "sample numbers between 0 and 3, got 4",
    ),
    "samples of complex numbers": (
        lambda a: k.load_dense(np.zeros((4, N_IN), complex), np.array([0]), a.x, None, None, 1),
        TypeError,
        "X must be float32, .* got complex128",
    ),
    "shift alone": (
        lambda a: k.load_dense(np.zeros((4, N_IN)), np.array([0]), a.x, np.zeros(N_IN, np.float32), None, 1),
        ValueError,
        "go together",
    ),
    "Adam step 0": (
        lambda a: k.adam_step(
            *np.zeros((4, 3), np.float32),
            lr=0.1,
            beta1=0.9,
            beta2=0.99,
            eps=1e-8,
            decay=0.0,
            decoupled=True,
            step=0,
        ),
        ValueError,
        "counts from 1",
    ),
    "isa": (lambda a: k.set_isa("mmx"), ValueError, "mmx"),
    "artificial noise of float64": (
        lambda a: k.artificial_noise(0, 1, 0, np.zeros((2, 3))),  # type: ignore[arg-type]
        TypeError,
        "out must be an array of float32",
    ),
    "artificial noise into read-only": (
        lambda a: k.artificial_noise(0, 1, 0, _read_only(np.zeros((2, 3), np.float32))),
        ValueError,
        "out is a read-only array",
    ),
    "artificial rows beyond the last": (
        lambda a: k.artificial_noise(0, 1, 2**32 - 1, np.zeros((2, 3), np.float32)),
        ValueError,
        r"counted from 0 to 2\^32 - 1, got 2 from row 4294967295",
    ),
    "artificial integers below nothing": (
        lambda a: k.artificial_integers(0, 1, 3, 0),
        ValueError,
        "bound must be at least 1, got 0",
    ),
    "artificial rows outside the block": (
        lambda a: _cluster(rows=np.array([4, 7])),
        ValueError,
        "rows must lie in the block that begins with row 4, got 7",
    ),
    "artificial places outside the matrix": (
        lambda a: _cluster(places=np.array([0, 5])),
        ValueError,
        "places must be columns between 0 and 4, got 5",
    ),
    "artificial mixing of another shape": (
        lambda a: _cluster(mixing=np.zeros((1, 2), np.float32)),
        ShapeError,
        r"mixing must have shape \(1, 1\)",
    ),
    "artificial places for fewer features": (
        lambda a: _cluster(places=np.array([0])),
        ShapeError,
        r"places must have shape \(2,\)",
    ),
}


def _cluster(**change: Any) -> None:
    """Place a cluster of one informative and one redundant feature in rows 4 to 6 of five features."""
    one = np.ones((1, 1), np.float32)
    arguments: dict[str, Any] = {
        "rows": np.array([4, 6]),
        "first_row": 4,
        "mixing": one,
        "centroid": one[0],
        "combining": one,
        "places": np.array([0, 4]),
        "out": np.zeros((3, 5), np.float32),
    }
    k.artificial_cluster(0, 2, **(arguments | change))


def _view_with(layer: Layer, name: str, position: int, value: int) -> k.LayerView:
    """Return a view of the layer with one number of one of its index arrays changed."""
    names = ("row_ptr", "col_idx", "col_ptr", "row_idx", "perm")
    arrays = {n: a.copy() for n, a in zip(names, (layer.row_ptr, layer.col_idx, *layer.second), strict=True)}
    arrays[name][position] = value
    return k.layer_view(N_IN, N_OUT, **arrays, weights=layer.weights, bias=layer.bias)


def test_a_trusted_view_is_the_same_view(layer: Layer) -> None:
    args = (N_IN, N_OUT, layer.row_ptr, layer.col_idx, *layer.second, layer.weights, layer.bias)
    results = []
    for trusted in (False, True):
        y = k.aligned_zeros(layer.y.shape)
        k.forward(k.layer_view(*args, trusted=trusted), layer.x, y, activation=RELU, threads=1)
        results.append(y)
    np.testing.assert_array_equal(*results)
    with pytest.raises(ShapeError, match="weights must have shape"):  # sizes are looked at all the same
        k.layer_view(*args[:7], layer.weights[1:], layer.bias, trusted=True)


def _draw(layer: Layer, scale: Any) -> k.Floats:
    return k.draw_values(N_IN, N_OUT, layer.row_ptr, layer.col_idx, "uniform", scale, **STREAM)


def _loss_of(z: NDArray[Any], delta: NDArray[Any], targets: NDArray[Any]) -> object:
    return k.mean_squared_error(z, targets, LD, 1.0, delta, 1)


def _labelled(z: NDArray[Any], delta: NDArray[Any]) -> object:
    return k.softmax_cross_entropy(z, np.zeros(LD, np.int32), 1.0, delta, 1)


def _softmax(z: NDArray[Any], proba: NDArray[Any]) -> None:
    k.softmax(z, LD, proba, 1)


def _overlapping(rows: int, ld: int) -> tuple[NDArray[Any], NDArray[Any]]:
    room = k.aligned_zeros((rows + 1, ld))
    return room[:-1], room[1:]


@pytest.mark.parametrize("case", REFUSED)
def test_door_refuses(case: str, layer: Layer) -> None:
    call, error, message = REFUSED[case]
    before = layer.weights.copy()
    with pytest.raises(error, match=message) as caught:
        call(layer)
    assert len(str(caught.value)) > 20
    np.testing.assert_array_equal(layer.weights, before)


# Small tools


def test_threads_default_is_capped_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = k.default_threads()
    assert cores >= 1
    assert k.resolve_threads(None) == cores
    assert k.resolve_threads(7) == 7
    assert k.resolve_threads(2**31) == k.resolve_threads(2**70) == 1024  # the core's most, whatever the width of an int
    assert k.count_signs(np.ones(3, np.float32), threads=2**31) == (3, 0, 0)
    for value, expected in {"1": 1, "1,4": 1, "100000": cores, "many": cores, "0": cores, "": cores}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert k.default_threads() == expected


@pytest.mark.parametrize("shape", [(), (0,), 5, (3, 16), (7, 0, 2)])
def test_aligned_arrays_begin_at_64_bytes(shape: Any) -> None:
    for dtype in (np.float32, np.uint16, np.float64):
        for make in (k.aligned_empty, k.aligned_zeros):
            array = make(shape, dtype)
            assert array.shape == np.empty(shape).shape
            assert array.dtype == dtype
            assert array.size == 0 or array.ctypes.data % 64 == 0
            assert array.flags.c_contiguous and array.flags.writeable
        assert not k.aligned_zeros(shape, dtype).any()


def test_padded_and_offset_dtype() -> None:
    assert [k.padded(n) for n in (0, 1, 15, 16, 17, 128, 129)] == [0, 16, 16, 16, 32, 128, 144]
    assert k.offset_dtype(2**31 - 1) == np.int32
    assert k.offset_dtype(2**31) == np.int64


def test_philox_known_answers() -> None:
    # Random123's kat_vectors for philox4x32-10, as far as our packing can express them.
    words = k.philox(2**64 - 1, "user", 2**24 - 1, 2**32 - 1, 2**64 - 1)
    assert words.dtype == np.uint32 and words.shape == (4,)
    assert [int(w) for w in words] == _philox(
        [2**32 - 1, 2**32 - 1, 2**32 - 1, k.PURPOSES["user"] << 24 | (2**24 - 1)], [2**32 - 1, 2**32 - 1]
    )
    assert _philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert _philox([2**32 - 1] * 4, [2**32 - 1] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def _philox(counter: list[int], key: list[int]) -> list[int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    low = 2**32 - 1
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & low, p0 >> 32 ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return [c0, c1, c2, c3]


def test_shuffle_is_a_permutation_of_its_stream() -> None:
    order = k.shuffle(1000, seed=1)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, k.shuffle(1000, seed=1))
    assert (order != k.shuffle(1000, seed=1, step=1)).any()
    assert (order != k.shuffle(1000, seed=2)).any()


def test_build_info_is_strings() -> None:
    info = k.build_info()
    assert {"version", "compiler", "build_type", "flags", "isas"} <= set(info)
    assert all(isinstance(value, str) for value in info.values())
    assert k.isa() in info["isas"].split()


# Pattern algebra against sets of cells


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(0, 12)), draw(st.integers(0, 40))


@st.composite
def cell_sets(draw: st.DrawFn, shape: tuple[int, int]) -> NDArray[np.uint64]:
    cells = draw(st.sets(st.integers(0, shape[0] * shape[1] - 1))) if shape[0] * shape[1] else set()
    return np.array(sorted(cells), np.uint64)


def _cells(n_out: int, row_ptr: k.Offsets, col_idx: k.Indices) -> NDArray[np.uint64]:
    rows = np.repeat(np.arange(row_ptr.size - 1), np.diff(row_ptr))
    return (rows * n_out + col_idx).astype(np.uint64)


def _values(cells: NDArray[np.uint64], salt: float) -> k.Floats:
    return (cells.astype(np.float32) + 1) * np.float32(salt)


THREADS = st.sampled_from([1, 2, 7])
OFFSETS = st.sampled_from([np.int32, np.int64])


@given(st.data(), shapes(), OFFSETS, THREADS)
def test_keep_and_rewire_are_set_operations(
    data: st.DataObject, shape: tuple[int, int], offset: type, threads: int
) -> None:
    cells = data.draw(cell_sets(shape))
    row_ptr, col_idx = k.from_cells(*shape, cells, threads)
    row_ptr = row_ptr.astype(offset)
    np.testing.assert_array_equal(_cells(shape[1], row_ptr, col_idx), cells)
    k.validate_pattern(*shape, row_ptr, col_idx)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=cells.size, max_size=cells.size)), bool)
    arrays = [_values(cells, 1.0), _values(cells, -2.0)]

    kept_ptr, kept_idx, kept = k.keep(*shape, row_ptr, col_idx, mask, arrays, threads)
    assert kept_ptr.dtype == offset
    np.testing.assert_array_equal(_cells(shape[1], kept_ptr, kept_idx), cells[mask])
    for got, array in zip(kept, arrays, strict=True):
        np.testing.assert_array_equal(got, array[mask])

    every = np.arange(shape[0] * shape[1], dtype=np.uint64)
    free = np.setdiff1d(every, cells[mask])
    count = data.draw(st.integers(0, free.size))
    grown = np.sort(free[k.shuffle(free.size, seed=count)][:count])
    new_ptr, new_idx, new = k.rewire(
        *shape, row_ptr, col_idx, mask, grown, arrays, [None, _values(grown, 5.0)], threads
    )
    together = np.union1d(cells[mask], grown)
    np.testing.assert_array_equal(_cells(shape[1], new_ptr, new_idx), together)
    is_grown = np.isin(together, grown)
    np.testing.assert_array_equal(new[0], np.where(is_grown, 0, _values(together, 1.0)))
    np.testing.assert_array_equal(new[1], np.where(is_grown, _values(together, 5.0), _values(together, -2.0)))

    whole = k.rewire(*shape, row_ptr, col_idx, None, np.setdiff1d(grown, cells), arrays, [None, None], threads)
    np.testing.assert_array_equal(_cells(shape[1], whole[0], whole[1]), np.union1d(cells, grown))


@given(st.data(), shapes(), st.integers(1, 4), OFFSETS, THREADS)
def test_unite_is_the_union_and_sums(
    data: st.DataObject, shape: tuple[int, int], n: int, offset: type, threads: int
) -> None:
    sets = [data.draw(cell_sets(shape)) for _ in range(n)]
    patterns = []
    for cells in sets:
        row_ptr, col_idx = k.from_cells(*shape, cells)
        patterns.append((row_ptr.astype(offset), col_idx))
    salts = [1.0, 10.0, 100.0, 1000.0]
    arrays = [[_values(cells, salt)] for cells, salt in zip(sets, salts, strict=False)]
    row_ptr, col_idx, (summed,) = k.unite(*shape, patterns, arrays, threads)
    together = np.unique(np.concatenate(sets))
    expected = np.zeros(together.size, np.float32)
    for cells, (array,) in zip(sets, arrays, strict=True):
        expected[np.searchsorted(together, cells)] += array
    np.testing.assert_array_equal(_cells(shape[1], row_ptr, col_idx), together)
    np.testing.assert_array_equal(summed, expected)


@given(st.data(), shapes(), OFFSETS, THREADS)
def test_carry_looks_up_the_same_cells(data: st.DataObject, shape: tuple[int, int], offset: type, threads: int) -> None:
    old, new = (data.draw(cell_sets(shape)) for _ in range(2))
    patterns = []
    for cells in (old, new):
        row_ptr, col_idx = k.from_cells(*shape, cells)
        patterns += [row_ptr.astype(offset), col_idx]
    arrays = [_values(old, 1.0), _values(old, -2.0)]
    expected = [np.where(np.isin(new, old), _values(new, salt), np.float32(0)) for salt in (1.0, -2.0)]
    out: list[k.Floats] = [np.full(new.size, np.nan, np.float32) for _ in arrays]
    for carried in (
        k.carry(*shape, *patterns, arrays, threads=threads),
        k.carry(*shape, *patterns, arrays, out, threads),
        out,
    ):
        assert [a.dtype for a in carried] == [np.float32] * 2
        for got, values in zip(carried, expected, strict=True):
            np.testing.assert_array_equal(got, values)


@given(
    st.integers(1, 9).flatmap(
        lambda count: st.integers(0, 40).flatmap(
            lambda n: hnp.arrays(
                np.float32, (count, n), elements=st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False)
            )
        )
    ),
    THREADS,
)
def test_average_rounds_the_mean_once(arrays: k.Floats, threads: int) -> None:
    total = np.zeros(arrays.shape[1])
    for array in arrays:
        total += array
    expected = (total / len(arrays)).astype(np.float32)
    expected[np.abs(expected) < np.finfo(np.float32).tiny] = 0  # denormals are flushed
    out: k.Floats = np.full(arrays.shape[1], np.nan, np.float32)
    k.average(iter(arrays), out, threads)
    np.testing.assert_array_equal(out, expected)
    k.average(arrays, arrays[0], threads)
    np.testing.assert_array_equal(arrays[0], expected)


@given(st.data(), shapes(), OFFSETS, THREADS)
def test_transpose_and_select_are_those_of_a_matrix(
    data: st.DataObject, shape: tuple[int, int], offset: type, threads: int
) -> None:
    cells = data.draw(cell_sets(shape))
    row_ptr, col_idx = k.from_cells(*shape, cells)
    row_ptr = row_ptr.astype(offset)
    values = _values(cells, 1.0)
    matrix = np.zeros(shape[0] * shape[1], np.float32)
    matrix[cells.astype(np.int64)] = values
    matrix = matrix.reshape(shape)

    col_ptr, row_idx, perm = k.transpose(*shape, row_ptr, col_idx, threads)
    assert col_ptr.dtype == perm.dtype == offset
    back = np.zeros(shape[::-1], np.float32)
    back[np.repeat(np.arange(shape[1]), np.diff(col_ptr)), row_idx] = values[perm]
    np.testing.assert_array_equal(back, matrix.T)
    np.testing.assert_allclose(k.incoming_strength(col_ptr, perm, -values, threads), matrix.sum(axis=0), rtol=1e-6)

    rows, cols = (
        data.draw(
            st.none() | st.sets(st.integers(0, n - 1)).map(lambda s: np.array(sorted(s), np.int32)) if n else st.none()
        )
        for n in shape
    )
    new_ptr, new_idx, (new,) = k.select(*shape, row_ptr, col_idx, rows, cols, [values], threads)
    part = matrix[np.arange(shape[0]) if rows is None else rows]
    part = part[:, np.arange(shape[1]) if cols is None else cols]
    got = np.zeros(part.shape, np.float32)
    got[np.repeat(np.arange(part.shape[0]), np.diff(new_ptr)), new_idx] = new
    np.testing.assert_array_equal(got, part)
    np.testing.assert_array_equal(new, part[part != 0])

    targets = np.array(data.draw(st.lists(st.booleans(), min_size=shape[1], max_size=shape[1])), bool)
    mask, dropped = k.drop_incoming(*shape, row_ptr, col_idx, targets, threads)
    np.testing.assert_array_equal(mask, ~targets[col_idx])
    assert dropped == (~mask).sum()


@given(st.data(), shapes(), OFFSETS, THREADS, st.integers(0, 2**64 - 1))
def test_draw_missing_takes_only_free_cells(
    data: st.DataObject, shape: tuple[int, int], offset: type, threads: int, seed: int
) -> None:
    cells = data.draw(cell_sets(shape))
    row_ptr, col_idx = k.from_cells(*shape, cells)
    free = shape[0] * shape[1] - cells.size
    count = data.draw(st.integers(0, free))
    drawn = k.draw_missing(
        *shape,
        row_ptr.astype(offset),
        col_idx,
        count,
        seed=seed,
        purpose="regrow_cells",
        layer=0,
        step=0,
        threads=threads,
    )
    assert drawn.dtype == np.uint64 and drawn.size == count
    assert (np.diff(drawn.astype(np.int64)) > 0).all()
    assert not np.isin(drawn, cells).any()
    assert (drawn < shape[0] * shape[1]).all()


@given(st.data(), shapes(), OFFSETS, THREADS, st.integers(0, 2**64 - 1))
def test_draw_missing_with_a_mask_is_drawing_after_keep(
    data: st.DataObject, shape: tuple[int, int], offset: type, threads: int, seed: int
) -> None:
    cells = data.draw(cell_sets(shape))
    row_ptr, col_idx = k.from_cells(*shape, cells)
    row_ptr = row_ptr.astype(offset)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=cells.size, max_size=cells.size)), bool)
    kept_ptr, kept_idx, _ = k.keep(*shape, row_ptr, col_idx, mask, [])
    count = data.draw(st.integers(0, shape[0] * shape[1] - kept_idx.size))
    where = {"seed": seed, "purpose": "regrow_cells", "layer": 0, "step": 0}
    drawn = k.draw_missing(*shape, row_ptr, col_idx, count, **where, mask=mask, threads=threads)
    np.testing.assert_array_equal(drawn, k.draw_missing(*shape, kept_ptr, kept_idx, count, **where))


@given(
    st.lists(st.integers(-3, 3).map(float) | st.floats(-1, 1, width=32), max_size=60),
    st.integers(0, 70),
    st.integers(0, 70),
    THREADS,
)
def test_dropping_takes_the_smallest(numbers: list[float], a: int, b: int, threads: int) -> None:
    w = np.array(numbers, np.float32)
    positive, negative, zero = k.count_signs(w, threads)
    assert (positive, negative, zero) == ((w > 0).sum(), (w < 0).sum(), (w == 0).sum())
    a, b = min(a, positive), min(b, negative)
    mask, dropped = k.drop_by_sign(w, a, b, threads=threads)
    index = np.arange(w.size)
    order = np.lexsort((index, np.abs(w)))
    expected = np.ones(w.size, bool)
    expected[[i for i in order if w[i] > 0][:a]] = False
    expected[[i for i in order if w[i] < 0][:b]] = False
    expected[w == 0] = False
    np.testing.assert_array_equal(mask, expected)
    assert dropped == a + b + zero

    c = min(a + b, w.size)
    smallest = np.ones(w.size, bool)
    smallest[order[:c]] = False
    np.testing.assert_array_equal(k.drop_smallest(w, c, threads), smallest)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_values_are_functions_of_their_cells(distribution: str, layer: Layer) -> None:
    scale = np.linspace(0.1, 1, N_OUT, dtype=np.float32)
    values = k.draw_values(N_IN, N_OUT, layer.row_ptr, layer.col_idx, distribution, scale, **STREAM)
    cells = _cells(N_OUT, layer.row_ptr, layer.col_idx)
    some = np.flatnonzero(np.arange(cells.size) % 3 == 1)
    np.testing.assert_array_equal(values[some], k.draw_values_at(cells[some], N_OUT, distribution, scale, **STREAM))
    one = k.draw_values(N_IN, N_OUT, layer.row_ptr, layer.col_idx, distribution, 1.0, **STREAM)
    np.testing.assert_allclose(values, one * scale[layer.col_idx], rtol=1e-6)
    if distribution == "uniform":
        assert np.abs(one).max() <= 1


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_samplers_are_the_same_at_any_thread_count(threads: int) -> None:
    for sample in (
        lambda t: k.sample_bernoulli(300, 200, 0.1, **STREAM, threads=t),
        lambda t: k.sample_with_replacement(300, 200, 6000, **STREAM, threads=t),
        lambda t: k.sample_exact(300, 200, 6000, **STREAM, threads=t),
    ):
        expected, got = sample(1), sample(threads)
        for one, other in zip(expected, got, strict=True):
            np.testing.assert_array_equal(one, other)
    assert k.sample_exact(300, 200, 6000, **STREAM)[1].size == 6000
