# SPDX-License-Identifier: BSD-3-Clause
"""Networks for prediction alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.errors import DataError, ShapeError
from trulysparse.model import FrozenMLP, InputScaling, get_loss


def _net(sizes=(37, 50, 20, 4), activation="relu", loss=None, scaled=False, **kwargs):
    net = ts.SparseMLP(sizes, epsilon=6, activation=activation, seed=3, loss=loss, threads=1, **kwargs)
    generator = np.random.default_rng(5)
    for layer in net.layers:
        layer.bias[...] = generator.standard_normal(layer.n_out)
    if scaled:
        net.scaling = InputScaling(generator.standard_normal(sizes[0]), generator.uniform(0.5, 2, sizes[0]))
    return net


def _samples(n, features=37):
    return np.random.default_rng(1).standard_normal((n, features)).astype(np.float32)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", ["relu", ts.AllReLU(0.6), "sigmoid", "tanh", "linear"])
def test_a_frozen_network_predicts_what_its_network_does(activation, scaled):
    net = _net(activation=activation, scaled=scaled)
    frozen = net.freeze()
    X = _samples(300)
    np.testing.assert_array_equal(frozen.decision(X), net.decision(X))
    np.testing.assert_array_equal(frozen.predict(X), net.predict(X))
    for n in (1, 2, 3, 17):
        np.testing.assert_allclose(frozen.decision(X[:n]), net.decision(X[:n]), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(frozen.predict_proba(X[:n]), net.predict_proba(X[:n]), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(frozen.predict(X[:n]), net.predict(X[:n]))


@pytest.mark.parametrize(("loss", "outputs"), [("mse", 1), ("mse", 3), ("binary_cross_entropy", 1)])
def test_a_frozen_network_knows_its_loss(loss, outputs):
    net = _net((37, 20, outputs), loss=get_loss(loss))
    frozen, X = net.freeze(), _samples(9)
    y = (X[:, :1] > 0).astype(np.int64)[:, 0] if loss != "mse" else np.repeat(X[:, :1], outputs, axis=1)
    assert frozen.score(X, y) == net.score(X, y)
    assert frozen.predict(X[:1]).shape == net.predict(X[:1]).shape
    if loss != "mse":
        np.testing.assert_allclose(frozen.predict_proba(X[:1]), net.predict_proba(X[:1]), rtol=1e-5)


def test_single_samples_of_every_dtype_and_form_are_taken():
    net = _net(scaled=True)
    frozen = net.freeze()
    X = np.random.default_rng(2).integers(0, 100, (2, 37))
    for dtype in ("uint8", "int8", "uint16", "int16", "int32", "int64", "float32", "float64"):
        for some in (X[:1].astype(dtype), X.astype(dtype), np.asfortranarray(X.astype(dtype)), X.astype(dtype)[::2]):
            np.testing.assert_allclose(frozen.decision(some), net.decision(some), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(frozen.decision(X[:1].tolist()), net.decision(X[:1]), rtol=1e-5, atol=1e-5)
    sparse = _net().freeze()
    np.testing.assert_allclose(
        sparse.decision(sp.csr_array(X[:1].astype(np.float32))), sparse.decision(X[:1].astype(np.float32)), rtol=1e-6
    )


def test_a_single_bad_sample_gets_the_error_of_a_batch():
    frozen = _net().freeze()
    bad = _samples(1)
    bad[0, 5] = np.nan
    with pytest.raises(DataError, match="row 0, column 5"):
        frozen.decision(bad)
    with pytest.raises(ShapeError, match="expects 37 features"):
        frozen.decision(_samples(1, 36))
    with pytest.raises(DataError, match="no samples"):
        frozen.decision(_samples(0))
    with pytest.raises(ShapeError, match="for one sample pass"):
        frozen.decision(_samples(1)[0])


def test_a_frozen_network_does_not_follow_its_network():
    net = _net()
    frozen, X = net.freeze(), _samples(1)
    before = frozen.decision(X)
    for layer in net.layers:
        layer.values[...] = 0
        layer.bias[...] = 0
    np.testing.assert_array_equal(frozen.decision(X), before)
    assert not net.decision(X).any()


def test_a_frozen_network_holds_eight_bytes_a_connection():
    net = _net((300, 400, 10))
    frozen = net.freeze()
    assert isinstance(frozen, FrozenMLP)
    assert frozen.connections == net.connections
    neurons = sum(frozen.sizes[1:])
    assert frozen.nbytes == 8 * net.connections + 8 * neurons + 4 * len(frozen.layers)
    assert f"{net.connections} connections" in repr(frozen)


def test_a_frozen_network_survives_pickling():
    frozen, X = _net(scaled=True).freeze(), _samples(1)
    before = frozen.decision(X)
    again = pickle.loads(pickle.dumps(frozen))
    np.testing.assert_array_equal(again.decision(X), before)
    np.testing.assert_array_equal(again.decision(_samples(40)), frozen.decision(_samples(40)))


def test_classes_and_threads_are_carried_along():
    net = _net()
    net.classes = ["a", "b", "c", "d"]
    frozen = net.freeze(threads=2)
    assert (frozen.classes, frozen.threads) == (net.classes, 2)
    np.testing.assert_array_equal(frozen.decision(_samples(1), threads=7), frozen.decision(_samples(1), threads=1))


def test_the_kernel_refuses_layers_that_do_not_fit():
    net = _net()
    handles = [layer.freeze(1).handle for layer in net.layers]
    with pytest.raises(ShapeError, match="layer 1 takes 20 values, but the one before it gives 50"):
        _kernels.FrozenNetwork([handles[0], handles[2]], None, None)
    with pytest.raises(ValueError, match="layers is empty"):
        _kernels.FrozenNetwork([], None, None)
    with pytest.raises(ValueError, match="go together"):
        _kernels.FrozenNetwork(handles, np.ones(37, np.float32), None)
    network = _kernels.FrozenNetwork(handles, None, None)
    with pytest.raises(ShapeError, match="samples"):
        network.run(_samples(1, 36), np.empty((1, 4), np.float32), 1)
    with pytest.raises(TypeError, match="float32"):
        network.run(_samples(1).astype(np.float64), np.empty((1, 4), np.float32), 1)
