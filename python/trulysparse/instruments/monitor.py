# SPDX-License-Identifier: BSD-3-Clause
"""What a topology rule does to a network in the course of a run, counted exactly."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse._files import write_text
from trulysparse._memory import peak_bytes
from trulysparse.errors import DataError
from trulysparse.instruments.arithmetic import flops
from trulysparse.model import Pattern
from trulysparse.trainer.callbacks import Callback

if TYPE_CHECKING:
    from trulysparse.engine import Evolution
    from trulysparse.trainer.history import Row
    from trulysparse.trainer.trainer import Trainer

__all__ = ["Monitor"]


class Monitor(Callback):
    """Counts connections, exploration, arithmetic, time and memory while a network trains.

    Parameters
    ----------
    path : str or Path, optional
        CSV file to write after every epoch, one row each; whole or not at all.

    Attributes
    ----------
    steps : list of int
        Steps from which on the connections were others than before; the first is where the run began.
    connections : list of tuple of int
        The connections of every layer from then on.
    evolutions : list of dict
        For each evolution: ``step``, ``dropped``, ``grown``, ``pruned`` (connections), ``seconds``.
    rows : list of dict
        For each epoch: ``epoch``, ``step``; ``connections``, ``density``, and ``density.N`` of layer N, at its end;
        ``explored`` (and ``explored.N``), the exploration rate; ``evolutions``, ``dropped``, ``grown``, ``pruned`` and
        ``train_seconds``, ``evolve_seconds``, ``eval_seconds`` of the epoch; ``training_flops`` and
        ``dense_training_flops`` (of the sizes at the start) since the run began, by the accounting of the RigL paper,
        and ``kernel_flops``, what the kernels did forward and backward, with what Top-KAST explores;
        ``state_bytes`` of network, optimizer and rule, ``peak_bytes`` of the process.

    Notes
    -----
    The exploration rate is the part of all cells that have been a connection in some training step (Liu et al. 2021,
    "Do We Actually Need Dense Over-Parameterization?", arXiv:2102.02887, R_s). It takes 4 bytes for each such cell.
    When pruning removes neurons for good, it starts again in the layers that became smaller.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._forget()

    def _forget(self) -> None:
        self.steps: list[int] = []
        self.connections: list[tuple[int, ...]] = []
        self.evolutions: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self._cells: list[tuple[int, ...]] = []
        self._present: list[Pattern] = []
        self._explored: list[Pattern] = []
        self._flops = {"training_flops": 0.0, "dense_training_flops": 0.0, "kernel_flops": 0.0}
        self._rates = dict.fromkeys(self._flops, 0.0)
        self._counted = 0

    def densities(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return when the densities changed, and what they were from then on.

        Returns
        -------
        steps : ndarray of int64, shape (changes,)
        densities : ndarray of float64, shape (changes, layers + 1)
            Of every layer, and of the whole network in the last column.
        """
        width = len(self._cells[0]) if self._cells else 0
        counts, cells = (
            np.array(some, dtype=np.int64).reshape(len(self.steps), width) for some in (self.connections, self._cells)
        )
        counts, cells = (np.column_stack([each, each.sum(axis=1)]) for each in (counts, cells))
        return np.array(self.steps, dtype=np.int64), counts / np.maximum(cells, 1)

    def density_at(self, step: int) -> tuple[float, ...]:
        """Return the densities of every layer, and of the whole network, in training step `step` (from 0).

        Raises
        ------
        DataError
            If the monitor did not see that step.
        """
        steps, densities = self.densities()
        place = int(np.searchsorted(steps, step, side="right")) - 1
        if place < 0:
            begins = f"from step {self.steps[0]} on" if self.steps else "no run yet"
            raise DataError(f"the monitor has not seen step {step}: it has seen {begins}")
        return tuple(float(d) for d in densities[place])

    def exploration(self) -> tuple[float, ...]:
        """Return the exploration rate R_s of every layer, and of the whole network last; empty before a first epoch."""
        seen = [pattern.nnz for pattern in self._explored]
        cells = [pattern.n_in * pattern.n_out for pattern in self._explored]
        return (*(n / all_ for n, all_ in zip(seen, cells, strict=True)), sum(seen) / sum(cells)) if seen else ()

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `rows` as a CSV file, whole or not at all."""
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, list(self.rows[-1]), restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        write_text(path, text.getvalue())

    def on_fit_start(self, trainer: Trainer) -> None:
        """Begin to count, or go on with a run that has begun."""
        if trainer.state.step == 0:
            self._forget()
        if not self.steps:
            self._counted = trainer.state.step
        self._note(trainer)  # in a run that goes on too: another network may have been put back

    def on_evolution(self, trainer: Trainer, report: Evolution) -> None:
        """Note what changed."""
        # a batch that gave its gradients to the rule is a step, but trained nothing
        self._count(trainer, measured=int(trainer.topology.wants_gradient))
        self._note(trainer)
        self.evolutions.append(
            {
                "step": trainer.state.step,
                "dropped": sum(change.dropped for change in report.changes),
                "grown": sum(change.grown for change in report.changes),
                "pruned": sum(change.pruned + change.folded for change in report.changes),
                "seconds": report.seconds,
            }
        )

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Write the epoch's row."""
        self._count(trainer)
        before = self.rows[-1]["step"] if self.rows else self.steps[0]
        # an evolution before the first step of an epoch carries the step that the last one ended with
        recent = self.evolutions[sum(done["evolutions"] for done in self.rows) :]
        density, explored = self.density_at(trainer.state.step), self.exploration()
        self.rows.append(
            {
                "epoch": int(row["epoch"] or 0),
                "step": trainer.state.step,
                "steps": trainer.state.step - before,
                "connections": trainer.net.connections,
                "density": density[-1],
                **{f"density.{layer}": value for layer, value in enumerate(density[:-1])},
                "explored": explored[-1],
                **{f"explored.{layer}": value for layer, value in enumerate(explored[:-1])},
                "evolutions": len(recent),
                **{key: sum(some[key] for some in recent) for key in ("dropped", "grown", "pruned")},
                **{key: row[key] for key in ("train_seconds", "evolve_seconds", "eval_seconds")},
                **self._flops,
                "state_bytes": sum(trainer.state.memory(trainer.net).values()),
                "peak_bytes": peak_bytes(),
            }
        )
        if self.path is not None:
            self.to_csv(self.path)

    def _note(self, trainer: Trainer) -> None:
        """Take the present connections in."""
        layers = trainer.net.layers
        cells = tuple(layer.n_in * layer.n_out for layer in layers)
        counts = tuple(layer.nnz for layer in layers)
        if self.steps and self.steps[-1] == trainer.state.step:
            self.connections[-1], self._cells[-1] = counts, cells
        elif not self.steps or (self.connections[-1], self._cells[-1]) != (counts, cells):
            self.steps.append(trainer.state.step)
            self.connections.append(counts)
            self._cells.append(cells)
        self._present = [layer.pattern.lasting() for layer in layers]
        size, now = trainer.batch_size, flops(trainer.net)
        explored = sum(exploration.nnz for exploration in trainer.state.exploring.values())
        self._rates = {
            "training_flops": size * trainer.topology.step_flops(now.inference, now.dense_inference),
            "dense_training_flops": size * 6.0 * sum(self._cells[0]),
            "kernel_flops": size * (now.kernels + 2.0 * explored),
        }

    def _count(self, trainer: Trainer, measured: int = 0) -> None:
        """Add up the arithmetic since the last change."""
        made = trainer.state.step - self._counted
        self._counted = trainer.state.step
        if made > measured:  # only what was trained with counts as explored
            seen = self._explored or self._present
            self._explored = [_united(one, now) for one, now in zip(seen, self._present, strict=True)]
        self._flops = {key: so_far + made * self._rates[key] for key, so_far in self._flops.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted, as plain values."""
        return {
            "steps": self.steps,
            "connections": [list(counts) for counts in self.connections],
            "evolutions": self.evolutions,
            "rows": self.rows,
            "cells": [list(cells) for cells in self._cells],
            "flops": self._flops,
            "rates": self._rates,
            "counted": self._counted,
            "shapes": [list(pattern.shape) for pattern in self._explored],
        }

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the cells that have been connections."""
        named: dict[str, NDArray[Any]] = {}
        for layer, pattern in enumerate(self._explored):
            named[f"explored.{layer}.row_ptr"] = pattern.row_ptr.astype(np.int64)
            named[f"explored.{layer}.col_idx"] = pattern.col_idx
        return named

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take back what was counted."""
        self.steps = list(state["steps"])
        self.connections = [tuple(counts) for counts in state["connections"]]
        self.evolutions, self.rows = list(state["evolutions"]), list(state["rows"])
        self._cells = [tuple(cells) for cells in state["cells"]]
        self._flops, self._rates, self._counted = dict(state["flops"]), dict(state["rates"]), state["counted"]
        self._explored = []
        for layer, shape in enumerate(state["shapes"]):
            columns = tensors[f"explored.{layer}.col_idx"]
            starts = tensors[f"explored.{layer}.row_ptr"].astype(_kernels.offset_dtype(columns.size))
            self._explored.append(Pattern(int(shape[0]), int(shape[1]), starts, columns))


def _united(seen: Pattern, now: Pattern) -> Pattern:
    return Pattern.unite([seen, now])[0] if seen.shape == now.shape else now
