# SPDX-License-Identifier: BSD-3-Clause
"""The paper's data sets: where they may lie, and what is said beside a table when they are not what the paper used."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trulysparse.data import Dataset, load_dataset, load_digits
from trulysparse.errors import ConfigError, DataError
from trulysparse.model.registry import nearest

__all__ = ["SOURCES", "Shape", "Source", "fingerprint_of", "load", "locate", "shape_of", "source"]

_ARRAYS = ("X_train", "y_train", "X_test", "y_test")


@dataclass(frozen=True)
class Source:
    """A data set of the tables.

    Attributes
    ----------
    name : str
    title : str
        What tables call it.
    files : tuple of str
        Names without suffix, the first one found counts.
    paper_train : int or None
        Training samples of the paper; None if the paper does not use the data set.
    image : tuple of int or None
        (channels, height, width) where the paper augments.
    note : str
        What has to be said about it.
    """

    name: str
    title: str
    files: tuple[str, ...]
    paper_train: int | None = None
    image: tuple[int, int, int] | None = None
    note: str = ""


@dataclass(frozen=True)
class Shape:
    """How much data there is: samples of both parts, and features."""

    n_train: int
    n_test: int
    n_features: int


SOURCES = {
    each.name: each
    for each in (
        Source("leukemia", "Leukemia", ("leukemia",), 1397),
        Source(
            "nakayama",
            "Nakayama",
            ("nakayama",),
            note="stands in for Leukemia, which is not at hand: the paper has no figure for it, and none is compared",
        ),
        Source("higgs", "Higgs", ("higgs", "higgs_105k", "higgs_26k"), 105_000),
        Source("madelon", "Madelon", ("madelon",), 2000),
        Source("fashion_mnist", "Fashion-MNIST", ("fashion_mnist",), 60_000),
        Source("cifar10", "CIFAR-10", ("cifar10",), 50_000, (3, 32, 32)),
        Source("digits", "digits", (), note="scikit-learn's embedded digits, for trying the command; not in the paper"),
    )
}


def source(name: str) -> Source:
    """Return a data set by name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in SOURCES:
        raise ConfigError(f"--datasets {name}: known are {', '.join(SOURCES)}{nearest(name, SOURCES)}")
    return SOURCES[name]


def locate(name: str, places: Sequence[Path]) -> Path | None:
    """Return the file or directory of a data set, None if no place has it (the digits need none).

    Parameters
    ----------
    name : str
    places : sequence of Path
        Directories, or ``.npz`` files.
    """
    for place in places:
        for stem in source(name).files:
            for path in (place if place.stem == stem else None, place / f"{stem}.npz", place / stem):
                if path is not None and (path.is_file() or _holds_arrays(path)):
                    return path
    return None


def load(name: str, path: Path | None) -> Dataset:
    """Load a data set from where `locate` found it."""
    if path is None:
        if source(name).files:
            raise DataError(f"{name}: no file is given; --data DIR says where {source(name).files[0]}.npz is")
        return load_digits()
    return load_dataset(path)


def shape_of(name: str, path: Path | None) -> Shape:
    """Return how much data there is, from the headers of the files."""
    if path is None or path.is_dir():
        data = load(name, path)
        return Shape(data.n_train, data.n_test, data.n_features)
    try:
        with zipfile.ZipFile(path) as archive:
            train, test = (_header(archive, f"{key}.npy") for key in ("X_train", "X_test"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _no_data_set(path, error) from error
    return Shape(train[0], test[0], train[1])


def fingerprint_of(name: str, path: Path | None) -> str:
    """Return what tells these data from others: the checksums of features and labels of both parts.

    Those of an ``.npz`` file stand in its directory, so that it is not read; a directory of arrays is.
    """
    if path is None:
        data = load(name, path)
        sums = [zlib.crc32(np.asarray(a).tobytes()) for a in (data.X_train, data.y_train, data.X_test, data.y_test)]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.stem in _ARRAYS and file.suffix in (".npy", ".npz"))
        sums = [zlib.crc32(file.read_bytes()) for file in files]
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                sums = [archive.getinfo(f"{key}.npy").CRC for key in _ARRAYS]
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise _no_data_set(path, error) from error
    return "-".join(f"{each:08x}" for each in sums)


def _no_data_set(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is no data set ({error}); it must hold X_train, y_train, X_test and y_test as np.savez writes them"
    )


def _holds_arrays(path: Path) -> bool:
    return path.is_dir() and (path / "y_train.npy").is_file()


def _header(archive: zipfile.ZipFile, name: str) -> tuple[int, int]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, _ = read(file)
    rows, columns = shape
    return rows, columns
