# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import datasets
from tests.reference import philox

import trulysparse as ts
from trulysparse.data import artificial, known_datasets, load_artificial
from trulysparse.data.artificial import Ingredient, artificial_classification
from trulysparse.errors import ConfigError, DataError

SEED = 2**63 + 17


def words(what: Ingredient, index: Any, seed: int = SEED) -> NDArray[np.uint32]:
    return philox.draw(seed, "data", 0, int(what), index)


def uniform(what: Ingredient, n: int, first: int = 0) -> NDArray[np.float64]:
    number = first + np.arange(n)
    word = np.take_along_axis(words(what, number // 4), (number % 4)[:, None], 1)[:, 0]
    return (word >> np.uint32(8)) * 2.0**-24


def normal(what: Ingredient, rows: int, columns: int) -> NDArray[np.float64]:
    row, column = np.arange(rows, dtype=np.uint64)[:, None], np.arange(columns, dtype=np.uint64)[None, :]
    block = words(what, row << np.uint64(32) | column // np.uint64(2)).astype(np.uint64)
    u, v = (((block[..., 2 * h + 1] << np.uint64(32) | block[..., 2 * h]) >> np.uint64(11)) * 2.0**-53 for h in (0, 1))
    angle = 2 * np.pi * v
    return np.sqrt(-2 * np.log(1 - u)) * np.where(column % 2 == 0, np.cos(angle), np.sin(angle))


class Scripted(np.random.RandomState):
    """A generator that gives out what it was told to; what it was not told about comes from its own seed."""

    def __init__(self, normals: list[Any], uniforms: list[Any], integers: list[Any], orders: list[Any]) -> None:
        super().__init__(0)
        self.normals, self.uniforms, self.integers, self.orders = normals, uniforms, integers, orders

    @staticmethod
    def _next(script: list[Any], size: Any) -> Any:
        numbers = np.asarray(script.pop(0))
        assert numbers.shape == (size if isinstance(size, tuple) else (size,))
        return numbers

    def standard_normal(self, size: Any = None) -> Any:
        return self._next(self.normals, size)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self._next(self.uniforms, size)

    def randint(self, low: Any, high: Any = None, size: Any = None, dtype: Any = int) -> Any:
        return super().randint(low, high, size, dtype) if size is None else self._next(self.integers, size)

    def permutation(self, x: Any) -> Any:
        return np.random.RandomState(0).permutation(x)

    def shuffle(self, x: Any) -> None:
        x[:] = self._next(self.orders, len(x))

    @property
    def left(self) -> int:
        return sum(map(len, (self.normals, self.uniforms, self.integers, self.orders)))


@pytest.mark.parametrize("hypercube", [True, False])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("samples", "features", "redundant"), [(103, 23, 7), (40, 8, 3), (9, 6, 0)])
def test_same_ingredients_make_the_data_of_scikit_learn(
    monkeypatch: Any, samples: int, features: int, redundant: int, shuffle: bool, hypercube: bool
) -> None:
    own, classes, clusters, flip = 5, 3, 6, 0.3
    arguments = {
        "n_samples": samples,
        "n_features": features,
        "n_informative": own,
        "n_redundant": redundant,
        "n_classes": classes,
        "n_clusters_per_class": 2,
        "flip_y": flip,
        "class_sep": 1.5,
        "hypercube": hypercube,
    }
    noisy = features - own - redundant
    stretches = [] if hypercube else [np.ones((clusters, 1)), np.ones((1, own))]
    rest = [np.zeros((own, own))] * clusters + ([np.zeros((own, redundant))] if redundant else [])
    blank = Scripted(
        [np.zeros((samples, own))] + [np.zeros((samples, noisy))] * bool(noisy), [*stretches, *rest, np.ones(samples)],
        [np.zeros(0, int)], []
    )  # fmt: skip
    bare, _ = datasets.make_classification(**arguments, shuffle=False, random_state=blank)
    assert blank.left == 0
    sizes = [samples // clusters + (k < samples % clusters) for k in range(clusters)]
    corners = bare[np.cumsum([0, *sizes[:-1]]), :own] > 0  # scikit-learn's corners are the one ingredient it keeps
    monkeypatch.setattr(artificial._Recipe, "_corners", lambda self: corners)

    rows, columns = np.arange(samples), np.arange(features)
    if shuffle:
        rows = philox.shuffle(samples, seed=SEED, purpose="data", step=int(Ingredient.SAMPLE_ORDER))
        columns = philox.shuffle(features, seed=SEED, purpose="data", step=int(Ingredient.FEATURE_ORDER))
    z, noise, flips = (np.empty((samples, k)) for k in (own, noisy, 1))
    z[rows] = normal(Ingredient.POSITIONS, samples, own)
    noise[rows] = normal(Ingredient.NOISE, samples, features)[:, columns[own + redundant :]]
    flip_words = words(Ingredient.FLIPS, np.arange(samples)).astype(np.uint64)
    flips[rows, 0] = ((flip_words[:, 1] << np.uint64(32) | flip_words[:, 0]) >> np.uint64(11)) * 2.0**-53
    labels = np.empty(samples, int)
    labels[rows] = [philox.bounded(w, classes) for w in words(Ingredient.LABELS, np.arange(samples))]
    flipped = flips[:, 0] < flip
    assert 0 < flipped.sum() < samples
    if not hypercube:
        stretches = [
            uniform(Ingredient.CLUSTER_STRETCH, clusters)[:, None],
            uniform(Ingredient.FEATURE_STRETCH, own)[None],
        ]
    mixing = [uniform(Ingredient.MIXING, own**2, k * own**2).reshape(own, own) for k in range(clusters)]
    combining = [uniform(Ingredient.COMBINING, own * redundant).reshape(own, redundant)] if redundant else []
    source = np.empty(features, int)  # what stands in each column
    source[columns] = np.arange(features)
    script = Scripted(
        [z] + [noise] * bool(noisy),
        [*stretches, *mixing, *combining, flips[:, 0]],
        [labels[flipped]],
        [rows, source] if shuffle else [],
    )
    wanted, wanted_labels = datasets.make_classification(**arguments, shuffle=shuffle, random_state=script)
    assert script.left == 0

    X, y = artificial_classification(
        samples, features, classes, informative=own, redundant=redundant, clusters_per_class=2, class_sep=1.5,
        flip=flip, hypercube=hypercube, shuffle=shuffle, seed=SEED,
    )  # fmt: skip
    np.testing.assert_allclose(X, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y, wanted_labels)


def test_types_shapes_and_defaults() -> None:
    X, y = artificial_classification(50, 300)
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((50, 300), np.float32, (50,), np.int64)
    assert set(y) == {0, 1}
    data = ts.Dataset("a", X[:35], y[:35], X[35:], y[35:])
    assert np.shares_memory(data.X_train, X)
    assert artificial_classification(5, 3)[0].shape == (5, 3)
    assert ts.artificial_classification is artificial_classification


def test_neither_threads_nor_blocks_change_a_bit(monkeypatch: Any) -> None:
    arguments: dict[str, Any] = {"informative": 6, "redundant": 5, "seed": SEED}
    X, y = artificial_classification(97, 31, 3, threads=1, **arguments)
    for threads, block_bytes, kept_bytes in ((2, 1, 0), (7, 5 * 31 * 4, 200), (3, 1 << 26, 0)):
        monkeypatch.setattr(artificial, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(artificial, "_KEPT_BYTES", kept_bytes)
        again, labels = artificial_classification(97, 31, 3, threads=threads, **arguments)
        assert again.tobytes() == X.tobytes()
        np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_are_those_of_the_whole_matrix(shuffle: bool) -> None:
    X, y = artificial_classification(60, 40, 4, shuffle=shuffle, seed=1)
    for first, stop in ((0, 60), (0, 1), (13, 47), (59, 60)):
        part, labels = artificial_classification(60, 40, 4, shuffle=shuffle, seed=1, rows=(first, stop))
        assert part.tobytes() == X[first:stop].tobytes()
        np.testing.assert_array_equal(labels, y[first:stop])


def test_the_seed_decides_everything() -> None:
    X, y = artificial_classification(60, 40, seed=1)
    other, labels = artificial_classification(60, 40, seed=2)
    assert (X != other).all()
    assert (y != labels).any()


def test_clusters_sit_on_corners_with_the_covariance_of_their_matrix() -> None:
    recipe = artificial._Recipe.check(40_000, 4, 2, 4, 0, 2, 3.0, 0.0, True, False, 5)
    X, y = artificial_classification(
        40_000, 4, informative=4, redundant=0, clusters_per_class=2, class_sep=3, flip=0, shuffle=False, seed=5
    )
    assert set(np.unique(recipe.centroids())) == {-3.0, 3.0}
    for cluster, centroid in enumerate(recipe.centroids()):
        rows = slice(10_000 * cluster, 10_000 * (cluster + 1))
        assert (y[rows] == cluster % 2).all()
        A = recipe.mixing(cluster).astype(float)
        covariance = A.T @ A
        deviation = np.sqrt(np.diag(covariance))
        np.testing.assert_array_less(abs(X[rows].mean(0) - centroid), 5 * deviation / 100)
        error = abs(np.cov(X[rows].T.astype(float)) - covariance) / np.outer(deviation, deviation)
        assert error.max() < 5 * np.sqrt(2 / 10_000)


@pytest.mark.parametrize(("informative", "clusters"), [(1, 2), (3, 8), (16, 9), (17, 40), (20, 3), (70, 50)])
def test_corners_are_distinct(informative: int, clusters: int) -> None:
    recipe = artificial._Recipe.check(10, 100, 1, informative, 0, clusters, 2.0, 0.0, True, True, 3)
    corners = recipe.centroids()
    assert corners.shape == (clusters, informative)
    assert set(np.unique(corners)) == {-2.0, 2.0}
    assert len(np.unique(corners, axis=0)) == clusters


def test_corners_that_come_twice_are_drawn_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(artificial, "_WHOLE_CUBE", 0)
    recipe = artificial._Recipe.check(10, 100, 1, 5, 0, 32, 1.0, 0.0, True, True, 3)
    assert len(np.unique(recipe.centroids(), axis=0)) == 32


def test_without_a_hypercube_corners_are_pulled_in() -> None:
    recipe = artificial._Recipe.check(10, 100, 2, 4, 0, 4, 2.0, 0.0, False, True, 3)
    sizes = abs(recipe.centroids())
    assert (sizes < 2).all()
    assert np.linalg.matrix_rank(sizes, tol=1e-5) == 1


def test_redundant_features_are_combinations_and_noise_is_noise() -> None:
    X, _ = artificial_classification(3000, 60, informative=5, redundant=9, shuffle=False, seed=2)
    useful, noise = X[:, :14].astype(float), X[:, 14:].astype(float)
    assert np.linalg.matrix_rank(useful, tol=1e-2) == 5
    assert np.linalg.matrix_rank(useful[:, :5], tol=1e-2) == 5
    n = noise.size
    assert abs(noise.mean()) < 4 / n**0.5
    assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / n) ** 0.5
    correlation = np.corrcoef(X.T.astype(float))[14:]
    correlation[:, 14:] -= np.eye(46)
    assert abs(correlation).max() < 5.5 / 3000**0.5


def test_useful_columns_stand_among_the_others() -> None:
    X, _ = artificial_classification(50, 60, informative=5, redundant=9, seed=2)
    plain, _ = artificial_classification(50, 60, informative=5, redundant=9, shuffle=False, seed=2)
    noise = artificial_classification(50, 60, informative=1, redundant=0, clusters_per_class=1, shuffle=False, seed=2)[
        0
    ]
    useful, first = (np.flatnonzero((a[:, 1:] != noise[:, 1:]).any(0)) + 1 for a in (X, plain))
    assert first.tolist() == list(range(1, 14))
    assert 13 <= len(useful) <= 14  # column 0 is never told
    assert useful.max() > 30


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_classes_are_balanced_and_flip_is_the_share_of_random_labels(classes: int) -> None:
    n = 20_000
    exact = artificial_classification(n, 8, classes, flip=0, seed=4)[1]
    counts = np.bincount(exact, minlength=classes)
    assert counts.max() - counts.min() <= 2  # a class is two clusters, each rounded
    flipped = artificial_classification(n, 8, classes, flip=0.3, seed=4)[1]
    share = 0.3 * (1 - 1 / classes)
    assert abs((flipped != exact).mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    everything = artificial_classification(n, 8, classes, flip=1, seed=4)[1]
    assert abs((everything != exact).mean() - (1 - 1 / classes)) < 4 * (0.25 / n) ** 0.5


def test_more_clusters_than_samples() -> None:
    _, y = artificial_classification(5, 6, 4, informative=4, redundant=0, clusters_per_class=4, flip=0, shuffle=False)
    assert y.tolist() == [0, 1, 2, 3, 0]


def test_out_may_be_an_npy_file_that_comes_back_as_a_read_only_map(tmp_path: Path) -> None:
    wanted, labels = artificial_classification(60, 40, seed=1)
    path = tmp_path / "deep" / "X.npy"
    X, y = artificial_classification(60, 40, seed=1, out=path)
    assert isinstance(X, np.memmap)
    assert X.filename == path
    assert not X.flags.writeable
    assert X.tobytes() == wanted.tobytes()
    np.testing.assert_array_equal(np.load(path), wanted)
    np.testing.assert_array_equal(y, labels)
    assert os.listdir(path.parent) == ["X.npy"]


def test_out_may_be_an_array() -> None:
    wanted, _ = artificial_classification(60, 40, seed=1)
    out = np.zeros((60, 40), np.float32)
    X, _ = artificial_classification(60, 40, seed=1, out=out)
    assert X is out
    np.testing.assert_array_equal(out, wanted)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "X.npy"
    path.write_bytes(b"old")
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, allowed[1]))
    try:
        with pytest.raises(DataError, match=r"X.npy .* could not be written: .* an older file .* is unchanged"):
            artificial_classification(60, 40, out=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["X.npy"]


def test_room_on_the_disk_is_taken_before_anything_is_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    def full(handle: int, begin: int, n_bytes: int) -> None:
        assert n_bytes > 60 * 40 * 4
        raise OSError(28, "No space left on device")

    def draw(*args: object) -> None:
        raise AssertionError("drawn too early")

    monkeypatch.setattr(artificial.os, "posix_fallocate", full)
    monkeypatch.setattr(artificial._Recipe, "fill", draw)
    with pytest.raises(DataError, match="No space left on device"):
        artificial_classification(60, 40, out=tmp_path / "X.npy")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "samples must be a whole number from 1"),
        ({"features": 2.5}, "features must be"),
        ({"classes": 0}, "classes must be"),
        ({"informative": 0}, "informative must be"),
        ({"informative": 7, "redundant": 5}, "informative=7 and redundant=5 are together more than features=10"),
        ({"informative": 11}, "more than features=10"),
        ({"classes": 3, "informative": 2}, "need 6 corners, but a hypercube in informative=2 dimensions has 4"),
        ({"redundant": -1}, "redundant must be"),
        ({"clusters_per_class": 0}, "clusters_per_class must be"),
        ({"class_sep": -1}, "class_sep must be"),
        ({"flip": 1.1}, "flip must be"),
        ({"flip": float("nan")}, "flip must be"),
        ({"shuffle": 1}, "shuffle must be True or False"),
        ({"hypercube": None}, "hypercube must be True or False"),
        ({"rows": (3, 3)}, r"rows\[1\] must be"),
        ({"rows": (0, 21)}, r"rows\[1\] must be"),
        ({"rows": (20, 21)}, r"rows\[0\] must be"),
        ({"rows": 5}, "rows must be the first row"),
        ({"seed": -1}, "seed must be"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_numbers_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"samples": 20, "features": 10} | change
    with pytest.raises(ConfigError, match=message):
        artificial_classification(**arguments)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((20, 10)),
        np.zeros((20, 9), np.float32),
        np.zeros((10, 20), np.float32).T,
        np.broadcast_to(np.float32(0), (20, 10)),
    ],
)
def test_arrays_that_cannot_be_filled(out: Any) -> None:
    with pytest.raises(DataError, match=r"expected a writable, C-contiguous float32 array of shape \(20, 10\)"):
        artificial_classification(20, 10, out=out)


def test_files_that_numpy_would_not_recognise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not end in \.npy"):
        artificial_classification(20, 10, out=tmp_path / "X.bin")


def test_what_does_not_fit_into_memory_is_refused_with_a_way_out(monkeypatch: Any) -> None:
    monkeypatch.setattr(artificial, "available_bytes", lambda: 2**30)
    with pytest.raises(ConfigError, match=r'need 4\.0 GiB but 1\.0 GiB are available; .*out="X\.npy"'):
        artificial_classification(2**14, 2**16)


def test_the_papers_shape_is_a_data_set_by_name(monkeypatch: Any) -> None:
    monkeypatch.setattr(artificial, "PAPER_FEATURES", 40)
    assert "artificial" in known_datasets()
    data = ts.load_dataset("artificial")
    assert (data.n_train, data.n_test, data.n_features, data.n_classes) == (7000, 3000, 40, 2)
    assert data.X_train.base is data.X_test.base  # type: ignore[union-attr]  # both are views of one matrix
    np.testing.assert_array_equal(data.y_train, load_artificial().y_train)


_PEAK = """
import sys
import numpy as np
import trulysparse as ts

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

ts.artificial_classification(64, 100)
before = status("VmHWM")
X, y = ts.artificial_classification(4000, 16_384, out=sys.argv[1] or None)
assert X.nbytes == 4000 * 16_384 * 4
print((status("VmHWM") - before) / X.nbytes)
"""


@pytest.mark.parametrize("name", ["", "X.npy"])
def test_memory_peaks_at_the_matrix_itself(tmp_path: Path, name: str) -> None:
    out = str(tmp_path / name) if name else ""
    done = subprocess.run([sys.executable, "-c", _PEAK, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.03
