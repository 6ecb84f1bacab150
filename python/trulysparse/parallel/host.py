# SPDX-License-Identifier: BSD-3-Clause
"""What parallel training asks of the run that it carries out; the trainer answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from trulysparse.engine import Evolution, Run
from trulysparse.model import SparseMLP


def pack_result(net: SparseMLP, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a network and the rows of its history as arrays by name, which `Host.take_result` understands."""
    tensors, network = net.to_tensors()
    plain = {"network": network, "history": rows}
    return tensors | {name: np.frombuffer(json.dumps(value).encode(), np.uint8) for name, value in plain.items()}


class Host(Protocol):
    """A run: on the master the one that the user sees, on a worker its local part.

    Attributes
    ----------
    run : Run
    seed, batch_size, epochs : int
    notes : dict
        Plain values that a checkpoint keeps for the strategy; what the resumed one kept, at first.
    history_rows : list of dict
        Rows of the epochs so far.
    stop_reason : str or None
        Why the run is to end after the epoch.
    """

    run: Run
    seed: int
    batch_size: int
    epochs: int
    notes: dict[str, Any]

    @property
    def history_rows(self) -> list[dict[str, Any]]: ...

    @property
    def stop_reason(self) -> str | None: ...

    def received(self) -> int | None:
        """Return the signal that asks this process to stop, if one came."""

    def on_evolution(self, report: Evolution) -> None:
        """Tell the callbacks."""

    def on_step(self) -> None:
        """Tell the callbacks."""

    def close_epoch(self, samples: int, *, validate: bool = True) -> dict[str, Any]:
        """Evaluate, write the epoch's row and return it, tell the callbacks, save if it is time."""

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Write a row that was measured elsewhere, tell the callbacks, save if it is time."""

    def evaluate(self) -> dict[str, float | None]:
        """Return val_loss and val_accuracy of the network as it is, None without validation data."""

    def save(self) -> None:
        """Write the checkpoint, if there is a place for it."""

    def conclude(self) -> None:
        """Save, and tell the callbacks that the run is over; once."""

    def take_result(self, tensors: dict[str, Any]) -> None:
        """Take over what `pack_result` made on rank 0; the network may have fewer neurons than the one here."""

    def note_with(self, more: Callable[[], dict[str, Any]]) -> None:
        """Have a function add to the notes at the moment of a checkpoint."""

    def begin_worker(self, worker: int, run_name: str, local_from: int) -> None:
        """Make the checkpoints of this process its worker's own, in the local phase of that run from that epoch on."""

    def end_worker(self, *, averaged: bool) -> None:
        """End that, if it began; delete this worker's own checkpoint if its network is in the average now."""

    def resume_worker(self) -> bool:
        """Take over this worker's own checkpoint; False if there is none of this run."""
