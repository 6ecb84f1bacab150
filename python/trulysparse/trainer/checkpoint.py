# SPDX-License-Identifier: BSD-3-Clause
"""What a checkpoint file holds: the network, the run's state, its settings, its history and its callbacks."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.engine import TrainState, restore_state, state_tensors
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.model import SparseMLP, serialize
from trulysparse.model.registry import nearest
from trulysparse.optim import get_optimizer
from trulysparse.topology import Topology, get_pruning, get_topology
from trulysparse.trainer.callbacks import Callback

if TYPE_CHECKING:
    from trulysparse.trainer.trainer import Trainer

FORMAT_VERSION = 1
FILE_NAME = "checkpoint.safetensors"
WORKER_FILE_NAMES = "checkpoint.worker*.safetensors"


# Arguments of a trainer that may change at a resume, because the result does not depend on them.
OVERRIDES = ("threads", "callbacks", "checkpoint", "checkpoint_every", "progress", "storage", "memory_budget")
_SAMPLED_ROWS = 64


def fingerprint(X: Any, y: NDArray[Any], held_back: float | None) -> dict[str, Any]:
    """Return what tells one training set from another at little cost: shape, dtype, labels, some samples."""
    some = X[np.unique(np.linspace(0, X.shape[0] - 1, _SAMPLED_ROWS).astype(np.int64))]
    sample = np.ascontiguousarray(some.toarray() if hasattr(some, "toarray") else some)
    return {
        "shape": [int(n) for n in X.shape],
        "dtype": str(X.dtype),
        "labels": zlib.crc32(np.ascontiguousarray(y).tobytes()),
        "samples": zlib.crc32(sample.tobytes()),
        "held_back": held_back,
    }


def check_saveable(trainer: Trainer, path: Path) -> None:
    """Raise now what would otherwise stop the first checkpoint after hours of training.

    Raises
    ------
    ConfigError
        If the settings or a callback's state cannot be written, or the place cannot be written to.
    """
    if not getattr(trainer.topology, "name", ""):
        name = type(trainer.topology).__name__
        raise ConfigError(
            f"the topology {name} has no name that a checkpoint could hold; "
            f"put @ts.register_topology({name.lower()!r}) above its class"
        )
    try:
        json.dumps(trainer.to_config())
        for callback in trainer.callbacks:
            json.dumps(callback.state_dict())
    except TypeError as error:
        raise ConfigError(
            f"the settings or a callback's state cannot go into a checkpoint ({error}); "
            "use numbers, strings, lists and dictionaries, and tensors() for arrays"
        ) from error
    # The nearest directory that exists, without making any: the run may still be refused.
    place = next((folder for folder in path.parents if folder.exists()), Path())
    if not place.is_dir() or not os.access(place, os.W_OK):
        why = "is not writable" if place.is_dir() else "is a file"
        raise ConfigError(f"checkpoints cannot go to {path}: {place} {why}; choose another checkpoint path")


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write the whole run to one safetensors file, under a temporary name that is then renamed.

    Parameters
    ----------
    trainer : Trainer
        Between two steps.
    path : str or Path
        File to write; an older one is replaced only by a complete new one.
    """
    tensors, network = trainer.net.to_tensors(lazy=True)
    tensors |= state_tensors(trainer.state)
    callbacks = []
    for i, callback in enumerate(stateful(trainer.callbacks)):
        tensors |= {f"callbacks.{i}.{name}": array for name, array in callback.tensors().items()}
        callbacks.append({"class": type(callback).__name__, "state": callback.state_dict()})
    serialize.write_tensors(
        path,
        tensors,
        {
            "format_version": FORMAT_VERSION,
            "kind": "checkpoint",
            "network": network,
            "trainer": trainer.to_config(),
            "state": trainer.state.counters(),
            "epochs": trainer.epochs,
            "stop_reason": trainer.stop_reason,
            "history": trainer.history.rows,
            "callbacks": callbacks,
            "data": trainer.data_fingerprint,
            "parallel": trainer.notes | trainer.note_more(),
        },
    )


def stateful(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks of which a checkpoint holds something."""
    return [
        callback
        for callback in callbacks
        if type(callback).state_dict is not Callback.state_dict or type(callback).tensors is not Callback.tensors
    ]


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint file meant by a file or a run directory.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"no checkpoint at {file}; give a checkpoint file or a run directory that holds {FILE_NAME}"
        )
    return file


def load_checkpoint(path: str | Path, **overrides: Any) -> Trainer:
    """Rebuild the trainer that wrote a checkpoint; its next `fit` goes on bit for bit.

    Parameters
    ----------
    path : str or Path
        Checkpoint file, or the run directory that holds it.
    **overrides
        Trainer arguments that may differ without changing the result: ``threads``, ``callbacks``, ``checkpoint``,
        ``checkpoint_every``, ``progress``. And ``outline=True``: without the network and its optimizer state, for the
        ranks of a parallel run that get them from rank 0.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, foreign or of a newer version.
    ConfigError
        If another argument is to be overridden, or a rule that is not registered was used.
    """
    outline = bool(overrides.pop("outline", False))
    for key in overrides:
        if key not in OVERRIDES:
            raise ConfigError(
                f"a resumed run keeps its {key}; only {', '.join(OVERRIDES)} may change{nearest(key, OVERRIDES)}"
            )
    file = find_checkpoint(path)
    with serialize.open_tensors(file) as (tensors, metadata):
        if metadata.get("kind") != "checkpoint":
            raise CheckpointError(
                f"{file} holds a {metadata.get('kind', 'foreign file')}, not a checkpoint; "
                "ts.load reads models, --resume reads checkpoints"
            )
        if metadata["format_version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{file} was written by a newer trulysparse (checkpoint format {metadata['format_version']}, "
                f"this one reads up to {FORMAT_VERSION}); upgrade trulysparse"
            )
        try:
            return _rebuild(file, tensors, metadata, outline, overrides)
        except KeyError as error:
            raise CheckpointError(f"{file} lacks the entry {error}; it is not a complete checkpoint") from error


def _rebuild(
    file: Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    outline: bool,
    overrides: dict[str, Any],
) -> Trainer:
    from trulysparse.trainer.trainer import Trainer

    config = dict(metadata["trainer"])
    network = metadata["network"]
    net = SparseMLP.outline(network["config"]) if outline else SparseMLP.from_tensors(tensors, network)
    optimizer = get_optimizer(config.pop("optimizer"))
    trainer = Trainer(
        net,
        optimizer=optimizer,
        topology=_saved_topology(config.pop("topology"), file),
        pruning=get_pruning(config.pop("pruning")),
        **(config | overrides),
    )
    trainer.notes.update(metadata.get("parallel", {}))
    if outline:
        tensors = state_tensors(TrainState.fresh(net, optimizer, trainer.topology))
    trainer.adopt(
        restore_state(net, optimizer, trainer.topology, tensors, metadata["state"]),
        rows=metadata["history"],
        epochs=metadata["epochs"],
        stop_reason=metadata["stop_reason"],
        data_fingerprint=metadata["data"],
        callback_states=[
            (
                saved["class"],
                saved["state"],
                {name.split(".", 2)[2]: tensors[name] for name in tensors if name.startswith(f"callbacks.{i}.")},
            )
            for i, saved in enumerate(metadata["callbacks"])
        ],
    )
    return trainer


def _saved_topology(config: dict[str, Any], file: Path) -> Topology:
    try:
        return get_topology(config)
    except ConfigError as error:
        raise ConfigError(
            f"{file}: {error}; a rule of your own must be registered before the run is resumed: import its module first"
        ) from error
