# SPDX-License-Identifier: BSD-3-Clause
import copy
import pickle

import numpy as np
import pytest
from scipy import sparse

from trulysparse.errors import ConfigError, DataError, DensityWarning, ShapeError
from trulysparse.model import (
    ERK,
    AllReLU,
    BinaryCrossEntropy,
    CrossEntropy,
    ErdosRenyi,
    HeUniform,
    InputScaling,
    ReLU,
    SparseMLP,
    Uniform,
    inference,
)

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (83, 12)).astype(np.float32)


def build(sizes=(12, 30, 20, 5), **arguments):
    """A small network whose biases are not zero."""
    net = SparseMLP(sizes, **{"density": 0.4, "init": HeUniform("sparse"), "seed": 1} | arguments)
    for layer in net.layers:
        layer.bias[:] = np.random.default_rng(layer.index).normal(0, 0.5, layer.n_out)
    return net


FUNCTIONS = {
    "linear": lambda z, slope: z,
    "rectifier": lambda z, slope: np.where(z > 0, z, slope * z),
    "sigmoid": lambda z, slope: 1 / (1 + np.exp(-z)),
    "tanh": lambda z, slope: np.tanh(z),
}


def reference(net, samples):
    """The masked dense forward pass in float64."""
    a = np.asarray(samples, dtype=np.float64)
    for layer in net.layers:
        kind, slope = layer.activation
        a = FUNCTIONS[kind](a @ layer.weights.toarray().astype(np.float64) + layer.bias, slope)
    return a


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "all_relu", "sigmoid", "tanh", "linear"])
def test_decision_equals_the_masked_dense_network(activation):
    net = build(activation=activation)
    assert net.decision(X) == pytest.approx(reference(net, X), abs=2e-5)


@pytest.mark.parametrize("sizes", [(12, 5), (12, 1), (12, 1, 2), (12, 100, 3, 17, 4)])
@pytest.mark.parametrize("batch_size", [1, 16, 50, 83, 1000])
def test_every_sample_is_predicted_whatever_the_batch(sizes, batch_size):
    net = build(sizes)
    got = net.decision(X, batch_size=batch_size)
    assert got == pytest.approx(reference(net, X), abs=2e-5)
    assert np.array_equal(got, net.decision(X))


@pytest.mark.parametrize("threads", [2, 7])
def test_prediction_is_the_same_on_any_threads(threads):
    net = build()
    assert np.array_equal(net.decision(X, threads=threads), net.decision(X, threads=1))


def test_wide_networks_get_smaller_batches(monkeypatch):
    net = build()
    monkeypatch.setattr(inference, "ACTIVATION_BYTES", 4 * 50 * 16)
    monkeypatch.setattr(inference, "available_bytes", lambda: None)
    columns = []
    load = inference.Inputs.load

    def counting(inputs, rows, out, threads):
        columns.append(len(rows))
        load(inputs, rows, out, threads)

    monkeypatch.setattr(inference.Inputs, "load", counting)
    assert net.decision(X) == pytest.approx(reference(net, X), abs=2e-5)
    assert columns == [16] * 5 + [3]


def test_classification():
    net = build()
    z = reference(net, X)
    e = np.exp(z)
    proba = net.predict_proba(X)
    assert proba.shape == (83, 5)
    assert proba == pytest.approx(e / e.sum(axis=1, keepdims=True), abs=1e-5)
    labels = net.predict(X)
    assert labels.dtype == np.int64
    assert np.array_equal(labels, z.argmax(axis=1))
    y = RNG.integers(0, 5, 83)
    assert net.score(X, y) == (labels == y).mean()


@pytest.mark.parametrize("batch_size", [10, 80, 82, 83, 84])
def test_evaluation_counts_every_sample(batch_size):
    net = build()
    z = reference(net, X)
    y = z.argmax(axis=1)
    y[-3:] = (y[-3:] + 1) % 5  # only the tail is wrong
    result = net.evaluate(X, y, batch_size=batch_size)
    assert result.n_samples == 83
    assert result.accuracy == pytest.approx(80 / 83)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert result.loss == pytest.approx(-log_p[np.arange(83), y].mean(), rel=1e-5)


def test_binary_with_one_output():
    net = build((12, 30, 1))
    assert net.loss == BinaryCrossEntropy()
    z = reference(net, X)[:, 0]
    p = 1 / (1 + np.exp(-z))
    assert net.predict_proba(X) == pytest.approx(np.column_stack([1 - p, p]), abs=1e-5)
    y = net.predict(X)
    assert y.dtype == np.int64
    assert np.array_equal(y, z > 0)
    assert net.score(X, y) == 1
    assert net.evaluate(X, 1 - y).accuracy == 0
    assert net.evaluate(X, y).loss == pytest.approx(-np.log(np.where(y, p, 1 - p)).mean(), rel=1e-5)


def test_several_binary_outputs():
    net = build((12, 30, 3), loss="binary_cross_entropy")
    z = reference(net, X)
    assert net.predict_proba(X) == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-5)
    assert np.array_equal(net.predict(X), z > 0)
    assert net.score(X, z > 0) == 1


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_regression(n_outputs):
    net = build((12, 30, n_outputs), loss="mse")
    z = reference(net, X)
    got = net.predict(X)
    assert got.shape == ((83,) if n_outputs == 1 else (83, n_outputs))
    assert got.reshape(83, -1) == pytest.approx(z, abs=2e-5)
    y = z + RNG.normal(0, 0.5, z.shape)
    want = 1 - ((y - z) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert net.score(X, y) == pytest.approx(want.mean(), abs=1e-5)
    result = net.evaluate(X, y)
    assert result.accuracy is None
    assert result.loss == pytest.approx(((y - z) ** 2).mean(), rel=1e-4)
    with pytest.raises(ConfigError, match="use predict instead of predict_proba"):
        net.predict_proba(X)


def test_r2_of_constant_targets():
    net = build((12, 1), loss="mse")
    net.layers[0].values[:] = 0
    net.layers[0].bias[:] = 2
    assert net.score(X, np.full(83, 2.0)) == 1
    assert net.score(X, np.full(83, 3.0)) == 0


def test_raw_features_are_scaled_when_the_network_has_a_scaling():
    raw = (X * 20 + 100).astype(np.int16)
    net = build()
    net.scaling = InputScaling.fit(raw)
    want = reference(net, (raw - raw.mean(axis=0)) / raw.std(axis=0))
    assert net.decision(raw) == pytest.approx(want, abs=5e-5)
    with pytest.raises(DataError, match="toarray"):
        net.predict(sparse.csr_array(raw))


def test_csr_input_equals_dense_input_scaled_without_centring():
    dense = np.where(RNG.random((40, 12)) < 0.3, RNG.normal(4, 2, (40, 12)), 0).astype(np.float32)
    net = build()
    net.scaling = InputScaling.fit(sparse.csr_array(dense))
    assert np.array_equal(net.decision(sparse.csr_array(dense)), net.decision(dense))
    assert net.decision(dense) == pytest.approx(reference(net, dense / dense.std(axis=0)), abs=5e-5)


def test_defaults():
    with pytest.warns(DensityWarning):
        net = SparseMLP((50, 40, 2))
    assert net.density == ErdosRenyi(20)
    assert net.activation == ReLU()
    assert net.init == HeUniform()
    assert net.loss == CrossEntropy()
    assert net.dropout == 0
    assert net.sizes == (50, 40, 2)
    assert net.connections == sum(layer.weights.nnz for layer in net.layers)
    assert net.layers[1].density == 1 > net.layers[0].density


def test_arguments_may_be_objects_names_or_configurations():
    by_object = SparseMLP((50, 40, 2), density=ERK(0.1), activation=AllReLU(0.6), init=HeUniform(), seed=2)
    by_name = SparseMLP(
        np.array([50, 40, 2]),
        density={"name": "erk", "density": 0.1},
        activation={"name": "all_relu", "alpha": 0.6},
        init="he_uniform",
        seed=np.int64(2),
    )
    assert by_object.to_config() == by_name.to_config()
    for a, b in zip(by_object.layers, by_name.layers, strict=True):
        assert a.pattern == b.pattern
        assert np.array_equal(a.values, b.values)
    assert SparseMLP((50, 40, 2), density=0.1).density == ERK(0.1)
    assert SparseMLP((50, 40, 2), epsilon=1).density == ErdosRenyi(1)


def test_config_builds_the_same_network():
    net = build(dropout=(0.1, 0.2), activation=AllReLU(0.3), density=Uniform(0.3))
    again = SparseMLP(**net.to_config())
    assert again.to_config() == net.to_config()
    for a, b in zip(net.layers, again.layers, strict=True):
        assert a.pattern == b.pattern
        assert np.array_equal(a.values, b.values)


@pytest.mark.parametrize("threads", [2, 7])
def test_same_seed_same_network_on_any_threads(threads):
    arguments = {"epsilon": 5, "init": HeUniform("sparse")}
    one = SparseMLP((300, 200, 100), **arguments, seed=9, threads=1)
    many = SparseMLP((300, 200, 100), **arguments, seed=9, threads=threads)
    other = SparseMLP((300, 200, 100), **arguments, seed=10)
    for a, b, c in zip(one.layers, many.layers, other.layers, strict=True):
        assert a.pattern == b.pattern
        assert np.array_equal(a.values, b.values)
        assert a.pattern != c.pattern


def test_dropout_thresholds_are_sixteenth_bit_fractions_of_hidden_layers():
    assert build(dropout=0.3).dropout_thresholds == (19661, 19661)
    assert build(dropout=[0.5, 0]).dropout_thresholds == (32768, 0)
    assert build(dropout=0.9999999).dropout_thresholds == (65535, 65535)
    assert build((12, 5), dropout=0.3).dropout_thresholds == ()


def test_dropout_does_nothing_outside_training():
    assert np.array_equal(build(dropout=0.5).decision(X), build().decision(X))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (784,)}, "at least two numbers of neurons"),
        ({"sizes": 784}, "at least two numbers"),
        ({"sizes": "784-10"}, "at least two numbers"),
        ({"sizes": (784, 0, 10)}, r"sizes\[1\] must be a whole number from 1"),
        ({"sizes": (784, -5, 10)}, r"sizes\[1\]"),
        ({"sizes": (784, 10.5)}, r"sizes\[1\].*got 10.5"),
        ({"sizes": (784, True)}, r"sizes\[1\]"),
        ({"sizes": (2**31, 10)}, r"sizes\[0\].*2147483647"),
        ({"epsilon": 20, "density": 0.1}, "not both"),
        ({"epsilon": 0}, "epsilon must be"),
        ({"epsilon": -3}, "epsilon must be"),
        ({"epsilon": np.nan}, "epsilon must be"),
        ({"density": 1.5}, "density must be"),
        ({"density": "dense"}, "allowed are erdos_renyi, erk, given, receptive_fields, uniform"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"activation": {"name": "all_relu", "alpha": 3}}, "alpha of AllReLU"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout must be"),
        ({"dropout": (0.1, 0.2)}, r"one number or 1, one for each hidden layer"),
        ({"dropout": (2,)}, r"dropout\[0\]"),
        ({"init": "he"}, "unknown initialiser 'he'"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"sizes": (12, 1), "loss": "cross_entropy"}, "needs at least 2 outputs"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "seed must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    defaults = {"sizes": (12, 8, 3)}
    if not {"epsilon", "density"} & set(arguments):
        defaults["density"] = 0.5
    with pytest.raises(ConfigError, match=message):
        SparseMLP(**defaults | arguments)


def test_bad_samples_are_refused():
    net = build()
    with pytest.raises(ShapeError, match="the network expects 12 features but X has 11"):
        net.predict(X[:, :11])
    with pytest.raises(DataError, match="row 0, column 3"):
        net.predict_proba(np.where(np.arange(12) == 3, np.nan, X))
    with pytest.raises(DataError, match="no samples"):
        net.predict(X[:0])
    with pytest.raises(ShapeError, match="83 samples but 82 targets"):
        net.evaluate(X, np.zeros(82, dtype=int))
    with pytest.raises(ShapeError, match="83 samples but 82 targets"):
        build((12, 1), loss="mse").score(X, np.zeros(82))
    with pytest.raises(DataError, match="labels y must be from 0 to 4"):
        net.score(X, np.full(83, 5))
    with pytest.raises(ConfigError, match="batch_size"):
        net.predict(X, batch_size=0)
    with pytest.raises(ConfigError, match="threads"):
        net.predict(X, threads=0)


def test_classes_are_names_for_every_output():
    net = build()
    net.classes = np.array(["a", "b", "c", "d", "e"])
    assert net.classes == ["a", "b", "c", "d", "e"]
    with pytest.raises(ConfigError, match="classes must be 5 names"):
        net.classes = ["a"]
    one = build((12, 1))
    one.classes = [0, 1]
    with pytest.raises(ConfigError, match="no classes"):
        build((12, 1), loss="mse").classes = ["a"]


def test_repr_reads_like_the_constructor():
    assert repr(build((12, 3), dropout=0.1, init="xavier")) == (
        "SparseMLP((12, 3), density=ERK(density=0.4, power=1.0, dense=()), activation=ReLU(), dropout=0.1, "
        "init=Xavier(fan_in='dense'), loss='cross_entropy', seed=1)"
    )


def test_a_network_that_cannot_be_held_is_an_error_with_the_arithmetic() -> None:
    with pytest.raises(ConfigError, match=r"needs [\d,.]+ GiB .* are available; use fewer neurons"):
        SparseMLP((65536, 2**31 - 1, 2**31 - 1, 2), epsilon=100)


def test_a_network_can_be_copied_and_pickled() -> None:
    net = SparseMLP((20, 30, 4), epsilon=3, seed=0)
    X = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)
    expected = net.predict_proba(X)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(twin.predict_proba(X), expected)
        twin.layers[0].values[...] = 0
        np.testing.assert_array_equal(net.predict_proba(X), expected)


def test_a_network_takes_the_layers_of_another_of_other_sizes() -> None:
    net, other = build(), build((12, 9, 20, 5), seed=4)
    expected, versions = other.predict_proba(X), [layer.version for layer in net.layers]
    net.take_layers(other)
    assert net.sizes == (12, 9, 20, 5) and net.layers[0].values is other.layers[0].values
    assert all(layer.version > version for layer, version in zip(net.layers, versions, strict=True))
    np.testing.assert_array_equal(net.predict_proba(X), expected)


def test_a_network_that_drops_its_connections_keeps_its_shape_and_nothing_else() -> None:
    net = build(activation="srelu")
    arrays = [array for layer in net.layers for array in (layer.values, layer.bias, layer.pattern.row_ptr)]
    net.drop_connections()
    assert net.sizes == (12, 30, 20, 5) and net.connections == 0
    now = [array for layer in net.layers for array in (layer.values, layer.bias, layer.pattern.row_ptr)]
    assert not any(np.may_share_memory(a, b) for a in arrays for b in now)
    np.testing.assert_allclose(net.predict_proba(X), 0.2, rtol=1e-6)
