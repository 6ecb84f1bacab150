# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of missing connections against dense NumPy: which cells, in what order, on any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trulysparse import _kernels as k
from trulysparse.errors import PatternError, ShapeError

THREADS = st.sampled_from([1, 2, 7])
OFFSETS = st.sampled_from([np.int32, np.int64])
NO_MASK: k.Mask | None = None


def _top(dense: NDArray[Any], exists: k.Mask, count: int) -> k.Cells:
    """Return the missing cells of largest magnitude by a full sort, ties to the lower cell, ascending."""
    cells = np.flatnonzero(~exists.ravel())
    order = np.lexsort((cells, -np.abs(dense.ravel()[cells])))
    return np.sort(cells[order][:count]).astype(np.uint64)


def _pattern(exists: k.Mask, offset: type = np.int32) -> tuple[k.Offsets, k.Indices]:
    row_ptr, col_idx = k.from_cells(*exists.shape, np.flatnonzero(exists.ravel()).astype(np.uint64))
    return row_ptr.astype(offset), col_idx


def _rows(generator: np.random.Generator, n: int, batch: int, ld: int, padding: float = 0.0) -> k.Floats:
    """Return (n, ld) standard normal activations, every fourth row zero."""
    a = k.aligned_zeros((n, ld))
    a[:] = padding
    a[:, :batch] = generator.standard_normal((n, batch), dtype=np.float32)
    a[::4, :batch] = 0
    return a


@given(
    st.integers(0, 30),
    st.integers(0, 60),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2000),
    OFFSETS,
    THREADS,
)
def test_top_missing_is_the_dense_selection_with_ties(
    n_in: int, n_out: int, batch: int, density: float, seed: int, count: int, offset: type, threads: int
) -> None:
    generator = np.random.default_rng(seed)
    ld = k.padded(batch) + k.LANE * int(generator.integers(2))
    x, dy = k.aligned_zeros((n_in, ld)), k.aligned_zeros((n_out, ld))
    x[:] = 3.0  # finite padding
    x[:, :batch] = generator.integers(-2, 3, (n_in, batch))
    x[generator.random(n_in) < 0.2, :batch] = 0
    dy[:, :batch] = generator.integers(-2, 3, (n_out, batch))
    dense = (x[:, :batch].astype(np.float64) @ dy[:, :batch].T).astype(np.float32)
    exists = generator.random((n_in, n_out)) < density
    row_ptr, col_idx = _pattern(exists, offset)

    mask = generator.random(col_idx.size) < 0.7 if generator.integers(2) else None
    if mask is not None:
        exists.ravel()[np.flatnonzero(exists.ravel())[~mask]] = False
    expected = _top(dense, exists, count)
    cells, gradients = k.top_missing_gradients(n_in, n_out, row_ptr, col_idx, mask, x, dy, count, threads)
    assert cells.dtype == np.uint64 and gradients.dtype == np.float32
    np.testing.assert_array_equal(cells, expected)
    np.testing.assert_array_equal(gradients, dense.ravel()[expected.astype(np.int64)])
    cells, values = k.top_missing_values(n_in, n_out, row_ptr, col_idx, mask, dense, count, threads)
    np.testing.assert_array_equal(cells, expected)
    np.testing.assert_array_equal(values, gradients)
    np.testing.assert_array_equal(k.gradient_at(n_in, n_out, cells, x, dy, threads), gradients)


@pytest.mark.parametrize("batch", [1, 37])
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.01, 0.4, 1.0, 2.0])
def test_top_missing_of_floats_is_the_dense_selection_up_to_rounding(batch: int, share: float, each_isa: str) -> None:
    generator = np.random.default_rng(0)
    n_in, n_out, ld = 401, 703, 48  # large enough for a sampled threshold
    x, dy = _rows(generator, n_in, batch, ld, padding=9.0), _rows(generator, n_out, batch, ld)
    x *= np.exp2(-generator.integers(0, 20, (n_in, 1))).astype(np.float32)
    exists = generator.random((n_in, n_out)) < 0.1
    row_ptr, col_idx = _pattern(exists)
    dense = x[:, :batch].astype(np.float64) @ dy[:, :batch].T.astype(np.float64)
    missing = int((~exists).sum())
    count = int(share * missing)
    cells, gradients = k.top_missing_gradients(n_in, n_out, row_ptr, col_idx, NO_MASK, x, dy, count, 2)

    places = cells.astype(np.int64)
    assert cells.size == min(count, missing) and (np.diff(places) > 0).all()
    assert not exists.ravel()[places].any()
    np.testing.assert_allclose(gradients, dense.ravel()[places], rtol=1e-4, atol=1e-5)
    left = ~exists.ravel()
    left[places] = False
    if cells.size and left.any():
        assert np.abs(gradients).min() >= np.abs(dense.ravel()[left]).max() - 1e-5
    for threads in (1, 7):
        again = k.top_missing_gradients(n_in, n_out, row_ptr, col_idx, NO_MASK, x, dy, count, threads)
        np.testing.assert_array_equal(again[0], cells)
        np.testing.assert_array_equal(again[1].view(np.uint32), gradients.view(np.uint32))


def test_accumulate_gradient_adds_what_top_missing_gradients_returns(each_isa: str) -> None:
    generator = np.random.default_rng(1)
    x, dy = _rows(generator, 29, 20, 32, padding=5.0), _rows(generator, 71, 20, 32)
    dense = np.full((29, 71), np.nan, np.float32)
    k.accumulate_gradient(dense, x, dy, 0.0, 1.0, 2)
    row_ptr, col_idx = _pattern(np.zeros(dense.shape, bool))
    cells, gradients = k.top_missing_gradients(29, 71, row_ptr, col_idx, None, x, dy, dense.size, 2)
    np.testing.assert_array_equal(cells, np.arange(dense.size))
    np.testing.assert_array_equal(gradients, dense.ravel())

    before = dense.copy()
    full = x[:, :20].astype(np.float64) @ dy[:, :20].T.astype(np.float64)
    k.accumulate_gradient(dense, x, dy, 0.9, 0.1)
    np.testing.assert_allclose(dense, 0.9 * before + 0.1 * full, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(k.gradient_at(29, 71, cells, x, dy), full.ravel(), rtol=1e-4, atol=1e-5)


def _arguments() -> dict[str, Any]:
    row_ptr, col_idx = _pattern(np.eye(4, 6, dtype=bool))
    return {
        "n_in": 4,
        "n_out": 6,
        "row_ptr": row_ptr,
        "col_idx": col_idx,
        "mask": None,
        "x": k.aligned_zeros((4, 16)),
        "dy": k.aligned_zeros((6, 16)),
        "k": 3,
    }


def test_gradients_that_are_not_numbers_are_a_plain_value_error() -> None:
    for name in ("x", "dy"):
        arguments = _arguments()
        arguments["x"][:] = arguments["dy"][:] = 1
        arguments[name][2, 5] = np.nan
        with pytest.raises(
            ValueError, match=f"^{name} holds NaN or infinity in row 2; .* lower the learning"
        ) as caught:
            k.top_missing_gradients(**arguments)
        assert not isinstance(caught.value, PatternError)
        assert k.top_missing_gradients(**{**arguments, "k": 0})[0].size == 0
    dense = np.ones((4, 6), np.float32)
    dense[1, 3] = np.nan
    arguments = {name: value for name, value in _arguments().items() if name not in ("x", "dy")}
    with pytest.raises(ValueError, match="hold 1 NaN, the first between source 1 and target 3"):
        k.top_missing_values(**arguments, dense=dense)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((4, 16))}, TypeError, "x must be an array of float32, got float64"),
        ({"x": k.aligned_zeros((5, 16))}, ShapeError, r"x must have shape \(4, ld\)"),
        ({"dy": k.aligned_zeros((6, 32))}, ShapeError, r"dy must have shape \(6, 16\)"),
        ({"x": k.aligned_zeros((4, 17))}, ShapeError, "multiple of 16"),
        ({"mask": np.ones(5, bool)}, ShapeError, r"mask must have shape \(4,\)"),
        ({"k": -1}, PatternError, "k must not be negative, got -1"),
        ({"row_ptr": np.zeros(5, np.int32)}, PatternError, "row_ptr must begin with 0 and end with the length"),
    ],
)
def test_the_door_refuses_what_does_not_fit(change: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        k.top_missing_gradients(**{**_arguments(), **change})


def test_the_door_refuses_cells_and_dense_arrays_that_do_not_fit() -> None:
    x, dy = k.aligned_zeros((4, 16)), k.aligned_zeros((6, 16))
    with pytest.raises(PatternError, match=r"cells must be below n_in \* n_out \(24\), got 24 at position 1"):
        k.gradient_at(4, 6, np.array([0, 24], np.uint64), x, dy)
    with pytest.raises(TypeError, match="cells must be an array of uint64"):
        k.gradient_at(4, 6, np.array([0]), x, dy)
    with pytest.raises(ShapeError, match="x must have shape"):
        k.accumulate_gradient(np.zeros((5, 6), np.float32), x, dy, 1.0, 1.0)
    with pytest.raises(ShapeError, match="dy must have shape"):
        k.accumulate_gradient(np.zeros((4, 7), np.float32), x, dy, 1.0, 1.0)
    with pytest.raises(ValueError, match="dense shares memory with x or dy"):
        k.accumulate_gradient(x.reshape(-1)[:24].reshape(4, 6), x, dy, 1.0, 1.0)
    frozen = np.zeros((4, 6), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        k.accumulate_gradient(frozen, x, dy, 1.0, 1.0)
