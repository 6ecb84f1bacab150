# SPDX-License-Identifier: BSD-3-Clause
"""Rules that change which connections exist: each says what to drop and what to grow, the engine does it."""

from trulysparse.topology.base import (
    TOPOLOGIES,
    Signals,
    Topology,
    TopologyDelta,
    get_topology,
    register_topology,
)
from trulysparse.topology.importance import ImportancePruning, PruningReport, get_pruning
from trulysparse.topology.set import SET
from trulysparse.topology.static import Static

__all__ = [
    "SET",
    "TOPOLOGIES",
    "ImportancePruning",
    "PruningReport",
    "Signals",
    "Static",
    "Topology",
    "TopologyDelta",
    "get_pruning",
    "get_topology",
    "register_topology",
]
