# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from scipy import sparse

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DataError, ShapeError
from trulysparse.model import BinaryCrossEntropy, CrossEntropy, MeanSquaredError, get_loss
from trulysparse.model.losses import default_loss

N, OUTPUTS = 21, 5
RNG = np.random.default_rng(0)
Z = RNG.normal(0, 3, (N, OUTPUTS)).astype(np.float32)


def feature_major(rows):
    out = _kernels.aligned_zeros((rows.shape[1], _kernels.padded(len(rows))))
    out[:, : len(rows)] = rows.T
    return out


def run(loss, y, scale=1 / N):
    prepared = loss.check_targets(y, OUTPUTS)
    z, delta = feature_major(Z), _kernels.aligned_empty((OUTPUTS, _kernels.padded(N)))
    targets = loss.batch(prepared, np.arange(N), z.shape[1])
    loss_sum, correct = loss(z, targets, N, scale, delta, 1)
    assert not delta[:, N:].any()
    return loss_sum, correct, delta[:, :N].T


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_cross_entropy():
    y = RNG.integers(0, OUTPUTS, N)
    loss_sum, correct, delta = run(CrossEntropy(), y)
    p = softmax(Z.astype(float))
    assert loss_sum == pytest.approx(-np.log(p[np.arange(N), y]).sum(), rel=1e-5)
    assert correct == (Z.argmax(axis=1) == y).sum()
    assert delta == pytest.approx((p - np.eye(OUTPUTS)[y]) / N, abs=1e-6)


def test_binary_cross_entropy():
    t = (RNG.random((N, OUTPUTS)) < 0.5).astype(float)
    t[:3] = Z[:3] > 0
    loss_sum, correct, delta = run(BinaryCrossEntropy(), t)
    p = 1 / (1 + np.exp(-Z.astype(float)))
    assert loss_sum == pytest.approx(-np.log(np.where(t == 1, p, 1 - p)).mean(axis=1).sum(), rel=1e-5)
    assert correct == ((Z > 0) == t).all(axis=1).sum() > 0
    assert delta == pytest.approx((p - t) / N / OUTPUTS, abs=1e-6)


def test_mean_squared_error():
    t = RNG.normal(0, 1, (N, OUTPUTS))
    loss_sum, correct, delta = run(MeanSquaredError(), t)
    assert loss_sum == pytest.approx(((Z - t) ** 2).mean(axis=1).sum(), rel=1e-5)
    assert correct == 0
    assert delta == pytest.approx(2 * (Z - t) / N / OUTPUTS, abs=1e-6)


def test_a_batch_takes_its_rows():
    rows = np.array([3, 0, 3], dtype=np.int64)
    labels = CrossEntropy().check_targets(np.arange(4), 4)
    assert labels.dtype == np.int32
    assert np.array_equal(CrossEntropy().batch(labels, rows, 16), [3, 0, 3])
    targets = MeanSquaredError().check_targets(np.arange(8.0).reshape(4, 2), 2)
    batch = MeanSquaredError().batch(targets, rows, 16)
    assert batch.shape == (2, 16)
    assert np.array_equal(batch[:, :3], [[6, 0, 6], [7, 1, 7]])
    assert not batch[:, 3:].any()


def test_prediction_and_loss_agree_on_an_output_of_exactly_zero():
    z = _kernels.aligned_zeros((1, 16))
    for target in (0.0, 1.0):
        prepared = BinaryCrossEntropy().check_targets([target], 1)
        batch = BinaryCrossEntropy().batch(prepared, np.array([0]), 16)
        _, correct = BinaryCrossEntropy()(z, batch, 1, 1.0, None, 1)
        assert correct == (BinaryCrossEntropy().predictions(np.zeros((1, 1), np.float32))[0] == target)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.uint64])
def test_labels_of_any_integer_type(dtype):
    labels = CrossEntropy().check_targets(np.array([0, 1, 1]).astype(dtype), 2)
    assert labels.dtype == np.int32
    assert np.array_equal(labels, [0, 1, 1])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 3, 1], DataError, r"from 0 to 2.*3 outputs; got 3 at position 1 \(1 of 3 are out of range"),
        ([0, -1, -1], DataError, r"got -1 at position 1 \(2 of 3"),
        ([0, 2**40, 1], DataError, "got 1099511627776 at position 1"),
        ([0.0, 1.0, 2.0], DataError, r"integers from 0 to 2, got dtype float64.*y.astype\(int\)"),
        (["a", "b", "c"], DataError, "np.unique"),
        ([[0], [1], [2]], ShapeError, r"y.ravel\(\)"),
        (np.eye(3), ShapeError, r"y.argmax\(axis=1\)"),
        ([], DataError, "is empty"),
        ([[0], [1, 2]], ShapeError, "rectangular"),
        (sparse.csr_array((3, 1)), TypeError, r"y.toarray\(\)"),
    ],
)
def test_bad_labels(y, error, message):
    with pytest.raises(error, match=message):
        CrossEntropy().check_targets(y, 3)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), MeanSquaredError()])
@pytest.mark.parametrize(
    ("y", "n_outputs", "error", "message"),
    [
        ([0.0, np.nan, np.nan], 1, DataError, "hold 2 values .* first is nan at row 1, column 0"),
        ([[0, 1], [0, np.inf]], 2, DataError, "first is inf at row 1, column 1"),
        ([0.0, 1e39], 1, DataError, "too large"),
        ([0, 1], 2, ShapeError, r"shape \(samples, 2\)"),
        ([[0, 1]], 1, ShapeError, r"\(samples,\) or \(samples, 1\)"),
        (["a"], 1, TypeError, "must be numbers"),
        ([], 1, DataError, "is empty"),
    ],
)
def test_bad_targets(loss, y, n_outputs, error, message):
    with pytest.raises(error, match=message):
        loss.check_targets(y, n_outputs)


def test_binary_targets_are_between_zero_and_one():
    with pytest.raises(DataError, match=r"got -1 at row 0, column 0 \(1 of 2.*y > 0"):
        BinaryCrossEntropy().check_targets([-1, 1], 1)
    assert np.array_equal(BinaryCrossEntropy().check_targets([True, False], 1), [[1], [0]])


def test_names_and_defaults():
    assert default_loss(1) == BinaryCrossEntropy()
    assert default_loss(2) == CrossEntropy()
    for loss in (CrossEntropy(), BinaryCrossEntropy(), MeanSquaredError()):
        assert get_loss(loss.name) == get_loss(loss.to_config()) == loss
    with pytest.raises(ConfigError, match=r"unknown loss 'crossentropy'.*did you mean 'cross_entropy'"):
        get_loss("crossentropy")
