# SPDX-License-Identifier: BSD-3-Clause
"""Model and checkpoint files: safetensors with a JSON description, never pickle; whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trulysparse._files import replacing
from trulysparse.errors import CheckpointError
from trulysparse.model.mlp import SparseMLP
from trulysparse.model.tensors import Converted, TensorFile, write_file

__all__ = ["FORMAT_VERSION", "load", "open_tensors", "read_tensors", "save", "write_tensors"]

Array = npt.NDArray[Any]

FORMAT_VERSION = 1
_KEY = "trulysparse"


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Array | Converted], metadata: Mapping[str, Any]
) -> None:
    """Write arrays and a description to a safetensors file, under a temporary name that is then renamed.

    Nothing is copied but what is converted, a megabyte at a time.

    Parameters
    ----------
    path
        File to write. An older file of that name stays untouched until the new one is complete and on the
        disk.
    tensors
        Arrays by name.
    metadata
        Anything JSON can hold; the keys ``format_version`` and ``kind`` are expected by `read_tensors`.

    Raises
    ------
    CheckpointError
        The file cannot be written: no such directory, no permission, disk full.
    """
    text = json.dumps(dict(metadata))
    try:
        with replacing(path) as temporary:
            write_file(temporary, tensors, {_KEY: text})
            _sync(temporary)
        _sync(Path(path).parent)
    except OSError as error:
        raise CheckpointError(
            f"{os.fspath(path)} could not be written: {error}; an older file of that name is unchanged, "
            "check that the "
            "directory exists, may be written to and has room"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[tuple[TensorFile, dict[str, Any]]]:
    """Open what `write_tensors` wrote, without reading a tensor before it is asked for.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    tensors : TensorFile
        A mapping that reads a tensor at each look-up, for as long as the block lasts.
    metadata : dict

    Raises
    ------
    CheckpointError
        The file is missing, truncated, or was not written by trulysparse; at a look-up: it cannot be read further.
    """
    file = Path(path)
    if not file.exists():
        raise CheckpointError(f"there is no file {file}; is the path right, and was the model saved?")
    if not file.is_file():
        raise CheckpointError(
            f"{file} is not a file; give the model file in it, for example {file / 'model.safetensors'}"
        )
    try:
        tensors = TensorFile(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(_unreadable(file, error)) from error
    with tensors:
        yield tensors, _description(file, tensors.metadata)


def _unreadable(file: Path, error: Exception) -> str:
    return (
        f"{file} ({file.stat().st_size} bytes) is truncated, damaged or not a safetensors file: {error}; "
        "copy it again or use an older one"
    )


def _description(file: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    described = texts.get(_KEY)
    if described is None:
        raise CheckpointError(
            f"{file} is a safetensors file but was not written by trulysparse (it has no {_KEY!r} entry); "
            "save a network with net.save"
        )
    try:
        metadata = json.loads(described)
    except (TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"the description in {file} is damaged: {error}; use an older file") from error
    if not isinstance(metadata, dict) or "kind" not in metadata or not isinstance(metadata.get("format_version"), int):
        raise CheckpointError(f"the description in {file} lacks its kind or format version; use an older file")
    return metadata


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write_tensors` wrote, all of it.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    tensors : dict of str to ndarray
        Writable arrays in memory.
    metadata : dict

    Raises
    ------
    CheckpointError
        The file is missing, truncated, or was not written by trulysparse.
    """
    with open_tensors(path) as (tensors, metadata):
        return dict(tensors), metadata


def save(net: SparseMLP, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file, replacing an older one only when complete.

    The file holds, for each layer l from 0, ``layers.{l}.row_ptr`` (int64), ``layers.{l}.col_idx`` (int32),
    ``layers.{l}.weights`` and ``layers.{l}.bias`` (float32), with (n_in, n_out) orientation;
    ``layers.{l}.activation.{name}`` (float32) where the activation is trained;
    ``scaling.shift`` and ``scaling.factor`` if the network has an input scaling; and its configuration.

    Raises
    ------
    CheckpointError
        The file cannot be written.
    """
    tensors, network = net.to_tensors(lazy=True)
    write_tensors(path, tensors, {"format_version": FORMAT_VERSION, "kind": "model", "network": network})


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> SparseMLP:
    """Read a network from a model file, or the network out of a checkpoint.

    Parameters
    ----------
    path
        A file that `SparseMLP.save` or a trainer wrote.
    threads
        As in `SparseMLP`; not stored in the file.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, foreign, of a newer version, or its content is not a network.
    """
    with open_tensors(path) as (tensors, metadata):
        if metadata["kind"] not in ("model", "checkpoint") or not isinstance(metadata.get("network"), dict):
            raise CheckpointError(
                f"{os.fspath(path)} holds a {metadata['kind']!r}, not a model; save a network with net.save"
            )
        if metadata["kind"] == "model" and metadata["format_version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{os.fspath(path)} was written by a newer trulysparse (model format "
                f"{metadata['format_version']}, this one "
                f"reads up to {FORMAT_VERSION}); upgrade trulysparse"
            )
        try:
            return SparseMLP.from_tensors(tensors, metadata["network"], threads=threads)
        except CheckpointError as error:
            raise CheckpointError(f"{os.fspath(path)}: {error}") from error
