# SPDX-License-Identifier: BSD-3-Clause
"""Training at the paper's extreme scale: every phase of a run, with its time and memory beside the paper's table 4."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse._files import replacing
from trulysparse.bench.machine import Neighbours
from trulysparse.bench.phases import Meter
from trulysparse.data import artificial_classification
from trulysparse.engine import Evolution, Fit, MemoryPlan, Run, Samples, fit_to_budget, plan_network
from trulysparse.errors import ConfigError, DataError, DivergenceError
from trulysparse.model import ErdosRenyi, Inputs, InputScaling, SparseMLP
from trulysparse.model.activations import get_activation
from trulysparse.model.init import get_initializer
from trulysparse.model.memory import available_bytes
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_integer, nearest
from trulysparse.model.summary import format_bytes
from trulysparse.optim import Optimizer, get_optimizer
from trulysparse.topology import Topology, get_topology
from trulysparse.trainer import Trainer
from trulysparse.trainer.checkpoint import FILE_NAME

__all__ = [
    "PAPER",
    "SKIPPABLE",
    "PaperRow",
    "ScaleSettings",
    "format_sizes",
    "parse_sizes",
    "parse_spec",
    "plan_scale",
    "report",
    "run_scale",
]

Say = Callable[[str], None]
Array = NDArray[Any]

SKIPPABLE = ("evolution", "inference", "checkpoint", "resume")
_PAPER_SAMPLES, _PAPER_TEST_SAMPLES, _PAPER_BATCH = 7000, 3000, 128
_SUFFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class PaperRow:
    """A row of table 4: minutes on 96 cores and 768 GB, 7,000 samples of 65,536 features an epoch, 3,000 to test."""

    neurons: int
    hidden: tuple[int, ...]
    epsilon: float
    workers: int
    initialisation: float
    epoch: float
    inference: float
    evolution: float


PAPER = (
    PaperRow(10**6, (500_000,) * 2, 10, 16, 1, 6, 2.5, 1),
    PaperRow(5 * 10**6, (2_500_000,) * 2, 5, 16, 2, 10, 6, 2),
    PaperRow(10**7, (5_000_000,) * 2, 5, 16, 3, 20, 11, 5),
    PaperRow(2 * 10**7, (5_000_000,) * 4, 1, 8, 5, 26, 18, 6),
    PaperRow(5 * 10**7, (5_000_000,) * 10, 1, 8, 9, 52, 20, 6),
)
""""Truly Sparse Neural Networks at Scale", arXiv:2102.01732, table 4."""


def parse_sizes(text: str) -> tuple[int, ...]:
    """Return the neurons of every layer: ``"65536-5e6x10-2"`` has ten hidden layers of five million.

    Raises
    ------
    ConfigError
        Text that is no list of sizes.
    """
    sizes: list[int] = []
    for part in text.split("-"):
        match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*(?:e[0-9]{1,2})?)([kKMG]?)\s*(?:x\s*([0-9]{1,6}))?\s*", part)
        neurons = Decimal(0) if match is None else Decimal(match[1]) * _SUFFIXES[match[2]]
        count = 0 if match is None else int(match[3] or 1)
        if match is None or not 1 <= neurons < 2**31 or neurons != int(neurons) or count < 1:
            raise ConfigError(
                f"sizes {text!r}: {part!r} is no layer; write inputs, hidden layers and outputs as in 784-1000x3-10 or "
                "65536-5e6x10-2 (ten hidden layers of 5,000,000; 5M says the same), each of 1 to 2,147,483,647 neurons"
            )
        sizes += [int(neurons)] * count
    if len(sizes) < 2:
        raise ConfigError(f"sizes {text!r} has one layer; write inputs and outputs at least, as in 784-10")
    return tuple(sizes)


def format_sizes(sizes: Sequence[int]) -> str:
    """Return sizes as `parse_sizes` reads them, with repeated layers written once."""
    parts: list[list[int]] = []
    for n in sizes:
        if parts and parts[-1][0] == n:
            parts[-1][1] += 1
        else:
            parts.append([n, 1])
    return "-".join(f"{n}" if count == 1 else f"{n}x{count}" for n, count in parts)


def parse_spec(text: str) -> dict[str, Any]:
    """Return the configuration that ``"he_uniform,fan_in=sparse,gain=2"`` stands for.

    Raises
    ------
    ConfigError
        A setting without a value.
    """
    name, *settings = text.split(",")
    config: dict[str, Any] = {"name": name.strip()}
    for setting in settings:
        key, found, value = (piece.strip() for piece in setting.partition("="))
        if not (key and found and value):
            raise ConfigError(
                f"{text!r}: {setting!r} is no setting; write NAME,KEY=VALUE, as in he_uniform,fan_in=sparse"
            )
        config[key] = _value(value)
    return config


def _value(text: str) -> Any:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


@dataclass(frozen=True)
class ScaleSettings:
    """What `run_scale` is to do; defaults are the paper's.

    Attributes
    ----------
    sizes : tuple of int
    epsilon : float
    samples, test_samples, batch_size : int
    steps : int
        Training steps, unless `epochs` says how many whole epochs.
    epochs : int or None
    memory : int or None
        Budget for everything, data included, in bytes; None: what the system has left.
    micro_batch, storage, activation_dtype : optional
        None: as the budget allows.
    lr, momentum, weight_decay : float
    lr_scale : str or None
    init, topology, activation : str
        As `parse_spec` reads them.
    drop_fraction : float
    dropout : float
    threads : int or None
    seed : int
    problem : str
        Settings of `artificial_classification`, as ``"informative=50,class_sep=2"``.
    data : Path or None
        An ``.npy`` file of float32 samples that is mapped to memory, with its labels in ``NAME.labels.npy``; written
        if it is not there.
    out : Path or None
        Where the checkpoint stays; None: in a temporary directory, for as long as it is needed.
    skip : tuple of str
        Of `SKIPPABLE`.
    """

    sizes: tuple[int, ...]
    epsilon: float = 1.0
    samples: int = _PAPER_SAMPLES
    test_samples: int = _PAPER_TEST_SAMPLES
    batch_size: int = _PAPER_BATCH
    steps: int = 10
    epochs: int | None = None
    memory: int | None = None
    micro_batch: int | None = None
    storage: str | None = None
    activation_dtype: str | None = None
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0002
    lr_scale: str | None = None
    init: str = "he_uniform"
    topology: str = "set"
    activation: str = "all_relu"
    drop_fraction: float = 0.3
    dropout: float = 0.4
    threads: int | None = None
    seed: int = 0
    problem: str = ""
    data: Path | None = None
    out: Path | None = None
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("samples", "test_samples", "batch_size", "steps"):
            check_integer(getattr(self, name), name, low=1)
        if self.epochs is not None:
            check_integer(self.epochs, "epochs", low=1)
        if self.batch_size > self.samples:
            raise ConfigError(
                f"a batch of {self.batch_size} needs as many samples, there are {self.samples}; make one of them fit"
            )
        for name in self.skip:
            if name not in SKIPPABLE:
                raise ConfigError(
                    f"{name!r} cannot be skipped, only {', '.join(SKIPPABLE)} can{nearest(name, SKIPPABLE)}"
                )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training samples."""
        return self.samples // self.batch_size

    @property
    def all_steps(self) -> int:
        """Steps to be made."""
        return self.steps if self.epochs is None else self.epochs * self.steps_per_epoch

    @property
    def evolving(self) -> Topology | None:
        """The rule, if it is to act."""
        idle = "evolution" in self.skip and self.all_steps <= self.steps_per_epoch
        return None if idle else self.make_topology()

    @property
    def evaluation(self) -> str:
        """How test samples are evaluated, as `plan_memory` calls it."""
        if "inference" in self.skip:
            return "none"
        return "frozen" if self.test_samples > 2 * _kernels.LANE else "layers"

    @property
    def paper(self) -> PaperRow | None:
        """The row of table 4 that has this network."""
        wanted = (self.sizes[0], self.sizes[1:-1], self.sizes[-1], self.epsilon)
        return next((row for row in PAPER if (65536, row.hidden, 2, row.epsilon) == wanted), None)

    def make_optimizer(self) -> Optimizer:
        """Return momentum SGD with these settings."""
        config = {"name": "sgd", "lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return get_optimizer(config if self.lr_scale is None else {**config, "lr_scale": self.lr_scale})

    def make_topology(self) -> Topology:
        """Return the rule with these settings; the drop fraction goes to rules that have one."""
        config = parse_spec(self.topology)
        if "drop_fraction" in type(get_topology(config)).config_keys():
            config = {"drop_fraction": self.drop_fraction} | config
        return get_topology(config)


@dataclass
class _Steps:
    """What the training steps showed."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evolve_seconds: list[float] = field(default_factory=list)
    first_gradient: float = math.nan

    @property
    def typical_seconds(self) -> float:
        """Median of the steps after the first, which meets memory that was never touched."""
        return statistics.median(self.seconds[1:] or self.seconds)


def run_scale(settings: ScaleSettings, say: Say = lambda _: None) -> dict[str, Any]:
    """Carry out every phase and return the record of it.

    Data, initialisation, training steps, one evolution, inference, a checkpoint, and a run resumed from it, whose next
    step must be the one that the run itself makes, bit for bit.

    Parameters
    ----------
    settings : ScaleSettings
    say : callable
        Told what is going on.

    Returns
    -------
    dict
        Plain values, for `records.append` and `report`.

    Raises
    ------
    ConfigError
        Settings that do not fit together, or too little memory.
    DivergenceError
        The loss stopped being finite.
    DataError
        A data file of another shape, or a resumed run that went another way: then this is a bug.
    """
    fit = plan_scale(settings)
    say(fit.why)
    meter, neighbours = Meter(), Neighbours()
    with ExitStack() as stack:
        folder = settings.out
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trulysparse-scale-")))
        if "checkpoint" not in settings.skip:
            _check_disk(folder, fit.plan)
        run = _ScaleRun(settings, fit.plan, meter, say, folder)
        run.read_data()
        run.initialise()
        run.train()
        busy = neighbours.cores()
        for name, phase in (("evolution", run.evolve), ("inference", run.infer), ("checkpoint", run.save)):
            if name not in settings.skip:
                phase()
        if "resume" not in settings.skip and "checkpoint" not in settings.skip:
            run.resume()
    return run.record(busy)


def plan_scale(settings: ScaleSettings) -> Fit:
    """Choose what the budget decides, before anything is allocated."""
    sizes = settings.sizes
    free = available_bytes()
    # beside the plan: interpreter, allocator, scratch of the kernels
    budget = settings.memory if settings.memory is not None else None if free is None else round(0.95 * free)
    return fit_to_budget(
        2**62 if budget is None else budget,
        sizes,
        ErdosRenyi(settings.epsilon).expected_connections(sizes),
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        storage=settings.storage,
        activation_dtype=settings.activation_dtype,
        optimizer=settings.make_optimizer(),
        topology=settings.evolving,
        dropout=settings.dropout,
        activation=parse_spec(settings.activation),
        samples=settings.samples + settings.test_samples,
        sample_bytes=0 if settings.data is not None else None,
        evaluation=settings.evaluation,
        evaluate_in_float32=False,
    )


class _ScaleRun:
    """The phases, and what passes from one to the next."""

    net: SparseMLP
    trainer: Trainer
    run: Run
    data: Samples

    def __init__(self, settings: ScaleSettings, plan: MemoryPlan, meter: Meter, say: Say, folder: Path) -> None:
        self.settings, self.plan, self.meter, self.say = settings, plan, meter, say
        self.threads = _kernels.resolve_threads(settings.threads)
        self.optimizer, self.topology = settings.make_optimizer(), settings.make_topology()
        self.steps = _Steps()
        self.found: dict[str, Any] = {}
        self.path = folder / FILE_NAME
        self.connections = 0

    def read_data(self) -> None:
        """Draw or map the samples, and measure their scaling."""
        settings, n = self.settings, self.settings.samples
        self.say(f"data: {n + settings.test_samples:,} samples of {settings.sizes[0]:,} features")
        with self.meter.phase("data", self.plan.rows[0].nbytes):
            X, y = _samples(settings, self.threads)
            self.X_test, self.y_test = X[n:], y[n:]
            self.scaling = InputScaling.fit(X[:n])
            self.inputs, self.y = Inputs(X[:n], settings.sizes[0], self.scaling), y[:n]

    def initialise(self) -> None:
        """Draw patterns and weights, and build both indices as far as they are kept."""
        settings = self.settings
        self.say(f"initialisation: {sum(self.plan.connections):,} connections")
        with self.meter.phase("initialisation") as phase:
            self.net = SparseMLP(
                settings.sizes,
                epsilon=settings.epsilon,
                activation=get_activation(parse_spec(settings.activation)),
                init=get_initializer(parse_spec(settings.init)),
                dropout=settings.dropout,
                seed=settings.seed,
                threads=settings.threads,
            )
            self.net.scaling = self.scaling
            self.trainer = self._trainer(self.net)
            for layer in self.net.layers:
                layer.prepare(self.threads)
        self.connections = self.net.connections
        self.plan = plan_network(
            self.net,
            batch_size=settings.batch_size,
            micro_batch=self.plan.micro_batch,
            storage=self.plan.storage,
            activation_dtype=self.plan.activation_dtype,
            optimizer=self.optimizer,
            topology=settings.evolving,
            samples=settings.samples + settings.test_samples,
            sample_bytes=0 if settings.data is not None else None,
            evaluation=settings.evaluation,
            evaluation_batch=self.plan.evaluation_batch,
            evaluate_in_float32=False,
        )
        phase.planned_bytes = self.plan.phase_bytes("initialisation")
        targets = self.net.loss.check_targets(self.y, settings.sizes[-1], "y")
        self.data = Samples(self.inputs, targets, None, None)
        self.run = self.trainer.run_over(self.data)

    def _trainer(self, net: SparseMLP) -> Trainer:
        settings, plan = self.settings, self.plan
        return Trainer(
            net,
            optimizer=self.optimizer,
            topology=self.topology,
            batch_size=settings.batch_size,
            micro_batch=plan.micro_batch,
            activation_dtype=plan.activation_dtype,
            storage=plan.storage,
            threads=settings.threads,
            seed=settings.seed,
            progress=False,
        )

    def train(self) -> None:
        """Make the steps, with the evolutions that come due between epochs."""
        settings, steps = self.settings, self.steps
        total, classes = settings.all_steps, settings.sizes[-1]
        self.say(f"training: {total} steps of {settings.batch_size} samples")
        with self.meter.phase("steps", self.plan.phase_bytes("step")):
            for number in range(1, total + 1):
                state = self.run.state
                before = (state.train_seconds, state.evolve_seconds, state.loss_sum, state.correct)
                self._step(self.run)
                loss, right = (state.loss_sum - before[2], state.correct - before[3])
                steps.losses.append(loss / settings.batch_size)
                steps.accuracies.append(right / settings.batch_size)
                steps.seconds.append(state.train_seconds - before[0])
                if state.evolve_seconds > before[1]:
                    steps.evolve_seconds.append(state.evolve_seconds - before[1])
                if number == 1:
                    steps.first_gradient = self._first_gradient()
                self.say(
                    f"step {number}/{total}: loss {steps.losses[-1]:.4f} (log {classes} = {math.log(classes):.4f}), "
                    f"{steps.seconds[-1]:.2f} s"
                )
                if state.batch == settings.steps_per_epoch:
                    state.start_epoch(state.epoch + 1)

    def _progress(self, step: int) -> tuple[Progress, float]:
        per_epoch = self.settings.steps_per_epoch
        epochs = max(self.settings.epochs or 1, -(-self.settings.all_steps // per_epoch) + 1)
        progress = Progress(step, step / per_epoch, per_epoch, epochs)
        return progress, self.optimizer.lr_at(progress)

    def _rows(self, run: Run) -> NDArray[np.int64]:
        state, size = run.state, self.settings.batch_size
        return self.data.order(self.settings.seed, state.epoch)[state.batch * size : (state.batch + 1) * size]

    def _step(self, run: Run) -> float:
        progress, lr = self._progress(run.state.step)
        loss = run.step(self._rows(run), progress, lr, lambda _: None)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the loss became {loss} in step {run.state.step}; lower the learning rate, or scale it to the layers "
                "with --lr-scale fan_in and draw weights with --init he_uniform,fan_in=sparse"
            )
        return loss

    def _first_gradient(self) -> float:
        """Return the largest gradient of the first layer, from the velocity after one step."""
        velocity = self.run.state.weight_slots[0]["velocity"]
        lr = self.optimizer.layer_lr(self._progress(0)[1], velocity.size, self.settings.sizes[1])
        return max(float(velocity.max(initial=0.0)), -float(velocity.min(initial=0.0))) / lr

    def evolve(self) -> None:
        """Let the rule change the network once, as before an epoch."""
        if not self.topology.dynamic:
            return
        self.say(f"evolution: {type(self.topology).__name__}")
        told: list[Evolution] = []
        per_epoch = self.settings.steps_per_epoch
        progress, lr = self._progress(per_epoch)
        with self.meter.phase("evolution", self.plan.phase_bytes("evolution")):
            self.run.evolve(self._rows(self.run), progress, lr, told.append)
        if not told:
            raise ConfigError(
                f"{type(self.topology).__name__} does not act before the second epoch; let it act then, or leave "
                "the phase out with --skip evolution"
            )
        self.found["replaced"] = sum(change.dropped for change in told[0].changes)

    def infer(self) -> None:
        """Evaluate the test samples."""
        n = self.settings.test_samples
        self.say(f"inference: {n:,} samples")
        with self.meter.phase("inference", self.plan.phase_bytes("evaluation")):
            result = self.net.evaluate(
                self.X_test,
                self.y_test,
                batch_size=self.plan.evaluation_batch,
                threads=self.threads,
                activation_dtype=self.plan.activation_dtype,
            )
        self.found |= {"test_loss": result.loss, "test_accuracy": result.accuracy}

    def save(self) -> None:
        """Write a checkpoint."""
        self.say("checkpoint")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.meter.phase("checkpoint", self.plan.held_bytes):
            self.trainer.save_checkpoint(self.path)
        self.found["checkpoint_bytes"] = self.path.stat().st_size

    def resume(self) -> None:
        """Make one more step, then the same one in a run resumed from the checkpoint, and compare."""
        self.say("resume: the next step, here and in a resumed run")
        expected = self._step(self.run), _digest(self.net)
        del self.run, self.trainer, self.net  # both runs at once might not fit
        with self.meter.phase("resume"):
            trainer = Trainer.resume(self.path, threads=self.settings.threads, progress=False)
            run = trainer.run_over(self.data)
            found = self._step(run), _digest(trainer.net)
        if found != expected:
            raise DataError(
                f"the resumed run's next step differs: loss {found[0]!r}, not {expected[0]!r}: this is a bug"
            )
        self.found["resumes_bit_for_bit"] = True

    def record(self, busy: float | None) -> dict[str, Any]:
        """Return everything in plain values."""
        settings, steps, labels = self.settings, self.steps, self.data.targets
        counts = np.bincount(labels, minlength=2) / len(labels)
        bias_only = float(-sum(part * math.log(part) for part in counts if part))
        seconds = {phase.name: phase.seconds for phase in self.meter.phases}
        paper_steps = -(-_PAPER_SAMPLES // settings.batch_size)
        minutes = {
            "initialisation": seconds["initialisation"] / 60,
            "epoch": steps.typical_seconds * paper_steps / 60,
            "inference": seconds["inference"] / 60 * _PAPER_TEST_SAMPLES / settings.test_samples
            if "inference" in seconds
            else None,
            "evolution": seconds["evolution"] / 60 if "evolution" in seconds else None,
        }
        paper = settings.paper
        names = (
            "lr", "momentum", "weight_decay", "lr_scale", "init", "topology", "drop_fraction", "activation", "dropout",
            "seed", "problem",
        )  # fmt: skip
        return {
            "benchmark": "scale",
            "network": format_sizes(settings.sizes),
            "batch": settings.batch_size,
            "threads": self.threads,
            "epsilon": settings.epsilon,
            "neurons": sum(settings.sizes[1:]),
            "connections": self.connections,
            "samples": settings.samples,
            "test_samples": settings.test_samples,
            "settings": {name: getattr(settings, name) for name in names},
            "data_mapped": settings.data is not None,
            "plan": self.plan.as_dict(),
            "phases": [phase.as_dict() for phase in self.meter.phases],
            "peak_bytes": self.meter.peak_bytes,
            "peak_is_by_phase": self.meter.by_phase,
            "step_seconds": steps.seconds,
            "evolve_seconds": steps.evolve_seconds,
            "typical_step_seconds": steps.typical_seconds,
            "losses": steps.losses,
            "accuracies": steps.accuracies,
            "log_classes": math.log(settings.sizes[-1]),
            "bias_only_loss": bias_only,
            "first_layer_largest_gradient": steps.first_gradient,
            **self.found,
            "minutes": minutes,
            "paper_minutes": None
            if paper is None
            else {name: getattr(paper, name) for name in ("initialisation", "epoch", "inference", "evolution")},
            "epoch_is_predicted_from_steps": len(steps.seconds),
            "foreign_cores": busy,
        }


def _digest(net: SparseMLP) -> int:
    """Return a number that tells one network's weights, biases and connections from another's."""
    digest = 0
    for layer in net.layers:
        for array in (layer.pattern.row_ptr, layer.pattern.col_idx, layer.values, layer.bias):
            digest = zlib.crc32(array.data, digest)
    return digest


def _check_disk(folder: Path, plan: MemoryPlan) -> None:
    """Refuse now a checkpoint that will not fit where it is to be written."""
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    # weight, column and velocity of a connection; row pointer, bias and its velocity of a neuron
    needed, free = 12 * sum(plan.connections) + 16 * sum(plan.sizes), shutil.disk_usage(existing).free
    if needed > free:
        raise ConfigError(
            f"the checkpoint takes about {format_bytes(needed)} but {folder} has {format_bytes(free)} left; give --out "
            "a directory with room, or --skip checkpoint --skip resume"
        )


def _samples(settings: ScaleSettings, threads: int) -> tuple[Array, Array]:
    """Return artificial samples and their labels, from a file if there is to be one."""
    shape = (settings.samples + settings.test_samples, settings.sizes[0])
    if settings.data is None:
        return _draw(settings, shape, None, threads)
    path, labels = settings.data, settings.data.with_suffix(".labels.npy")
    made, recipe = path.with_suffix(".json"), {"seed": settings.seed, "problem": settings.problem}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        X, y = _draw(settings, shape, path, threads)
        with replacing(labels) as temporary, temporary.open("wb") as file:
            np.save(file, y)
        with replacing(made) as temporary:
            temporary.write_text(json.dumps(recipe), encoding="utf-8")
        return X, y
    try:
        X, y = np.load(path, mmap_mode="r"), np.load(labels)
        found = json.loads(made.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read, or its labels {labels} or settings {made} ({error}); delete it to have "
            "it drawn again"
        ) from error
    if found != recipe:
        raise DataError(
            f"{path} was drawn with {found}, asked for is {recipe}; give another file, or delete it to "
            "have it drawn again"
        )
    if X.ndim != 2 or X.shape[0] < shape[0] or X.shape[1] != shape[1] or len(y) != len(X) or X.dtype != np.float32:
        raise DataError(
            f"{path} holds {X.dtype} of shape {X.shape} with {len(y)} labels, needed are {shape[0]:,} float32 samples "
            f"of {shape[1]:,} features or more; give another file, or one that does not exist yet"
        )
    return X[: shape[0]], y[: shape[0]]


def _draw(settings: ScaleSettings, shape: tuple[int, int], out: Path | None, threads: int) -> tuple[Array, Array]:
    problem = parse_spec(f"artificial,{settings.problem}" if settings.problem else "artificial")
    del problem["name"]
    allowed = ("informative", "redundant", "clusters_per_class", "class_sep", "flip", "hypercube")
    for key in problem:
        if key not in allowed:
            raise ConfigError(f"the problem has no setting {key!r}, it has {', '.join(allowed)}{nearest(key, allowed)}")
    return artificial_classification(
        *shape, settings.sizes[-1], **problem, seed=settings.seed, out=out, threads=threads
    )


_TITLES = {
    "data": "data",
    "initialisation": "initialisation",
    "steps": "training steps",
    "evolution": "one evolution",
    "inference": "inference",
    "checkpoint": "checkpoint",
    "resume": "resume and its first step",
}


def report(record: Mapping[str, Any]) -> str:
    """Return a record as text: phases with time and memory, what a whole epoch would take, and the paper's figures."""
    lines = [
        f"{record['network']}, epsilon {record['epsilon']:g}: {record['neurons']:,} neurons, "
        f"{record['connections']:,} connections; {record['threads']} thread(s)"
    ]
    lines.append(f"{'phase':<30} {'seconds':>9} {'held':>10} {'peak':>10} {'planned':>10}")
    for phase in record["phases"]:
        memory = " ".join(
            f"{'' if phase[key] is None else format_bytes(phase[key]):>10}"
            for key in ("held_bytes", "peak_bytes", "planned_bytes")
        )
        title = _TITLES[phase["name"]]
        if phase["name"] == "initialisation":
            title += ", no second index" if record["plan"]["storage"] == "lean" else ", both indices"
        lines.append(f"{title:<30} {phase['seconds']:>9.2f} {memory}")
    peak, planned = record["peak_bytes"], max(phase["planned_bytes"] or 0 for phase in record["phases"])
    if peak:
        lines.append(f"peak {format_bytes(peak)}, planned {format_bytes(planned)} ({planned / peak - 1:+.1%})")
        if not record["peak_is_by_phase"]:
            lines.append("(the system does not let peaks be measured phase by phase: each is the highest so far)")
    lines += _table_4(record)
    losses = record["losses"]
    lines.append(
        f"training loss {losses[0]:.4f} -> {losses[-1]:.4f} (log {record['network'].split('-')[-1]} = "
        f"{record['log_classes']:.4f}, biases alone {record['bias_only_loss']:.4f}); largest gradient in the first "
        f"layer {record['first_layer_largest_gradient']:.2g}"
    )
    if record.get("test_accuracy") is not None:
        lines.append(f"test loss {record['test_loss']:.4f}, test accuracy {record['test_accuracy']:.4f}")
    if record.get("resumes_bit_for_bit"):
        lines.append("the resumed run's next step is the same, bit for bit")
    return "\n".join(lines)


def _table_4(record: Mapping[str, Any]) -> list[str]:
    paper = record["paper_minutes"]
    lines = [f"{'minutes':<30} {'here':>9} {'paper':>10} {'paper/here':>10}"]
    names = {
        "initialisation": "initialisation",
        "epoch": "epoch of 7,000 samples (*)",
        "inference": "inference of 3,000 samples",
        "evolution": "evolution",
    }
    for key, name in names.items():
        minutes = record["minutes"][key]
        if minutes is None:
            continue
        beside = f" {paper[key]:>10g} {paper[key] / minutes:>10.1f}" if paper else ""
        lines.append(f"{name:<30} {minutes:>9.2f}{beside}")
    steps = record["epoch_is_predicted_from_steps"]
    needed, counted = -(-_PAPER_SAMPLES // record["batch"]), max(1, steps - 1)
    lines.append(
        f"(*) predicted: {needed} steps of {record['typical_step_seconds']:.2f} s, the median of {counted} measured "
        f"step{'s' if counted > 1 else ''}{' after the first' if steps > 1 else ''}"
    )
    if record["test_samples"] != _PAPER_TEST_SAMPLES and record["minutes"]["inference"] is not None:
        lines.append(f"(inference was measured on {record['test_samples']:,} samples and is scaled to 3,000)")
    if paper:
        lines.append("(the paper's figures are of 96 cores and 768 GB, several workers: arXiv:2102.01732, table 4)")
    return lines
