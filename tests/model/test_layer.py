# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest
from scipy import sparse

from trulysparse import _kernels
from trulysparse.errors import ShapeError
from trulysparse.model import HeUniform, Pattern, SparseLayer, SparseMLP


@pytest.fixture
def layer():
    return SparseMLP((30, 20, 4), epsilon=2, seed=3).layers[0]


def test_weights_are_a_read_only_snapshot(layer):
    weights = layer.weights
    assert isinstance(weights, sparse.csr_array)
    assert weights.shape == (30, 20)
    assert weights.dtype == np.float32
    assert weights.nnz == layer.nnz
    before = weights.toarray()
    layer.values[:] = 0
    assert np.array_equal(weights.toarray(), before)
    with pytest.raises(ValueError, match="read-only"):
        weights.data[0] = 1
    assert np.array_equal((np.ones((2, 30)) @ weights)[0], before.sum(axis=0, dtype=float))
    assert np.array_equal(weights.T.toarray(), before.T)


def test_replace_drops_the_view_and_counts_versions(layer):
    view = layer.view
    assert layer.view is view
    assert layer.version == 0
    pattern, (values,) = layer.pattern.keep(np.arange(layer.nnz) % 2 == 0, [layer.values])
    layer.replace(pattern, values)
    assert layer.version == 1
    assert layer.view is not view
    assert layer.view.nnz == layer.nnz == len(values)
    assert layer.density == pytest.approx(len(values) / 600)


def test_the_view_sees_values_changed_in_place(layer):
    x = _kernels.aligned_zeros((30, 16))
    x[:, 0] = 1
    y = _kernels.aligned_empty((20, 16))
    view = layer.view
    for _ in range(2):
        _kernels.forward(view, x, y, activation=("linear", 0.0), threads=1)
        assert y[:, 0] == pytest.approx(layer.weights.toarray().sum(axis=0), abs=1e-5)
        layer.values[:] *= 2


def test_arrays_must_fit(layer):
    with pytest.raises(ShapeError, match="one a connection"):
        layer.replace(layer.pattern, layer.values[:-1].copy())
    with pytest.raises(TypeError, match="float32"):
        layer.replace(layer.pattern, layer.values.astype(np.float64))
    frozen = layer.values.copy()
    frozen.setflags(write=False)
    with pytest.raises(TypeError, match="writable"):
        layer.replace(layer.pattern, frozen)
    assert layer.version == 0
    with pytest.raises(ShapeError, match="one a target neuron"):
        SparseLayer(0, layer.pattern, layer.values, np.zeros(3, np.float32), ("linear", 0.0), HeUniform())


def test_removed_neurons_need_new_biases(layer):
    cols = np.arange(0, 20, 2, dtype=np.int32)
    pattern, (values,) = layer.pattern.select(None, cols, [layer.values])
    with pytest.raises(ShapeError, match=r"bias must have shape \(10,\)"):
        layer.replace(pattern, values)
    layer.replace(pattern, values, bias=layer.bias[cols])
    assert (layer.n_in, layer.n_out) == (30, 10)


def test_layer_without_connections_gives_its_biases():
    empty = Pattern.from_dense(np.zeros((3, 2), dtype=bool))
    bias = np.array([1, -2], dtype=np.float32)
    layer = SparseLayer(0, empty, np.empty(0, np.float32), bias, ("linear", 0.0), HeUniform())
    x, y = _kernels.aligned_zeros((3, 16)), _kernels.aligned_empty((2, 16))
    _kernels.forward(layer.view, x, y, activation=layer.activation, threads=1)
    assert np.array_equal(y[:, 0], bias)
    assert layer.weights.nnz == 0
