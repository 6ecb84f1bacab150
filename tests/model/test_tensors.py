# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from trulysparse.errors import CheckpointError
from trulysparse.model import SparseMLP, read_tensors, write_tensors
from trulysparse.model import tensors as module
from trulysparse.model.serialize import open_tensors
from trulysparse.model.tensors import Converted, TensorFile, described, fill, take, write_file

DTYPES = (
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "float16",
    "uint32",
    "int32",
    "float32",
    "uint64",
    "int64",
    "float64",
)
DESCRIBED = {"format_version": 1, "kind": "model"}


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    some = {dtype: rng.integers(0, 2, 7).astype(dtype) for dtype in DTYPES}
    return some | {
        "matrix": rng.normal(size=(3, 5, 2)),
        "transposed": rng.normal(size=(3, 5)).T,
        "strided": np.arange(20, dtype=np.int32)[::3],
        "number": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "empty_columns": np.zeros((4, 0), np.int64),
    }


def header_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.safetensors"


@pytest.mark.parametrize("block_bytes", [1, 16, 1 << 20])
def test_the_safetensors_library_reads_what_is_written(path: Path, monkeypatch: Any, block_bytes: int) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    wanted = arrays()
    write_file(path, wanted, {"é": "ü"})
    with safe_open(path, framework="numpy") as opened:
        assert opened.metadata() == {"é": "ü"}
        assert set(opened.keys()) == set(wanted)
        for name, array in wanted.items():
            got = opened.get_tensor(name)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(got, array)


def test_what_the_safetensors_library_writes_is_read(path: Path) -> None:
    wanted = {name: np.ascontiguousarray(array) for name, array in arrays().items()}
    safetensors.numpy.save_file(wanted, path, metadata={"a": "b"})
    with TensorFile(path) as file:
        assert file.metadata == {"a": "b"}
        assert set(file) == set(wanted)
        assert len(file) == len(wanted)
        for name, array in wanted.items():
            assert described(file, name) == (array.dtype, array.shape)
            got = file[name]
            assert (got.dtype, got.shape, got.flags.writeable) == (array.dtype, array.shape, True)
            np.testing.assert_array_equal(got, array)


def test_the_file_is_as_long_as_header_and_tensors_and_each_tensor_is_aligned(path: Path) -> None:
    wanted = arrays()
    write_file(path, wanted, {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert len(content) == 8 + length + sum(array.nbytes for array in wanted.values())
    for name, array in wanted.items():
        begin, end = header_of(path)[name]["data_offsets"]
        assert begin % array.itemsize == 0
        assert end - begin == array.nbytes


@pytest.mark.parametrize("block_bytes", [1, 12, 1 << 20])
def test_converted_arrays_are_written_in_the_other_dtype(path: Path, monkeypatch: Any, block_bytes: int) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    pointers = np.array([0, 3, 2**31 - 1, 5, 9], np.int32)
    write_file(path, {"p": Converted(pointers, np.int64), "none": Converted(pointers[:0], np.int64)}, {})
    got = safetensors.numpy.load_file(path)
    assert got["p"].dtype == got["none"].dtype == np.int64
    np.testing.assert_array_equal(got["p"], pointers)
    assert got["none"].shape == (0,)


def test_lazy_and_plain_tensors_make_the_same_file(tmp_path: Path) -> None:
    net = SparseMLP((9, 7, 3), density=0.5)
    for name, lazy in (("a", net.to_tensors(lazy=True)[0]), ("b", net.to_tensors()[0])):
        write_file(tmp_path / name, lazy, {})
    assert isinstance(net.to_tensors(lazy=True)[0]["layers.0.row_ptr"], Converted)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dtype_that_files_lack_is_refused_by_name(path: Path) -> None:
    with pytest.raises(TypeError, match=r"the tensor z has dtype .*complex"):
        write_file(path, {"z": np.zeros(2, np.complex64)}, {})
    with pytest.raises(TypeError, match="the tensor z has dtype"):
        write_file(path, {"z": np.zeros(2, ">f4")}, {})


def test_every_look_up_reads_a_new_array(path: Path) -> None:
    write_file(path, {"a": np.arange(4.0)}, {})
    with TensorFile(path) as file:
        first = file["a"]
        first[:] = 0
        np.testing.assert_array_equal(file["a"], np.arange(4.0))
        np.testing.assert_array_equal(take(file, "a"), np.arange(4.0))
        with pytest.raises(KeyError):
            file["b"]
        assert described(file, "b") is None


def test_take_and_fill_copy_arrays_of_memory() -> None:
    source = {"a": np.arange(4.0)}
    taken = take(source, "a")
    taken[:] = 0
    out = np.zeros(4)
    fill(source, "a", out)
    np.testing.assert_array_equal(out, np.arange(4.0))
    assert not np.shares_memory(out, source["a"])
    assert described(source, "a") == (np.dtype(float), (4,))


def test_read_into_takes_only_an_array_that_fits(path: Path) -> None:
    write_file(path, {"a": np.arange(4.0)}, {})
    with TensorFile(path) as file:
        for out in (np.zeros(3), np.zeros(4, np.float32), np.zeros(8)[::2]):
            with pytest.raises(ValueError, match="tensor a is float64"):
                file.read_into("a", out)


def test_a_file_that_is_shortened_while_open_is_an_error_not_a_loop(path: Path) -> None:
    write_tensors(path, {"a": np.arange(400.0)}, DESCRIBED)
    with open_tensors(path) as (tensors, _):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 8)
        with pytest.raises(CheckpointError, match=r"the tensor a of .* cannot be read: the file ends within it"):
            tensors["a"]


def test_a_file_replaced_while_open_goes_on_being_read(path: Path) -> None:
    write_tensors(path, {"a": np.zeros(3)}, DESCRIBED)
    with open_tensors(path) as (tensors, _):
        write_tensors(path, {"a": np.ones(3)}, DESCRIBED)
        assert not tensors["a"].any()
    assert read_tensors(path)[0]["a"].all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "F8"),
        ("dtype", 3),
        ("shape", [5]),
        ("shape", [-1, -4]),
        ("shape", [2.0, 2]),
        ("shape", [True, 4]),
        ("shape", "4"),
        ("data_offsets", [8, 40]),
        ("data_offsets", [-8, 24]),
        ("data_offsets", [0]),
        ("data_offsets", None),
    ],
)
def test_damaged_headers_are_refused(path: Path, key: str, value: Any) -> None:
    write_tensors(path, {"a": np.arange(4.0)}, DESCRIBED)
    content, header = path.read_bytes(), header_of(path)
    header["a"][key] = value
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[-32:])
    with pytest.raises(CheckpointError, match="truncated, damaged or not a safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize("text", [b"[]", b"3", b'{"a": 3}', b"{}x", b"\xff\xfe", b'{"__metadata__": []}', b"[" * 5000])
def test_headers_that_are_no_headers_are_refused(path: Path, text: bytes) -> None:
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="truncated, damaged or not a safetensors file"):
        read_tensors(path)


def test_tensors_that_overlap_or_leave_a_hole_are_refused(path: Path) -> None:
    write_tensors(path, {"a": np.arange(4.0), "b": np.arange(4.0)}, DESCRIBED)
    content, header = path.read_bytes(), header_of(path)
    header["b"]["data_offsets"] = header["a"]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[-64:])
    with pytest.raises(CheckpointError, match="a tensor begins at byte"):
        read_tensors(path)


def test_bytes_behind_the_tensors_are_refused(path: Path) -> None:
    write_tensors(path, {"a": np.arange(4.0)}, DESCRIBED)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="it should have"):
        read_tensors(path)


_COMMON = """
import sys
import numpy as np
import trulysparse as ts
from trulysparse.trainer.checkpoint import load_checkpoint, save_checkpoint
from trulysparse.trainer import trainer as imported

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def new_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmHWM")

def net_bytes(net):
    return sum(l.pattern.nbytes + l.values.nbytes + l.bias.nbytes for l in net.layers)
"""

_SAVE = """
net = ts.SparseMLP((1000, 500_000, 500_000, 10), density=ts.ErdosRenyi(10), seed=1)
assert 18e6 < net.connections < 22e6
rng = np.random.default_rng(0)
trainer = ts.Trainer(net, batch_size=16, topology="static", progress=False, standardize=False)
trainer.fit(rng.normal(size=(16, 1000)).astype(np.float32), np.arange(16) % 10, epochs=1)
before = new_peak()
save_checkpoint(trainer, sys.argv[1])
print((status("VmHWM") - before) / net_bytes(net))
"""

_LOAD = """
before = new_peak()
net = ts.load(sys.argv[1])
print((status("VmHWM") - before) / net_bytes(net))
del net
before = new_peak()
trainer = load_checkpoint(sys.argv[1])
slots = sum(a.nbytes for some in trainer.state.weight_slots + trainer.state.bias_slots for a in some.values())
assert slots > 75e6
print((status("VmHWM") - before) / (net_bytes(trainer.net) + slots))
"""


def _ratios(script: str, path: Path) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", _COMMON + script, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_saving_and_loading_take_no_memory_for_a_second_copy(path: Path) -> None:
    (saving,) = _ratios(_SAVE, path)
    assert saving < 0.03
    loading_model, resuming = _ratios(_LOAD, path)
    assert 0.9 < loading_model < 1.1
    assert 0.9 < resuming < 1.1
