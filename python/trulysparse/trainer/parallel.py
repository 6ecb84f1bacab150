# SPDX-License-Identifier: BSD-3-Clause
"""A trainer's answers to what parallel training asks of a run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trulysparse.engine import Run, Samples, TrainState, restore_state
from trulysparse.model import SparseMLP, serialize
from trulysparse.trainer.callbacks import CallbackList
from trulysparse.trainer.checkpoint import save_checkpoint
from trulysparse.trainer.signals import StopSignals

if TYPE_CHECKING:
    from trulysparse.trainer.trainer import Trainer


class TrainerHost:
    """The run of a trainer on one rank; see `trulysparse.parallel.host.Host`."""

    def __init__(
        self, trainer: Trainer, samples: Samples, epochs: int, callbacks: CallbackList, signals: StopSignals
    ) -> None:
        self._trainer, self._callbacks, self._signals = trainer, callbacks, signals
        self.run: Run = trainer.run_over(samples)
        self.seed, self.batch_size, self.epochs = trainer.seed, trainer.batch_size, epochs
        self.notes: dict[str, Any] = trainer.notes
        self.on_evolution = functools.partial(callbacks.on_evolution, trainer)
        self.concluded = False
        self._checkpoint: Path | None = trainer.checkpoint
        self._start_epoch()

    @property
    def history_rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._trainer.history.rows]

    @property
    def stop_reason(self) -> str | None:
        return self._trainer.stop_reason

    def received(self) -> int | None:
        return self._signals.received

    def on_step(self) -> None:
        self._callbacks.on_step_end(self._trainer, self.run.state.step)

    def close_epoch(self, samples: int, *, validate: bool = True) -> dict[str, Any]:
        trainer = self._trainer
        row = trainer.close_epoch(self.run.samples, samples, self.epochs, self._callbacks, validate=validate)
        self._start_epoch()
        return row

    def _start_epoch(self) -> None:
        trainer = self._trainer
        if trainer.state.epoch < self.epochs and trainer.stop_reason is None:
            self._callbacks.on_epoch_start(trainer, trainer.state.epoch + 1)

    def add_row(self, row: Mapping[str, Any]) -> None:
        self._trainer.add_row(row, self._callbacks)
        self._start_epoch()

    def evaluate(self) -> dict[str, float | None]:
        return self._trainer.validate(self.run.samples)

    def save(self) -> None:
        if self._trainer.checkpoint is not None:
            save_checkpoint(self._trainer, self._trainer.checkpoint)

    def conclude(self) -> None:
        """Save, and tell the callbacks that the run is over."""
        if not self.concluded:
            self.concluded = True
            self._trainer.conclude(self._callbacks)

    def note_with(self, more: Callable[[], dict[str, Any]]) -> None:
        self._trainer.note_more = more

    def begin_worker(self, worker: int, run_name: str, local_from: int) -> None:
        trainer = self._trainer
        self._checkpoint = trainer.checkpoint
        trainer.notes.update({"run": run_name, "worker": worker, "local_from": local_from})
        if trainer.checkpoint is not None:
            trainer.checkpoint = trainer.checkpoint.with_suffix(f".worker{worker}.safetensors")

    def resume_worker(self) -> bool:
        trainer, file = self._trainer, self._trainer.checkpoint
        if file is None or not file.is_file():
            return False
        with serialize.open_tensors(file) as (tensors, metadata):
            notes = metadata.get("parallel", {})
            if any(notes.get(key) != trainer.notes[key] for key in ("run", "worker", "local_from")):
                return False
            trainer.net.take_layers(SparseMLP.from_tensors(tensors, metadata["network"]))
            state = restore_state(trainer.net, trainer.optimizer, trainer.topology, tensors, metadata["state"])
        trainer.take_over(state, metadata["history"])
        return True

    def end_worker(self, *, averaged: bool) -> None:
        trainer, file = self._trainer, self._trainer.checkpoint
        if "worker" not in trainer.notes:
            return
        if averaged and file is not None:
            file.unlink(missing_ok=True)
        trainer.checkpoint = self._checkpoint
        trainer.notes.clear()

    def take_result(self, tensors: dict[str, Any]) -> None:
        """Take over the trained network and the history; see `pack_result`."""
        network, rows = (json.loads(tensors.pop(name).tobytes()) for name in ("network", "history"))
        trainer = self._trainer
        trainer.net.take_layers(SparseMLP.from_tensors(tensors, network))
        state = TrainState.fresh(trainer.net, trainer.optimizer, trainer.topology)
        state.step, state.epoch = self.epochs * trainer.steps_per_epoch, len(rows)
        trainer.take_over(state, rows)
