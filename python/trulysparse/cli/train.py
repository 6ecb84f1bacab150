# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse train`: from a data set or a run file to a trained network and its curves."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trulysparse import recipes
from trulysparse._files import write_text
from trulysparse.cli.config import RunConfig
from trulysparse.data import Dataset
from trulysparse.errors import ConfigError, DensityWarning
from trulysparse.model import SparseMLP
from trulysparse.parallel import PARALLEL, TRANSPORTS
from trulysparse.parallel.world import World, check_launch
from trulysparse.recipes import KINDS
from trulysparse.recipes.paper import parallel_preset, preset
from trulysparse.topology import TOPOLOGIES
from trulysparse.trainer import Callback, EarlyStopping, History, Trainer, TrainingInterrupted
from trulysparse.trainer.checkpoint import FILE_NAME as CHECKPOINT
from trulysparse.trainer.checkpoint import WORKER_FILE_NAMES as WORKER_CHECKPOINTS
from trulysparse.trainer.checkpoint import find_checkpoint

MODEL, HISTORY, RUN_FILE, CURVE = "model.safetensors", "history.csv", "run.toml", "curve.png"
REPORT = "parallel.json"
_SECONDS_BETWEEN_WRITES = 2.0
_DENSE_RATE = 0.01


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train a sparse network",
        description="Train a sparse network on a data set, with the paper's settings where the paper has any. "
        "Without arguments: scikit-learn's embedded digits, in under a minute.",
        epilog="Examples: trulysparse train; trulysparse train fashion_mnist --data DIR --out runs/fashion; "
        "trulysparse train my_run.toml; trulysparse train --resume runs/fashion; "
        "mpiexec -n 3 trulysparse train fashion_mnist --data DIR --parallel wasap",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="NAME|FILE.toml|DATA",
        help="a data set's name (digits, fashion_mnist, mnist, cifar10, madelon, higgs), a run file, or the path of "
        "an .npz file or a directory of .npy files (default: digits)",
    )
    parser.add_argument(
        "--recipe",
        choices=KINDS,
        help="settings to start from: the paper's (default), or tuned ones for as many connections, where there are "
        f"any ({', '.join(recipes.names('tuned'))})",
    )
    parser.add_argument("--data", metavar="DIR_OR_NPZ", help="where NAME.npz is, or the .npz file itself")
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the training data")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples a step")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what network and activations may take, as 8GiB, data apart; chooses micro-batches and storage",
    )
    parser.add_argument(
        "--augment",
        metavar="SHAPE",
        type=_shape,
        help="turn, shift and mirror training images at random; what shape a sample has as an image, as 3,32,32",
    )
    parser.add_argument("--lr", type=float, metavar="X", help="learning rate")
    parser.add_argument(
        "--topology", metavar="NAME", help=f"how connections change: {', '.join(TOPOLOGIES.names())} (default: set)"
    )
    parser.add_argument(
        "--parallel",
        metavar="NAME",
        help=f"train in several processes, started by mpiexec: {', '.join(PARALLEL.names())}",
    )
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        help="how the processes of --parallel wasap and wassp exchange models (default: shared memory on one node)",
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of yours first, for example one that registers a topology; looked for in this "
        "directory too, may be repeated",
    )
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


def _shape(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers such as 3,32,32") from None


class _Writer(Callback):
    """Keeps run.toml and history.csv in the run directory, which it touches only when data and settings have passed."""

    def __init__(self, directory: Path, config: RunConfig, *, overwrite: bool = False) -> None:
        self.directory, self.config, self.overwrite = directory, config, overwrite
        self._written = 0.0

    def on_fit_start(self, trainer: Trainer) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.overwrite:
            for name in (MODEL, CHECKPOINT, HISTORY, CURVE, REPORT):
                (self.directory / name).unlink(missing_ok=True)
            for file in self.directory.glob(WORKER_CHECKPOINTS):
                file.unlink(missing_ok=True)
        self.config.resolve(trainer)
        write_text(self.directory / RUN_FILE, self.config.to_toml())

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, Any]) -> None:
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            trainer.history.to_csv(self.directory / HISTORY)
            self._written = time.monotonic()

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        history.to_csv(self.directory / HISTORY)


def _configure(arguments: argparse.Namespace) -> RunConfig:
    """Put preset or run file, flags and --set together, in that order."""
    if arguments.resume is not None:
        config = _resumed_config(arguments)
    elif _is_run_file(arguments.source):
        if arguments.recipe is not None:
            raise ConfigError(
                f"--recipe {arguments.recipe} starts from settings of ours, but {arguments.source} is a run file with "
                "its own; give a data set's name, or leave --recipe out"
            )
        config = RunConfig.from_file(arguments.source)
    else:
        config = RunConfig(_start(arguments.source or "digits", arguments.recipe))
        if arguments.data is not None and config.data_path() is not None:
            raise ConfigError(f"{arguments.source} is a path already; leave out --data, or give a name instead")
    flags = {
        ("data", "data"): arguments.data,
        ("fit", "epochs"): arguments.epochs,
        ("fit", "validation"): arguments.validation,
        ("trainer", "batch_size"): arguments.batch_size,
        ("trainer", "memory_budget"): arguments.memory,
        ("trainer", "seed"): arguments.seed,
        ("model", "seed"): arguments.seed,
        ("trainer", "checkpoint_every"): arguments.checkpoint_every,
        ("topology", "name"): arguments.topology,
        ("parallel", "name"): arguments.parallel,
        ("parallel", "transport"): arguments.transport,
        ("optimizer", "lr"): arguments.lr,
        ("augment", "shape"): arguments.augment,
    }
    for (table, key), value in flags.items():
        if value is not None:
            config.set(table, key, value)
    ours = arguments.resume is None and not _is_run_file(arguments.source) and arguments.recipe != "tuned"
    if arguments.parallel is not None and ours:
        for key, value in parallel_preset(arguments.source or "digits", arguments.parallel).items():
            config.set("parallel", key, value)
    for assignment in arguments.settings:
        config.set_text(assignment)
    config.check()
    _start_dense(arguments, config)
    config.resolve_paths()
    return config


def _start(name: str, recipe: str | None) -> dict[str, dict[str, Any]]:
    """Return the tables to start from."""
    if recipe is None:
        return preset(name)  # which has settings for data of any name
    return {"data": {"name": name}, **recipes.get(name, recipe).tables}


def _start_dense(arguments: argparse.Namespace, config: RunConfig) -> None:
    """Begin with a dense network where --topology names a rule that prunes one, and nobody gave a density."""
    if arguments.topology is None or arguments.resume is not None or _is_run_file(arguments.source):
        return
    keys = [assignment.partition("=")[0].strip() for assignment in arguments.settings]
    given = any(key.removeprefix("model.").partition(".")[0] in ("density", "epsilon") for key in keys)
    if TOPOLOGIES.find(arguments.topology).prunes_dense and not given:
        config.set("model", "density", 1.0)
        rate = config.get("optimizer", "lr")
        if arguments.lr is None and not any(key.split(".")[-1] == "lr" for key in keys) and isinstance(rate, float):
            # the presets' rates suit sparse networks, whose sums are smaller
            config.set("optimizer", "lr", min(rate, _DENSE_RATE))
        if not arguments.quiet:
            print(
                f"{arguments.topology} prunes a dense network, at a learning rate of {config.get('optimizer', 'lr')}; "
                "--set model.density=X begins with a sparser one, --lr X sets the rate"
            )


def _is_run_file(source: str | None) -> bool:
    return source is not None and source.endswith(".toml")


def _resumed_config(arguments: argparse.Namespace) -> RunConfig:
    _refuse_with_resume(arguments)
    file = _checkpoint_of(arguments.resume)
    if not (file.parent / RUN_FILE).is_file():
        raise ConfigError(
            f"{file.parent} holds no {RUN_FILE}, so the command line did not make this run; "
            f"in Python, ts.Trainer.resume({str(file)!r}) continues it"
        )
    return RunConfig.from_file(file.parent / RUN_FILE)


def _checkpoint_of(resume: Path) -> Path:
    """Return the checkpoint that --resume means: of a run directory, of its run file, or the file itself."""
    return find_checkpoint(resume.parent if resume.name == RUN_FILE else resume)


def _refuse_with_resume(arguments: argparse.Namespace) -> None:
    fixed = {
        "a data set or run file": arguments.source,
        "--recipe": arguments.recipe,
        "--batch-size": arguments.batch_size,
        "--memory": arguments.memory,
        "--lr": arguments.lr,
        "--augment": arguments.augment,
        "--topology": arguments.topology,
        "--parallel": arguments.parallel,
        "--transport": arguments.transport,
        "--seed": arguments.seed,
        "--validation": arguments.validation,
        "--set": arguments.settings or None,
        "--out": arguments.out,
        "--overwrite": arguments.overwrite or None,
    }
    given = [name for name, value in fixed.items() if value is not None]
    if given:
        raise ConfigError(
            f"--resume continues a run as it was begun and does not take {', '.join(given)}; "
            "--epochs, --data, --threads, --checkpoint-every and --quiet may change"
        )


def _rank(config: RunConfig) -> int:
    """Return which process of a parallel run this is; rank 0 is the one that writes and prints."""
    if "parallel" not in config.tables:
        return 0
    strategy = PARALLEL.get({"name": "wasap"} | config.tables["parallel"])
    return check_launch(strategy.name, strategy.minimum)


def _directory(arguments: argparse.Namespace, main: bool) -> Path | None:
    """Return the run directory, checked but not touched."""
    if arguments.resume is not None:
        return _checkpoint_of(arguments.resume).parent
    out: Path | None = arguments.out
    if out is None:
        return None
    if not main:  # rank 0 checks it, and may have made it already
        return out
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not above.is_dir():
        raise ConfigError(f"--out {out}: {above} is a file; name a directory, which is made if it does not exist")
    held = [name for name in (MODEL, CHECKPOINT, HISTORY) if (out / name).exists()]
    if held and not arguments.overwrite:
        raise ConfigError(
            f"{out} holds a run already ({', '.join(held)}); --resume {out} continues it, --overwrite replaces it"
        )
    return out


def _validation(config: RunConfig, data: Dataset) -> Any:
    fraction = config.get("fit", "validation")
    return (data.X_test, data.y_test) if fraction is None else float(fraction)


def _for_one(settings: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Leave the trained network to rank 0, the only one that has a use for it here, unless the run file says more."""
    if "parallel" in settings and not _is_run_file(arguments.source):
        settings["parallel"] = {"broadcast": False} | settings["parallel"]
    return settings


def _build_net(arguments: argparse.Namespace, config: RunConfig, data: Dataset, main: bool) -> SparseMLP:
    """Build the network; a preset's output layer is full because the paper's is, which needs no warning."""
    ours = {} if _is_run_file(arguments.source) else preset(arguments.source or "digits")["model"]
    with warnings.catch_warnings():
        if ours and all(ours.get(key) == config.get("model", key) for key in ("hidden", "epsilon", "density")):
            warnings.filterwarnings("ignore", rf"layer {len(ours['hidden'])} \(", DensityWarning)
        return config.build_net(data, arguments.threads, outline=not main)


def _warn_of_selection(callbacks: list[EarlyStopping], config: RunConfig) -> None:
    """Say so if early stopping would look at the test part."""
    watched = [callback.monitor for callback in callbacks if callback.monitor.startswith("val_")]
    if watched and config.get("fit", "validation") is None:
        print(
            f"warning: early stopping follows {watched[0]} of the test part, so that the test result is too good; "
            "--validation 0.1 holds back a tenth of the training data for it",
            file=sys.stderr,
        )


def _check_what_is_left(trainer: Trainer, epochs: int | None, directory: Path, main: bool) -> None:
    """Refuse to resume a run to fewer epochs than it has; say so if nothing is left to train."""
    wanted = trainer.epochs if epochs is None else epochs
    if not isinstance(wanted, int):
        return
    done, begun = trainer.state.epoch, trainer.state.batch > 0
    if wanted < done + begun:
        part = " and part of another" if begun else ""
        raise ConfigError(
            f"epochs={wanted} is less than {directory} has behind it: {done} epochs{part} are done; "
            f"give --epochs of at least {done + begun}"
        )
    if main and (wanted == done or (trainer.stop_reason is not None and wanted == trainer.epochs)):
        print(
            f"nothing is left to train: {done} of {wanted} epochs are done"
            + (" and the run stopped early" if trainer.stop_reason is not None else "")
            + f"; --epochs with more than {wanted} prolongs it",
            file=sys.stderr,
        )


def _import(modules: Sequence[str]) -> None:
    """Import what the user's rules, activations... are registered in."""
    for name in modules:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--import {name}: {error}; give a module's name (my_rules for my_rules.py in this directory), or "
                "install the package that it is in"
            ) from error


def run(arguments: argparse.Namespace) -> None:
    """Train as the arguments say and print the result."""
    _import(arguments.imports)
    config = _configure(arguments)
    main = _rank(config) == 0
    arguments.quiet = arguments.quiet or not main
    if "parallel" in config.tables:  # what goes wrong is shared, so that no process waits for one that failed
        world = World.open(config.get("parallel", "name", "wasap"), 1)
        with world.together("preparing the run"):
            trainer, data, directory = _make_ready(arguments, config, main)
        world.close()
    else:
        trainer, data, directory = _make_ready(arguments, config, main)
    net, epochs = trainer.net, config.get("fit", "epochs")
    if not arguments.quiet:
        print(data, file=sys.stderr)
        print(net.summary(), file=sys.stderr)
    try:
        trainer.fit(data.X_train, data.y_train, epochs=epochs, validation=_validation(config, data))
    except TrainingInterrupted:
        # a signal while the last epoch was closed came too late to stop anything
        if not trainer.finished:
            raise
    if not main:
        return
    if directory is not None:
        net.save(directory / MODEL)
        if trainer.parallel_report is not None:
            trainer.parallel_report.to_json(directory / REPORT)
        _draw_curve(trainer.history, directory / CURVE)
    _report(net, trainer, data, directory)


def _make_ready(arguments: argparse.Namespace, config: RunConfig, main: bool) -> tuple[Trainer, Dataset, Path | None]:
    """Load the data, and make the trainer or read it from its checkpoint."""
    directory = _directory(arguments, main)
    early_stopping = config.callbacks()
    data = config.load_data()
    callbacks: list[Callback] = list(early_stopping)
    if directory is not None and main:
        callbacks.append(_Writer(directory, config, overwrite=arguments.overwrite))
    settings: dict[str, Any] = {
        "threads": arguments.threads,
        "callbacks": callbacks,
        "checkpoint": None if directory is None else directory / CHECKPOINT,
        "progress": not arguments.quiet,
    }
    epochs = config.get("fit", "epochs")
    if arguments.resume is not None and directory is not None:
        every = config.get("trainer", "checkpoint_every")
        checkpoint = _checkpoint_of(arguments.resume)
        trainer = Trainer.resume(checkpoint, outline=not main, checkpoint_every=every, **settings)
        _check_what_is_left(trainer, epochs, directory, main)
    else:
        if main:
            _warn_of_selection(early_stopping, config)
        net = _build_net(arguments, config, data, main)
        if directory is None and config.get("trainer", "checkpoint_every") is not None:
            raise ConfigError("checkpoints need a place: add --out DIR to checkpoint_every")
        trainer = Trainer(net, **settings, **_for_one(config.trainer_arguments(), arguments))
    return trainer, data, directory


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
    if trainer.parallel_report is not None:
        print(trainer.parallel_report)
    if directory is not None:
        print(f"written to {directory}: " + ", ".join(sorted(p.name for p in directory.iterdir())))
