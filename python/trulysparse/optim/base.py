# SPDX-License-Identifier: BSD-3-Clause
"""What an optimizer is: arithmetic and settings. Its state lives with the run, not in the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.registry import Configurable, Registry, check_number
from trulysparse.optim.schedules import Progress, Schedule, get_schedule

__all__ = ["OPTIMIZERS", "Optimizer", "get_optimizer"]

F32 = npt.NDArray[np.float32]


class Optimizer(Configurable):
    """Base of all optimizers.

    Attributes
    ----------
    slots : tuple of str
        Names of the state arrays that each weight and bias has; all start at zero, and so do those of a grown
        weight. They may depend on the settings.
    lr : float or Schedule
        Learning rate.
    clip_norm : float or None
        Joint Euclidean norm of all gradients above which they are scaled down to it.
    """

    lr: float | Schedule
    clip_norm: float | None

    @property
    def slots(self) -> tuple[str, ...]:
        return ()

    def lr_at(self, progress: Progress) -> float:
        """Return the learning rate of the step that comes next."""
        return self.lr.value(progress) if isinstance(self.lr, Schedule) else self.lr

    @property
    def fused(self) -> bool:
        """Whether the weights can be moved inside the backward pass, without a gradient array."""
        return False

    @property
    def fused_microbatches(self) -> bool:
        """Whether that also holds when the gradient of one step comes in several parts."""
        return False

    def sink(self, slots: Mapping[str, F32], lr: float, first: bool, last: bool, *, l2: float = 0.0) -> _kernels.Sink:
        """Return the gradient sink that moves a layer's weights inside the backward pass.

        Parameters
        ----------
        slots
            The weights' state arrays in pattern order; changed.
        lr
            Learning rate of this step.
        first, last
            Whether this is the first and the last micro-batch of the step.
        l2
            The gradient gains l2 * w, beside the optimizer's own decay: what a topology rule adds to the loss.

        Raises
        ------
        ConfigError
            The optimizer is not `fused` with its settings.
        """
        raise ConfigError(
            f"{self!r} needs the whole gradient and cannot move weights inside the backward pass; use update"
        )

    def update(
        self,
        values: F32,
        gradient: F32,
        slots: Mapping[str, F32],
        *,
        lr: float,
        step: int,
        threads: int,
        l2: float = 0.0,
        decay: bool = True,
        first: bool = True,
        last: bool = True,
    ) -> None:
        """Make one step on whole arrays: biases, and weights where the sink did not.

        Parameters
        ----------
        values, gradient
            float32 of one length; `values` is changed.
        slots
            State arrays of the same length; changed.
        lr
            Learning rate of this step.
        step
            Number of this step, from 1.
        threads
            At least 1.
        l2
            As in `sink`.
        decay
            False: without weight decay, for what is trained in activations.
        first, last
            As in `sink`: whether the gradient is that of the first and of the last micro-batch of the step. Only an
            optimizer with `fused_microbatches` is given anything but True.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def _check_common(self) -> None:
        # a number stays a number, so that callbacks may change it
        if isinstance(self.lr, (Schedule, str, Mapping)):
            self.lr = get_schedule(self.lr)
        else:
            self._check("lr", low_open=True)
        if self.clip_norm is not None:
            self._check("clip_norm", low_open=True)

    def _check(self, key: str, **limits: Any) -> None:
        where = f"{key} of {type(self).__name__}"
        setattr(self, key, check_number(getattr(self, key), where, **({"low": 0} | limits)))


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", Optimizer)


def get_optimizer(spec: object) -> Optimizer:
    """Return the optimizer that an object, a name ("sgd") or a configuration stands for."""
    return OPTIMIZERS.get(spec)
