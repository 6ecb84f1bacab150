# SPDX-License-Identifier: BSD-3-Clause
"""What an optimizer is: arithmetic and settings. Its state lives with the run, not in the object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.registry import Configurable, Registry, check_number, nearest
from trulysparse.optim.schedules import Progress, Schedule, get_schedule

__all__ = ["OPTIMIZERS", "REFERENCE_IN_DEGREE", "Optimizer", "get_optimizer"]

F32 = npt.NDArray[np.float32]

REFERENCE_IN_DEGREE = 32.0
"""With ``lr_scale="fan_in"`` a layer of this many connections a target neuron has the learning rate itself."""
_LR_SCALES = ("fan_in",)


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
    lr_scale : {None, "fan_in"}
        How the weights of each layer get a learning rate of their own (`layer_lr`).
    """

    lr: float | Schedule
    clip_norm: float | None
    lr_scale: str | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        return ()

    def lr_at(self, progress: Progress) -> float:
        """Return the learning rate of the step that comes next."""
        return self.lr.value(progress) if isinstance(self.lr, Schedule) else self.lr

    def layer_lr(self, lr: float, connections: int, n_out: int) -> float:
        """Return the learning rate of one layer's weights.

        With ``lr_scale="fan_in"`` it is lr * 32 / k, k = connections / n_out (at least 1) the layer's mean in-degree as
        it is now: a step then moves the sum that a neuron takes as far as in a layer of in-degree 32, whether it has
        two inputs or two million. Biases and what is trained in activations keep `lr`.

        Parameters
        ----------
        lr
            Learning rate of this step.
        connections, n_out
            Connections and target neurons of the layer.
        """
        return lr if self.lr_scale is None else lr * self._lr_factor(max(1.0, connections / n_out))

    def _lr_factor(self, in_degree: float) -> float:
        return REFERENCE_IN_DEGREE / in_degree

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
        if self.lr_scale is not None and self.lr_scale not in _LR_SCALES:
            raise ConfigError(
                f"lr_scale of {type(self).__name__} must be 'fan_in' or left out, got {self.lr_scale!r}"
                + nearest(self.lr_scale, _LR_SCALES)
            )

    def _check(self, key: str, **limits: Any) -> None:
        where = f"{key} of {type(self).__name__}"
        setattr(self, key, check_number(getattr(self, key), where, **({"low": 0} | limits)))


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", Optimizer)


def get_optimizer(spec: object) -> Optimizer:
    """Return the optimizer that an object, a name ("sgd") or a configuration stands for."""
    return OPTIMIZERS.get(spec)
