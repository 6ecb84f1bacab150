# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse bench`: how fast the kernels are on this machine, and against whom."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trulysparse.errors import ConfigError

PARTS = ("roofline", "kernels", "epochs", "busy", "break-even", "inference")
SHAPES = ("784x1000", "1000x1000", "3072x4000", "4000x1000", "4096x4096@1%", "4096x4096@5%", "4096x4096@20%")
QUICK_SHAPES = ("784x1000", "1000x1000", "4096x4096@5%")
BATCHES = (128, 32, 1)


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="measure the kernels and training epochs on this machine, against rivals",
        description="Measure how fast this machine can be, then how fast the kernels, whole training epochs and single "
        "samples are, each result checked first. Rivals that are installed take turns with trulysparse; the others are "
        "named with what is missing.",
        epilog="Fractions are of roofs measured in the same run: rows of activations read in random order. "
        "bench/kernels/README.md in the source explains every figure.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes and shorter measurements: about 20 seconds")
    parser.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="layers: 784x1000 (epsilon 20), 4096x4096@5%%, 500000x500000@10M (needs 4 GB); "
        f"default {' '.join(SHAPES).replace('%', '%%')}",
    )
    parser.add_argument("--threads", type=int, nargs="+", metavar="N", help="thread counts (default: 1 and all cores)")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="batch sizes (default: 128 32 1)")
    parser.add_argument("--rivals", nargs="+", metavar="NAME", help="rivals, or none (default: all that are installed)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        metavar="PART",
        help=f"parts: {', '.join(PARTS)} (default: roofline kernels epochs inference; with --quick without epochs)",
    )
    parser.add_argument(
        "--network",
        nargs="+",
        metavar="NAME",
        help="networks of epochs and busy: fashion_mnist, cifar10 (default: fashion_mnist)",
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="time for each contestant in each case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append results to FILE, one JSON object a line")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the roofline picture as a PNG file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    from trulysparse import _kernels
    from trulysparse.bench import records
    from trulysparse.bench.cases import parse_shape
    from trulysparse.bench.machine import Neighbours, provenance
    from trulysparse.bench.networks import NETWORKS
    from trulysparse.bench.report import kernel_header, line, missing_lines
    from trulysparse.bench.rivals import find_rivals
    from trulysparse.bench.suite import Plan, measure

    quick = arguments.quick
    cores = _kernels.default_threads()
    threads = arguments.threads or ([1, cores] if cores > 1 else [1])
    batches = arguments.batch or BATCHES
    for n in (*threads, *batches):
        if n < 1:
            raise ConfigError(f"threads and batch sizes must be at least 1, got {n}")
    networks = arguments.network or ["fashion_mnist"]
    for name in networks:
        if name not in NETWORKS:
            raise ConfigError(f"{name!r} is not a network of the benchmark; known are {', '.join(NETWORKS)}")
    default_parts = ("roofline", "kernels", "inference") if quick else ("roofline", "kernels", "epochs", "inference")
    if arguments.picture is not None:
        _need_matplotlib()
    rivals, missing = find_rivals(arguments.rivals)
    plan = Plan(
        parts=tuple(arguments.only or default_parts),
        shapes=tuple(parse_shape(s) for s in arguments.shapes or (QUICK_SHAPES if quick else SHAPES)),
        batches=lambda shape: batches,
        threads=tuple(dict.fromkeys(threads)),
        networks=tuple(NETWORKS[name] for name in networks),
        seconds=arguments.seconds or (0.02 if quick else 0.04),
        epoch_seconds=2.0,
    )
    facts = provenance()
    print(f"{facts['cpu']}, {facts['isa']}, {facts['cores']} core(s), {facts['caches']}")
    print(f"rivals: {', '.join(rivals) or 'none'}")
    for text in missing_lines(missing):
        print(text)
    results = []
    table = False
    neighbours = Neighbours()
    for measured in measure(plan, rivals, print):
        record = {**measured, "foreign_cores": neighbours.cores()}
        if record["benchmark"] == "kernels" and not table:
            print(kernel_header())
        table = record["benchmark"] == "kernels"
        print(line(record), flush=True)
        results.append({**record, **facts})
        if arguments.json is not None:
            records.append(arguments.json, record, {**facts, "missing": [str(m) for m in missing]})
    if arguments.json is not None:
        print(f"appended to {arguments.json}")
    if arguments.picture is not None:
        from trulysparse.bench.picture import roofline_picture

        print(f"drawn: {roofline_picture(results, arguments.picture)}")


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("--picture needs matplotlib; install it with: pip install 'trulysparse[plot]'") from error
