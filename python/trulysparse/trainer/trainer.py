# SPDX-License-Identifier: BSD-3-Clause
"""The training loop as a user starts it."""

from __future__ import annotations

import functools
import json
import math
import numbers
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.data import Augmentation, get_augmentation, validation_split
from trulysparse.engine import (
    AugmentedInputs,
    Engine,
    Fit,
    NetworkSnapshot,
    Run,
    Samples,
    TrainState,
    fit_to_budget,
    restore_network,
)
from trulysparse.errors import CheckpointError, ConfigError, DataError, DivergenceError, ScheduleWarning
from trulysparse.model import Inputs, InputScaling, SparseMLP
from trulysparse.model.inference import BATCH_SIZE
from trulysparse.model.registry import check_integer, check_seed
from trulysparse.optim import SGD, Optimizer, Progress, get_optimizer
from trulysparse.parallel import Parallel, ParallelReport, get_parallel, wire
from trulysparse.parallel.world import World
from trulysparse.topology import SET, ImportancePruning, Topology, get_pruning, get_topology
from trulysparse.trainer.callbacks import Callback, CallbackList
from trulysparse.trainer.checkpoint import (
    FILE_NAME,
    check_saveable,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
    stateful,
)
from trulysparse.trainer.history import History, Row
from trulysparse.trainer.parallel import TrainerHost
from trulysparse.trainer.progress import ProgressReporter
from trulysparse.trainer.signals import StopSignals, TrainingInterrupted

Validation = tuple[Any, Any] | float | None


class Trainer:
    """Trains a network: epochs of shuffled batches, and evolutions of the topology when its rule is due.

    Parameters
    ----------
    net : SparseMLP
        Trained in place.
    optimizer : Optimizer, str or mapping, optional
        Default ``SGD(lr=0.01, momentum=0.9)``.
    topology : Topology, str or mapping, optional
        How connections change; default ``SET(0.3)``, after every epoch; ``Static()`` for never.
    pruning : ImportancePruning or mapping, optional
        Importance pruning before an evolution; default none.
    batch_size : int
        Samples a step; what is left of an epoch after whole batches is dropped (the order changes every epoch).
    threads : int, optional
        Threads for the kernels; default all cores of the process. The result is the same, bit for bit, for any number.
    seed : int
        Seed of data order, dropout and regrowth.
    standardize : bool or str
        Fit a scaling (zero mean, unit deviation; unit deviation only for sparse input) on the training data, unless
        the network has one already, and keep it with the network, so that prediction takes raw features. True or
        ``"features"``: each feature by its own mean and deviation; ``"global"``: all by one mean and one deviation, as
        suits the pixels of images; ``"augmented"``: each feature by mean and deviation of the samples as `augment`
        changes them. Choose that or "global" where a feature hardly varies before the change, as pixels at a border: by
        its own deviation, what is shifted there would be huge, and training might diverge.
    augment : Augmentation or mapping, optional
        Change training samples at random, anew at every step, before they are standardised: ``ImageAugmentation(...)``.
        Validation and prediction take samples as they are, and so does the fit of the scaling, unless `standardize` is
        "augmented". In one process a thread prepares the next batch while the present one trains; the result does not
        depend on it.
    micro_batch : int, optional
        Handle a batch in parts of this many samples (a multiple of 16): less memory, the same result up to rounding.
    activation_dtype : str
        How activations and their gradients are stored between hidden layers: ``"float32"``, or ``"bfloat16"``, which
        halves their memory and what the kernels read. Sums, weights, biases, optimizer state, inputs and the loss stay
        float32; each stored value is rounded to 8 significant bits (a relative error of at most 2^-8), as in mixed
        precision training. Choose it where activations outgrow the cache or the memory: layers of 100,000 neurons and
        more train 1.2 to 1.9 times as fast. Prediction and evaluation use float32 always. ``"auto"``, with a
        `memory_budget`: bfloat16 only if the budget demands it.
    memory_budget : int or str, optional
        What network, optimizer state and activations may take together at their peak, in bytes or as a size such as
        ``"8GiB"``; your data is not counted. It chooses `micro_batch` and `storage` where they are None, and
        `activation_dtype` where it is "auto", and says what it chose; too small a budget is an error that says what
        would fit.
    storage : str, optional
        What is kept for the forward pass, which reads connections by target neuron: ``"balanced"``, 8 bytes a
        connection (an index and a permutation; 12 where a batch has three micro-batches or more); ``"fast"``, always 8
        (an index and a copy of the weights, made anew every step); or ``"lean"``, nothing: every pass sorts the
        connections of a layer for itself, for networks that would not fit otherwise. The result is the same, bit for
        bit. Default "balanced", or what `memory_budget` allows.
    validate_every : int
        Evaluate the validation data every so many epochs, and after the last.
    callbacks : sequence of Callback
        Called at the events of a run.
    checkpoint : str or Path, optional
        File or directory for checkpoints; written when the run ends, is stopped by Ctrl-C or SIGTERM, and...
    checkpoint_every : int, optional
        ... after every so many epochs.
    progress : bool
        Show a progress line (plain lines where standard error is not a terminal).
    parallel : Parallel, str or mapping, optional
        Train in several processes, started by mpiexec, each of which makes the same trainer and calls `fit` with the
        same data: ``WASAP()``, ``"wassp"``, ... Callbacks, progress and checkpoints are rank 0's.

    Attributes
    ----------
    history : History
        One row for each finished epoch.
    state : TrainState
        Counters and optimizer state.
    epochs : int or None
        How many epochs the run is to have, as the last `fit` or the checkpoint said.
    memory_fit : Fit or None
        The plan that `memory_budget` led to.
    steps_per_epoch : int
        Whole batches in the training data; of a synchronous parallel run, the steps that they make.
    samples_per_epoch : int
        Samples in them.
    stop_reason : str or None
        Why a callback ended the run.
    parallel_report : ParallelReport or None
        What the last parallel run took and sent; on rank 0.
    notes : dict
        What a parallel run keeps in its checkpoints besides.
    note_more : callable
        Returns what belongs to the notes at the moment of a checkpoint.
    data_fingerprint : dict or None
        What a resumed run recognises its training data by.

    Raises
    ------
    ConfigError
        An argument that is unknown, of the wrong type or out of range.
    """

    def __init__(
        self,
        net: SparseMLP,
        *,
        optimizer: Optimizer | str | Mapping[str, Any] | None = None,
        topology: Topology | str | Mapping[str, Any] | None = None,
        pruning: ImportancePruning | Mapping[str, Any] | None = None,
        batch_size: int = 128,
        threads: int | None = None,
        seed: int = 0,
        standardize: bool | str = True,
        augment: Augmentation | Mapping[str, Any] | None = None,
        micro_batch: int | None = None,
        activation_dtype: str = "float32",
        memory_budget: int | str | None = None,
        storage: str | None = None,
        validate_every: int = 1,
        callbacks: Sequence[Callback] | Callback = (),
        checkpoint: str | Path | None = None,
        checkpoint_every: int | None = None,
        progress: bool = True,
        parallel: Parallel | str | Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(net, SparseMLP):
            raise ConfigError(
                f"net must be a SparseMLP, got {type(net).__name__}; Trainer(net, ...) trains it in place"
            )
        self.net = net
        self.optimizer = SGD() if optimizer is None else get_optimizer(optimizer)
        self.topology = SET() if topology is None else get_topology(topology)
        self.pruning = get_pruning(pruning)
        if self.pruning is not None:
            self.topology.check_pruning(self.pruning)
        self.batch_size = check_integer(batch_size, "batch_size", low=1)
        self.threads = threads
        self.seed = check_seed(seed)
        self.standardize = _check_standardize(standardize)
        if self.standardize == "augmented" and augment is None:
            raise ConfigError("standardize='augmented' without augment: give one, or use standardize=True")
        self.augment = get_augmentation(augment)
        if self.augment is not None:
            self.augment.check(net.sizes[0])
        self.validate_every = check_integer(validate_every, "validate_every", low=1)
        self.callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        CallbackList(self.callbacks)  # checks them
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        if self.checkpoint is not None and self.checkpoint.suffix != ".safetensors":
            self.checkpoint = self.checkpoint / FILE_NAME
        self.checkpoint_every = (
            None if checkpoint_every is None else check_integer(checkpoint_every, "checkpoint_every", low=1)
        )
        if self.checkpoint_every is not None and self.checkpoint is None:
            raise ConfigError("checkpoint_every is set but checkpoint (where to write them) is not; give both")
        self.progress = progress
        self.parallel = get_parallel(parallel)
        if self.parallel is not None:
            self.parallel.check(net, self.topology, self.pruning)
            if memory_budget is not None:
                raise ConfigError(
                    "memory_budget plans for one process and cannot be combined with parallel, which says and checks "
                    "what its processes take when it begins; leave one of them out"
                )
            if storage not in (None, "balanced"):
                raise ConfigError(
                    f"storage={storage!r} with parallel training: processes share second indices with permutations; "
                    "use storage='balanced'"
                )
        self.memory_fit = self._fit_to_budget(memory_budget, micro_batch, activation_dtype, storage)
        self._fit_unsaid = self.memory_fit is not None
        plan = None if self.memory_fit is None else self.memory_fit.plan
        self.micro_batch = micro_batch if plan is None else plan.micro_batch
        if plan is not None:
            activation_dtype = plan.activation_dtype
        if activation_dtype == "auto":
            raise ConfigError("activation_dtype='auto' leaves the choice to memory_budget; give one, or use 'float32'")
        self.activation_dtype = activation_dtype
        self.storage = ("balanced" if storage is None else storage) if plan is None else plan.storage
        self.parallel_report: ParallelReport | None = None
        self.notes: dict[str, Any] = {}
        self.note_more: Callable[[], dict[str, Any]] = dict
        self._shared_out = False
        self.history = History()
        self.epochs: int | None = None
        self.steps_per_epoch = 0
        self.samples_per_epoch = 0
        self.stop_reason: str | None = None
        self.data_fingerprint: dict[str, Any] | None = None
        self._engine = Engine(
            net,
            self.optimizer,
            seed=self.seed,
            threads=_kernels.resolve_threads(threads),
            topology=self.topology,
            micro_batch=self.micro_batch,
            activation_dtype=self.activation_dtype,
            storage=self.storage,
        )
        self._versions = self._net_versions()

    def __repr__(self) -> str:
        return (
            f"Trainer({self.net!r}, optimizer={self.optimizer!r}, topology={self.topology!r}, "
            f"pruning={self.pruning!r}, batch_size={self.batch_size}, seed={self.seed}; {self.state.epoch} epochs done)"
        )

    def _fit_to_budget(
        self, memory_budget: int | str | None, micro_batch: int | None, activation_dtype: str, storage: str | None
    ) -> Fit | None:
        """Choose what is to be chosen so that the run keeps to its budget."""
        if memory_budget is None:
            return None
        net = self.net
        return fit_to_budget(
            memory_budget,
            net.sizes,
            [layer.nnz for layer in net.layers],
            batch_size=self.batch_size,
            micro_batch=micro_batch,
            activation_dtype=None if activation_dtype == "auto" else activation_dtype,
            storage=storage,
            optimizer=self.optimizer,
            topology=self.topology,
            dropout=net.dropout,
            activation=net.activation,
            augmented=self.augment is not None,
        )

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end: all epochs done, or stopped by a callback."""
        return self.stop_reason is not None or (self.epochs is not None and self.state.epoch >= self.epochs)

    @property
    def settled(self) -> bool:
        """Whether the topology rule has brought the network to the density that it is to end with."""
        if self.notes.get("phase") == 2:  # workers have networks of their own; the one here is that of phase one
            return False
        if self.epochs is None or not self.steps_per_epoch:
            return True
        step, per_epoch = self.state.step, self.steps_per_epoch
        return self.topology.settled(Progress(step, step / per_epoch, per_epoch, self.epochs))

    @property
    def state(self) -> TrainState:
        """Counters and optimizer state of the run."""
        return self._engine.state

    def fit(self, X: Any, y: Any, *, epochs: int | None = None, validation: Validation = None) -> History:
        """Train until `epochs` epochs are done in all.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), or scipy CSR
            Raw features: any integer or float dtype, never copied as a whole.
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Integer labels from 0, or numbers for regression.
        epochs : int, optional
            Total number of epochs of the run; a trainer that has done some already (an earlier `fit`, a resumed
            checkpoint) does the rest. Default: what the resumed run was asked for, else 100.
        validation : (X, y), float, optional
            Data to evaluate after every epoch, or the fraction of the training data to hold back for it.

        Returns
        -------
        History
            Also in `self.history`.

        Raises
        ------
        ShapeError, DataError, TypeError
            If the data does not fit the network, has a dtype that cannot be trained on, or holds NaN, infinities or
            labels out of range.
        ConfigError
            If an argument is out of range, a checkpoint could not be written, or the network was rewired by something
            else since the last fit.
        DivergenceError
            If the loss stops being finite.
        TrainingInterrupted
            After Ctrl-C or SIGTERM, when the step under way is finished and the checkpoint written.
        """
        if epochs is None:
            epochs = self.epochs if self.epochs is not None else 100
        epochs = check_integer(epochs, "epochs", low=0)
        if self.parallel is not None:
            return self._fit_parallel(self.parallel, X, y, epochs, validation)
        data = self._prepare(X, y, epochs, validation)
        self.steps_per_epoch = data.count // self.batch_size
        self.samples_per_epoch = self.steps_per_epoch * self.batch_size
        self._check_run(epochs)
        callbacks = self._all_callbacks()
        if self.memory_fit is not None and self._fit_unsaid and self.progress:
            print(self.memory_fit.why, file=sys.stderr)
            self._fit_unsaid = False
        with StopSignals() as signals:
            callbacks.on_fit_start(self)
            concluded = False
            try:
                while self.state.epoch < epochs and self.stop_reason is None:
                    self._epoch(data, epochs, callbacks, signals)
                concluded = True
            finally:
                data.close()
                self.conclude(callbacks, save=concluded)
        return self.history

    def _all_callbacks(self) -> CallbackList:
        return CallbackList([*self.callbacks, *([ProgressReporter()] if self.progress else [])])

    def _prepare(self, X: Any, y: Any, epochs: int, validation: Validation) -> Samples:
        """Check that the run can begin or go on, and admit the data."""
        self._check_net()
        if self.checkpoint is not None:
            check_saveable(self, self.checkpoint)
        if self.notes.get("phase") == 2 and epochs != self.epochs:
            raise ConfigError(
                f"the run is in the local phase of its {self.epochs} epochs, in which every worker has a network of "
                f"its own; finish it with epochs={self.epochs} first, then prolong it"
            )
        if self.state.step == 0:
            self.topology.check(self.net)
        data = self._admit(X, y, validation)
        if epochs != self.epochs:
            self.stop_reason = None  # a run that stopped early goes on only if it is asked for more
        self._unsettled = not self.settled
        self.epochs = epochs
        return data

    def _check_run(self, epochs: int) -> None:
        """Refuse or warn of what cannot happen in a run of this length."""
        if self.state.step == 0 and epochs:
            self.topology.check_run(self.net, Progress(0, 0.0, self.steps_per_epoch, epochs))
            if self.pruning is not None and not any(self.pruning.due(epoch) for epoch in range(epochs - 1)):
                warnings.warn(
                    f"importance pruning with start={self.pruning.start} and period={self.pruning.period} never comes "
                    f"due in a run of {epochs} epochs; make start smaller",
                    ScheduleWarning,
                    stacklevel=3,
                )
        elif self._unsettled and self.settled:
            warnings.warn(
                f"the run was cut to {epochs} epochs after the point at which {type(self.topology).__name__} would "
                "have reached its final density, so it never will; give it more epochs",
                ScheduleWarning,
                stacklevel=3,
            )

    def _fit_parallel(self, parallel: Parallel, X: Any, y: Any, epochs: int, validation: Validation) -> History:
        """Agree with the other ranks, and carry out this rank's part."""
        world = World.open(parallel.name, parallel.minimum)
        main = world.rank == 0
        with world.together("checking the settings and the data"):
            if main:
                data = self._prepare(X, y, epochs, validation)
        agreed: dict[str, Any] = world.broadcast_json(
            {"data": self.data_fingerprint, "settings": self.to_config(), "epochs": epochs, "sizes": self.net.sizes}
            if main
            else None
        )
        scaling = wire.broadcast_tensors(world, _scaling_tensors(self.net.scaling) if main else None)
        with world.together("checking the settings and the data"):
            if not main:
                self.epochs = epochs
                self.net.scaling = InputScaling(scaling["shift"], scaling["factor"]) if scaling else None
                data = self._admit(X, y, validation, standardize=False)
            mine = {"data": self.data_fingerprint, "settings": self.to_config(), "epochs": epochs}
            for key, value in json.loads(json.dumps(mine)).items():
                if value != agreed[key]:
                    raise ConfigError(
                        f"rank {world.rank} was given other {key} than rank 0: {value}, there {agreed[key]}; every "
                        "process must make the same trainer and pass the same data"
                    )
            workers, batches = parallel.workers(world.size), data.count // self.batch_size
            parallel.check_run(batches, workers, epochs)
            self.steps_per_epoch = parallel.steps_per_epoch(batches, workers)
            self.samples_per_epoch = batches // self.steps_per_epoch * self.steps_per_epoch * self.batch_size
            if main:
                self._check_run(epochs)
        self._engine.threads = parallel.threads(world, self.threads)
        taken = parallel.prepare(self.net, self.optimizer, epochs, self._engine.threads, world)
        if taken is not None and self.progress:
            print(taken, file=sys.stderr)
        callbacks = self._all_callbacks() if main else CallbackList([])
        with StopSignals() as signals:
            with world.together("starting the run"):
                callbacks.on_fit_start(self)
                host = TrainerHost(self, data, epochs, callbacks, signals)
            self._shared_out = True
            try:
                signal, self.parallel_report = parallel.train(host, world)
            finally:
                self._shared_out = False
                if main and not host.concluded:
                    self.conclude(callbacks, save=False)
                self._versions = self._net_versions()
        world.close()
        if signal:
            raise TrainingInterrupted(signal, None if self.checkpoint is None else str(self.checkpoint))
        return self.history

    def conclude(self, callbacks: CallbackList, *, save: bool = True) -> None:
        """End a run: save it if there is a place, tell the callbacks."""
        self._shared_out = False
        try:
            if save and self.checkpoint is not None:
                save_checkpoint(self, self.checkpoint)
        finally:
            callbacks.on_fit_end(self, self.history)
            self._versions = self._net_versions()

    def stop(self, reason: str) -> None:
        """End the run after the epoch under way; callbacks call this."""
        self.stop_reason = reason

    def restore(self, snapshot: NetworkSnapshot) -> None:
        """Put an earlier network back; optimizer state, which belonged to other connections, starts again at zero.

        Raises
        ------
        ConfigError
            While a parallel run is under way: other processes work on the network. In `on_fit_end` it is over.
        """
        if self._shared_out:
            raise ConfigError(
                "the network cannot be replaced while other processes train it; do it in on_fit_end, as EarlyStopping "
                "does, or train in one process"
            )
        state, sizes = self.state, self.net.sizes
        restore_network(self.net, snapshot)
        fresh = TrainState.fresh(self.net, self.optimizer, self.topology)
        state.weight_slots, state.bias_slots = fresh.weight_slots, fresh.bias_slots
        state.activation_slots = fresh.activation_slots
        if sizes != self.net.sizes:  # neurons are back: what is remembered of the others does not fit any more
            back = [now - then for then, now in zip(sizes[1:-1], self.net.sizes[1:-1], strict=True)]
            state.removed = [max(0, n - more) for n, more in zip(state.removed or [0] * len(back), back, strict=True)]
            state.pruned, state.rule = fresh.pruned, fresh.rule
        state.exploring = fresh.exploring

    def save_checkpoint(self, path: str | Path) -> None:
        """Write network, optimizer state, counters, history and settings to `path`, atomically."""
        save_checkpoint(self, path)

    @classmethod
    def resume(cls, path: str | Path, **overrides: Any) -> Trainer:
        """Rebuild a trainer from a checkpoint (file or run directory); call `fit` with the same data to go on.

        The finished run is bit for bit the one that would not have been interrupted. `overrides` may set `threads`,
        `callbacks`, `checkpoint`, `checkpoint_every` and `progress`; and, in a parallel run, ``outline=True`` on ranks
        other than 0, which then take no memory for a network that rank 0 sends them.

        Raises
        ------
        CheckpointError
            If the file is missing, truncated, foreign or of a newer version.
        """
        return load_checkpoint(path, **overrides)

    def adopt(
        self,
        state: TrainState,
        *,
        rows: Sequence[Mapping[str, Any]],
        epochs: int | None,
        stop_reason: str | None,
        data_fingerprint: dict[str, Any] | None,
        callback_states: Sequence[tuple[str, Mapping[str, Any], Mapping[str, NDArray[Any]]]],
    ) -> None:
        """Take over where a checkpoint stands; `resume` calls this."""
        self.take_over(state, rows)
        self.epochs = epochs
        self.stop_reason = stop_reason
        self.data_fingerprint = data_fingerprint
        if self.callbacks:
            kept = stateful(self.callbacks)
            names = [type(callback).__name__ for callback in kept]
            if names != [name for name, _, _ in callback_states]:
                raise CheckpointError(
                    f"the checkpoint was written with callbacks {[n for n, _, _ in callback_states]}, but got "
                    f"{names}; pass the same ones in the same order, or none"
                )
            for callback, (_, saved, tensors) in zip(kept, callback_states, strict=True):
                callback.load_state_dict(saved, tensors)

    def take_over(self, state: TrainState, rows: Sequence[Mapping[str, Any]]) -> None:
        """Go on from another state and its history."""
        self._engine.state = state
        self.history = History()
        for row in rows:
            self.history.append(dict(row))

    def run_over(self, samples: Samples) -> Run:
        """Return the run of this trainer over some samples, step by step."""
        return Run(self._engine, self.topology, self.pruning, samples)

    def to_config(self) -> dict[str, Any]:
        """Return the arguments that decide the result, as a run file holds them."""
        return {
            "optimizer": self.optimizer.to_config(),
            "topology": self.topology.to_config(),
            "pruning": None if self.pruning is None else self.pruning.to_config(),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "standardize": self.standardize,
            **({} if self.augment is None else {"augment": self.augment.to_config()}),
            "micro_batch": self.micro_batch,
            "activation_dtype": self.activation_dtype,
            "storage": self.storage,
            "validate_every": self.validate_every,
            **({} if self.parallel is None else {"parallel": self.parallel.to_config()}),
        }

    def _net_versions(self) -> list[int]:
        return [layer.version for layer in self.net.layers]

    def _check_net(self) -> None:
        """Refuse to go on with a network that something else rewired: the optimizer state would not fit it."""
        if self._versions == self._net_versions():
            return
        if self.state.step == 0:
            self._engine.state = TrainState.fresh(self.net, self.optimizer, self.topology)
            return
        raise ConfigError(
            "the network's connections were changed since this trainer last trained it (pruned, restored, or trained "
            "by another trainer); make a new Trainer(net, ...) to go on with the network as it is now"
        )

    def _fit_scaling(self, X: Any, rows: NDArray[np.int64] | None) -> InputScaling:
        """Return the scaling that `standardize` asks for."""
        augment = self.augment
        if self.standardize != "augmented" or augment is None or hasattr(X, "tocsr"):  # augmented CSR is refused later
            return InputScaling.fit(X, rows=rows, common=self.standardize == "global")

        def changed(some: NDArray[np.int64]) -> NDArray[Any]:
            return augment.apply(X, some, seed=self.seed, step=0, threads=self.threads)

        return InputScaling.fit(X, rows=rows, changed=changed)

    def _admit(self, X: Any, y: Any, validation: Validation, *, standardize: bool | None = None) -> Samples:
        """Check the data, hold back a validation part if asked, fit the scaling if none is there and one is wanted."""
        net, size = self.net, self.net.sizes
        y = np.asarray(y)
        if not hasattr(X, "tocsr"):
            X = np.asarray(X)
        count = Inputs.count(X, size[0], "X")
        if y.ndim == 0 or len(y) != count:
            raise DataError(
                f"X has {count} samples but y has {len(y) if y.ndim else 'none'}; they must belong together row by row"
            )
        held_back, pair = _split_validation(validation)
        mark = fingerprint(X, y, held_back)
        if self.state.step and self.data_fingerprint not in (None, mark):
            raise DataError(
                "the training data (or the fraction held back for validation) is not what this run began with: "
                f"got {mark}, began with {self.data_fingerprint}; go on with the same data in the same order, or make "
                "a new Trainer(net, ...) to train the network on other data"
            )
        targets = net.loss.check_targets(y, size[-1], "y")
        rows = None
        if held_back is not None:
            rows, held_rows = validation_split(count, held_back, self.seed)
            pair = (X[held_rows], y[held_rows])
        scaling = net.scaling
        if scaling is None and (self.standardize if standardize is None else standardize):
            scaling = self._fit_scaling(X, rows)
        inputs = (
            Inputs(X, size[0], scaling, "X")
            if self.augment is None
            else AugmentedInputs(X, size[0], scaling, self.augment, "X")
        )
        samples = Samples(
            inputs,
            targets,
            rows,
            None if pair is None else self._admit_validation(*pair, scaling),
        )
        if self.batch_size > samples.count:
            raise DataError(
                f"batch_size {self.batch_size} is larger than the {samples.count} training samples; "
                f"set batch_size to at most {samples.count}"
            )
        self.data_fingerprint = mark
        net.scaling = scaling
        return samples

    def _admit_validation(self, X: Any, y: Any, scaling: InputScaling | None) -> tuple[Inputs, NDArray[Any]]:
        inputs = Inputs(X, self.net.sizes[0], scaling, "the validation X")
        targets = self.net.loss.check_targets(y, self.net.sizes[-1], "the validation y")
        if len(targets) != inputs.n_samples:
            raise DataError(f"the validation X has {inputs.n_samples} samples but its y has {len(targets)}")
        return inputs, targets

    def _epoch(self, data: Samples, epochs: int, callbacks: CallbackList, signals: StopSignals) -> None:
        state, size, batches = self.state, self.batch_size, self.steps_per_epoch
        run = self.run_over(data)
        told = functools.partial(callbacks.on_evolution, self)
        order = data.order(self.seed, state.epoch)
        callbacks.on_epoch_start(self, state.epoch + 1)
        while state.batch < batches:
            rows = order[state.batch * size : (state.batch + 1) * size]
            progress = Progress(state.step, state.step / batches, batches, epochs)
            lr = self.optimizer.lr_at(progress)
            if state.batch + 1 < batches:
                following = order[(state.batch + 1) * size : (state.batch + 2) * size]
                data.prepare(following, seed=self.seed, step=state.step + 1)
            loss = run.step(rows, progress, lr, told)
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss became {loss} in epoch {state.epoch + 1}, batch {state.batch + 1} of {batches} "
                    f"(learning rate {lr:g}); lower the learning rate, or clip gradients with clip_norm"
                    + self._hint_at_scaling()
                )
            callbacks.on_step_end(self, state.step)
            self._obey(signals)
        self.close_epoch(data, batches * size, epochs, callbacks)
        self._obey(signals)

    def _hint_at_scaling(self) -> str:
        if self.augment is None or self.standardize is not True:
            return ""
        return "; or set standardize='augmented', as augmented values may lie far outside the scaling of the others"

    def close_epoch(
        self, data: Samples, samples: int, epochs: int, callbacks: CallbackList, *, validate: bool = True
    ) -> Row:
        """Evaluate, write the epoch's row and return it, move on to the next epoch, save if it is time."""
        state, net = self.state, self.net
        done = state.epoch + 1
        started = time.perf_counter()
        wanted = validate and (done % self.validate_every == 0 or done == epochs)
        row = {
            "epoch": done,
            "loss": state.loss_sum / samples,
            "accuracy": state.correct / samples if net.loss.has_accuracy else None,
            **(self.validate(data) if wanted else {"val_loss": None, "val_accuracy": None}),
            "connections": net.connections,
            "train_seconds": state.train_seconds,
            "eval_seconds": time.perf_counter() - started,
            "evolve_seconds": state.evolve_seconds,
        }
        self.add_row(row, callbacks)
        return row

    def validate(self, data: Samples) -> dict[str, float | None]:
        """Return val_loss and val_accuracy of the network as it is; None without validation data."""
        if data.validation is None:
            return {"val_loss": None, "val_accuracy": None}
        net = self.net
        size = BATCH_SIZE if self.memory_fit is None else self.memory_fit.plan.evaluation_batch
        found = net.evaluate_inputs(*data.validation, batch_size=size, threads=self._engine.threads)
        return {"val_loss": found.loss, "val_accuracy": found.accuracy}

    def add_row(self, row: Mapping[str, Any], callbacks: CallbackList) -> None:
        """Write the row of an epoch that is done, move on to the next, save if it is time."""
        done = int(row["epoch"])
        self.history.append(row)
        self.state.start_epoch(done)  # first, so that a callback may write a checkpoint
        callbacks.on_epoch_end(self, dict(row))
        if self.checkpoint is not None and self.checkpoint_every and done % self.checkpoint_every == 0:
            save_checkpoint(self, self.checkpoint)

    def _obey(self, signals: StopSignals) -> None:
        """End the run between two steps if a signal came."""
        if signals.received is None:
            return
        if self.checkpoint is not None:
            save_checkpoint(self, self.checkpoint)
        raise TrainingInterrupted(signals.received, None if self.checkpoint is None else str(self.checkpoint))


def _check_standardize(standardize: object) -> bool | str:
    """Return True for each feature by itself, False for none, else the word."""
    if isinstance(standardize, bool | np.bool_):
        return bool(standardize)
    if standardize == "features":
        return True
    if not isinstance(standardize, str) or standardize not in ("global", "augmented"):
        raise ConfigError(
            f"standardize={standardize!r} is neither True (the same as 'features'), nor 'global', nor 'augmented', "
            "nor False"
        )
    return standardize


def _scaling_tensors(scaling: InputScaling | None) -> dict[str, NDArray[Any]]:
    return {} if scaling is None else {"shift": scaling.shift, "factor": scaling.factor}


def _split_validation(validation: Any) -> tuple[float | None, tuple[Any, Any] | None]:
    """Return the fraction to hold back, or the pair that was given."""
    if validation is None:
        return None, None
    if isinstance(validation, numbers.Real) and not isinstance(validation, bool):
        return float(validation), None
    if isinstance(validation, tuple | list) and len(validation) == 2:
        return None, (validation[0], validation[1])
    raise ConfigError(
        f"validation must be a pair (X, y) or a fraction of the training data such as 0.1, "
        f"got {type(validation).__name__}"
    )
