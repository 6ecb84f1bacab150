# SPDX-License-Identifier: BSD-3-Clause
"""Optimizers and learning-rate schedules."""

from trulysparse.optim.adam import Adam
from trulysparse.optim.base import OPTIMIZERS, Optimizer, get_optimizer
from trulysparse.optim.schedules import (
    Constant,
    Cosine,
    HotStart,
    MultiStep,
    Progress,
    Schedule,
    StepDecay,
    Warmup,
    get_schedule,
)
from trulysparse.optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "Constant",
    "Cosine",
    "HotStart",
    "MultiStep",
    "Optimizer",
    "Progress",
    "Schedule",
    "StepDecay",
    "Warmup",
    "get_optimizer",
    "get_schedule",
]
