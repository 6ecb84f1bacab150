# SPDX-License-Identifier: BSD-3-Clause
"""One training step, one evolution, and the state that a checkpoint holds; `trainer` and `parallel` drive it."""

from trulysparse.engine.evolve import Evolution, LayerChange, apply_delta, evolve_network
from trulysparse.engine.layout import Flat, Layout, Parameters
from trulysparse.engine.plan import (
    Fit,
    MemoryPlan,
    MemoryRow,
    fit_to_budget,
    plan_memory,
    plan_network,
    plan_prediction,
    plan_table,
)
from trulysparse.engine.run import Run
from trulysparse.engine.samples import AugmentedInputs, Samples
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
    "AugmentedInputs",
    "Engine",
    "Evolution",
    "Fit",
    "Flat",
    "LayerChange",
    "Layout",
    "MemoryPlan",
    "MemoryRow",
    "NetworkSnapshot",
    "Parameters",
    "Run",
    "Samples",
    "TrainState",
    "apply_delta",
    "evolve_network",
    "fit_to_budget",
    "plan_memory",
    "plan_network",
    "plan_prediction",
    "plan_table",
    "restore_network",
    "restore_state",
    "snapshot_network",
    "state_tensors",
]
