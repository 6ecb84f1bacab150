# SPDX-License-Identifier: BSD-3-Clause
import pickle

import numpy as np
import pytest

from trulysparse.cli.config import RunConfig
from trulysparse.errors import CheckpointError, ConfigError, ShapeError
from trulysparse.model import (
    AllReLU,
    HeUniform,
    LeakyReLU,
    Linear,
    PReLU,
    ReLU,
    Sigmoid,
    SparseMLP,
    SReLU,
    Tanh,
    get_activation,
    load,
    read_tensors,
    write_tensors,
)
from trulysparse.model.activations import ACTIVATIONS


def test_all_relu_alternates_its_slope():
    assert [AllReLU(0.6).resolve(h) for h in (1, 2, 3, 4)] == [
        ("rectifier", -0.6),
        ("rectifier", 0.6),
        ("rectifier", -0.6),
        ("rectifier", 0.6),
    ]


def test_all_relu_slopes_reach_the_layers_and_the_output_is_linear():
    net = SparseMLP((5, 6, 7, 8, 3), density=0.5, activation=AllReLU(0.25))
    assert [layer.activation for layer in net.layers] == [
        ("rectifier", -0.25),
        ("rectifier", 0.25),
        ("rectifier", -0.25),
        ("linear", 0.0),
    ]


@pytest.mark.parametrize(
    ("activation", "kernel"),
    [
        (ReLU(), ("rectifier", 0.0)),
        (LeakyReLU(0.2), ("rectifier", 0.2)),
        (Sigmoid(), ("sigmoid", 0.0)),
        (Tanh(), ("tanh", 0.0)),
        (Linear(), ("linear", 0.0)),
        (PReLU(), ("prelu", 0.0)),
        (SReLU(), ("srelu", 0.0)),
    ],
)
def test_other_activations_are_the_same_in_every_layer(activation, kernel):
    assert activation.resolve(1) == activation.resolve(2) == kernel


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_config_roundtrip(name):
    activation = get_activation(name)
    assert activation.to_config()["name"] == name
    assert get_activation(activation.to_config()) == activation


def test_configured_activation():
    assert get_activation({"name": "all_relu", "alpha": 0.75}) == AllReLU(0.75)
    assert repr(AllReLU(0.75)) == "AllReLU(alpha=0.75)"
    assert get_activation({"name": "all_relu", "alpha": "auto"}) == AllReLU("auto") == AllReLU("auto", start=0.5)
    assert repr(AllReLU("auto")) == "AllReLU(alpha='auto', start=0.5)"
    assert AllReLU("auto", 0.25).to_config() == {"name": "all_relu", "alpha": "auto", "start": 0.25}
    assert AllReLU(0.75).to_config() == {"name": "all_relu", "alpha": 0.75}


@pytest.mark.parametrize("alpha", [-0.1, 1.5, np.nan, np.inf, "0.6", None, True])
def test_slopes_out_of_range_are_refused(alpha):
    with pytest.raises(ConfigError, match=r"alpha of AllReLU must be a number in \[0, 1\]"):
        AllReLU(alpha)
    with pytest.raises(ConfigError, match=r"slope of LeakyReLU must be a number in \[0, 1\]"):
        LeakyReLU(alpha)


@pytest.mark.parametrize("start", [0, 0.01, -0.5, 1.5, np.nan, "0.5", True])
def test_starts_of_learned_slopes_out_of_range_are_refused(start):
    with pytest.raises(ConfigError, match=r"start of AllReLU must be a number in \[0\.015625, 1\]"):
        AllReLU("auto", start)


def test_a_start_beside_a_fixed_slope_is_refused():
    with pytest.raises(ConfigError, match=r"start=0\.5 of AllReLU .* but alpha=0\.6 is fixed"):
        AllReLU(0.6, start=0.5)
    with pytest.raises(ConfigError, match="or 'auto', got 'Auto'"):
        AllReLU("Auto")


def test_learned_slopes_begin_and_stay_with_alternating_signs():
    activation = AllReLU("auto", 0.25)
    net = SparseMLP((5, 6, 7, 8, 3), density=0.5, activation=activation)
    assert [layer.activation_parameters.get("slope") for layer in net.layers] == [-0.25, 0.25, -0.25, None]
    assert [layer.activation for layer in net.layers] == [
        ("rectifier", -0.25),
        ("rectifier", 0.25),
        ("rectifier", -0.25),
        ("linear", 0.0),
    ]
    bounds = [activation.parameter_bounds(h)["slope"] for h in (1, 2, 3)]
    assert bounds == [(-1, -1 / 64), (1 / 64, 1), (-1, -1 / 64)]
    assert AllReLU(0.25).parameter_bounds(1) == PReLU().parameter_bounds(1) == {}


def test_learned_slopes_begin_as_fixed_ones():
    fixed, learned = (
        SparseMLP((6, 40, 30, 3), density=0.6, activation=activation, init=HeUniform("sparse", "signal"), seed=3)
        for activation in (AllReLU(0.3), AllReLU("auto", 0.3))
    )
    assert np.array_equal(fixed.decision(_samples(200)), learned.decision(_samples(200)))


@pytest.mark.parametrize("hidden_number", [0, -1, 1.0, True])
def test_hidden_layers_are_numbered_from_one(hidden_number):
    with pytest.raises(ConfigError, match="hidden_number"):
        AllReLU().resolve(hidden_number)


def test_unknown_activation_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown activation 'allrelu'.*did you mean 'all_relu'"):
        get_activation("allrelu")
    with pytest.raises(ConfigError, match=r"has no setting 'alhpa'.*did you mean 'alpha'"):
        get_activation({"name": "all_relu", "alhpa": 0.6})
    with pytest.raises(ConfigError, match="needs the key 'name'"):
        get_activation({"alpha": 0.6})
    with pytest.raises(ConfigError, match="got 3 of type int"):
        get_activation(3)


SRELU = SReLU(left_threshold=(-1.0, 0.5), right_threshold=(-1.0, 1.0), right_slope=(-0.5, 2.0))
trained = pytest.mark.parametrize(
    "activation",
    [PReLU(), PReLU(0.4, shared=True), SReLU(), SRELU, AllReLU("auto")],
    ids=["prelu", "shared", "srelu", "srelu_ranges", "auto"],
)


def _network(activation, **more):
    """A network whose trained parameters differ from neuron to neuron."""
    net = SparseMLP((6, 40, 30, 3), density=0.6, activation=activation, init="xavier", seed=3, **more)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        layer.bias[...] = rng.normal(size=layer.n_out)
        for array in layer.activation_parameters.values():
            array[...] += rng.normal(scale=0.3, size=array.size)
    return net


def _samples(n=20):
    return np.random.default_rng(1).normal(scale=2.0, size=(n, 6)).astype(np.float32)


def _formula(layer, z):
    """The activation in double, straight from its definition."""
    p = {name: array.astype(np.float64) for name, array in layer.activation_parameters.items()}
    if "slope" in p:
        return np.where(z > 0, z, p["slope"] * z)
    left = p["left_threshold"]
    right = left + np.abs(p["right_threshold"])
    below, above = left + p["left_slope"] * (z - left), right + p["right_slope"] * (z - right)
    return np.where(z <= left, below, np.where(z >= right, above, z))


@trained
def test_trained_activations_compute_their_formula(activation):
    net, a = _network(activation), _samples().astype(np.float64)
    for layer in net.layers[:-1]:
        z = a @ layer.weights.toarray() + layer.bias
        a = _formula(layer, z)
        assert not np.allclose(a, z)
    expected = a @ net.layers[-1].weights.toarray() + net.layers[-1].bias
    np.testing.assert_allclose(net.decision(_samples()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_begins_as_leaky_relu(shared):
    outputs = [
        SparseMLP((6, 40, 30, 3), density=0.6, activation=activation, seed=3).decision(_samples(200))
        for activation in (PReLU(0.2, shared), LeakyReLU(0.2))
    ]
    assert np.array_equal(*outputs)


def test_prelu_has_a_slope_for_each_neuron_or_one_for_a_layer():
    assert [len(layer.activation_parameters.get("slope", ())) for layer in _network(PReLU()).layers] == [40, 30, 0]
    net = SparseMLP((6, 40, 30, 3), activation=PReLU(0.1, shared=True), epsilon=3)
    assert [layer.activation_parameters.get("slope") for layer in net.layers] == [
        np.float32(0.1),
        np.float32(0.1),
        None,
    ]


def test_srelu_begins_within_its_ranges():
    first = SReLU().draw_parameters(4000, seed=1, layer=0)
    assert np.all(first["left_threshold"] == 0)
    assert np.all(first["right_slope"] == 1)
    for name, high in (("left_slope", 1.0), ("right_threshold", 5.0)):
        assert first[name].min() >= 0
        assert first[name].max() <= high
        assert first[name].mean() == pytest.approx(high / 2, rel=0.03)
        assert first[name].std() == pytest.approx(high / np.sqrt(12), rel=0.03)
    assert abs(np.corrcoef(first["left_slope"], first["right_threshold"])[0, 1]) < 0.05


def test_first_values_are_a_function_of_seed_layer_and_neuron():
    def drawn(n=100, seed=1, layer=0, threads=1):
        return SReLU().draw_parameters(n, seed=seed, layer=layer, threads=threads)["left_slope"]

    assert np.array_equal(drawn(100), drawn(1000, threads=3)[:100])
    assert not np.any(drawn(seed=2) == drawn())
    assert not np.any(drawn(layer=1) == drawn())


@trained
def test_frozen_networks_keep_trained_activations(activation):
    net = _network(activation)
    frozen, X = net.freeze(), _samples()
    before = net.decision(X)
    assert np.array_equal(frozen.decision(X), before)
    np.testing.assert_allclose(frozen.decision(X[:1]), before[:1], rtol=1e-4, atol=1e-5)
    for layer in net.layers:
        for array in layer.activation_parameters.values():
            array[...] += 1
    assert not np.allclose(net.decision(X), before)
    assert np.array_equal(pickle.loads(pickle.dumps(frozen)).decision(X), before)
    more = frozen.nbytes - _network(ReLU()).freeze().nbytes
    assert more == 0 if isinstance(activation, AllReLU) else more > 0  # its slopes are settings of the frozen layers


@trained
def test_files_and_pickles_keep_trained_activations(activation, tmp_path):
    net, X = _network(activation), _samples()
    net.save(tmp_path / "net.safetensors")
    for other in (load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert other.activation == activation
        assert np.array_equal(other.decision(X), net.decision(X))
        for layer, copy in zip(net.layers, other.layers, strict=True):
            assert list(layer.activation_parameters) == list(copy.activation_parameters)


def test_a_file_without_its_parameters_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    _network(PReLU()).save(path)
    tensors, metadata = read_tensors(path)
    del tensors["layers.1.activation.slope"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(CheckpointError, match=r"layers\.1\.activation\.slope is absent"):
        load(path)


def test_summary_counts_trained_parameters():
    text, plain = str(_network(SReLU()).summary()), str(_network(ReLU()).summary())
    assert "srelu" in text
    assert "280 activation parameters" in text
    assert "activation parameters" not in plain
    assert _network(SReLU()).summary().total_bytes - _network(ReLU()).summary().total_bytes == 4 * 280


def test_summary_shows_the_learned_slopes_as_they_are_now():
    net = SparseMLP((6, 40, 30, 20, 3), density=0.6, activation=AllReLU("auto"))
    for layer, slope in zip(net.layers, (-0.41, 0.627, -0.55), strict=False):
        layer.activation_parameters["slope"][...] = slope
    summary = net.summary()
    assert str(summary).endswith("all_relu(auto): -0.41, 0.63, -0.55")
    assert [row.activation for row in summary.rows] == [
        "rectifier -0.41",
        "rectifier +0.627",
        "rectifier -0.55",
        "linear",
    ]
    assert "auto" not in str(_network(AllReLU(0.6)).summary()) + str(_network(PReLU(shared=True)).summary())


def test_run_files_take_learned_slopes(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("")
    config = RunConfig.from_file(path)
    config.set_text("model.activation.name=all_relu")
    config.set_text("model.activation.alpha=auto")
    path.write_text(config.to_toml())
    assert get_activation(RunConfig.from_file(path).get("model", "activation")) == AllReLU("auto")


def test_run_files_take_trained_activations(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('[model]\nactivation = {name = "srelu", left_slope = [0.0, 0.5], right_threshold = 2}\n')
    config = RunConfig.from_file(path)
    assert get_activation(config.get("model", "activation")) == SReLU(left_slope=(0.0, 0.5), right_threshold=2.0)
    config.set_text("model.activation.name=prelu")
    config.set_text("model.activation.shared=true")
    path.write_text(config.to_toml())
    assert get_activation(RunConfig.from_file(path).get("model", "activation")) == PReLU(shared=True)


def test_first_values_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=r"slope of PReLU must be a number in \[-1, 1\]"):
        PReLU(1.5)
    with pytest.raises(ConfigError, match="shared of PReLU must be true or false, got 1"):
        PReLU(shared=1)
    for wrong in ((1.0, 0.0), (0.0,), (0.0, 1.0, 2.0), "01", None, np.nan, (0.0, np.inf)):
        with pytest.raises(ConfigError, match="left_slope of SReLU must be"):
            SReLU(left_slope=wrong)


def test_layers_refuse_parameters_that_do_not_fit():
    layer = _network(SReLU()).layers[0]
    short = {name: array[:3].copy() for name, array in layer.activation_parameters.items()}
    with pytest.raises(ShapeError, match=r"activation_parameters\['left_threshold'\] must have shape \(40,\)"):
        layer.replace(layer.pattern, layer.values, activation_parameters=short)
