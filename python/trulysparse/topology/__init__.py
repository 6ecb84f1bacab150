# SPDX-License-Identifier: BSD-3-Clause
"""Rules that change which connections exist: each says what to drop and what to grow, the engine does it."""

from trulysparse.topology.base import (
    TOPOLOGIES,
    RuleState,
    Signals,
    Topology,
    TopologyDelta,
    get_topology,
    register_topology,
)
from trulysparse.topology.criteria import globally_smallest, rewire, smallest, smallest_magnitude
from trulysparse.topology.deep_r import DeepR
from trulysparse.topology.dsr import DSR
from trulysparse.topology.exploration import Exploration
from trulysparse.topology.gmp import GMP
from trulysparse.topology.gradient import LayerGradient
from trulysparse.topology.gradual import GradualPruning
from trulysparse.topology.granet import GraNet
from trulysparse.topology.importance import ImportancePruning, PruningReport, get_pruning
from trulysparse.topology.mest import MEST
from trulysparse.topology.periodic import DropAndGrow, Periodic
from trulysparse.topology.rigl import RigL
from trulysparse.topology.schedules import (
    DROP_SCHEDULES,
    ConstantDrop,
    CosineDrop,
    DropSchedule,
    LinearDrop,
    PowerDrop,
    get_drop_schedule,
)
from trulysparse.topology.set import SET
from trulysparse.topology.snfs import SNFS
from trulysparse.topology.snip import SNIP
from trulysparse.topology.static import Static
from trulysparse.topology.top_kast import TopKAST

__all__ = [
    "DROP_SCHEDULES",
    "DSR",
    "GMP",
    "MEST",
    "SET",
    "SNFS",
    "SNIP",
    "TOPOLOGIES",
    "ConstantDrop",
    "CosineDrop",
    "DeepR",
    "DropAndGrow",
    "DropSchedule",
    "Exploration",
    "GraNet",
    "GradualPruning",
    "ImportancePruning",
    "LayerGradient",
    "LinearDrop",
    "Periodic",
    "PowerDrop",
    "PruningReport",
    "RigL",
    "RuleState",
    "Signals",
    "Static",
    "TopKAST",
    "Topology",
    "TopologyDelta",
    "get_drop_schedule",
    "get_pruning",
    "get_topology",
    "globally_smallest",
    "register_topology",
    "rewire",
    "smallest",
    "smallest_magnitude",
]
