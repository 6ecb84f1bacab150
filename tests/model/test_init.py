# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

import trulysparse
from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model import (
    AllReLU,
    ErdosRenyi,
    HeUniform,
    LeakyReLU,
    Normal,
    Pattern,
    PReLU,
    ReLU,
    SparseMLP,
    Uniform,
    Xavier,
    get_initializer,
)

N_IN, N_OUT = 600, 400


@pytest.fixture(scope="module")
def pattern():
    return Uniform(0.1).patterns((N_IN, N_OUT), seed=0)[0]


@pytest.mark.parametrize(
    ("init", "limit"),
    [("he_uniform", np.sqrt(6 / N_IN)), ("xavier", np.sqrt(6 / (N_IN + N_OUT)))],
)
def test_uniform_limits_follow_the_dense_fan_in(init, limit, pattern):
    values = get_initializer(init).draw(pattern, seed=1, layer=0)
    assert values.dtype == np.float32
    assert len(values) == pattern.nnz
    assert np.abs(values).max() <= np.float32(limit)
    assert np.abs(values).max() > 0.99 * limit
    # 4 sigma of mean and mean square of U(-a, a)
    assert abs(values.mean()) < 4 * limit / np.sqrt(3 * len(values))
    assert np.mean(values.astype(float) ** 2) == pytest.approx(
        limit**2 / 3, abs=4 * limit**2 * 0.3 / np.sqrt(len(values))
    )


def test_normal_is_a_tenth_by_default(pattern):
    for init, std in ((Normal(), 0.1), (Normal(0.5), 0.5), (get_initializer("normal"), 0.1)):
        values = init.draw(pattern, seed=1, layer=0).astype(float)
        assert abs(values.mean()) < 4 * std / np.sqrt(len(values))
        assert values.std() == pytest.approx(std, abs=4 * std / np.sqrt(2 * len(values)))
        assert np.abs(values).max() > 3 * std


def test_sparse_fan_in_follows_each_in_degree():
    mask = np.zeros((40, 3), dtype=bool)
    mask[:40, 0] = True
    mask[:10, 1] = True  # column 2 has no connection
    pattern = Pattern.from_dense(mask)
    assert HeUniform("sparse").scale(pattern) == pytest.approx(np.sqrt(6 / np.array([40, 10, 1])))
    assert Normal(fan_in="sparse").scale(pattern) == pytest.approx(np.sqrt(2 / np.array([40, 10, 1])))
    mean_out = 50 / 40
    assert Xavier("sparse").scale(pattern) == pytest.approx(np.sqrt(6 / (np.array([40, 10, 1]) + mean_out)))


def test_sparse_fan_in_reaches_the_values(pattern):
    values = HeUniform("sparse").draw(pattern, seed=1, layer=0)
    limits = np.sqrt(6 / pattern.in_degree())[pattern.col_idx]
    assert (np.abs(values) <= limits * (1 + 1e-6)).all()
    assert np.abs(values / limits).max() > 0.99


def test_values_depend_on_the_cell_only(pattern):
    init = HeUniform()
    values = init.draw(pattern, seed=1, layer=2, threads=1)
    assert np.array_equal(values, init.draw(pattern, seed=1, layer=2, threads=7))
    kept = np.arange(pattern.nnz) % 3 == 0
    smaller, (carried,) = pattern.keep(kept, [values])
    assert np.array_equal(init.draw(smaller, seed=1, layer=2), carried)
    assert not np.array_equal(init.draw(pattern, seed=1, layer=3), values)


def test_grown_values_follow_the_same_distribution():
    net = SparseMLP((300, 200, 2), epsilon=1, init="he_uniform")
    layer = net.layers[0]
    cells = layer.pattern.draw_missing(20_000, seed=0, purpose="regrow_cells", layer=0, step=0)
    grown = layer.draw_grown(cells, seed=5, step=1)
    assert grown.dtype == np.float32
    limit = np.sqrt(6 / 300)
    assert 0.99 * limit < np.abs(grown).max() <= np.float32(limit)
    assert np.array_equal(grown, layer.draw_grown(cells, seed=5, step=1, threads=7))
    assert not np.array_equal(grown, layer.draw_grown(cells, seed=5, step=2))
    sparse_net = SparseMLP((300, 200, 2), epsilon=1, init={"name": "he_uniform", "fan_in": "sparse"})
    layer = sparse_net.layers[0]
    limits = np.sqrt(6 / np.maximum(layer.pattern.in_degree(), 1))[(cells % 200).astype(int)]
    assert (np.abs(layer.draw_grown(cells, seed=5, step=1)) <= limits * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    "init",
    [HeUniform(), Xavier("sparse"), Normal(), Normal(0.2), Normal(fan_in="sparse"), HeUniform("sparse", "signal")],
)
def test_config_roundtrip(init):
    assert get_initializer(init.to_config()) == init


def test_bad_settings():
    with pytest.raises(ConfigError, match="fan_in of Xavier must be 'dense' or 'sparse'"):
        Xavier("out")
    with pytest.raises(ConfigError, match="did you mean 'he_uniform'"):
        get_initializer("he_unifrom")
    with pytest.raises(ConfigError, match="std of Normal"):
        Normal(0)
    with pytest.raises(ConfigError, match="sets the scale twice"):
        Normal(0.1, fan_in="sparse")


def test_biases_start_at_zero():
    net = SparseMLP((20, 10, 2), density=ErdosRenyi(1))
    assert all(not layer.bias.any() and layer.bias.shape == (layer.n_out,) for layer in net.layers)


def _mean_squares(net, dropout=False):
    """Mean square of what every layer gives for standard normal inputs, with or without dropout."""
    x = _kernels.aligned_zeros((net.sizes[0], 32))
    x[...] = np.random.default_rng(0).normal(size=x.shape)
    found = []
    for layer, threshold in zip(net.layers[:-1], net.dropout_thresholds, strict=True):
        y = _kernels.aligned_zeros((layer.n_out, 32))
        kept = np.zeros((layer.n_out, 2), np.uint16)
        more = {"dropout_threshold": threshold, "kept": kept, "seed": 3, "layer": layer.index} if dropout else {}
        _kernels.forward(layer.view, x, y, activation=layer.activation, threads=2, **more)
        found.append(float(np.mean(y.astype(np.float64) ** 2)))
        x = y
    return found


def _thin(depth, gain, dropout=0.0, seed=0):
    init = HeUniform("sparse", gain=gain)
    sizes = (20_000,) * (depth + 1) + (2,)
    return SparseMLP(sizes, epsilon=1, init=init, activation=AllReLU(0.6), dropout=dropout, seed=seed)


@pytest.mark.parametrize(("depth", "dropout"), [(10, 0.0), (10, 0.4), (25, 0.0)])
def test_signal_gain_keeps_the_mean_square_through_layers_of_in_degree_two(depth, dropout):
    net = _thin(depth, "signal", dropout)
    assert net.layers[3].nnz / net.layers[3].n_out == pytest.approx(2, rel=0.05)
    squares = _mean_squares(net, dropout=dropout > 0)
    assert len(squares) == depth
    assert 0.5 < min(squares) and max(squares) < 2


def test_without_it_neurons_without_input_cost_their_share_in_every_layer():
    share = 1 - np.exp(-2.0)
    squares = _mean_squares(_thin(10, "activation"))
    for depth in (1, 4, 10):
        assert squares[depth - 1] == pytest.approx(share**depth, rel=0.03 * depth)
    # He's gain is made for ReLU: all-ReLU passes 0.68 of a mean square, not 0.5
    he = _mean_squares(_thin(10, None))
    for depth in (1, 4, 10):
        assert he[depth - 1] == pytest.approx((1.36 * share) ** depth, rel=0.03 * depth)


@pytest.mark.parametrize("make", [HeUniform, Normal])
@pytest.mark.parametrize(("gain", "power"), [(None, 2.0), (1.5, 2.25), ("activation", 0.6 / 0.68)])
def test_weights_have_the_variance_that_the_gain_says(make, gain, power):
    mask = np.zeros((400, 30), dtype=bool)
    for j in range(30):
        mask[: (0, 1, 2, 40, 400)[j % 5], j] = True
    pattern = Pattern.from_dense(mask)
    init = make(fan_in="sparse", gain=gain).for_layer(0.68 / (1 - 0.4))
    ratio = 3 if make is HeUniform else 1
    assert init.scale(pattern) ** 2 / ratio == pytest.approx(power / np.tile([1, 1, 2, 40, 400], 6), rel=1e-5)
    values = init.draw(pattern, seed=1, layer=0).astype(float) * np.sqrt(pattern.in_degree()[pattern.col_idx])
    assert abs(values.mean()) < 4 * np.sqrt(power / values.size)
    assert np.mean(values**2) == pytest.approx(power, rel=4 * np.sqrt(2 / values.size))
    whole = make(fan_in="sparse", gain="signal").for_layer(1.0)  # a fifth of the targets has no input
    assert whole.scale(pattern) ** 2 / ratio == pytest.approx(1.25 / np.tile([1, 1, 2, 40, 400], 6), rel=1e-5)


def test_each_layer_has_the_gain_of_its_own_activation_and_dropout():
    net = SparseMLP(
        (50, 40, 30, 5),
        density=1.0,
        init=HeUniform("sparse", gain="activation"),
        activation=LeakyReLU(0.5),
        dropout=(0.0, 0.2),
    )
    powers = [float(layer.initializer.scale(layer.pattern)[0]) ** 2 * layer.n_in / 3 for layer in net.layers]
    assert powers == pytest.approx([1 / 0.625, 0.8 / 0.625, 1.0], rel=1e-5)
    relu = SparseMLP((50, 40, 5), density=1.0, init=HeUniform(gain="activation"), activation=ReLU(), seed=3)
    he = SparseMLP((50, 40, 5), density=1.0, init=HeUniform(), activation=ReLU(), seed=3)
    assert relu.layers[0].values == pytest.approx(he.layers[0].values)  # what He et al. derived
    prelu = SparseMLP((50, 40, 5), density=1.0, init=HeUniform("sparse", "activation"), activation=PReLU(0.5))
    assert float(prelu.layers[0].initializer.scale(prelu.layers[0].pattern)[0]) ** 2 == pytest.approx(3 / 50 / 0.625)


def test_a_saved_network_draws_grown_values_with_its_gain(tmp_path):
    net = _thin(1, "signal", 0.4)
    net.save(tmp_path / "n.safetensors")
    again = trulysparse.load(tmp_path / "n.safetensors")
    assert again.init == net.init
    cells = net.layers[0].pattern.draw_missing(500, seed=0, purpose="regrow_cells", layer=0, step=0)
    values = [n.layers[0].draw_grown(cells, seed=5, step=1) for n in (net, again, _thin(1, "activation", 0.4))]
    assert np.array_equal(values[0], values[1])
    assert values[0] == pytest.approx(values[2] * 0.865**-0.5, rel=5e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeUniform(gain="signl", fan_in="sparse"), "did you mean 'signal'"),
        (lambda: HeUniform(gain=0), "gain of HeUniform must be"),
        (lambda: HeUniform(gain="signal"), "needs fan_in='sparse'"),
        (lambda: Normal(gain=1.0), "needs fan_in='sparse'"),
        (
            lambda: SparseMLP((9, 5, 2), init=HeUniform(gain="activation"), activation="tanh"),
            "not Tanh; give gain a nu",
        ),
        (lambda: HeUniform(gain="activation").scale(Pattern.from_dense(np.ones((3, 2), bool))), "for_layer"),
    ],
)
def test_gains_that_mean_nothing_are_errors(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
