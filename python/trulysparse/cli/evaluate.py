# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse evaluate`: a saved network on the test part of a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trulysparse.cli.config import RunConfig
from trulysparse.cli.train import MODEL, RUN_FILE
from trulysparse.data import load_dataset
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.model import load


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="test a trained network",
        description="Evaluate a trained network on the test part of the data it was trained on, or of other data.",
    )
    parser.add_argument("model", type=Path, metavar="DIR|FILE", help="a run directory or a model file")
    parser.add_argument(
        "--data",
        metavar="NAME|DIR_OR_NPZ",
        help="other data (needed for a bare model file, and where data moved)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all)")
    parser.set_defaults(run=run)


def model_file(path: Path) -> Path:
    """Return the model file meant by a file or a run directory.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"there is no model at {file}; give a model file or a run directory that holds {MODEL}")
    return file


def run(arguments: argparse.Namespace) -> None:
    """Print loss and accuracy on the test part."""
    net = load(model_file(arguments.model))
    run_file = arguments.model / RUN_FILE if arguments.model.is_dir() else None
    if run_file is not None and run_file.is_file():
        config = RunConfig.from_file(run_file)
        if arguments.data is not None:
            config.set("data", "data", arguments.data)
        data = config.load_data()
    elif arguments.data is not None:
        data = load_dataset(arguments.data)
    else:
        raise ConfigError(f"{arguments.model} does not say which data it was trained on; add --data")
    result = net.evaluate(data.X_test, data.y_test, threads=arguments.threads)
    quality = f"accuracy {result.accuracy:.4f}, " if result.accuracy is not None else ""
    print(f"test {quality}loss {result.loss:.4f} on {result.n_samples:,} samples, {net.connections:,} connections")
