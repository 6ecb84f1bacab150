# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from trulysparse.errors import ConfigError
from trulysparse.model import AllReLU, LeakyReLU, Linear, ReLU, Sigmoid, SparseMLP, Tanh, get_activation
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


@pytest.mark.parametrize("alpha", [-0.1, 1.5, np.nan, np.inf, "0.6", None, True])
def test_slopes_out_of_range_are_refused(alpha):
    with pytest.raises(ConfigError, match=r"alpha of AllReLU must be a number in \[0, 1\]"):
        AllReLU(alpha)
    with pytest.raises(ConfigError, match=r"slope of LeakyReLU must be a number in \[0, 1\]"):
        LeakyReLU(alpha)


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
