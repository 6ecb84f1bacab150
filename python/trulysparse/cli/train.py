# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse train`: from a data set or a run file to a trained network and its curves."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trulysparse._files import write_text
from trulysparse.cli.config import RunConfig
from trulysparse.cli.presets import preset
from trulysparse.data import Dataset
from trulysparse.errors import ConfigError
from trulysparse.model import SparseMLP
from trulysparse.trainer import Callback, History, Trainer
from trulysparse.trainer.checkpoint import FILE_NAME as CHECKPOINT
from trulysparse.trainer.checkpoint import find_checkpoint

MODEL, HISTORY, RUN_FILE, CURVE = "model.safetensors", "history.csv", "run.toml", "curve.png"
_SECONDS_BETWEEN_WRITES = 2.0


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train a sparse network",
        description="Train a sparse network on a data set, with the paper's settings where the paper has any. "
        "Without arguments: scikit-learn's embedded digits, in under a minute.",
        epilog="Examples: trulysparse train; trulysparse train fashion_mnist --data DIR --out runs/fashion; "
        "trulysparse train my_run.toml; trulysparse train --resume runs/fashion",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="NAME|FILE.toml|DATA",
        help="a data set's name (digits, fashion_mnist, mnist, cifar10, madelon, higgs), a run file, or the path of "
        "an .npz file or a directory of .npy files (default: digits)",
    )
    parser.add_argument("--data", metavar="DIR_OR_NPZ", help="where NAME.npz is, or the .npz file itself")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training data")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples a step")
    parser.add_argument("--lr", type=float, metavar="X", help="learning rate")
    parser.add_argument("--topology", metavar="NAME", help="how connections change: set, static")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads; the result does not depend on it (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of network, order, dropout and topology (default: 0)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        metavar="FRACTION",
        help="hold back this part of the training data for the curves (default: the test part serves)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write model, history, run file, curve and checkpoints here"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --out DIR holds")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="continue the run in DIR, bit for bit")
    parser.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="write a checkpoint every N epochs (with --out)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="any key of a run file, e.g. --set drop_fraction=0.2 --set model.hidden='[400, 100]'",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.set_defaults(run=run)


class _Writer(Callback):
    """Keeps history.csv in the run directory up to date."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written = 0.0

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            trainer.history.to_csv(self.directory / HISTORY)
            self._written = time.monotonic()

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        history.to_csv(self.directory / HISTORY)


def _configure(arguments: argparse.Namespace) -> RunConfig:
    """Put preset or run file, flags and --set together, in that order."""
    if arguments.resume is not None:
        find_checkpoint(arguments.resume)
        config = RunConfig.from_file(arguments.resume / RUN_FILE)
        _refuse_with_resume(arguments)
    elif arguments.source is not None and arguments.source.endswith(".toml"):
        config = RunConfig.from_file(arguments.source)
    else:
        config = RunConfig(preset(arguments.source or "digits"))
    flags = {
        ("data", "data"): arguments.data,
        ("fit", "epochs"): arguments.epochs,
        ("fit", "validation"): arguments.validation,
        ("trainer", "batch_size"): arguments.batch_size,
        ("trainer", "seed"): arguments.seed,
        ("model", "seed"): arguments.seed,
        ("trainer", "checkpoint_every"): arguments.checkpoint_every,
        ("topology", "name"): arguments.topology,
        ("optimizer", "lr"): arguments.lr,
    }
    for (table, key), value in flags.items():
        if value is not None:
            config.set(table, key, value)
    for assignment in arguments.settings:
        config.set_text(assignment)
    if config.get("data", "data") is not None:
        config.set("data", "data", str(Path(config.get("data", "data")).resolve()))
    config.check()
    return config


def _refuse_with_resume(arguments: argparse.Namespace) -> None:
    fixed = {
        "a data set or run file": arguments.source,
        "--batch-size": arguments.batch_size,
        "--lr": arguments.lr,
        "--topology": arguments.topology,
        "--seed": arguments.seed,
        "--validation": arguments.validation,
        "--set": arguments.settings or None,
        "--out": arguments.out,
    }
    given = [name for name, value in fixed.items() if value is not None]
    if given:
        raise ConfigError(
            f"--resume continues a run as it was begun and does not take {', '.join(given)}; "
            "--epochs, --data, --threads, --checkpoint-every and --quiet may change"
        )


def _prepare_directory(arguments: argparse.Namespace) -> Path | None:
    if arguments.resume is not None:
        return Path(arguments.resume)
    out: Path | None = arguments.out
    if out is None:
        return None
    held = [name for name in (MODEL, CHECKPOINT, HISTORY) if (out / name).exists()]
    if held and not arguments.overwrite:
        raise ConfigError(
            f"{out} holds a run already ({', '.join(held)}); --resume {out} continues it, --overwrite replaces it"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name in held:
        (out / name).unlink()
    return out


def _validation(config: RunConfig, data: Dataset) -> Any:
    fraction = config.get("fit", "validation")
    return (data.X_test, data.y_test) if fraction is None else float(fraction)


def run(arguments: argparse.Namespace) -> None:
    """Train as the arguments say and print the result."""
    config = _configure(arguments)
    directory = _prepare_directory(arguments)
    data = config.load_data()
    callbacks: list[Callback] = list(config.callbacks())
    if directory is not None:
        callbacks.append(_Writer(directory))
    if arguments.resume is not None:
        trainer = Trainer.resume(
            arguments.resume,
            threads=arguments.threads,
            callbacks=callbacks,
            checkpoint=directory,
            checkpoint_every=config.get("trainer", "checkpoint_every"),
            progress=not arguments.quiet,
        )
        net = trainer.net
    else:
        net = config.build_net(data, arguments.threads)
        if directory is None and config.get("trainer", "checkpoint_every") is not None:
            raise ConfigError("checkpoints need a place: add --out DIR to checkpoint_every")
        trainer = Trainer(
            net,
            threads=arguments.threads,
            callbacks=callbacks,
            checkpoint=directory,
            progress=not arguments.quiet,
            **config.trainer_arguments(),
        )
    if directory is not None:
        write_text(directory / RUN_FILE, config.to_toml())
    if not arguments.quiet:
        print(data, file=sys.stderr)
        print(net.summary(), file=sys.stderr)
    trainer.fit(data.X_train, data.y_train, epochs=config.get("fit", "epochs"), validation=_validation(config, data))
    if directory is not None:
        net.save(directory / MODEL)
        _draw_curve(trainer.history, directory / CURVE)
    _report(net, trainer, data, directory)


def _draw_curve(history: History, path: Path) -> None:
    from trulysparse.plot import learning_curve

    try:
        learning_curve(history, path)
    except ImportError as error:
        print(f"{path.name} skipped: {error}", file=sys.stderr)


def _report(net: SparseMLP, trainer: Trainer, data: Dataset, directory: Path | None) -> None:
    """Print what came out: quality on the test part, how sparse, how long, where it is."""
    result = net.evaluate(data.X_test, data.y_test, threads=trainer.threads)
    dense = sum(layer.n_in * layer.n_out for layer in net.layers)
    seconds = sum(trainer.history.train_seconds)
    quality = f"accuracy {result.accuracy:.4f}, " if result.accuracy is not None else ""
    if trainer.stop_reason is not None:
        print(f"stopped early: {trainer.stop_reason}")
    print(f"test {quality}loss {result.loss:.4f} on {result.n_samples:,} samples")
    print(
        f"{net.connections:,} connections of {dense:,} possible: "
        f"{100 * (1 - net.connections / dense):.1f} % of the dense weights are absent"
    )
    print(f"{len(trainer.history)} epochs, {seconds:.1f} s of training")
    if directory is not None:
        print(f"written to {directory}: " + ", ".join(sorted(p.name for p in directory.iterdir())))
