# SPDX-License-Identifier: BSD-3-Clause
"""No change of topology."""

from __future__ import annotations

from trulysparse.model import SparseLayer
from trulysparse.topology.base import Signals, Topology, TopologyDelta, register_topology


@register_topology("static")
class Static(Topology):
    """The connections drawn at the start stay for ever: the baseline of every dynamic method."""

    dynamic = False

    def __init__(self) -> None:
        super().__init__()

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Change nothing."""
        return None
