# SPDX-License-Identifier: BSD-3-Clause
"""Small events of a run, and what can be hung on them: early stopping, saving the best model, functions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse.engine import Evolution, NetworkSnapshot, snapshot_network
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.trainer.history import Row, metric_mode

if TYPE_CHECKING:
    from trulysparse.trainer.history import History
    from trulysparse.trainer.trainer import Trainer

Tensors = dict[str, NDArray[Any]]


class Callback:
    """Something that happens at the events of a run; subclass it and override what is needed.

    The order is ``on_fit_start``; then for every epoch ``on_epoch_start``, ``on_evolution`` if the topology
    changes before it, ``on_step_end`` after each step, and ``on_epoch_end``, when the network is still the
    one that was evaluated; at last ``on_fit_end``, which also comes after Ctrl-C.
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch of a fresh or resumed run."""

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        """Before the first step of an epoch, counted from 1 as in the history."""

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        """After a training step; `step` counts all steps made. Called often: keep it cheap."""

    def on_evolution(self, trainer: Trainer, report: Evolution) -> None:
        """After the topology changed."""

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """After training and evaluation of an epoch; `row` is its row of the history."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """After the last epoch, however the run ended."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know, as JSON-able values."""
        return {}

    def tensors(self) -> Tensors:
        """Return the arrays that a resumed run must have."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `state_dict` and `tensors` returned when the checkpoint was written."""

    @property
    def wants_steps(self) -> bool:
        """Whether `on_step_end` does anything; it is not called otherwise."""
        return type(self).on_step_end is not Callback.on_step_end


class CallbackList:
    """Callbacks called in order as if they were one.

    Parameters
    ----------
    callbacks : iterable of Callback

    Raises
    ------
    ConfigError
        If one is not a Callback.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._all = list(callbacks)
        given: list[Any] = self._all
        strangers = [c for c in given if not isinstance(c, Callback)]
        if strangers:
            cure = "make an instance of it" if isinstance(strangers[0], type) else "functions go into LambdaCallback"
            raise ConfigError(f"{strangers[0]!r} is not a Callback; {cure}")
        self._steps = [c for c in self._all if c.wants_steps]

    def on_fit_start(self, trainer: Trainer) -> None:
        """Pass the event on."""
        for callback in self._all:
            callback.on_fit_start(trainer)

    def on_epoch_start(self, trainer: Trainer, epoch: int) -> None:
        """Pass the event on."""
        for callback in self._all:
            callback.on_epoch_start(trainer, epoch)

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        """Pass the event on to those that want it."""
        for callback in self._steps:
            callback.on_step_end(trainer, step)

    def on_evolution(self, trainer: Trainer, report: Evolution) -> None:
        """Pass the event on."""
        for callback in self._all:
            callback.on_evolution(trainer, report)

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Pass the event on."""
        for callback in self._all:
            callback.on_epoch_end(trainer, row)

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """Pass the event on."""
        for callback in self._all:
            callback.on_fit_end(trainer, history)

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Callback:
        return self._all[index]

    def __repr__(self) -> str:
        return f"CallbackList({self._all!r})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _epoch(row: Row) -> int:
    return int(row["epoch"] or 0)


class _Improvement:
    """Follows one metric and says when it is better than ever."""

    def __init__(self, owner: str, monitor: str, mode: str, min_delta: float) -> None:
        self.owner, self.monitor = owner, monitor
        try:
            self.mode = metric_mode(monitor, mode)
        except ConfigError as error:
            raise ConfigError(f"{owner}: {error}") from error
        if not _is_number(min_delta) or not 0 <= min_delta < math.inf:
            raise ConfigError(f"{owner}: min_delta={min_delta!r} is not a number of at least 0")
        self.min_delta = float(min_delta)
        self.best: float | None = None
        self.best_epoch: int | None = None

    def start(self, trainer: Trainer) -> None:
        """Forget an earlier run, unless this one goes on with it."""
        if len(trainer.history) == 0:
            self.best = self.best_epoch = None

    def measured(self, trainer: Trainer, row: Row) -> bool:
        """Return whether the epoch has a value that counts; ConfigError if the run never measures it."""
        if not trainer.settled:
            return False  # what a rule that still prunes leaves behind is not what the run is to end with
        if row[self.monitor] is not None:
            return True
        validation = self.monitor.startswith("val_")
        if validation and row["val_loss"] is None and _epoch(row) % trainer.validate_every:
            return False
        missing = validation and row["val_loss"] is None
        cure = "pass validation= to fit" if missing else "a regression has no accuracy, follow a loss"
        raise ConfigError(f"{self.owner} follows {self.monitor}, which this run does not measure; {cure}")

    def update(self, row: Row) -> bool:
        """Take a measured epoch in; return whether it is the best so far. NaN never is."""
        value = float(row[self.monitor])  # type: ignore[arg-type]  # measured
        if math.isnan(value):
            return False
        if self.best is not None:
            gain = self.best - value if self.mode == "min" else value - self.best
            if not gain > self.min_delta:
                return False
        self.best = value
        self.best_epoch = _epoch(row)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if (state["monitor"], state["mode"]) != (self.monitor, self.mode):
            raise CheckpointError(
                f"{self.owner}: the checkpoint followed {state['monitor']} ({state['mode']}), this run "
                f"{self.monitor} ({self.mode}); resume with the same callback"
            )
        self.best, self.best_epoch = state["best"], state["best_epoch"]


class EarlyStopping(Callback):
    """Stop when a metric no longer improves, and go back to the network that was best.

    Parameters
    ----------
    monitor : str
        Column of the history to follow.
    patience : int
        Epochs without improvement, at least 1, after which the run stops; those without validation count too, those
        before a pruning rule has reached its final density do not.
    min_delta : float
        Least change that counts as an improvement.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" knows it for losses and accuracies.
    restore_best : bool
        Whether the network ends as it was in the best epoch, pattern included; also if the run is not stopped
        early. A longer `fit` of the same trainer goes on from there; to go on from the last epoch, resume the
        checkpoint.

    Attributes
    ----------
    best, best_epoch : float or None, int or None
        Best value so far and its epoch.
    waited : int
        Epochs since then.

    Raises
    ------
    ConfigError
        If an argument is out of range, or in the first epoch if the metric is not measured.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        if not _is_number(patience) or patience != int(patience) or patience < 1:
            raise ConfigError(f"EarlyStopping: patience={patience!r} is not a whole number of at least 1")
        self._improvement = _Improvement("EarlyStopping", monitor, mode, min_delta)
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, float(min_delta), mode
        self.restore_best = restore_best
        self.waited = 0
        self._network: Tensors = {}

    @property
    def best(self) -> float | None:
        """Best value so far."""
        return self._improvement.best

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best value."""
        return self._improvement.best_epoch

    def on_fit_start(self, trainer: Trainer) -> None:
        """Start afresh, or go on with a run that has epochs behind it."""
        self._improvement.start(trainer)
        if self.best is None:
            self.waited, self._network = 0, {}

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Remember the network if it is the best so far; stop when patience is at an end."""
        if not self._improvement.measured(trainer, row):
            return
        if self._improvement.update(row):
            self.waited = 0
            if self.restore_best:
                self._network = snapshot_network(trainer.net).tensors()
            return
        self.waited = _epoch(row) - (self.best_epoch or 0)
        if self.waited >= self.patience:
            best = (
                "never was a number" if self.best is None else f"was best in epoch {self.best_epoch} ({self.best:.6g})"
            )
            trainer.stop(f"{self.monitor} {best} and has not improved for {self.waited} epochs")

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """Put the best network back, unless the run was cut short and may go on."""
        if self._network and trainer.finished:
            trainer.restore(NetworkSnapshot.from_tensors(trainer.net, self._network))

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and how long ago it was."""
        return self._improvement.state_dict() | {"waited": self.waited}

    def tensors(self) -> Tensors:
        """Return the best network."""
        return dict(self._network)

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on where the checkpoint was written.

        Raises
        ------
        CheckpointError
            If it followed another metric, or lacks the best network that this callback is to restore.
        """
        self._improvement.load_state_dict(state)
        if self.restore_best and self.best is not None and not tensors:
            raise CheckpointError(
                "EarlyStopping: the checkpoint does not hold the best network, because it was written with "
                "restore_best=False; resume with that too"
            )
        self.waited = state["waited"]
        self._network = {key: np.array(array) for key, array in tensors.items()} if self.restore_best else {}

    def __repr__(self) -> str:
        return (
            f"EarlyStopping({self.monitor!r}, patience={self.patience}, min_delta={self.min_delta}, "
            f"mode={self.mode!r}, restore_best={self.restore_best})"
        )


class BestModel(Callback):
    """Keep a file with the network of the best epoch so far.

    Parameters
    ----------
    path : str or PathLike
        Model file, as ``net.save`` writes it; replaced at every improvement.
    monitor : str
        Column of the history to follow.
    min_delta : float
        Least change that counts as an improvement.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" knows it for losses and accuracies.

    Raises
    ------
    ConfigError
        If an argument is out of range, or in the first epoch if the metric is not measured.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self.path = Path(path)
        self._improvement = _Improvement("BestModel", monitor, mode, min_delta)

    @property
    def best(self) -> float | None:
        """Best value so far."""
        return self._improvement.best

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best value."""
        return self._improvement.best_epoch

    def on_fit_start(self, trainer: Trainer) -> None:
        """Start afresh, or go on with a run that has epochs behind it."""
        self._improvement.start(trainer)

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Save the network if it is the best so far."""
        if self._improvement.measured(trainer, row) and self._improvement.update(row):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            trainer.net.save(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, so that a resumed run does not overwrite a better network."""
        return self._improvement.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on where the checkpoint was written."""
        self._improvement.load_state_dict(state)

    def __repr__(self) -> str:
        return f"BestModel({str(self.path)!r}, {self._improvement.monitor!r})"


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    **events : callable
        Functions by event name, with the arguments of the method of that name in :class:`Callback`:
        ``LambdaCallback(on_epoch_end=lambda trainer, row: print(row["loss"]))``.

    Raises
    ------
    ConfigError
        If an event is unknown or what it is given cannot be called.
    """

    EVENTS = ("on_fit_start", "on_epoch_start", "on_step_end", "on_evolution", "on_epoch_end", "on_fit_end")

    def __init__(self, **events: Callable[..., object]) -> None:
        for name, function in events.items():
            if name not in self.EVENTS:
                raise ConfigError(f"LambdaCallback: unknown event {name!r}; events are {', '.join(self.EVENTS)}")
            if not callable(function):
                raise ConfigError(f"LambdaCallback: {name}={function!r} cannot be called")
            setattr(self, name, function)
        self._events = events

    @property
    def wants_steps(self) -> bool:
        """Whether there is a function for steps."""
        return "on_step_end" in self._events

    def __repr__(self) -> str:
        return f"LambdaCallback({', '.join(self._events)})"
