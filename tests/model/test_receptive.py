# SPDX-License-Identifier: BSD-3-Clause
import math
import tracemalloc
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.errors import ConfigError, DensityWarning, ShapeError
from trulysparse.model import ReceptiveFields, get_density, load, receptive
from trulysparse.model.receptive import neuron_places, pixel_places

SIZES = (3 * 16 * 16, 300, 200, 100, 10)
FIELDS = ReceptiveFields((3, 16, 16), 5)


def quiet_patterns(density, sizes, seed=0, threads=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DensityWarning)
        return density.patterns(sizes, seed, threads)


def far(sources, targets):
    """Distance of every pair, (n_in, n_out): the larger of down and across."""
    return np.abs(sources[:, None] - targets[None]).max(axis=2)


@pytest.mark.parametrize("last", [False, True])
def test_a_pixel_is_where_it_is_in_the_image_with_all_its_channels(last):
    shape = (4, 5, 3) if last else (3, 4, 5)
    places = pixel_places(shape, last).reshape(*shape, 2)
    for row in range(4):
        for column in range(5):
            pixel = places[row, column] if last else places[:, row, column]
            assert pixel == pytest.approx(np.tile([(row + 0.5) / 4, (column + 0.5) / 5], (3, 1)))


@pytest.mark.parametrize("n", [100, 1000, 4000])
def test_neurons_cover_the_square_evenly(n):
    places = neuron_places(n)
    assert places.shape == (n, 2) and places.min() >= 0 and places.max() < 1
    parts = 5
    counts, _, _ = np.histogram2d(*places.T, bins=parts, range=((0, 1), (0, 1)))
    share = n / parts**2
    # random places would deviate by sqrt(share) on average, three times that at most
    assert np.abs(counts - share).max() <= 1 + share**0.5
    assert np.array_equal(neuron_places(n // 2), places[: n // 2])


def test_sources_lie_in_the_window_of_their_target():
    patterns = FIELDS.patterns(SIZES, seed=3)
    sources = pixel_places((3, 16, 16), False)
    for pattern, window in zip(patterns, (0.1, 0.2, 0.4), strict=False):
        targets = neuron_places(pattern.n_out)
        distances = far(sources, targets)[pattern.to_dense()]
        assert 0.8 * window < distances.max() <= window
        sources = targets


def test_windows_end_at_the_border():
    pattern = ReceptiveFields((1, 20, 20), 5, 0.2, "first").patterns((400, 300, 10), seed=0)[0]
    corner = np.argmin(neuron_places(300).sum(axis=1))
    looked_at = pixel_places((1, 20, 20), False)[pattern.to_dense()[:, corner]]
    assert len(looked_at) and looked_at.max() < 0.5


def test_all_neurons_of_a_layer_have_as_many_sources():
    for pattern in ReceptiveFields((3, 16, 16), 5, (0.2, 0.2, 0.4)).patterns(SIZES, seed=3)[:-1]:
        degree = pattern.in_degree()
        assert degree.max() - degree.min() <= 1
        assert pattern.nnz % pattern.n_out == np.count_nonzero(degree > degree.min())


def test_a_narrow_window_is_taken_whole_and_others_get_its_rest():
    density = ReceptiveFields((1, 8, 8), 6, 0.13, "first")
    pattern = density.patterns((64, 40, 2), seed=0)[0]
    held = np.count_nonzero(far(pixel_places((1, 8, 8), False), neuron_places(40)) <= 0.13, axis=0)
    degree = pattern.in_degree()
    level = degree.max()
    assert pattern.nnz < 6 * (64 + 40) and np.array_equal(degree, held)  # more is asked for than there is
    density = ReceptiveFields((1, 8, 8), 0.8 * held.sum() / 104, 0.13, "first")
    pattern = density.patterns((64, 40, 2), seed=0)[0]
    degree = pattern.in_degree()
    level = degree.max()
    assert pattern.nnz == round(0.8 * held.sum())
    narrow = held < level - 1
    assert narrow.any() and not narrow.all()
    assert np.array_equal(degree[narrow], held[narrow]) and (degree[~narrow] >= level - 1).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_are_the_expected_ones(seed):
    expected = FIELDS.expected_connections(SIZES)
    patterns = FIELDS.patterns(SIZES, seed)
    assert expected[:2] == [round(5 * (a + b)) for a, b in ((768, 300), (300, 200))]
    assert [p.nnz for p in patterns[:-1]] == expected[:-1]
    assert expected[-1] == 5 * (100 + 10)
    assert abs(patterns[-1].nnz - expected[-1]) < 4 * np.sqrt(expected[-1])


def test_output_layer_is_that_of_erdos_renyi():
    assert FIELDS.patterns(SIZES, seed=3)[-1] == ts.ErdosRenyi(5).patterns(SIZES, seed=3)[-1]
    with pytest.warns(DensityWarning, match=r"layer 1 \(300 -> 10\): epsilon=20 asks for 6200 .* room for 3000"):
        patterns = ReceptiveFields((3, 16, 16), 20, 0.5).patterns((768, 300, 10), seed=3)
    assert patterns[-1].density == 1.0


def test_windows_that_hold_too_little_are_full_with_a_warning_that_names_the_layer():
    density = ReceptiveFields((3, 16, 16), 20, 0.1)
    asked = 20 * (768 + 100)
    said = rf"layer 0 \(768 -> 100\): epsilon=20 asks for {asked} connections but windows of 0.1 hold \d+.*widen"
    with pytest.warns(DensityWarning, match=said) as caught:
        net = ts.SparseMLP((768, 100, 10), density=density)
    assert {warning.filename for warning in caught} == {__file__}
    near = far(pixel_places((3, 16, 16), False), neuron_places(100)) <= 0.1
    assert np.array_equal(net.layers[0].pattern.to_dense(), near)
    assert density.expected_connections((768, 100, 10)) == [near.sum(), 1000]


def test_the_sources_are_those_with_the_smallest_numbers_of_their_cells():
    pattern = FIELDS.patterns(SIZES, seed=9)[1]
    cells = np.arange(300 * 200, dtype=np.uint64)
    drawn = _kernels.draw_values_at(cells, 200, "uniform", 1.0, seed=9, purpose="pattern", layer=1, step=0)
    drawn = drawn.reshape(300, 200)
    near = far(neuron_places(300), neuron_places(200)) <= 0.2
    mask, degree = pattern.to_dense(), pattern.in_degree()
    for target in range(200):
        (window,) = np.nonzero(near[:, target])
        wanted = window[np.argsort(drawn[window, target], kind="stable")[: degree[target]]]
        assert set(np.flatnonzero(mask[:, target])) == set(wanted)


def test_sources_are_drawn_evenly_over_the_window():
    # windows that hold everything: no pixel and no neuron is preferred
    pattern = ReceptiveFields((1, 20, 20), 10, None, "first").patterns((400, 1000, 2), seed=0)[0]
    share = pattern.density
    assert np.all(np.abs(pattern.out_degree() - 1000 * share) < 5 * np.sqrt(1000 * share * (1 - share)))


def test_memory_for_blocks_does_not_show_in_the_result(monkeypatch):
    whole = quiet_patterns(FIELDS, SIZES)
    monkeypatch.setattr(receptive, "_BLOCK_CELLS", 1000)
    monkeypatch.setattr(receptive, "_BLOCK_TARGETS", 7)
    assert quiet_patterns(FIELDS, SIZES) == whole


def test_drawing_takes_no_memory_for_all_cells():
    n = 16_000
    density = ReceptiveFields((1, 100, n // 100), 5, 0.02, "first")
    tracemalloc.start()
    pattern = density.patterns((n, n, 1), seed=0)[0]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pattern.nnz == 10 * n
    assert peak_bytes < n * n / 2


def test_looking_at_few_numbers_first_does_not_show_in_the_result(monkeypatch):
    whole = quiet_patterns(FIELDS, SIZES)
    for spare in ((-1.0, 0.0), (0.0, 0.0), (0.0, 1e9)):  # too few, sometimes enough, all of them
        monkeypatch.setattr(receptive, "_SPARE", spare)
        assert quiet_patterns(FIELDS, SIZES) == whole


def test_same_seed_same_patterns_on_any_threads():
    one = FIELDS.patterns(SIZES, seed=11, threads=1)
    assert FIELDS.patterns(SIZES, seed=11, threads=7) == one
    other = FIELDS.patterns(SIZES, seed=12, threads=1)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_a_single_window_holds_for_all_layers_and_the_last_one_for_those_beyond():
    three, four = (9, 50, 50, 50, 2), (9, 50, 50, 50, 50, 2)
    density = ReceptiveFields((1, 3, 3), 1, 0.3, "first")
    assert density.windows == (0.3,)
    assert density == ReceptiveFields((1, 3, 3), 1, [0.3], "first")
    for sizes in (three, four):
        same = ReceptiveFields((1, 3, 3), 1, (0.3,) * (len(sizes) - 2), "first")
        assert quiet_patterns(density, sizes) == quiet_patterns(same, sizes)
    short, full = (ReceptiveFields((1, 3, 3), 1, w, "first") for w in ((0.5, 0.2), (0.5, 0.2, 0.2)))
    assert quiet_patterns(short, three) == quiet_patterns(full, three) != quiet_patterns(density, three)


def test_none_is_a_window_that_holds_everything():
    assert ReceptiveFields((3, 8, 8), windows=None).windows == (1.0,)
    assert ReceptiveFields((3, 8, 8), windows=(0.1, None)).windows == (0.1, 1.0)
    assert ReceptiveFields((3, 8, 8), 100, None).expected_connections((192, 20, 2)) == [192 * 20, 20 * 2]


def test_a_network_without_hidden_layers_is_its_output_layer():
    density = ReceptiveFields((3, 8, 8), 2, 0.1)
    assert density.patterns((192, 10), seed=4) == ts.ErdosRenyi(2).patterns((192, 10), seed=4)
    assert density.expected_connections((192, 10)) == [2 * 202]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 1, 1, 1), (1, 3, 2, 1)])
def test_tiny_networks(sizes):
    density = ReceptiveFields((1, 1, 1), 1, 0.9, "first")
    patterns = quiet_patterns(density, sizes)
    assert [p.shape for p in patterns] == list(pairwise(sizes))
    assert [p.nnz for p in patterns[:-1]] == density.expected_connections(sizes)[:-1]
    assert all(p.nnz for p in patterns)


def test_a_window_may_hold_nothing():
    density = ReceptiveFields((1, 2, 2), 1, 0.01, "first")
    with pytest.warns(DensityWarning, match=r"windows of 0\.01 hold 0"):
        patterns = density.patterns((4, 3, 2), seed=0)
    assert patterns[0].nnz == 0 and density.expected_connections((4, 3, 2)) == [0, 5]


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    window=st.floats(1e-3, 1),
    epsilon=st.floats(0.05, 40),
    seed=st.integers(0, 2**64 - 1),
)
def test_patterns_are_sorted_distinct_and_as_many_as_expected(height, width, channels, hidden, window, epsilon, seed):
    density = ReceptiveFields((channels, height, width), epsilon, window, "first")
    sizes = (channels * height * width, *hidden, 4)
    expected = density.expected_connections(sizes)
    sources = pixel_places((channels, height, width), False)
    for layer, pattern in enumerate(quiet_patterns(density, sizes, seed)):
        _kernels.validate_pattern(pattern.n_in, pattern.n_out, pattern.row_ptr, pattern.col_idx)
        assert pattern.shape == sizes[layer : layer + 2]
        if layer == len(hidden):
            continue
        targets = neuron_places(pattern.n_out)
        near = far(sources, targets) <= window
        held, degree = near.sum(axis=0), pattern.in_degree()
        assert pattern.nnz == expected[layer] == min(round(epsilon * sum(pattern.shape)), held.sum())
        assert not (pattern.to_dense() & ~near).any()
        assert (degree >= np.minimum(held, degree.max() - 1)).all()
        sources = targets


@pytest.mark.parametrize(
    "density",
    [
        FIELDS,
        ReceptiveFields((16, 16, 3), windows=0.3),
        ReceptiveFields((2, 4, 8), windows=(None, 0.5), channels="first"),
        ReceptiveFields([3, 16, 16], np.float32(2), np.array([0.25, 0.5])),
    ],
)
def test_config_roundtrip(density):
    config = density.to_config()
    assert config["name"] == "receptive_fields"
    assert get_density(config) == density
    assert hash(get_density(config)) == hash(density)


def test_a_saved_network_keeps_its_receptive_fields(tmp_path):
    net = ts.SparseMLP(SIZES, density=FIELDS, seed=2)
    net.save(tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.density == FIELDS
    assert [layer.pattern for layer in again.layers] == FIELDS.patterns(SIZES, seed=2)


def test_network_learns_to_say_where_a_spot_is():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    X = rng.normal(0, 0.3, (400, 1, 8, 8)).astype(np.float32)
    for image, corner in zip(X, y, strict=True):
        image[0, 4 * (corner // 2) :, 4 * (corner % 2) :][:4, :4] += 1
    X = X.reshape(400, -1)
    net = ts.SparseMLP((64, 60, 40, 4), density=ReceptiveFields((1, 8, 8), 3, (0.2, 0.3), "first"))
    ts.Trainer(net, optimizer=ts.SGD(0.05), batch_size=20, progress=False).fit(X[:300], y[:300], epochs=8)
    assert net.score(X[300:], y[300:]) > 0.95


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shape": (3, 32)}, r"shape must be \(channels, height, width\)"),
        ({"shape": (5, 8, 8)}, "does not tell where the channels are.*add channels="),
        ({"channels": "frist"}, "did you mean 'first'"),
        ({"epsilon": 0}, "epsilon must be a number in"),
        ({"windows": 0}, r"a window of ReceptiveFields must be a number in \(0, 1\], got 0"),
        ({"windows": (0.1, 1.01)}, r"a window of ReceptiveFields must be a number in \(0, 1\], got 1\.01"),
        ({"windows": math.nan}, "got nan"),
        ({"windows": "wide"}, "got 'wide'"),
        ({"windows": ()}, "windows of ReceptiveFields is empty; give one for each hidden layer"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ConfigError, match=said):
        ReceptiveFields(**{"shape": (3, 8, 8)} | settings)


@pytest.mark.parametrize("ask", ["patterns", "expected_connections"])
def test_images_must_be_what_the_network_takes(ask):
    arguments = ((784, 100, 100, 100, 10), 0)[: 1 + (ask == "patterns")]
    with pytest.raises(ShapeError, match=r"images of shape \(3, 32, 32\) have 3072 values, but the network has 784"):
        getattr(ReceptiveFields((3, 32, 32)), ask)(*arguments)


@pytest.mark.parametrize("ask", ["patterns", "expected_connections"])
@pytest.mark.parametrize(("hidden", "count"), [((), "0 hidden layers;"), ((9,), "1 hidden layer;")])
def test_there_are_no_more_windows_than_hidden_layers(ask, hidden, count):
    arguments = ((192, *hidden, 10), 0)[: 1 + (ask == "patterns")]
    with pytest.raises(ConfigError, match=rf"has 3 windows, but the network .* has {count} give one for each"):
        getattr(ReceptiveFields((3, 8, 8)), ask)(*arguments)
