# SPDX-License-Identifier: BSD-3-Clause
"""Model and checkpoint files: safetensors with a JSON description, never pickle; whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse._files import replacing
from trulysparse.errors import CheckpointError
from trulysparse.model.mlp import SparseMLP

__all__ = ["FORMAT_VERSION", "load", "read_tensors", "save", "write_tensors"]

Array = npt.NDArray[Any]

FORMAT_VERSION = 1
_KEY = "trulysparse"


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and a description to a safetensors file, under a temporary name that is then renamed.

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
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    text = json.dumps(dict(metadata))
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        with replacing(path) as temporary:
            save_file(contiguous, temporary, metadata={_KEY: text})
            _sync(temporary)
        _sync(Path(path).parent)
    except (OSError, SafetensorError) as error:
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


def read_tensors(
    path: str | os.PathLike[str], *, described_only: bool = False
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path
        The file.
    described_only
        True: no tensors, only the metadata.

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
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if not file.exists():
        raise CheckpointError(f"there is no file {file}; is the path right, and was the model saved?")
    if not file.is_file():
        raise CheckpointError(
            f"{file} is not a file; give the model file in it, for example {file / 'model.safetensors'}"
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            described = (opened.metadata() or {}).get(_KEY)
            if described is None:
                raise CheckpointError(
                    f"{file} is a safetensors file but was not written by trulysparse (it has no {_KEY!r} "
                    "entry); "
                    "save a network with net.save"
                )
            names = [] if described_only else list(opened.keys())
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} ({file.stat().st_size} bytes) is truncated, damaged or not a safetensors file: {error}; "
            "copy it again or use an older one"
        ) from error
    try:
        metadata = json.loads(described)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"the description in {file} is damaged: {error}; use an older file") from error
    if not isinstance(metadata, dict) or "kind" not in metadata or not isinstance(metadata.get("format_version"), int):
        raise CheckpointError(f"the description in {file} lacks its kind or format version; use an older file")
    return tensors, metadata


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
    tensors, network = net.to_tensors()
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
    tensors, metadata = read_tensors(path)
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
