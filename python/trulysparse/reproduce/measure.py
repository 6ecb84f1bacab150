# SPDX-License-Identifier: BSD-3-Clause
"""What is measured while a case runs, besides its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse._memory import peak_bytes
from trulysparse.instruments import gradient_flow
from trulysparse.trainer import Callback

if TYPE_CHECKING:
    from trulysparse.data import Dataset
    from trulysparse.trainer import History, Trainer
    from trulysparse.trainer.history import Row

__all__ = ["PROBE", "Measure", "curves", "halves"]

PROBE = 128


def halves(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the samples of a test part in two, each class in two as far as it goes; always the same split.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)

    Returns
    -------
    first, second : ndarray of int64
        Rows, ascending. Their numbers differ by one at most.
    """
    order = _kernels.shuffle(len(labels), seed=0, purpose="split")
    by_class = order[np.argsort(labels[order], kind="stable")]  # every other one of these: classes stay together
    return np.sort(by_class[0::2]), np.sort(by_class[1::2])


class Measure(Callback):
    """Measures after every epoch: accuracy on one half of the test part, gradient flow, wall clock, peak memory.

    In the local phase of a parallel run there is no one network, and accuracy and flow are None.

    Parameters
    ----------
    data : Dataset
    report : callable, optional
        Told the epoch after every one.
    minutes : float, optional
        Stop the run after so many minutes of training.
    commit : str, optional
        What the program was made from when this process began; a run that goes on has those of all its processes.
    started : float, optional
        When this process began, in seconds since 1970; default now.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        report: Callable[[int], None] | None = None,
        minutes: float | None = None,
        commit: str | None = None,
        started: float | None = None,
    ) -> None:
        assert data.X_test is not None and data.y_test is not None  # SOURCES have test parts
        first, second = halves(data.y_test)
        self._first = data.X_test[first], data.y_test[first]
        self._counts = len(first), len(second)
        probe = np.sort(_kernels.shuffle(data.n_train, seed=0, purpose="split")[:PROBE])
        self._probe = data.X_train[probe], data.y_train[probe]
        self._report, self._minutes = report, minutes
        self._since: float | None = None  # the clock starts with the first epoch
        self._cpu_since = 0.0
        self.commits: list[str | None] = [commit]
        now = time.time()
        self.intervals: list[list[float]] = [[now if started is None else started, now]]
        self.first: list[float | None] = []
        self.second: list[float | None] = []
        self.flow: list[float | None] = []
        self.wall_seconds = self.cpu_seconds = 0.0
        self.peak = 0

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        """Start the clock, if it does not run yet."""
        if self._since is None:
            self._since, self._cpu_since = time.monotonic(), time.process_time()

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Measure, and end the run if its time is over."""
        accuracy = row["val_accuracy"]
        if trainer.notes.get("phase") == 2 or accuracy is None:
            self.first.append(None)
            self.second.append(None)
            self.flow.append(None)
        else:
            threads = trainer.threads
            first, second = self._counts
            right = round(accuracy * (first + second))
            found = trainer.net.evaluate(*self._first, threads=threads).accuracy
            in_first = round((found or 0.0) * first)
            self.first.append(in_first / first)
            self.second.append((right - in_first) / second if second else None)
            self.flow.append(gradient_flow(trainer.net, *self._probe, threads=threads).total)
        self._tick()
        if self._minutes is not None and self.wall_seconds >= 60 * self._minutes:
            trainer.stop(f"the {self._minutes:g} minutes that it was given are over")
        if self._report is not None:
            self._report(int(row["epoch"] or 0))

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """Stop the clock."""
        self._tick()
        self._since = None

    def end(self) -> None:
        """Note that the process is about to end."""
        self.intervals[-1][1] = max(self.intervals[-1][1], time.time())

    def _tick(self) -> None:
        self.end()
        if self._since is not None:
            now, cpu = time.monotonic(), time.process_time()
            self.wall_seconds += now - self._since
            self.cpu_seconds += cpu - self._cpu_since
            self._since, self._cpu_since = now, cpu
        self.peak = max(self.peak, peak_bytes())

    def state_dict(self) -> dict[str, Any]:
        self._tick()
        return {
            "first": self.first,
            "second": self.second,
            "flow": self.flow,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak": self.peak,
            "commits": self.commits,
            "intervals": self.intervals,
        }

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        for key in ("first", "second", "flow", "wall_seconds", "cpu_seconds", "peak"):
            setattr(self, key, state[key])
        self.commits = list(dict.fromkeys([*state["commits"], *self.commits]))
        self.intervals = [*state["intervals"], *self.intervals]


def curves(history: History, measure: Measure) -> dict[str, list[float | None]]:
    """Return what was measured, an entry an epoch."""
    return {
        "epoch": history.column("epoch"),
        "train_loss": history.column("loss"),
        "train_accuracy": history.column("accuracy"),
        "test_loss": history.column("val_loss"),
        "test_accuracy": history.column("val_accuracy"),
        "first_half_accuracy": measure.first,
        "second_half_accuracy": measure.second,
        "connections": history.column("connections"),
        "train_seconds": history.column("train_seconds"),
        "evaluate_seconds": history.column("eval_seconds"),
        "evolve_seconds": history.column("evolve_seconds"),
        "gradient_flow": measure.flow,
    }
