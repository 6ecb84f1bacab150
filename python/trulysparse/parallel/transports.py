# SPDX-License-Identifier: BSD-3-Clause
"""Which way models and gradients travel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trulysparse.engine import Run
from trulysparse.errors import ParallelError
from trulysparse.parallel.messages import MessageClient, MessageServer
from trulysparse.parallel.shared import SharedClient, SharedServer
from trulysparse.parallel.transport import Client, Server

if TYPE_CHECKING:
    from trulysparse.parallel.strategies import ParameterServer
    from trulysparse.parallel.world import World


def choose(transport: str, nodes: int) -> str:
    """Return "shared" or "messages", for what was asked for and the number of nodes."""
    if transport == "shared" and nodes > 1:
        raise ParallelError(
            f"transport='shared' needs all processes on one node, but they are on {nodes}; use 'auto' or 'messages'"
        )
    if transport == "auto":
        return "shared" if nodes == 1 else "messages"
    return transport


def open_server(strategy: ParameterServer, world: World, run: Run) -> Server:
    """Return the master's side of the transport that the strategy asks for."""
    if choose(strategy.transport, world.nodes) == "shared":
        return SharedServer(world, run.engine)
    compact = run.pruning is not None and run.pruning.compact
    return MessageServer(world, run.engine, holds=strategy.synchronous or compact)


def open_client(strategy: ParameterServer, world: World, run: Run) -> Client:
    """Return a worker's side of it."""
    if choose(strategy.transport, world.nodes) == "shared":
        return SharedClient(world, run.engine)
    return MessageClient(world, run.engine)
