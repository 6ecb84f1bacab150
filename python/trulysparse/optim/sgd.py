# SPDX-License-Identifier: BSD-3-Clause
"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.registry import nearest
from trulysparse.optim.base import OPTIMIZERS, Optimizer
from trulysparse.optim.schedules import Schedule

__all__ = ["SGD"]

F32 = npt.NDArray[np.float32]
_DECAYS = ("paper", "l2")


@OPTIMIZERS.register("sgd")
@dataclass
class SGD(Optimizer):
    """Momentum SGD; weight decay is w -= decay * w each step ("paper", no lr) or as PyTorch means it ("l2").

    v <- momentum * v - lr * g;  w <- w + v, or with Nesterov momentum w <- w + momentum * v - lr * g. With
    ``decay="paper"`` w also loses weight_decay * (the old w), as in the code of "Truly Sparse Neural Networks
    at Scale"; with ``decay="l2"`` g gains weight_decay * w first. The paper's 2e-4 with lr 0.01 is 0.02 in
    the "l2" form. Biases are treated like weights, as in the paper.

    Parameters
    ----------
    lr
        Learning rate: a positive number, or a schedule (object, name or configuration).
    momentum
        In [0, 1).
    weight_decay
        Not negative; below 1 in the "paper" form.
    decay
        "paper" or "l2".
    nesterov
        Nesterov momentum; needs `momentum` above 0.
    clip_norm
        Joint Euclidean norm of all gradients above which they are scaled down to it. It costs a gradient
        array.
    lr_scale
        None: one learning rate. "fan_in": the weights of a layer of mean in-degree k get lr * 32 / k, so that a step
        moves a neuron's sum equally far whatever the number of its inputs; see `layer_lr`. The "paper" form of weight
        decay has no learning rate in it and stays as it is.

    Raises
    ------
    ConfigError
        A setting that is unknown or out of range.
    """

    lr: float | Schedule = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: str = "paper"
    nesterov: bool = False
    clip_norm: float | None = None
    lr_scale: str | None = None

    def __post_init__(self) -> None:
        self._check_common()
        self._check("momentum", high=1, high_open=True)
        if self.decay not in _DECAYS:
            raise ConfigError(f"decay of SGD must be 'paper' or 'l2', got {self.decay!r}{nearest(self.decay, _DECAYS)}")
        if self.decay == "paper":
            self._check("weight_decay", high=1, high_open=True)
        else:
            self._check("weight_decay")
        if not isinstance(self.nesterov, (bool, np.bool_)):
            raise ConfigError(f"nesterov of SGD must be true or false, got {self.nesterov!r}")
        self.nesterov = bool(self.nesterov)
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov=True of SGD needs momentum above 0, for example 0.9")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("velocity",)

    @property
    def fused(self) -> bool:
        return self.clip_norm is None

    @property
    def fused_microbatches(self) -> bool:
        return self.fused and not self.nesterov

    def sink(self, slots: Mapping[str, F32], lr: float, first: bool, last: bool, *, l2: float = 0.0) -> _kernels.Sink:
        if not self.fused or (self.nesterov and not (first and last)):
            return super().sink(slots, lr, first, last, l2=l2)
        return _kernels.sink_sgd(
            slots["velocity"], lr, self.momentum, self.weight_decay, self.decay, self.nesterov, first, last, l2
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
        _kernels.sgd_step(
            values,
            slots["velocity"],
            gradient,
            lr=lr,
            momentum=self.momentum,
            decay=self.weight_decay if decay else 0.0,
            form=self.decay,
            nesterov=self.nesterov,
            l2=l2,
            first=first,
            last=last,
            threads=threads,
        )
