# SPDX-License-Identifier: BSD-3-Clause
"""Data sets by path or by name: `.npz` files, directories of `.npy` files, the embedded digits, OpenML."""

from __future__ import annotations

import difflib
import importlib.util
import os
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse._files import replacing
from trulysparse.data.artificial import load_artificial
from trulysparse.data.dataset import Dataset
from trulysparse.data.digits import load_digits
from trulysparse.errors import DataError

if TYPE_CHECKING:
    from trulysparse.data.dataset import Features

ARRAYS = ("X_train", "y_train", "X_test", "y_test")
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _OpenML:
    """Where a known data set is in OpenML, and which of its rows are the test part (always the last ones)."""

    data_id: int
    title: str
    n_features: int
    n_test: int
    classes: tuple[str, ...]


_TEN = tuple("0123456789")
_OPENML = {
    "fashion_mnist": _OpenML(40996, "Fashion-MNIST", 784, 10_000, _TEN),
    "mnist": _OpenML(554, "mnist_784", 784, 10_000, _TEN),
    "cifar10": _OpenML(40927, "CIFAR_10", 3072, 10_000, _TEN),
    # OpenML's class 2 is the challenge's -1.
    "madelon": _OpenML(1485, "madelon", 500, 600, ("2", "1")),
    "higgs": _OpenML(23512, "higgs", 28, 20_000, ("0", "1")),
}


def known_datasets() -> tuple[str, ...]:
    """Return the names that `load_dataset` knows without a file."""
    return ("digits", *_OPENML, "artificial")


def load_dataset(name_or_path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set from a file, a directory or a name.

    Parameters
    ----------
    name_or_path : str or PathLike
        One of

        - the path of an ``.npz`` file with the arrays ``X_train, y_train, X_test, y_test`` (others are
          ignored);
        - the path of a directory with these four as ``.npy`` files, which are memory-mapped read-only, so
          that several processes share one copy. Sparse features are read from ``X_train.npz`` and
          ``X_test.npz`` as :func:`scipy.sparse.save_npz` writes CSR matrices;
        - a name, with `data`: ``DATA/NAME.npz``, else the directory ``DATA/NAME``, else `data` itself if it
          is an ``.npz`` file or such a directory;
        - a known name: ``digits`` is embedded; ``artificial`` is drawn by `load_artificial`: 7,000 and 3,000 samples
          of 65,536 features, 2.4 GiB; ``fashion_mnist`` and ``mnist`` (60,000 / 10,000 samples),
          ``cifar10`` (50,000 / 10,000), ``madelon`` (2,000 / 600) and ``higgs`` (98,049 complete rows, the
          last 20,000 for testing; the papers use a larger part) are fetched from OpenML by scikit-learn,
          which keeps them in its data home; the first rows are the training part.
    data : str or PathLike, optional
        Where to look for a name first.

    Returns
    -------
    Dataset
        Features as stored.

    Raises
    ------
    DataError
        If nothing is found, an array is missing, a file is truncated or not what its name says, or OpenML
        cannot be reached.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, os.PathLike) or _is_path(text):
        if data is not None:
            raise DataError(f"{text} is a path already; leave out data={os.fspath(data)!r}, or give a name instead")
        return _load_path(Path(text), Path(text).stem)
    if data is not None:
        found = _find(text, Path(data))
        if found is not None:
            return _load_path(found, text)
    if text == "digits":
        return load_digits()
    if text == "artificial":
        return load_artificial()
    if text in _OPENML:
        return _fetch(text, data)
    if data is None and Path(text).is_dir():
        return _load_path(Path(text), text)
    raise DataError(_unknown(text, None if data is None else Path(data)))


def save_dataset(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Write a data set with a test part to an ``.npz`` file that `load_dataset` reads.

    Parameters
    ----------
    path : str or PathLike
        File to write; it appears only when complete.
    dataset : Dataset
        With dense features.

    Raises
    ------
    DataError
        If features are sparse, there is no test part, or the name does not end in ``.npz``.
    """
    arrays = {key: getattr(dataset, key) for key in ARRAYS}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            what = "missing" if array is None else "sparse"
            raise DataError(
                f"{dataset.name}: {key} is {what}; an .npz data set holds four dense arrays; sparse features "
                "go into a directory with scipy.sparse.save_npz"
            )
    if Path(path).suffix != ".npz":
        raise DataError(f"{os.fspath(path)} does not end in .npz; choose a name that load_dataset will recognise")
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def _is_path(text: str) -> bool:
    separators = {os.sep, os.altsep} - {None}
    return Path(text).suffix in (".npz", ".npy") or any(s in text for s in separators if s) or text in (".", "..")


def _find(name: str, data: Path) -> Path | None:
    """Return the file or directory that `name` means under `data`, or None if it has none."""
    if not data.exists():
        raise DataError(
            f"data={str(data)!r} does not exist; give a directory that holds {name}.npz, or the file itself"
        )
    if data.is_file():
        return data
    for candidate in (data / f"{name}.npz", data / name):
        if candidate.exists():
            return candidate
    if any(_part_files(data, "X_train")):
        return data
    packed = data / "cifar10_packed.npz"
    if name == "cifar10" and packed.exists():
        raise DataError(_packed(packed))
    return None


def _packed(path: Path) -> str:
    script = path.with_name("unpack_cifar10.py")
    run = f"python {script}" if script.exists() else "the unpack_cifar10.py that came with it"
    return (
        f"{path} holds CIFAR-10 packed as images, not as arrays; run {run} OUTPUT_DIRECTORY, "
        "then pass that directory with --data (data= in Python)"
    )


def _load_path(path: Path, name: str) -> Dataset:
    if not path.exists():
        raise DataError(f"{path} does not exist{_nearest_file(path)}")
    arrays = _read_directory(path) if path.is_dir() else _read_npz(path)
    return Dataset(name, *(arrays[key] for key in ARRAYS))


def _read_npz(path: Path) -> dict[str, Any]:
    if path.suffix == ".npy":
        raise DataError(
            f"{path} is a single array; give the directory that holds {', '.join(f'{a}.npy' for a in ARRAYS)}"
        )
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise DataError(f"{path} holds a single array, not an .npz archive of {', '.join(ARRAYS)}")
            with content as archive:
                missing = [key for key in ARRAYS if key not in archive.files]
                if "webp_train" in archive.files and missing:
                    raise DataError(_packed(path))
                if missing:
                    raise DataError(
                        f"{path} lacks {', '.join(missing)}: a data set needs {', '.join(ARRAYS)}, this file "
                        f"holds {', '.join(archive.files) or 'nothing'}; write it with "
                        "np.savez(path, X_train=..., ...)"
                    )
                return {key: archive[key] for key in ARRAYS}
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(_unreadable(path, "an .npz archive", error)) from error


def _part_files(directory: Path, key: str) -> list[Path]:
    suffixes = (".npy", ".npz") if key.startswith("X") else (".npy",)
    return [file for file in (directory / f"{key}{suffix}" for suffix in suffixes) if file.exists()]


def _read_directory(directory: Path) -> dict[str, Any]:
    files = {key: _part_files(directory, key) for key in ARRAYS}
    missing = [f"{key}.npy" for key, found in files.items() if not found]
    if missing:
        inside = sorted(p.name for p in directory.iterdir() if p.suffix in (".npy", ".npz"))[:8]
        raise DataError(
            f"the directory {directory} lacks {', '.join(missing)} (or .npz for CSR features); "
            f"it holds {', '.join(inside) or 'no .npy or .npz files'}"
        )
    return {key: _read_part(found[0]) for key, found in files.items()}


def _read_part(path: Path) -> Features:
    if path.suffix == ".npz":
        return _read_csr(path)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise DataError(_unreadable(path, "a .npy array", error)) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive under another name; write it with np.save")
    return array


def _read_csr(path: Path) -> Features:
    from scipy import sparse

    try:
        matrix: Any = sparse.load_npz(path)
    except _UNREADABLE as error:
        raise DataError(_unreadable(path, "a matrix of scipy.sparse.save_npz", error)) from error
    if matrix.format != "csr":
        raise DataError(
            f"{path} holds a sparse matrix in {matrix.format} format; save it again with "
            "scipy.sparse.save_npz(path, X.tocsr())"
        )
    features: Features = matrix
    return features


def _unreadable(path: Path, what: str, error: Exception) -> str:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "pickle" in detail.lower():
        detail = "it holds Python objects, which are never loaded"
    return (
        f"{path} cannot be read as {what} ({detail}); it may be truncated or of another kind, copy it or write it again"
    )


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; neither does the directory {path.parent}"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _unknown(name: str, data: Path | None) -> str:
    local = [] if data is None else sorted(p.stem for p in data.glob("*.npz"))
    near = difflib.get_close_matches(name.lower().replace("-", "_"), [*known_datasets(), *local], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "the path of an .npz file or a directory of .npy files works too"
    where = "" if data is None else f", and {data} holds no {name}.npz"
    return f"unknown data set {name!r}: known are {', '.join(known_datasets())}{where}; {hint}"


def _fetch(name: str, data: str | os.PathLike[str] | None) -> Dataset:
    """Fetch a known data set through scikit-learn, which caches the download."""
    from sklearn import datasets

    source = _OPENML[name]
    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A network error occurred")  # if it stays, the error says so
            bunch = datasets.fetch_openml(data_id=source.data_id, as_frame=False, parser=parser)
    # Connection and download errors are OSError, a changed catalogue is ValueError.
    except (OSError, ValueError) as error:
        looked = "" if data is None else f" {os.fspath(data)} holds no {name}.npz, and"
        raise DataError(
            f"{name}:{looked} fetching {source.title} (data set {source.data_id}) from OpenML failed: "
            f"{error}. "
            f"Without a network, put {name}.npz with the arrays {', '.join(ARRAYS)} into a directory and "
            "pass it with --data DIRECTORY (data= in Python)"
        ) from error
    X, y = np.asarray(bunch.data, dtype=np.float64), np.asarray(bunch.target).astype(str)
    if X.ndim != 2 or X.shape[1] != source.n_features or X.shape[0] <= source.n_test:
        raise DataError(
            f"{name}: OpenML returned an array of shape {X.shape}, expected {source.n_features} features "
            f"and more than {source.n_test} rows; remove scikit-learn's cached copy and try again"
        )
    labels = np.full(y.shape, -1, dtype=np.int64)
    for number, text in enumerate(source.classes):
        labels[y == text] = number
    if np.any(labels < 0):
        raise DataError(
            f"{name}: OpenML returned the label {str(y[labels < 0][0])!r}, expected "
            f"{', '.join(source.classes)}; remove scikit-learn's cached copy and try again"
        )
    complete = np.all(np.isfinite(X), axis=1)  # one row of higgs is cut short
    if not complete.all():
        X, labels = X[complete], labels[complete]
    features = _compact(X)
    cut = len(labels) - source.n_test
    return Dataset(name, features[:cut], labels[:cut], features[cut:], labels[cut:], "classification")


def _compact(X: NDArray[np.float64]) -> NDArray[Any]:
    """Return X as uint8 or uint16 if it holds nothing else, else as float32."""
    low, high = X.min(), X.max()
    if low >= 0 and high <= 65535 and np.all(np.floor(X) == X):
        return X.astype(np.uint8 if high <= 255 else np.uint16)
    return X.astype(np.float32)
