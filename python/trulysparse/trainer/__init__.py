# SPDX-License-Identifier: BSD-3-Clause
"""Training for a user: fit, callbacks, history, progress, checkpoints."""

from trulysparse.trainer.callbacks import BestModel, Callback, CallbackList, EarlyStopping, LambdaCallback
from trulysparse.trainer.checkpoint import load_checkpoint, save_checkpoint
from trulysparse.trainer.history import History
from trulysparse.trainer.progress import ProgressReporter
from trulysparse.trainer.signals import TrainingInterrupted
from trulysparse.trainer.trainer import Trainer

__all__ = [
    "BestModel",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "ProgressReporter",
    "Trainer",
    "TrainingInterrupted",
    "load_checkpoint",
    "save_checkpoint",
]
