# SPDX-License-Identifier: BSD-3-Clause
import warnings
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from trulysparse.errors import ConfigError, DensityWarning, ShapeError
from trulysparse.model import ERK, ErdosRenyi, Given, Pattern, SparseMLP, Uniform, get_density

# expected connections without biases, by sampler
NETWORKS = {
    "higgs": ((28, 1000, 1000, 1000, 2), 10, 52_280, 50_194),
    "madelon": ((500, 400, 100, 400, 2), 10, 19_800, 18_996),
    "fashion": ((784, 1000, 1000, 1000, 10), 20, 125_680, 121_975),
    "cifar10": ((3072, 4000, 1000, 4000, 10), 20, 381_440, 372_764),
}


def quiet_patterns(density, sizes, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DensityWarning)
        return density.patterns(sizes, seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_sampler_counts_follow_the_table(name):
    sizes, epsilon, bernoulli, replacement = NETWORKS[name]
    for sampler, expected in (("bernoulli", bernoulli), ("replacement", replacement)):
        density = ErdosRenyi(epsilon, sampler)
        assert sum(density.expected_connections(sizes)) == pytest.approx(expected, abs=1)
        counts = np.array([p.nnz for p in quiet_patterns(density, sizes, seed=7)])
        cells = np.array([a * b for a, b in pairwise(sizes)])
        p = np.minimum(1, epsilon * np.array([a + b for a, b in pairwise(sizes)]) / cells)
        # a Bernoulli count's deviation bounds that of distinct cells among draws too
        sigma = np.sqrt(np.sum(cells * p * (1 - p))) if sampler == "bernoulli" else np.sqrt(np.sum(cells * p))
        assert abs(counts.sum() - expected) < 4 * sigma


def test_replacement_count_of_the_capped_output_layer():
    counts = [ErdosRenyi(20, "replacement").patterns((1000, 10), seed)[0].nnz for seed in range(20)]
    assert np.mean(counts) == pytest.approx(8674, abs=4 * 40 / np.sqrt(20))


def test_bernoulli_pattern_is_uniform_over_rows_and_columns():
    pattern = ErdosRenyi(20).patterns((500, 800), seed=1)[0]
    p = 20 * 1300 / (500 * 800)
    for degree, n in ((pattern.out_degree(), 800), (pattern.in_degree(), 500)):
        assert abs(degree.mean() - n * p) < 4 * np.sqrt(n * p * (1 - p) / len(degree))
        assert degree.var() == pytest.approx(n * p * (1 - p), rel=0.3)


def test_too_dense_layer_is_full_with_a_warning_that_names_it():
    with pytest.warns(DensityWarning, match=r"layer 1 \(300 -> 10\): epsilon=20 asks for 6200 .* room for 3000"):
        patterns = ErdosRenyi(20).patterns((400, 300, 10), seed=0)
    assert patterns[1].density == 1.0
    assert patterns[0].density < 1


def test_density_warning_points_at_the_caller():
    with pytest.warns(DensityWarning) as caught:
        SparseMLP((300, 10), epsilon=20)
    assert caught[0].filename == __file__


def test_exactly_full_is_no_reason_to_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ErdosRenyi(5).patterns((10, 10), seed=0)[0].density == 1.0


@pytest.mark.parametrize("epsilon", [0, -1, np.nan, np.inf, "20", None])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ConfigError, match="epsilon must be a number in"):
        ErdosRenyi(epsilon)


def test_unknown_sampler():
    with pytest.raises(ConfigError, match=r"'bernouli'.*did you mean 'bernoulli'"):
        ErdosRenyi(20, sampler="bernouli")


def test_erk_example_caps_the_output_layer():
    sizes = (3072, 1024, 1024, 10)
    densities = ERK(0.05).densities(sizes)
    assert densities == pytest.approx([0.0424, 0.0636, 1], abs=5e-5)
    counts = [p.nnz for p in ERK(0.05).patterns(sizes, seed=0)]
    cells = [a * b for a, b in pairwise(sizes)]
    assert abs(sum(counts) - 0.05 * sum(cells)) <= len(cells)
    assert counts[2] == 10240


@pytest.mark.parametrize("density", [0.001, 0.02, 0.3, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_erk_meets_its_budget(density, power):
    sizes = (50, 200, 20, 100, 3)
    cells = [a * b for a, b in pairwise(sizes)]
    densities = ERK(density, power).densities(sizes)
    assert all(0 < d <= 1 for d in densities)
    assert np.dot(densities, cells) == pytest.approx(density * sum(cells))
    counts = [p.nnz for p in ERK(density, power).patterns(sizes, seed=3)]
    assert abs(sum(counts) - density * sum(cells)) <= len(cells)
    assert counts == [round(d * n) for d, n in zip(densities, cells, strict=True)]


def test_erk_without_power_is_uniform():
    assert ERK(0.2, power=0).densities((30, 40, 50)) == pytest.approx([0.2, 0.2])


def test_erk_counts_forced_layers_in_the_budget():
    sizes = (100, 100, 100, 10)
    densities = ERK(0.2, dense=(-1,)).densities(sizes)
    assert densities[2] == 1.0
    assert np.dot(densities, [10_000, 10_000, 1000]) == pytest.approx(0.2 * 21_000)
    with pytest.raises(ConfigError, match=r"full layers \[0\] of ERK alone have 10000 connections"):
        ERK(0.2, dense=[0]).densities(sizes)
    with pytest.raises(ConfigError, match="names layer 3, but the network has 3 layers"):
        ERK(0.2, dense=[3]).densities(sizes)


def test_uniform_counts_are_exact():
    patterns = Uniform(0.1).patterns((100, 50, 7), seed=0)
    assert [p.nnz for p in patterns] == [500, 35]
    patterns = Uniform(0.1, dense_first=True).patterns((100, 50, 7), seed=0)
    assert [p.nnz for p in patterns] == [5000, 35]


@pytest.mark.parametrize("kind", [ERK, Uniform])
@pytest.mark.parametrize("density", [0, -0.1, 1.01, np.nan, "a"])
def test_density_is_in_zero_one(kind, density):
    with pytest.raises(ConfigError, match=r"must be a number in \(0, 1\]"):
        kind(density)


def test_given_takes_patterns_of_every_kind():
    eye = np.eye(4, dtype=bool)
    given = Given([Pattern.from_dense(eye), sparse.csr_array(eye), eye])
    assert all(p == Pattern.from_dense(eye) for p in given.patterns((4, 4, 4, 4), seed=0))
    net = SparseMLP((4, 4, 4, 4), density=given)
    assert [layer.nnz for layer in net.layers] == [4, 4, 4]


def test_given_must_fit():
    given = Given([np.ones((4, 3), dtype=bool)])
    with pytest.raises(ShapeError, match=r"shapes \[\(4, 3\)\], sizes \(4, 5\) need \[\(4, 5\)\]"):
        given.patterns((4, 5), seed=0)
    with pytest.raises(ConfigError, match="list of patterns"):
        Given([])
    with pytest.raises(ConfigError, match="pattern 0 of Given must be"):
        Given(["a"])


@pytest.mark.parametrize(
    "density",
    [ErdosRenyi(20), ErdosRenyi(5, "replacement"), ERK(0.1), ERK(0.1, 0.5, (0, -1)), Uniform(0.2, True)],
)
def test_config_roundtrip(density):
    assert get_density(density.to_config()) == density


def test_number_is_the_global_density():
    assert get_density(0.05) == ERK(0.05)
    assert get_density(1) == ERK(1.0)
    with pytest.raises(ConfigError, match=r"density must be a number in \(0, 1\]"):
        get_density(2)
    with pytest.raises(ConfigError, match="Given"):
        get_density([np.eye(2, dtype=bool)])
    with pytest.raises(ConfigError, match="did you mean 'erdos_renyi'"):
        get_density("erdos-renyi")


def test_same_seed_same_patterns_on_any_threads():
    for density in (ErdosRenyi(5), ErdosRenyi(5, "replacement"), ERK(0.1), Uniform(0.1)):
        one = density.patterns((200, 100, 50), seed=11, threads=1)
        assert density.patterns((200, 100, 50), seed=11, threads=7) == one
        assert density.patterns((200, 100, 50), seed=12, threads=1) != one
