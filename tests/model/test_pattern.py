# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from trulysparse.errors import PatternError, ShapeError
from trulysparse.model import Pattern

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MASKS = SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape))
STREAM = {"purpose": "user", "layer": 3, "step": 5}


def numbered(pattern):
    """Give every connection a value that tells its cell."""
    return (pattern.cells() + 1).astype(np.float32)


def dense_of(pattern, values):
    return pattern.to_scipy(values).toarray()


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_from_dense_and_back(mask):
    pattern = Pattern.from_dense(mask)
    assert np.array_equal(pattern.to_dense(), mask)
    assert pattern.nnz == mask.sum()
    assert pattern.density == pytest.approx(mask.mean())
    assert np.array_equal(pattern.in_degree(), mask.sum(axis=0))
    assert np.array_equal(pattern.out_degree(), mask.sum(axis=1))
    assert np.array_equal(pattern.cells(), np.flatnonzero(mask))
    assert Pattern.from_scipy(sparse.coo_array(mask)) == pattern
    assert Pattern.from_cells(*mask.shape, pattern.cells()) == pattern


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_transposed_is_the_pattern_by_target(mask):
    pattern = Pattern.from_dense(mask)
    col_ptr, row_idx, perm = pattern.transposed
    other = Pattern(pattern.n_out, pattern.n_in, col_ptr, row_idx)
    assert np.array_equal(other.to_dense(), mask.T)
    assert np.array_equal(pattern.sources()[perm], row_idx)
    assert np.array_equal(pattern.in_degree(), mask.sum(axis=0))


@settings(max_examples=50, deadline=None)
@given(MASKS, st.randoms(use_true_random=False))
def test_keep_carries_the_values(mask, random):
    pattern = Pattern.from_dense(mask)
    kept = np.array([random.random() < 0.5 for _ in range(pattern.nnz)], dtype=bool)
    values = numbered(pattern)
    smaller, (carried,) = pattern.keep(kept, [values])
    assert np.array_equal(smaller.cells(), pattern.cells()[kept])
    assert np.array_equal(carried, values[kept])


@settings(max_examples=50, deadline=None)
@given(MASKS, st.randoms(use_true_random=False))
def test_rewire_is_keep_and_unite(mask, random):
    pattern = Pattern.from_dense(mask)
    kept = np.array([random.random() < 0.5 for _ in range(pattern.nnz)], dtype=bool)
    values = numbered(pattern)
    smaller, _ = pattern.keep(kept)
    free = mask.size - smaller.nnz
    grown = smaller.draw_missing(free // 2, seed=random.randrange(2**63), **STREAM)
    fill = -np.arange(1, len(grown) + 1, dtype=np.float32)
    rewired, (carried, zeros) = pattern.rewire(kept, grown, [values, values], [fill, None])
    want = np.zeros(mask.size, dtype=np.float32)
    want[pattern.cells()[kept]] = values[kept]
    assert rewired.nnz == smaller.nnz + len(grown)
    assert np.array_equal(dense_of(rewired, zeros).ravel(), want)
    want[grown] = fill
    assert np.array_equal(dense_of(rewired, carried).ravel(), want)


@settings(max_examples=50, deadline=None)
@given(SHAPES.flatmap(lambda s: st.lists(hnp.arrays(np.bool_, s), min_size=1, max_size=4)))
def test_unite_adds_values_where_patterns_meet(masks):
    patterns = [Pattern.from_dense(mask) for mask in masks]
    united, (values,) = Pattern.unite(patterns, [[numbered(p)] for p in patterns])
    assert np.array_equal(united.to_dense(), np.logical_or.reduce(masks))
    assert np.array_equal(dense_of(united, values), sum(dense_of(p, numbered(p)) for p in patterns))
    assert Pattern.unite(patterns)[0] == united


@pytest.mark.parametrize("count", range(2, 8))
def test_the_mean_of_identical_patterns_and_arrays_is_the_identity(count):
    pattern = Pattern.from_dense(np.random.default_rng(count).random((40, 30)) < 0.3)
    values = np.random.default_rng(count).standard_normal(pattern.nnz).astype(np.float32)
    mean, (averaged,) = Pattern.unite([pattern] * count, [[values]] * count, divisor=count)
    assert mean == pattern
    assert np.array_equal(averaged.view(np.uint32), values.view(np.uint32))


def test_a_connection_that_some_lack_counts_as_zero_in_the_mean():
    a, b = Pattern.from_dense(np.array([[True, True]])), Pattern.from_dense(np.array([[False, True]]))
    _, (mean,) = Pattern.unite(
        [a, b], [[np.array([1, 2], dtype=np.float32)], [np.array([4], dtype=np.float32)]], divisor=2
    )
    assert mean.tolist() == [0.5, 3.0]
    with pytest.raises(PatternError, match="divisor above 0"):
        Pattern.unite([a], divisor=-1)


PAIRS = SHAPES.flatmap(lambda s: st.tuples(hnp.arrays(np.bool_, s), hnp.arrays(np.bool_, s)))


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.sampled_from([np.int32, np.int64]), st.sampled_from([np.int32, np.int64]), st.sampled_from([1, 2, 7]))
def test_carry_never_resurrects_a_connection(masks, old_offset, new_offset, threads):
    patterns = [Pattern.from_dense(mask) for mask in masks]
    old, new = (
        Pattern(*p.shape, p.row_ptr.astype(o), p.col_idx)
        for p, o in zip(patterns, (old_offset, new_offset), strict=True)
    )
    values = numbered(old)
    carried, negative = old.carry(new, [values, -values], threads=threads)
    dense = dense_of(new, carried)
    assert not dense[~masks[0] | ~masks[1]].any()
    assert np.array_equal(dense, dense_of(old, values) * masks[1])
    assert np.array_equal(carried, -negative)


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_carry_onto_itself_is_the_identity(mask):
    pattern = Pattern.from_dense(mask)
    same = Pattern.from_dense(mask)
    values = numbered(pattern)
    assert np.array_equal(pattern.carry(pattern, [values])[0], values)
    assert np.array_equal(pattern.carry(same, [values])[0], values)
    assert pattern.carry(pattern, []) == []


@settings(max_examples=50, deadline=None)
@given(PAIRS)
def test_carry_is_keep_and_rewire(masks):
    old, new = (Pattern.from_dense(mask) for mask in masks)
    values = numbered(old)
    kept = masks[1][masks[0]]
    grown = np.flatnonzero(masks[1] & ~masks[0]).astype(np.uint64)
    rewired, (expected,) = old.rewire(kept, grown, [values])
    assert rewired == new
    assert np.array_equal(old.carry(new, [values])[0], expected)
    there, (survivors,) = old.keep(kept, [values])
    assert np.array_equal(there.carry(new, [survivors])[0], expected)


def test_carry_writes_where_it_is_told():
    old, new = Pattern.from_dense(np.array([[True, True]])), Pattern.from_dense(np.array([[False, True]]))
    out = np.full(1, np.nan, dtype=np.float32)
    (carried,) = old.carry(new, [np.array([1, 2], dtype=np.float32)], out=[out])
    assert carried is out
    assert out.tolist() == [2.0]
    with pytest.raises(ShapeError, match="cannot be carried onto one of shape"):
        old.carry(Pattern.from_dense(np.ones((2, 1), dtype=bool)), [])


@settings(max_examples=50, deadline=None)
@given(MASKS, st.randoms(use_true_random=False))
def test_select_is_indexing(mask, random):
    pattern = Pattern.from_dense(mask)
    rows = np.array([i for i in range(mask.shape[0]) if random.random() < 0.6], dtype=np.int32)
    cols = np.array([j for j in range(mask.shape[1]) if random.random() < 0.6], dtype=np.int32)
    dense = dense_of(pattern, numbered(pattern))
    small, (values,) = pattern.select(rows, cols, [numbered(pattern)])
    assert np.array_equal(dense_of(small, values), dense[np.ix_(rows, cols)])
    only_rows, _ = pattern.select(rows, None)
    assert np.array_equal(only_rows.to_dense(), mask[rows])


@settings(max_examples=50, deadline=None)
@given(MASKS, st.integers(0, 2**64 - 1))
def test_draw_missing_can_fill_the_whole_layer(mask, seed):
    pattern = Pattern.from_dense(mask)
    free = np.flatnonzero(~mask.ravel())
    assert np.array_equal(pattern.draw_missing(len(free), seed=seed, **STREAM), free)
    some = pattern.draw_missing(len(free) // 2, seed=seed, **STREAM)
    assert np.array_equal(some, np.unique(some))
    assert np.isin(some, free).all()
    with pytest.raises(PatternError):
        pattern.draw_missing(len(free) + 1, seed=seed, **STREAM)


def test_pattern_is_immutable_and_does_not_follow_the_callers_arrays():
    row_ptr, col_idx = np.array([0, 1, 2], dtype=np.int32), np.array([0, 1], dtype=np.int32)
    pattern = Pattern(2, 2, row_ptr, col_idx)
    col_idx[1] = 0
    assert pattern.col_idx[1] == 1
    for array in (pattern.row_ptr, pattern.col_idx, *pattern.transposed):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("row_ptr", "col_idx"),
    [
        ([0, 2, 2], [1, 0]),  # unsorted
        ([0, 2, 2], [1, 1]),  # duplicate
        ([0, 1, 2], [0, 3]),  # out of range
        ([0, 1, 2], [0, -1]),
        ([1, 1, 2], [0, 1]),  # does not start at 0
        ([0, 2, 1], [0, 1]),  # falls
        ([0, 1, 3], [0, 1]),  # too few columns
    ],
)
@pytest.mark.parametrize("offset", [np.int32, np.int64])
def test_malformed_patterns_are_refused(row_ptr, col_idx, offset):
    with pytest.raises(PatternError):
        Pattern(2, 3, np.array(row_ptr, dtype=offset), np.array(col_idx, dtype=np.int32))


def test_wrong_dtypes_are_refused():
    with pytest.raises(TypeError):
        Pattern(1, 1, np.array([0, 1]), np.array([0], dtype=np.int64))
    with pytest.raises(TypeError, match="W != 0"):
        Pattern.from_dense(np.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"\(n_in, n_out\)"):
        Pattern.from_dense(np.ones(2, dtype=bool))


def test_from_scipy_sorts_but_refuses_duplicates():
    unsorted = sparse.csr_array((np.ones(2), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert np.array_equal(Pattern.from_scipy(unsorted).col_idx, [0, 2])
    double = sparse.csr_array((np.ones(2), np.array([1, 1]), np.array([0, 2])), shape=(1, 3))
    with pytest.raises(PatternError):
        Pattern.from_scipy(double)
    stored_zero = sparse.csr_array((np.zeros(1), np.array([1]), np.array([0, 1])), shape=(1, 3))
    assert Pattern.from_scipy(stored_zero).nnz == 1


def test_to_scipy_needs_one_value_a_connection():
    with pytest.raises(ShapeError, match=r"\(4,\)"):
        Pattern.from_dense(np.ones((2, 2), dtype=bool)).to_scipy(np.zeros(3, dtype=np.float32))


def test_unite_needs_one_shape():
    with pytest.raises(ShapeError, match="one shape"):
        Pattern.unite(
            [Pattern.from_dense(np.ones((1, 2), dtype=bool)), Pattern.from_dense(np.ones((2, 1), dtype=bool))]
        )
    with pytest.raises(ShapeError, match="none"):
        Pattern.unite([])


def test_patterns_of_both_offset_widths_unite():
    a = Pattern.from_dense(np.eye(3, dtype=bool))
    b = Pattern(3, 3, a.row_ptr.astype(np.int64), a.col_idx)
    assert a == b
    united, _ = Pattern.unite([a, b])
    assert united == a


def test_repr():
    assert repr(Pattern.from_dense(np.eye(4, dtype=bool))) == "Pattern(4, 4, nnz=4, density=0.25)"
