# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse evaluate`: a saved network on the test part of a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from trulysparse.cli.config import RunConfig
from trulysparse.cli.train import MODEL, RUN_FILE
from trulysparse.data import Dataset, known_datasets, load_dataset
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.model import load
from trulysparse.trainer.checkpoint import FILE_NAME as CHECKPOINT


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
        help="other data (needed for a bare model file, and where it moved): a name, data files, or where NAME.npz is",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: all)")
    parser.set_defaults(run=run)


def model_file(path: Path) -> Path:
    """Return the model file meant by a file or a run directory: its model, else the checkpoint of an unfinished run.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    if path.suffix == ".toml" and path.is_file():
        raise CheckpointError(
            f"{path} holds the settings of a run, not a network; "
            f"give its directory {path.resolve().parent} or a model file"
        )
    file = path / MODEL if path.is_dir() else path
    checkpoint = path / CHECKPOINT
    if path.is_dir() and checkpoint.is_file():
        # A run that ends writes its model last: a newer checkpoint is of a run that went on and was stopped.
        unfinished = not file.is_file() or checkpoint.stat().st_mtime_ns > file.stat().st_mtime_ns
        if unfinished:
            print(f"{path} holds an unfinished run: this is the network of its {CHECKPOINT}", file=sys.stderr)
            return checkpoint
    if not file.is_file():
        raise CheckpointError(f"there is no model at {file}; give a model file or a run directory that holds {MODEL}")
    return file


def _data(model: Path, other: str | None) -> Dataset:
    """Return the data of the run that `model` is a directory of, or `other` data."""
    run_file = model / RUN_FILE
    if not run_file.is_file():
        if other is None:
            raise ConfigError(f"{model} does not say which data it was trained on; add --data")
        return load_dataset(other)
    config = RunConfig.from_file(run_file)
    if other is None:
        return config.load_data()
    if other in known_datasets() or not Path(other).exists():
        return load_dataset(other)
    config.set("data", "data", other)
    return config.load_data()


def run(arguments: argparse.Namespace) -> None:
    """Print loss and accuracy on the test part."""
    net = load(model_file(arguments.model))
    data = _data(arguments.model, arguments.data)
    result = net.evaluate(data.X_test, data.y_test, threads=arguments.threads)
    quality = f"accuracy {result.accuracy:.4f}, " if result.accuracy is not None else ""
    print(f"test {quality}loss {result.loss:.4f} on {result.n_samples:,} samples, {net.connections:,} connections")
