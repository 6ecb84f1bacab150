# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.sparse

from trulysparse.data import Dataset, known_datasets, load_dataset, save_dataset
from trulysparse.errors import DataError


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "X_train": rng.integers(0, 256, (30, 6)).astype(np.uint8),
        "y_train": np.arange(30, dtype=np.uint8) % 3,
        "X_test": rng.integers(0, 256, (9, 6)).astype(np.uint8),
        "y_test": np.arange(9, dtype=np.uint8) % 3,
    }


def _same(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    for key, expected in arrays.items():
        got = getattr(dataset, key)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def _npy_directory(path: Path) -> dict[str, np.ndarray]:
    path.mkdir()
    arrays = _arrays()
    for key, array in arrays.items():
        np.save(path / f"{key}.npy", array)
    return arrays


@pytest.mark.parametrize("as_text", [True, False])
def test_npz_by_path(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "toy.npz"
    np.savez(path, notes=np.ones(3), **_arrays())
    dataset = load_dataset(str(path) if as_text else path)
    assert dataset.name == "toy"
    _same(dataset, _arrays())


def test_npy_directory_is_memory_mapped(tmp_path: Path) -> None:
    arrays = _npy_directory(tmp_path / "toy")
    dataset = load_dataset(tmp_path / "toy")
    _same(dataset, arrays)
    assert isinstance(dataset.X_train, np.memmap)
    assert not dataset.X_train.flags.writeable


def test_csr_directory(tmp_path: Path) -> None:
    directory = tmp_path / "toy"
    arrays = _npy_directory(directory)
    for key in ("X_train", "X_test"):
        (directory / f"{key}.npy").unlink()
        scipy.sparse.save_npz(directory / f"{key}.npz", scipy.sparse.csr_array(arrays[key]))
    dataset = load_dataset(directory)
    assert dataset.X_train.format == "csr"
    np.testing.assert_array_equal(dataset.X_test.toarray(), arrays["X_test"])


def test_csr_directory_refuses_other_formats(tmp_path: Path) -> None:
    directory = tmp_path / "toy"
    arrays = _npy_directory(directory)
    (directory / "X_train.npy").unlink()
    scipy.sparse.save_npz(directory / "X_train.npz", scipy.sparse.csc_array(arrays["X_train"]))
    with pytest.raises(DataError, match=r"csc format.*tocsr"):
        load_dataset(directory)


@pytest.mark.parametrize("where", ["file", "npz in directory", "directory in directory", "directory itself"])
@pytest.mark.parametrize("name", ["fashion_mnist", "digits", "my_own"])
def test_names_are_found_under_data(tmp_path: Path, where: str, name: str) -> None:
    if where == "directory in directory":
        arrays, data = _npy_directory(tmp_path / name), tmp_path
    elif where == "directory itself":
        arrays, data = _npy_directory(tmp_path / "other"), tmp_path / "other"
    else:
        arrays = _arrays()
        np.savez(tmp_path / f"{name}.npz", **arrays)
        data = tmp_path / f"{name}.npz" if where == "file" else tmp_path
    dataset = load_dataset(name, data)
    assert dataset.name == name
    _same(dataset, arrays)


def test_save_dataset_round_trip(tmp_path: Path) -> None:
    arrays = _arrays()
    save_dataset(tmp_path / "new" / "toy.npz", Dataset("toy", *arrays.values()))
    _same(load_dataset(tmp_path / "new" / "toy.npz"), arrays)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["toy.npz"]


def test_save_dataset_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    arrays = _arrays()
    with pytest.raises(DataError, match="X_test is missing"):
        save_dataset(tmp_path / "a.npz", Dataset("toy", arrays["X_train"], arrays["y_train"]))
    sparse = Dataset("toy", scipy.sparse.csr_array(arrays["X_train"]), *list(arrays.values())[1:])
    with pytest.raises(DataError, match="X_train is sparse"):
        save_dataset(tmp_path / "a.npz", sparse)
    with pytest.raises(DataError, match=r"does not end in \.npz"):
        save_dataset(tmp_path / "a.data", Dataset("toy", *arrays.values()))
    assert not list(tmp_path.iterdir())


def test_missing_array_is_named(tmp_path: Path) -> None:
    arrays = _arrays()
    del arrays["y_test"]
    np.savez(tmp_path / "toy.npz", extra=np.ones(2), **arrays)
    with pytest.raises(DataError, match=r"lacks y_test.*holds extra, X_train, y_train, X_test"):
        load_dataset(tmp_path / "toy.npz")


def test_missing_npy_is_named(tmp_path: Path) -> None:
    _npy_directory(tmp_path / "toy")
    (tmp_path / "toy" / "X_test.npy").unlink()
    with pytest.raises(DataError, match=r"lacks X_test\.npy .*holds X_train\.npy"):
        load_dataset(tmp_path / "toy")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_npz(tmp_path: Path, share: float) -> None:
    path = tmp_path / "toy.npz"
    np.savez(path, **_arrays())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"toy\.npz cannot be read"):
        load_dataset(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_npy(tmp_path: Path, share: float) -> None:
    _npy_directory(tmp_path / "toy")
    path = tmp_path / "toy" / "X_train.npy"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"X_train\.npy cannot be read"):
        load_dataset(tmp_path / "toy")


def test_damaged_compressed_npz(tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    np.savez_compressed(path, **_arrays())
    content = bytearray(path.read_bytes())
    content[60:120] = bytes(60)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"toy\.npz cannot be read"):
        load_dataset(path)


@pytest.mark.parametrize("content", [b"not an archive", b"PK\x03\x04 hardly"])
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"toy\.npz cannot be read as an \.npz archive"):
        load_dataset(tmp_path / "toy.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    arrays: dict[str, Any] = _arrays()
    arrays["y_train"] = arrays["y_train"].astype(object)
    np.savez(tmp_path / "toy.npz", **arrays)
    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        load_dataset(tmp_path / "toy.npz")


def test_single_array_under_the_name_of_an_archive(tmp_path: Path) -> None:
    with (tmp_path / "toy.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match="single array"):
        load_dataset(tmp_path / "toy.npz")
    np.save(tmp_path / "X_train.npy", np.ones(3))
    with pytest.raises(DataError, match="give the directory"):
        load_dataset(tmp_path / "X_train.npy")


def test_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    np.savez(tmp_path / "madelon.npz", **_arrays())
    with pytest.raises(DataError, match=r"madelom\.npz does not exist; did you mean .*madelon\.npz"):
        load_dataset(tmp_path / "madelom.npz")
    with pytest.raises(DataError, match="neither does the directory"):
        load_dataset(tmp_path / "nowhere" / "toy.npz")


def test_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"known are digits, fashion_mnist.*did you mean 'fashion_mnist'"):
        load_dataset("Fashion-MNIST")
    np.savez(tmp_path / "nakayama.npz", **_arrays())
    with pytest.raises(DataError, match=r"holds no nakayana\.npz; did you mean 'nakayama'"):
        load_dataset("nakayana", tmp_path)
    with pytest.raises(DataError, match="works too"):
        load_dataset("qqqq")


def test_data_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; give a directory that holds mnist\.npz"):
        load_dataset("mnist", tmp_path / "nowhere")


def test_path_and_data_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a path already"):
        load_dataset(tmp_path / "toy.npz", tmp_path)


@pytest.mark.parametrize("by_path", [True, False])
def test_packed_cifar10_says_how_to_unpack(tmp_path: Path, by_path: bool) -> None:
    np.savez(tmp_path / "cifar10_packed.npz", webp_train=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"unpack_cifar10\.py.*OUTPUT_DIRECTORY"):
        load_dataset(tmp_path / "cifar10_packed.npz") if by_path else load_dataset("cifar10", tmp_path)


class _FakeOpenML:
    """Stands in for sklearn.datasets.fetch_openml."""

    def __init__(self, data: np.ndarray, target: list[str], error: Exception | None = None) -> None:
        self.data, self.target, self.error = data, target, error
        self.asked: list[dict[str, Any]] = []

    def __call__(self, **arguments: Any) -> SimpleNamespace:
        self.asked.append(arguments)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(data=self.data, target=np.array(self.target, dtype=object))


def _offer(monkeypatch: pytest.MonkeyPatch, fake: _FakeOpenML) -> None:
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fake)


def test_openml_madelon(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.arange(610 * 500, dtype=np.float64).reshape(610, 500) % 1000
    fake = _FakeOpenML(X, ["2", "1"] * 305)
    _offer(monkeypatch, fake)
    dataset = load_dataset("madelon")
    assert [asked["data_id"] for asked in fake.asked] == [1485]
    assert (dataset.n_train, dataset.n_test, dataset.X_train.dtype) == (10, 600, np.uint16)
    np.testing.assert_array_equal(dataset.X_test, X[10:])
    np.testing.assert_array_equal(dataset.y_train, [0, 1] * 5)


def test_openml_pixels_become_uint8(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.tile(np.arange(784.0) % 256, (10_010, 1))
    _offer(monkeypatch, _FakeOpenML(X, ["7"] * 10_010))
    dataset = load_dataset("mnist")
    assert (dataset.n_train, dataset.X_train.dtype, int(dataset.y_train[0])) == (10, np.uint8, 7)


def test_openml_incomplete_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.full((20_010, 28), 0.5)
    X[-1, 3:] = np.nan
    _offer(monkeypatch, _FakeOpenML(X, ["1"] * 20_010))
    dataset = load_dataset("higgs")
    assert (dataset.n_train, dataset.n_test, dataset.X_train.dtype) == (9, 20_000, np.float32)


def test_openml_is_not_asked_when_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, _FakeOpenML(np.ones((1, 1)), [], AssertionError("asked")))
    np.savez(tmp_path / "mnist.npz", **_arrays())
    _same(load_dataset("mnist", tmp_path), _arrays())


@pytest.mark.parametrize("error", [URLError("no route"), ConnectionResetError("reset"), ValueError("no such set")])
def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    _offer(monkeypatch, _FakeOpenML(np.ones((1, 1)), [], error))
    with pytest.raises(DataError, match=r"put mnist\.npz .* into a directory and pass it with --data"):
        load_dataset("mnist")
    with pytest.raises(DataError, match=r"holds no mnist\.npz"):
        load_dataset("mnist", tmp_path)


def test_openml_surprises_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, _FakeOpenML(np.ones((700, 3)), ["1"] * 700))
    with pytest.raises(DataError, match=r"shape \(700, 3\), expected 500 features"):
        load_dataset("madelon")
    _offer(monkeypatch, _FakeOpenML(np.ones((700, 500)), ["1"] * 699 + ["3"]))
    with pytest.raises(DataError, match="label '3', expected 2, 1"):
        load_dataset("madelon")


def test_digits_need_neither_file_nor_network() -> None:
    assert "digits" in known_datasets()
    dataset = load_dataset("digits")
    assert (dataset.name, dataset.n_train + dataset.n_test, dataset.n_features) == ("digits", 1797, 64)
