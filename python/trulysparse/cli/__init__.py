# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `trulysparse train | evaluate | info | compare | bench | scale | reproduce`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from trulysparse.errors import TrulySparseError


def _parser() -> argparse.ArgumentParser:
    from trulysparse import __version__
    from trulysparse.cli import bench, compare, evaluate, info, reproduce, scale, train

    parser = argparse.ArgumentParser(
        prog="trulysparse",
        description="Train neural networks whose missing weights are neither stored nor computed.",
        epilog="`trulysparse train` trains on an embedded data set in under a minute; "
        "`trulysparse COMMAND --help` says more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"trulysparse {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, evaluate, info, compare, bench, scale, reproduce):
        command.add_parser(commands)
    return parser


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as a sentence: a user of the command line has no use for a source line."""
    print(f"warning: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0 is success, 2 a mistake in the arguments, settings or files (one sentence on standard error says which), 130 and
    143 a run that Ctrl-C or SIGTERM ended, 141 output that nobody reads any more (``| head``).
    """
    arguments = _parser().parse_args(argv)
    from trulysparse.parallel.world import end_all, is_told, launched_rank
    from trulysparse.trainer import TrainingInterrupted

    rank = launched_rank() or 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            arguments.run(arguments)
        sys.stdout.flush()
    except TrainingInterrupted as stop:
        if rank == 0:
            print(f"\n{stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        end_all(130)
        return 130
    except BrokenPipeError:
        # Python flushes once more when it exits, and would complain then
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (TrulySparseError, ImportError, OSError, MemoryError) as error:
        # what all ranks know is said once, and so is what is wrong with the arguments, which all have
        if rank == 0 or not (is_told(error) or "mpi4py.MPI" not in sys.modules):
            where = f"rank {rank}: " if rank else ""
            print(f"trulysparse {arguments.command}: {where}error: {error}", file=sys.stderr)
        if not is_told(error):
            end_all(2)
        return 2
    return 0
