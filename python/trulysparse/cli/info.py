# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse info`: what a saved network is, or what this installation is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trulysparse import _kernels
from trulysparse.cli.evaluate import model_file
from trulysparse.engine import plan_network, plan_prediction, plan_table
from trulysparse.model import SparseMLP, load
from trulysparse.model.layer import STORAGES
from trulysparse.model.summary import format_bytes
from trulysparse.topology import SET

_BATCH, _NARROW = 128, 32


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "info",
        help="describe a network or this installation",
        description="Describe a trained network layer by layer; without arguments, describe this installation.",
    )
    parser.add_argument("model", type=Path, nargs="?", metavar="DIR|FILE", help="a run directory or a model file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the description."""
    if arguments.model is not None:
        net = load(model_file(arguments.model))
        print(net.summary())
        print(f"\n{_memory(net)}")
        return
    facts = {
        **_kernels.build_info(),
        "isa in use": _kernels.isa(),
        "threads": str(_kernels.default_threads()),
    }
    facts = {key: value for key, value in facts.items() if value}
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:<{width}}  {value}")


def _memory(net: SparseMLP) -> str:
    """Say what training and prediction would take, samples apart."""
    rule = SET()
    modes = {mode: plan_network(net, batch_size=_BATCH, storage=mode, topology=rule) for mode in STORAGES}
    narrow = [
        plan_network(net, batch_size=_BATCH, micro_batch=_NARROW, storage=mode, topology=rule) for mode in STORAGES
    ]
    rows = plan_prediction(net.sizes, [layer.nnz for layer in net.layers], activation=net.activation)
    frozen = sum(row.nbytes for row in rows if row.held)
    passing = sum(row.nbytes for row in rows if not row.held)
    return "\n".join(
        [
            f"memory to train it (momentum SGD, batches of {_BATCH}, SET, samples apart), by storage:",
            plan_table(modes),
            f"peak with micro_batch={_NARROW}: "
            + ", ".join(f"{mode} {format_bytes(p.peak_bytes)}" for mode, p in zip(STORAGES, narrow, strict=True)),
            f"memory to predict (frozen): {format_bytes(frozen)}, and {format_bytes(passing)} of activations",
        ]
    )
