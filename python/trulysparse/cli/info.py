# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse info`: what a saved network is, or what this installation is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trulysparse import _kernels
from trulysparse.cli.evaluate import model_file
from trulysparse.model import load


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
        print(load(model_file(arguments.model)).summary())
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
