# SPDX-License-Identifier: BSD-3-Clause
"""Artificial data of any size, drawn block by block by the counter-based generator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse._files import replacing
from trulysparse.data.dataset import Dataset
from trulysparse.errors import ConfigError, DataError
from trulysparse.model.memory import available_bytes
from trulysparse.model.registry import check_integer, check_number, check_seed

F32 = NDArray[np.float32]
Rows = NDArray[np.int64]

PAPER_SAMPLES, PAPER_FEATURES, PAPER_TRAINING = 10_000, 65_536, 7_000
_INFORMATIVE, _REDUNDANT = 20, 100
_BLOCK_BYTES = 1 << 26  # of rows that are drawn and completed together
_KEPT_BYTES = 1 << 26  # of mixing matrices that are not drawn again for the next block
_WHOLE_CUBE = 16  # up to here the corners of the hypercube are shuffled, beyond they are drawn
_ROWS = 2**32
_COLUMNS = 2**31 - 1


class Ingredient(IntEnum):
    """What a number of the data purpose is for: the step of its draw (0 is the seed of `make_classification`)."""

    NOISE = 1
    POSITIONS = 2
    MIXING = 3
    COMBINING = 4
    CORNERS = 5
    FLIPS = 6
    LABELS = 7
    SAMPLE_ORDER = 8
    FEATURE_ORDER = 9
    CLUSTER_STRETCH = 10
    FEATURE_STRETCH = 11


def artificial_classification(
    samples: int,
    features: int,
    classes: int = 2,
    *,
    informative: int | None = None,
    redundant: int | None = None,
    clusters_per_class: int = 2,
    class_sep: float = 1.0,
    flip: float = 0.01,
    hypercube: bool = True,
    shuffle: bool = True,
    rows: tuple[int, int] | None = None,
    seed: int = 0,
    out: F32 | str | os.PathLike[str] | None = None,
    threads: int | None = None,
) -> tuple[F32, NDArray[np.int64]]:
    """Draw an artificial classification problem of any size, in float32 and with no second copy.

    The construction of :func:`sklearn.datasets.make_classification`: clusters of normal points sit on corners of a
    hypercube in the informative features, each mixed by a random matrix of its own; redundant features are random
    combinations of the informative ones; all other features are noise, N(0, 1). Every value is a function of the seed
    and of its row and column, so that neither threads nor blocks change a bit. Guyon 2003, "Design of experiments for
    the NIPS 2003 variable selection benchmark"; the data of Curci, Mocanu and Pechenizkiy 2021, "Truly sparse neural
    networks at scale", table 4, are 10,000 samples of 65,536 features.

    Parameters
    ----------
    samples, features : int
        Rows and columns of the whole matrix.
    classes : int
        At least 1.
    informative : int, optional
        Features that tell the classes apart; None: 20, or all features if there are fewer.
    redundant : int, optional
        Combinations of informative features; None: 100, or what features are left.
    clusters_per_class : int
        Times `classes` it is at most ``2 ** informative``. Clusters have the same number of samples, give or take one;
        cluster k belongs to class ``k % classes``.
    class_sep : float
        Half the side of the hypercube: larger is easier.
    flip : float
        Share of samples, in [0, 1], whose label is drawn at random.
    hypercube : bool
        False: the corners are pulled in by random factors, one for each cluster and one for each feature.
    shuffle : bool
        False: clusters follow each other, and the columns are the informative, the redundant and the noisy features in
        this order.
    rows : (int, int), optional
        First row and the row after the last one: only these of the whole matrix, with the same bits.
    seed : int
        Of everything, in [0, 2**64).
    out : str, PathLike or ndarray, optional
        An ``.npy`` file to write, which appears only when complete and is returned as a read-only memory map; or a
        C-contiguous float32 array to fill. None: a new array.
    threads : int, optional
        None: all cores that this process may use.

    Returns
    -------
    X : ndarray of float32, shape (samples, features)
        Or as many rows as were asked for. Parts to train on and to test on are views such as ``X[:7000]``.
    y : ndarray of int64, shape (samples,)

    Raises
    ------
    ConfigError
        If the numbers do not fit together, or the matrix does not fit into memory.
    DataError
        If `out` cannot be written or is not an array of that shape.
    """
    recipe = _Recipe.check(
        samples,
        features,
        classes,
        informative,
        redundant,
        clusters_per_class,
        class_sep,
        flip,
        hypercube,
        shuffle,
        seed,
    )
    first, stop = (0, recipe.samples) if rows is None else _check_rows(rows, recipe.samples)
    shape = (stop - first, recipe.features)
    some = _kernels.resolve_threads(threads)
    if isinstance(out, np.ndarray):
        _check_array(out, shape)
        return out, recipe.fill(out, first, some)
    if out is not None:
        path = Path(out)
        with _mapped(path, shape) as mapped:
            y = recipe.fill(mapped, first, some)
        X: F32 = np.load(path, mmap_mode="r", allow_pickle=False)
        return X, y
    _check_memory(shape)
    X = _kernels.aligned_empty(shape)
    return X, recipe.fill(X, first, some)


def load_artificial(*, seed: int = 0, threads: int | None = None) -> Dataset:
    """Return artificial data of the shape of the paper's: 7,000 training and 3,000 test samples, 65,536 features.

    Parameters
    ----------
    seed, threads : int
        As in `artificial_classification`, whose defaults make the rest.

    Returns
    -------
    Dataset
        float32 features (2.4 GiB), two classes; the parts are views of one matrix.
    """
    X, y = artificial_classification(PAPER_SAMPLES, PAPER_FEATURES, seed=seed, threads=threads)
    cut = PAPER_TRAINING
    return Dataset("artificial", X[:cut], y[:cut], X[cut:], y[cut:], "classification")


@dataclass(frozen=True)
class _Recipe:
    """Checked arguments, and what is made of them."""

    samples: int
    features: int
    classes: int
    informative: int
    redundant: int
    clusters: int
    class_sep: float
    flip: float
    hypercube: bool
    shuffle: bool
    seed: int

    @classmethod
    def check(
        cls,
        samples: object,
        features: object,
        classes: object,
        informative: object,
        redundant: object,
        clusters_per_class: object,
        class_sep: object,
        flip: object,
        hypercube: bool,
        shuffle: bool,
        seed: object,
    ) -> _Recipe:
        rows = check_integer(samples, "samples", low=1, high=_ROWS)
        columns = check_integer(features, "features", low=1, high=_COLUMNS)
        labels = check_integer(classes, "classes", low=1)
        own = min(_INFORMATIVE, columns) if informative is None else check_integer(informative, "informative", low=1)
        left = max(0, columns - own)
        more = min(_REDUNDANT, left) if redundant is None else check_integer(redundant, "redundant", low=0)
        clusters = labels * check_integer(clusters_per_class, "clusters_per_class", low=1)
        if own + more > columns:
            raise ConfigError(
                f"informative={own} and redundant={more} are together more than features={columns}; ask for fewer"
            )
        if clusters > 2**own:
            raise ConfigError(
                f"classes={labels} with clusters_per_class={clusters // labels} need {clusters} corners, but a "
                f"hypercube in informative={own} dimensions has {2**own}; raise informative or lower the others"
            )
        side = check_number(class_sep, "class_sep", low=0)
        share = check_number(flip, "flip", low=0, high=1)
        for name, value in (("hypercube", hypercube), ("shuffle", shuffle)):
            if not isinstance(value, bool | np.bool_):
                raise ConfigError(f"{name} must be True or False, got {value!r}")
        return cls(
            rows, columns, labels, own, more, clusters, side, share, bool(hypercube), bool(shuffle), check_seed(seed)
        )

    def fill(self, out: F32, first: int, threads: int) -> NDArray[np.int64]:
        """Write the rows from `first` on into `out`, and return their labels."""
        place = self._places()
        centroids = self.centroids()
        combining = self.combining(threads)
        clusters = self._clusters(first, first + len(out))
        kept: dict[int, F32] = {}
        step = max(1, _BLOCK_BYTES // (4 * self.features))
        for begin in range(0, len(out), step):
            block, members = out[begin : begin + step], clusters[begin : begin + step]
            if self.features > self.informative + self.redundant:
                _kernels.artificial_noise(self.seed, Ingredient.NOISE, first + begin, block, threads=threads)
            by_cluster = np.argsort(members, kind="stable")
            present, starts = np.unique(members[by_cluster], return_index=True)
            for cluster, inside in zip(present.tolist(), np.split(by_cluster, starts[1:]), strict=True):
                mixing = kept.get(cluster)
                if mixing is None:
                    mixing = self.mixing(cluster, threads)
                    if mixing.nbytes * (len(kept) + 1) <= _KEPT_BYTES:
                        kept[cluster] = mixing
                _kernels.artificial_cluster(
                    self.seed,
                    Ingredient.POSITIONS,
                    inside + (first + begin),
                    first + begin,
                    mixing,
                    centroids[cluster],
                    combining,
                    place,
                    block,
                    threads=threads,
                )
        return self._labels(clusters, first)

    def centroids(self) -> F32:
        """Return where the clusters sit, (clusters, informative)."""
        centroids = np.where(self._corners(), np.float32(self.class_sep), np.float32(-self.class_sep))
        if not self.hypercube:
            centroids *= self._uniform(Ingredient.CLUSTER_STRETCH, (self.clusters, 1))
            centroids *= self._uniform(Ingredient.FEATURE_STRETCH, (1, self.informative))
        return centroids

    def mixing(self, cluster: int, threads: int | None = None) -> F32:
        """Return the matrix A of a cluster, uniform in [-1, 1), (informative, informative)."""
        shape = (self.informative, self.informative)
        return self._symmetric(Ingredient.MIXING, shape, cluster * self.informative**2, threads)

    def combining(self, threads: int | None = None) -> F32:
        """Return the matrix B of the redundant features, uniform in [-1, 1), (informative, redundant)."""
        return self._symmetric(Ingredient.COMBINING, (self.informative, self.redundant), 0, threads)

    def _symmetric(self, what: Ingredient, shape: tuple[int, int], first: int, threads: int | None) -> F32:
        numbers = self._uniform(what, shape, first, threads)
        numbers *= 2
        numbers -= 1
        return numbers

    def _uniform(self, what: Ingredient, shape: tuple[int, int], first: int = 0, threads: int | None = 1) -> F32:
        n = shape[0] * shape[1]
        return _kernels.artificial_uniform(self.seed, what, n, first=first, threads=threads).reshape(shape)

    def _corners(self) -> NDArray[np.bool_]:
        """Return distinct corners of the hypercube, (clusters, informative)."""
        if self.informative <= _WHOLE_CUBE:
            numbers = _kernels.shuffle(2**self.informative, seed=self.seed, purpose="data", step=Ingredient.CORNERS)
            bits = np.arange(self.informative - 1, -1, -1)
            return (numbers[: self.clusters, None] >> bits & 1).astype(np.bool_)
        found: dict[bytes, NDArray[np.bool_]] = {}
        tried = 0
        while len(found) < self.clusters:
            missing = self.clusters - len(found)
            more = self._uniform(Ingredient.CORNERS, (missing, self.informative), tried * self.informative) >= 0.5
            tried += missing
            for corner in more:
                found.setdefault(corner.tobytes(), corner)
        return np.array(list(found.values()))

    def _places(self) -> Rows:
        """Return the columns of the informative and then of the redundant features."""
        useful = self.informative + self.redundant
        if not self.shuffle:
            return np.arange(useful, dtype=np.int64)
        order = _kernels.shuffle(self.features, seed=self.seed, purpose="data", step=Ingredient.FEATURE_ORDER)
        return np.ascontiguousarray(order[:useful])

    def _clusters(self, first: int, stop: int) -> Rows:
        """Return the cluster of each row; before they are shuffled, clusters are runs of rows."""
        if self.shuffle:
            order = _kernels.shuffle(self.samples, seed=self.seed, purpose="data", step=Ingredient.SAMPLE_ORDER)
            place = order[first:stop]
        else:
            place = np.arange(first, stop, dtype=np.int64)
        size, larger = divmod(self.samples, self.clusters)
        border = larger * (size + 1)
        return np.where(place < border, place // (size + 1), larger + (place - border) // max(size, 1))

    def _labels(self, clusters: Rows, first: int) -> NDArray[np.int64]:
        labels = clusters % self.classes
        n = len(labels)
        fine = 2**53
        flipped = _kernels.artificial_integers(self.seed, Ingredient.FLIPS, n, fine, first=first) < round(
            self.flip * fine
        )
        drawn = _kernels.artificial_integers(self.seed, Ingredient.LABELS, n, self.classes, first=first)
        labels[flipped] = drawn[flipped].astype(np.int64)
        return labels


def _check_rows(rows: Any, samples: int) -> tuple[int, int]:
    if not isinstance(rows, tuple | list) or len(rows) != 2:
        raise ConfigError(
            f"rows must be the first row and the row after the last, (0, {samples}) for all, got {rows!r}"
        )
    first = check_integer(rows[0], "rows[0]", low=0, high=samples - 1)
    return first, check_integer(rows[1], "rows[1]", low=first + 1, high=samples)


def _check_array(out: NDArray[Any], shape: tuple[int, int]) -> None:
    if out.dtype != np.float32 or out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise DataError(
            f"out is a {out.dtype} array of shape {out.shape}, expected a writable, C-contiguous float32 array of "
            f"shape {shape}; make it with np.empty({shape}, np.float32)"
        )


def _check_memory(shape: tuple[int, int]) -> None:
    needed, available = 4 * shape[0] * shape[1], available_bytes()
    if available is not None and needed > available:
        raise ConfigError(
            f"{shape[0]:,} samples of {shape[1]:,} float32 features need {needed / 2**30:,.1f} GiB but "
            f'{available / 2**30:,.1f} GiB are available; draw fewer, or write them to a file with out="X.npy"'
        )


@contextmanager
def _mapped(path: Path, shape: tuple[int, int]) -> Iterator[F32]:
    """Yield an array in a file of that name, which is there when the block has ended well."""
    if path.suffix != ".npy":
        raise DataError(f"out={os.fspath(path)!r} does not end in .npy; choose a name that np.load will recognise")
    try:
        with replacing(path) as temporary:
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
            # A map of a file with holes dies of a full disk without a word; so its room is taken first.
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
            yield mapped
            mapped.flush()
            del mapped
    except OSError as error:
        raise DataError(
            f"{path} ({4 * shape[0] * shape[1] / 2**30:,.1f} GiB) could not be written: {error}; an older file of that "
            "name is unchanged, check that the directory exists, may be written to and has room"
        ) from error
