# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from scipy import sparse

from trulysparse import _kernels
from trulysparse.errors import DataError, ShapeError
from trulysparse.model import Inputs, InputScaling
from trulysparse.model import inputs as inputs_module

DTYPES = ["u1", "i1", "u2", "i2", "i4", "i8", "f4", "f8"]


def loaded(inputs, rows):
    rows = np.asarray(rows, dtype=np.int64)
    out = _kernels.aligned_empty((inputs.n_features, _kernels.padded(len(rows))))
    out[...] = np.nan
    inputs.load(rows, out, 1)
    assert not out[:, len(rows) :].any()
    return out[:, : len(rows)]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small arrays have several."""
    monkeypatch.setattr(inputs_module, "_BLOCK_BYTES", 8 * 7 * 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_any_strides_without_a_copy(dtype):
    base = (np.arange(40 * 14).reshape(40, 14) % 101).astype(dtype)
    for X in (base, np.asfortranarray(base), base[::-2, ::2], base[:, ::-1], base.T):
        inputs = Inputs(X, X.shape[1])
        assert inputs.X is X
        rows = [5, 0, 5, len(X) - 1]
        assert np.array_equal(loaded(inputs, rows), X[rows].T.astype(np.float32))


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
def test_scaling_is_applied_per_batch(dtype):
    X = (np.arange(30 * 5).reshape(30, 5) ** 2 % 97).astype(dtype)
    scaling = InputScaling.fit(X)
    got = loaded(Inputs(X, 5, scaling), np.arange(30))
    want = (X - X.mean(axis=0)) / X.std(axis=0)
    assert got.T == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
def test_csr_equals_dense_scaled_without_centring(kind, index_dtype):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((50, 9)) < 0.3, rng.normal(5, 2, (50, 9)), 0).astype(np.float32)
    X = kind(dense)
    X.indices, X.indptr = X.indices.astype(index_dtype), X.indptr.astype(index_dtype)
    scaling = InputScaling.fit(X)
    assert not scaling.centred
    assert scaling.factor == pytest.approx(1 / dense.astype(float).std(axis=0), rel=1e-6)
    rows = [3, 49, 0, 3]
    assert np.array_equal(loaded(Inputs(X, 9, scaling), rows), loaded(Inputs(dense, 9, scaling), rows))
    assert np.array_equal(loaded(Inputs(X, 9), rows), dense[rows].T)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_fit_is_the_population_mean_and_deviation(dtype):
    rng = np.random.default_rng(1)
    X = (rng.gamma(2, 30, (101, 7)) % 250).astype(dtype)
    X[:, 3] = 7
    scaling = InputScaling.fit(X)
    exact = X.astype(np.float64)
    assert scaling.shift == pytest.approx(exact.mean(axis=0), rel=1e-6)
    deviation = exact.std(axis=0)
    deviation[3] = 1  # a constant feature keeps its unit
    assert scaling.factor == pytest.approx(1 / deviation, rel=1e-6)
    assert not InputScaling.fit(X, centred=False).centred


@pytest.mark.usefixtures("small_blocks")
def test_fit_of_a_large_offset_keeps_its_digits():
    X = 1e8 + np.arange(100.0)[:, None] * [1.0, 0.0]
    scaling = InputScaling.fit(X)
    assert scaling.factor == pytest.approx([1 / np.arange(100).std(), 1])
    X = np.full((100, 1), 0.1)
    assert InputScaling.fit(X).factor[0] == 1


@pytest.mark.usefixtures("small_blocks")
def test_fit_of_csr_counts_the_zeros_that_are_not_stored():
    rng = np.random.default_rng(2)
    dense = np.where(rng.random((60, 7)) < 0.4, rng.normal(-3, 1, (60, 7)), 0)
    dense[:, 2] = 0
    dense[:, 4] = 2.5
    scaling = InputScaling.fit(sparse.csr_array(dense))
    deviation = dense.std(axis=0)
    deviation[[2, 4]] = 1
    assert scaling.factor == pytest.approx(1 / deviation, rel=1e-6)
    with pytest.raises(DataError, match="cannot be centred"):
        InputScaling.fit(sparse.csr_array(dense), centred=True)


def test_wrong_feature_count():
    with pytest.raises(ShapeError) as error:
        Inputs(np.zeros((600, 783)), 784)
    assert str(error.value) == (
        "the network expects 784 features but X has 783 (array of shape (600, 783)); "
        "did the columns change since training?"
    )
    with pytest.raises(ShapeError, match="expects 3 features but X_val has 4"):
        Inputs.count(sparse.csr_array((5, 4)), 3, where="X_val")
    assert Inputs.count(np.zeros((5, 4), dtype=np.uint8), 4) == 5


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_are_counted_and_the_first_is_named(dtype, bad):
    X = np.zeros((50, 7), dtype=dtype)
    X[41, 2] = X[41, 6] = X[49, 0] = bad
    for given in (X, np.asfortranarray(X), sparse.csr_array(X)):
        with pytest.raises(DataError, match=rf"X_train holds 3 values .* first is {bad} at row 41, column 2;"):
            Inputs(given, 7, where="X_train")
        with pytest.raises(DataError, match="row 41, column 2"):
            InputScaling.fit(given)


def test_numbers_beyond_float32_are_bad_values():
    with pytest.raises(DataError, match=r"holds 1 value that is .* first is 1e\+39 at row 1, column 0"):
        Inputs(np.array([[0.0], [1e39]]), 1)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((3, 2), dtype=bool), TypeError, r"dtype bool.*X.astype\(np.uint8\)"),
        (np.zeros((3, 2), dtype=np.float16), TypeError, r"dtype float16.*X.astype\(np.float32\)"),
        (np.zeros((3, 2), dtype=np.uint64), TypeError, "dtype uint64"),
        (np.zeros((3, 2), dtype=">f4"), TypeError, "dtype >f4"),
        (np.zeros((3, 2), dtype=complex), TypeError, "dtype complex128"),
        (np.array([["a", "b"]], dtype=object), TypeError, "dtype object"),
        (np.zeros(2), ShapeError, r"got \(2,\); for one sample pass X\[None, :\]"),
        (np.zeros((3, 2, 1)), ShapeError, r"got \(3, 2, 1\); pass X.reshape\(len\(X\), -1\)"),
        (np.float64(3), ShapeError, r"got \(\)$"),
        (np.zeros((0, 2)), DataError, "no samples"),
        ([[1.0], [1.0, 2.0]], ShapeError, "not a rectangular array"),
        (sparse.csc_array((3, 2)), TypeError, r"'csc' format.*X.tocsr\(\)"),
        (sparse.coo_matrix((3, 2)), TypeError, r"'coo' format.*X.tocsr\(\)"),
        (sparse.csr_array((0, 2)), DataError, "no samples"),
    ],
)
def test_unusable_samples_are_refused_with_a_cure(X, error, message):
    with pytest.raises(error, match=message):
        Inputs(X, 2)


def test_fields_of_a_structured_array_are_refused():
    table = np.zeros((4, 2), dtype=[("flag", "u1"), ("value", "f4")])
    with pytest.raises(TypeError, match="ascontiguousarray"):
        Inputs(table["value"], 2)


def test_csr_with_duplicates_or_broken_indices_is_refused():
    double = sparse.csr_array((np.ones(2), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    with pytest.raises(DataError, match="sum_duplicates"):
        Inputs(double, 3)
    broken = sparse.csr_array((np.ones(1), np.array([1]), np.array([0, 1])), shape=(1, 3))
    broken.indices = np.array([7], dtype=np.int32)
    with pytest.raises(DataError, match="outside 0 to 2"):
        Inputs(broken, 3)


def test_nested_lists_are_taken():
    assert np.array_equal(loaded(Inputs([[1.0, 2.0], [3.0, 4.0]], 2), [1]), [[3], [4]])


def test_memory_mapped_samples(tmp_path):
    X = np.arange(12, dtype=np.uint8).reshape(4, 3)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    inputs = Inputs(mapped, 3)
    assert np.shares_memory(inputs.X, mapped)
    assert np.array_equal(loaded(inputs, [3, 1]), X[[3, 1]].T)


def test_centring_scaling_refuses_csr():
    X = np.random.default_rng(0).normal(3, 1, (20, 4))
    with pytest.raises(DataError, match=r"fitted on dense samples.*X.toarray\(\)"):
        Inputs(sparse.csr_array(X), 4, InputScaling.fit(X))


def test_scaling_arguments():
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        InputScaling(np.zeros(2), np.ones(3))
    for shift, factor in (
        ([0.0], [0.0]),
        ([0.0], [-1.0]),
        ([np.nan], [1.0]),
        ([0.0], [np.inf]),
        ([1e39], [1.0]),
    ):
        with pytest.raises(DataError, match="finite"):
            InputScaling(shift, factor)
    with pytest.raises(ShapeError, match="for 3 features, the network expects 4"):
        Inputs(np.zeros((2, 4)), 4, InputScaling(np.zeros(3), np.ones(3)))
    scaling = InputScaling([1.0, 0.0], [2.0, 1.0])
    assert scaling.centred
    assert scaling == InputScaling([1.0, 0.0], [2.0, 1.0])
    assert scaling != InputScaling([1.0, 0.0], [2.0, 2.0])
    assert repr(scaling) == "InputScaling(n_features=2, centred=True)"
    with pytest.raises(ValueError, match="read-only"):
        scaling.shift[0] = 0
