# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse scale`: what a network of millions of neurons takes in time and memory on this machine."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from trulysparse.model.memory import parse_bytes

_PLAIN = (
    "epsilon", "samples", "test_samples", "batch_size", "steps", "epochs", "micro_batch", "storage", "lr", "lr_scale",
    "momentum", "weight_decay", "init", "topology", "activation", "drop_fraction", "dropout", "threads", "seed",
    "problem", "data", "out",
)  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "scale",
        help="train a huge network on artificial data: time and memory of every phase",
        description="Plan the memory of a network, then draw artificial data, initialise, make some training steps, "
        "evolve, evaluate, write a checkpoint and resume from it; print time and memory of each phase, what a whole "
        "epoch would take, and the figures of the paper's table 4 where it has that network.",
        epilog="Examples: trulysparse scale 65536-0.5Mx2-2 --epsilon 10; "
        "trulysparse scale 65536-5e6x10-2 --epsilon 1 --memory 20GiB --steps 10 (the paper's 50 million neurons); "
        "trulysparse scale 65536-5e6x25-2 --plan (only the memory plan)",
    )
    add = parser.add_argument
    add("sizes", metavar="SIZES", help="neurons of every layer, as 65536-5e6x10-2: ten hidden layers of 5,000,000")
    add("--epsilon", type=float, metavar="X", help="connections a layer are about X times (n_in + n_out) (default: 1)")
    add("--memory", metavar="SIZE", help="budget for everything, as 20GiB (default: what the system has left)")
    add("--plan", action="store_true", help="print the memory plan and do nothing")
    add("--steps", type=int, metavar="N", help="training steps (default: 10)")
    add("--epochs", type=int, metavar="N", help="whole epochs instead of --steps")
    add("--samples", type=int, metavar="N", help="training samples (default: 7000)")
    add("--test-samples", type=int, metavar="N", help="samples to evaluate (default: 3000)")
    add("--batch-size", type=int, metavar="N", help="samples a step (default: 128)")
    add("--micro-batch", type=int, metavar="N", help="samples handled at once (default: as the budget allows)")
    add("--storage", metavar="MODE", help="balanced, fast or lean (default: as the budget allows)")
    add(
        "--activation-dtype",
        metavar="DTYPE",
        default="auto",
        help="float32, bfloat16, or auto: bfloat16 only where the budget demands it (default: auto)",
    )
    add("--lr", type=float, metavar="X", help="learning rate (default: 0.01)")
    add("--lr-scale", metavar="HOW", help="fan_in scales each layer's learning rate to its in-degree")
    add("--momentum", type=float, metavar="X", help="(default: 0.9)")
    add("--weight-decay", type=float, metavar="X", help="(default: 0.0002)")
    add("--init", metavar="SPEC", help="first weights, as he_uniform,fan_in=sparse (default: he_uniform)")
    add("--activation", metavar="SPEC", help="of hidden layers, as all_relu,alpha=0.6 (default: all_relu)")
    add("--dropout", type=float, metavar="X", help="(default: 0.4)")
    add("--topology", metavar="SPEC", help="the rule that evolves the network, with its settings (default: set)")
    add("--drop-fraction", type=float, metavar="X", help="part of the connections it replaces (default: 0.3)")
    add("--threads", type=int, metavar="N", help="threads (default: all cores)")
    add("--seed", type=int, metavar="N", help="seed of everything (default: 0)")
    add(
        "--problem",
        metavar="SPEC",
        help="settings of the data, as informative=50,class_sep=2 (default: 20 informative features)",
    )
    add("--data", type=Path, metavar="FILE.npy", help="map the samples from this file, which is written if need be")
    add("--out", type=Path, metavar="DIR", help="keep the checkpoint here (default: it is removed)")
    add("--skip", action="append", default=[], metavar="PHASE", help="evolution, inference, checkpoint or resume")
    add("--json", type=Path, metavar="FILE", help="append the result to FILE as one JSON object")
    add("--quiet", action="store_true", help="no progress, only the result")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Plan, run, print, write."""
    from trulysparse.bench import records
    from trulysparse.bench.machine import provenance
    from trulysparse.bench.scale import ScaleSettings, parse_sizes, plan_scale, report, run_scale

    given = {name: getattr(arguments, name) for name in _PLAIN if getattr(arguments, name) is not None}
    settings = ScaleSettings(
        parse_sizes(arguments.sizes),
        memory=None if arguments.memory is None else parse_bytes(arguments.memory, "--memory"),
        activation_dtype=None if arguments.activation_dtype == "auto" else arguments.activation_dtype,
        skip=tuple(arguments.skip),
        **given,
    )
    if arguments.plan:
        print(plan_scale(settings).plan)
        return
    started = time.monotonic()

    def say(text: str) -> None:
        if not arguments.quiet:
            print(f"[{time.monotonic() - started:7.1f} s] {text}", file=sys.stderr, flush=True)

    record = run_scale(settings, say)
    print(report(record))
    if arguments.json is not None:
        records.append(arguments.json, record, provenance())
        print(f"appended to {arguments.json}")
