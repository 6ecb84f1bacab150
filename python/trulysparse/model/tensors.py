# SPDX-License-Identifier: BSD-3-Clause
"""Tensors on their way to and from safetensors files: written and read in place, never as a whole beside the network.

The format: the length of the header (8 bytes, little-endian), the header (JSON, padded with spaces to 8 bytes), and the
tensors one after the other, those of the widest dtype first, so that each is aligned.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import CheckpointError

__all__ = ["Converted", "TensorFile", "described", "fill", "take", "write_file"]

Array = npt.NDArray[Any]

_BLOCK_BYTES = 1 << 20
_PREFIX_BYTES = 8
_HEADER_MOST_BYTES = 100_000_000  # what the safetensors library reads
_METADATA = "__metadata__"
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}


class Converted:
    """An array that a file holds in another dtype, converted block by block.

    Parameters
    ----------
    array
        What there is.
    dtype
        What the file gets.
    """

    def __init__(self, array: Array, dtype: npt.DTypeLike) -> None:
        self._array = array
        self.dtype = np.dtype(dtype)
        self.shape = array.shape

    def blocks(self) -> Iterator[Array]:
        """Yield the converted array in pieces, contiguous ones."""
        for block in _blocks(self._array):
            yield block.astype(self.dtype)


def _blocks(array: Array) -> Iterator[Array]:
    """Yield an array in contiguous pieces, which are views where the array is contiguous."""
    if array.ndim == 0:
        array = array.reshape(1)
    row_bytes = array.itemsize * math.prod(array.shape[1:])
    if array.size:
        step = max(1, _BLOCK_BYTES // row_bytes)
        for begin in range(0, len(array), step):
            yield np.ascontiguousarray(array[begin : begin + step])


def write_file(path: Path, tensors: Mapping[str, Array | Converted], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; memory is needed for one block of what is converted or not contiguous.

    Parameters
    ----------
    path
        File to write; what it held is lost.
    tensors
        Arrays by name.
    metadata
        Texts by name.

    Raises
    ------
    OSError
        The file cannot be written.
    TypeError
        A dtype that safetensors does not have.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    offset = 0
    for name in order:
        tensor = tensors[name]
        kind = _NAMES.get(tensor.dtype.name)
        if kind is None or not tensor.dtype.isnative:
            raise TypeError(f"the tensor {name} has dtype {tensor.dtype!r}; a file holds {', '.join(_NAMES)}")
        end = offset + tensor.dtype.itemsize * math.prod(tensor.shape)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _PREFIX_BYTES)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_PREFIX_BYTES, "little"))
        file.write(text)
        for name in order:
            tensor = tensors[name]
            for block in tensor.blocks() if isinstance(tensor, Converted) else _blocks(tensor):
                file.write(block.data)


class TensorFile(Mapping[str, Array]):
    """The tensors of a safetensors file, each read when it is asked for, every time anew: the array is the caller's.

    Parameters
    ----------
    path
        The file, held open until `close`; replaced meanwhile, the old one goes on being read.

    Attributes
    ----------
    metadata : dict of str to str
        Texts by name.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is truncated, damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=0)
        try:
            self.metadata, self._places = self._read_header(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self.close()
            raise

    def _read_header(self, file_bytes: int) -> tuple[dict[str, str], dict[str, _Place]]:
        prefix = self._file.read(_PREFIX_BYTES)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < _PREFIX_BYTES or length > min(file_bytes - _PREFIX_BYTES, _HEADER_MOST_BYTES):
            raise ValueError("its header is longer than it")
        text = self._file.read(length)
        try:
            header = json.loads(text)
            metadata = header.pop(_METADATA, {})
            places = {name: _Place.read(entry, _PREFIX_BYTES + length) for name, entry in header.items()}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"its header is damaged ({error})") from error
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are not texts by name")
        end = _PREFIX_BYTES + length
        for place in sorted(places.values(), key=lambda p: (p.begin, p.n_bytes)):
            if place.begin != end:
                raise ValueError(f"a tensor begins at byte {place.begin} instead of {end}")
            end += place.n_bytes
        if end != file_bytes:
            raise ValueError(f"it should have {end} bytes")
        return metadata, places

    def __getitem__(self, name: str) -> Array:
        place = self._places[name]
        array: Array = _kernels.aligned_empty(place.shape, place.dtype)
        self.read_into(name, array)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def described(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype and shape of a tensor without reading it."""
        place = self._places[name]
        return place.dtype, place.shape

    def read_into(self, name: str, out: Array) -> None:
        """Read a tensor into a contiguous array of its dtype and shape.

        Raises
        ------
        CheckpointError
            The file cannot be read any further, or was shortened since it was opened.
        """
        place = self._places[name]
        if (out.dtype, out.shape) != (place.dtype, place.shape) or not out.flags.c_contiguous:
            raise ValueError(f"tensor {name} is {place.dtype} of shape {place.shape}, not {out.dtype} of {out.shape}")
        if out.size == 0:
            return
        rest = out.reshape(-1).view(np.uint8).data
        try:
            self._file.seek(place.begin)
            while rest:
                n = self._file.readinto(rest)  # type: ignore[attr-defined]  # it is a raw file
                if not n:
                    raise EOFError("the file ends within it")
                rest = rest[n:]
        except (OSError, EOFError) as error:
            raise CheckpointError(
                f"the tensor {name} of {self._file.name} cannot be read: {error}; was the file changed meanwhile, and "
                "is its disk there? Copy it again or use an older one"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Place:
    """Where in a file a tensor is."""

    __slots__ = ("begin", "dtype", "n_bytes", "shape")

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int, n_bytes: int) -> None:
        self.dtype, self.shape, self.begin, self.n_bytes = dtype, shape, begin, n_bytes

    @classmethod
    def read(cls, entry: Mapping[str, Any], start: int) -> _Place:
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        dtype = _DTYPES[entry["dtype"]]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin)):
            raise ValueError(f"{entry} is not a place of a tensor")
        if end - begin != dtype.itemsize * math.prod(shape):
            raise ValueError(f"{entry} has another number of bytes")
        return cls(dtype, shape, start + begin, end - begin)


def described(tensors: Mapping[str, Array], name: str) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Return dtype and shape of a tensor, which is not read for that, or None if there is none of that name."""
    if name not in tensors:
        return None
    if isinstance(tensors, TensorFile):
        return tensors.described(name)
    return tensors[name].dtype, tensors[name].shape


def fill(tensors: Mapping[str, Array], name: str, out: Array) -> None:
    """Read or copy a tensor into an array of its dtype and shape."""
    if isinstance(tensors, TensorFile):
        tensors.read_into(name, out)
    else:
        out[...] = tensors[name]


def take(tensors: Mapping[str, Array], name: str) -> Array:
    """Return a tensor as an aligned array of the caller's own: read from a file, copied from anywhere else."""
    if isinstance(tensors, TensorFile):
        return tensors[name]
    tensor = tensors[name]
    array: Array = _kernels.aligned_empty(tensor.shape, tensor.dtype)
    array[...] = tensor
    return array
