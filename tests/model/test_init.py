# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from trulysparse.errors import ConfigError
from trulysparse.model import (
    ErdosRenyi,
    HeUniform,
    Normal,
    Pattern,
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


@pytest.mark.parametrize("init", [HeUniform(), Xavier("sparse"), Normal(), Normal(0.2), Normal(fan_in="sparse")])
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
