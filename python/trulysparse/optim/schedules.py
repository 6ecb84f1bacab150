# SPDX-License-Identifier: BSD-3-Clause
"""Learning rates that change while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.model.registry import Configurable, Registry, check_integer, check_number

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "HotStart",
    "MultiStep",
    "Progress",
    "Schedule",
    "StepDecay",
    "Warmup",
    "get_schedule",
]


class Schedule(Configurable):
    """Base of all schedules: a function of `Progress` that gives the learning rate."""

    def value(self, progress: Progress) -> float:
        """Return the learning rate of the step that comes next."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def _check(self, key: str, *, low: float = 0, high: float = math.inf, low_open: bool = True) -> None:
        where = f"{key} of {type(self).__name__}"
        object.__setattr__(self, key, check_number(getattr(self, key), where, low=low, high=high, low_open=low_open))


SCHEDULES: Registry[Schedule] = Registry("learning-rate schedule", Schedule)


def get_schedule(spec: object) -> Schedule:
    """Return the schedule that an object, a number (constant), a name ("cosine") or a configuration means.

    Raises
    ------
    ConfigError
        An unknown name or setting, or a number that is not positive.
    """
    if isinstance(spec, (Schedule, str, Mapping)):
        return SCHEDULES.get(spec)
    return Constant(check_number(spec, "lr", low=0, low_open=True))


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate always.

    Parameters
    ----------
    lr
        Positive.
    """

    lr: float = 0.01

    def __post_init__(self) -> None:
        self._check("lr")

    def value(self, progress: Progress) -> float:
        return self.lr


@SCHEDULES.register("step")
@dataclass(frozen=True)
class StepDecay(Schedule):
    """lr * factor^n, n = whole periods of `every` epochs that have passed.

    Parameters
    ----------
    lr
        Learning rate at the start, positive.
    every
        Epochs between two changes.
    factor
        What each change multiplies by, positive.
    """

    lr: float = 0.01
    every: int = 30
    factor: float = 0.1

    def __post_init__(self) -> None:
        self._check("lr")
        self._check("factor")
        object.__setattr__(self, "every", check_integer(self.every, "every of StepDecay", low=1))

    def value(self, progress: Progress) -> float:
        return self.lr * self.factor ** (int(progress.epoch) // self.every)


@SCHEDULES.register("multistep")
@dataclass(frozen=True)
class MultiStep(Schedule):
    """lr * factor^n, n = how many of the milestones have been reached.

    Parameters
    ----------
    lr
        Learning rate at the start, positive.
    milestones
        Epochs (counted from 0) at whose beginning the rate changes, strictly ascending.
    factor
        What each change multiplies by, positive.
    """

    lr: float = 0.01
    milestones: tuple[int, ...] = (30, 60, 90)
    factor: float = 0.1

    def __post_init__(self) -> None:
        self._check("lr")
        self._check("factor")
        given: Any = self.milestones
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or not given:
            raise ConfigError(f"milestones of MultiStep must be a sequence of epochs such as (30, 60), got {given!r}")
        milestones = tuple(check_integer(m, "a milestone of MultiStep", low=1) for m in given)
        if list(milestones) != sorted(set(milestones)):
            raise ConfigError(f"milestones of MultiStep must be strictly ascending, got {given!r}")
        object.__setattr__(self, "milestones", milestones)

    def value(self, progress: Progress) -> float:
        return self.lr * self.factor ** sum(progress.epoch >= m for m in self.milestones)


@SCHEDULES.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """From lr down to final along half a cosine, step by step.  Loshchilov & Hutter 2017, without restarts.

    Parameters
    ----------
    lr
        Learning rate at the start, positive.
    final
        Learning rate at the end, not negative.
    epochs
        When the end is reached; the rate stays at `final` after it. None: the length of the run.
    """

    lr: float = 0.01
    final: float = 0.0
    epochs: int | None = None

    def __post_init__(self) -> None:
        self._check("lr")
        self._check("final", low_open=False)
        if self.epochs is not None:
            object.__setattr__(self, "epochs", check_integer(self.epochs, "epochs of Cosine", low=1))

    def value(self, progress: Progress) -> float:
        end = progress.epochs if self.epochs is None else self.epochs
        part = min(1.0, progress.epoch / end) if end else 1.0
        return self.final + (self.lr - self.final) * 0.5 * (1.0 + math.cos(math.pi * part))


@SCHEDULES.register("warmup")
@dataclass(frozen=True)
class Warmup(Schedule):
    """Another schedule, multiplied by a factor that rises in a straight line to 1 over the first epochs.

    The first step already has 1/n of the rate, the n-th all of it, n = steps in `epochs` epochs.

    Parameters
    ----------
    epochs
        How long the rate rises; may be a fraction of an epoch.
    then
        The other schedule: an object, a number (constant), a name or a configuration.
    """

    epochs: float = 5.0
    then: Schedule | float = 0.01

    def __post_init__(self) -> None:
        self._check("epochs")
        object.__setattr__(self, "then", get_schedule(self.then))

    def value(self, progress: Progress) -> float:
        done = progress.epoch + 1.0 / progress.steps_per_epoch
        return get_schedule(self.then).value(progress) * min(1.0, done / self.epochs)


@SCHEDULES.register("hot_start")
@dataclass(frozen=True)
class HotStart(Schedule):
    """Another schedule, multiplied by `factor` during the first epochs and as it is from then on.

    The asynchronous phase of WASAP-SGD profits from a larger rate in its first few epochs, constant afterwards.
    "Truly Sparse Neural Networks at Scale", arXiv:2102.01732, the section on WASAP-SGD.

    Parameters
    ----------
    epochs
        How long the rate is multiplied; may be a fraction of an epoch. The step that begins at this epoch is not.
    factor
        What the rate is multiplied by, positive.
    then
        The other schedule: an object, a number (constant), a name or a configuration.
    """

    epochs: float = 5.0
    factor: float = 2.0
    then: Schedule | float = 0.01

    def __post_init__(self) -> None:
        self._check("epochs")
        self._check("factor")
        object.__setattr__(self, "then", get_schedule(self.then))

    def value(self, progress: Progress) -> float:
        rate = get_schedule(self.then).value(progress)
        return rate * self.factor if progress.epoch < self.epochs else rate
