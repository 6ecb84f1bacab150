# SPDX-License-Identifier: BSD-3-Clause
"""One training step, one evolution, and the state that a checkpoint holds; `trainer` and `parallel` drive it."""

from trulysparse.engine.evolve import Evolution, LayerChange, apply_delta, evolve_network
from trulysparse.engine.state import (
    NetworkSnapshot,
    TrainState,
    restore_network,
    restore_state,
    snapshot_network,
    state_tensors,
)
from trulysparse.engine.step import Engine

__all__ = [
    "Engine",
    "Evolution",
    "LayerChange",
    "NetworkSnapshot",
    "TrainState",
    "apply_delta",
    "evolve_network",
    "restore_network",
    "restore_state",
    "snapshot_network",
    "state_tensors",
]
