# SPDX-License-Identifier: BSD-3-Clause
"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.registry import check_number, nearest
from trulysparse.optim.base import OPTIMIZERS, Optimizer
from trulysparse.optim.schedules import Schedule

__all__ = ["Adam"]

_CORRECTIONS = ("step", "connection")
F32 = npt.NDArray[np.float32]


@OPTIMIZERS.register("adam")
@dataclass
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), with decoupled weight decay (AdamW) unless told otherwise.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - lr * m' / (sqrt(v') + eps), where m' and v'
    are corrected for their start at zero by the number of the step. Biases are treated like weights. A
    connection grown late in a run starts with zero moments: `bias_correction` says what they are corrected by.

    Parameters
    ----------
    lr
        Learning rate: a positive number, or a schedule (object, name or configuration).
    betas
        Two numbers in [0, 1).
    eps
        Positive.
    weight_decay
        Not negative.
    decoupled
        True: w also loses lr * weight_decay * w (Loshchilov & Hutter 2019). False: g gains weight_decay * w.
    clip_norm
        Joint Euclidean norm of all gradients above which they are scaled down to it.
    bias_correction
        "step": the number of the run's step, as all common implementations do; the first step of a connection grown
        late is then (1 - b1) / sqrt(1 - b2) times the learning rate, 3.2 with the default betas. "connection": the
        number of updates that each weight has had itself, as if its training began when it was grown; 4 bytes a
        connection more.
    lr_scale
        None: one learning rate. "fan_in": the weights of a layer of mean in-degree k get lr * min(1, 32 / k); see
        `layer_lr`. It never raises a rate, since steps of Adam do not shrink with the gradient as those of SGD do, and
        `lr` itself should still fall with the root of the width. Decoupled weight decay shrinks with it.

    Raises
    ------
    ConfigError
        A setting out of range.
    """

    lr: float | Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = True
    clip_norm: float | None = None
    bias_correction: str = "step"
    lr_scale: str | None = None

    def __post_init__(self) -> None:
        self._check_common()
        given: Any = self.betas
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) != 2:
            raise ConfigError(f"betas of Adam must be two numbers in [0, 1) such as (0.9, 0.999), got {given!r}")
        first, second = (check_number(b, "each of betas of Adam", low=0, high=1, high_open=True) for b in given)
        self.betas = first, second
        self._check("eps", low_open=True)
        self._check("weight_decay")
        if not isinstance(self.decoupled, (bool, np.bool_)):
            raise ConfigError(f"decoupled of Adam must be true or false, got {self.decoupled!r}")
        self.decoupled = bool(self.decoupled)
        if self.bias_correction not in _CORRECTIONS:
            raise ConfigError(
                f"bias_correction of Adam must be one of {', '.join(_CORRECTIONS)}, got {self.bias_correction!r}"
                + nearest(self.bias_correction, _CORRECTIONS)
            )

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v", "age") if self.bias_correction == "connection" else ("m", "v")

    def _lr_factor(self, in_degree: float) -> float:
        return min(1.0, super()._lr_factor(in_degree))

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
        _kernels.adam_step(
            values,
            slots["m"],
            slots["v"],
            gradient,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            decay=self.weight_decay if decay else 0.0,
            decoupled=self.decoupled,
            step=step,
            l2=l2,
            age=slots.get("age"),
            threads=threads,
        )
