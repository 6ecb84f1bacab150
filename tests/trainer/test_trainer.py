# SPDX-License-Identifier: BSD-3-Clause
"""Runs as a user makes them: learning, reproducibility, resuming, stopping, and errors at the door."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.errors import CheckpointError, ConfigError, DataError, DivergenceError, ShapeError
from trulysparse.trainer import TrainingInterrupted


def _data(n: int = 200, features: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features)) * 1.5
    y = rng.integers(0, classes, n)
    return (centres[y] + rng.normal(size=(n, features))).astype(np.float32), y


def _trainer(net: ts.SparseMLP | None = None, **arguments: Any) -> ts.Trainer:
    if net is None:
        net = ts.SparseMLP((12, 60, 40, 3), epsilon=6, activation=ts.AllReLU(0.6), dropout=0.2, seed=3)
    defaults: dict[str, Any] = {
        "optimizer": ts.SGD(lr=0.05, momentum=0.9, weight_decay=2e-4),
        "batch_size": 32,
        "progress": False,
        "seed": 5,
    }
    return ts.Trainer(net, **(defaults | arguments))


def _bits(net: ts.SparseMLP) -> list[bytes]:
    return [array.tobytes() for layer in net.layers for array in (layer.pattern.cells(), layer.values, layer.bias)]


def test_training_learns() -> None:
    X, y = _data()
    trainer = _trainer()
    history = trainer.fit(X, y, epochs=15, validation=_data(seed=0))
    assert history.accuracy[-1] > 0.85 > history.accuracy[0]
    assert history.loss[-1] < history.loss[0]
    assert trainer.net.score(X, y) == history.val_accuracy[-1]
    assert len(history) == 15 and history.epoch == list(range(1, 16))
    assert set(history.connections) == {trainer.net.connections}


@pytest.mark.parametrize("activation_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_same_seed_same_bits_on_1_2_and_7_threads(isa: str, activation_dtype: str) -> None:
    X, y = _data(n=400, features=300)
    before = _kernels.isa()
    _kernels.set_isa(isa)
    try:
        runs = []
        for threads in (1, 2, 7):
            net = ts.SparseMLP((300, 500, 400, 3), epsilon=20, activation=ts.AllReLU(0.6), dropout=0.3, seed=1)
            trainer = _trainer(
                net, threads=threads, batch_size=128, topology=ts.SET(0.3), activation_dtype=activation_dtype
            )
            history = trainer.fit(X, y, epochs=3, validation=(X[:37], y[:37]))
            runs.append((_bits(net), history.loss, history.val_loss))
        assert runs[0] == runs[1] == runs[2]
    finally:
        _kernels.set_isa(before)


def test_another_seed_gives_another_network() -> None:
    X, y = _data()
    a, b = _trainer(seed=1), _trainer(seed=2)
    a.fit(X, y, epochs=2)
    b.fit(X, y, epochs=2)
    assert _bits(a.net) != _bits(b.net)


OPTIMIZERS = {
    "sgd": lambda: ts.SGD(lr=ts.Cosine(0.05, final=0.001), momentum=0.9, weight_decay=2e-4),
    "nesterov": lambda: ts.SGD(lr=0.02, momentum=0.9, nesterov=True, decay="l2", weight_decay=1e-3),
    "adam": lambda: ts.Adam(lr=0.003, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_does(name: str, tmp_path: Path) -> None:
    X, y = _data()
    validation = _data(seed=9)
    pruning = ts.ImportancePruning(10, start=2, period=3)
    whole = _trainer(optimizer=OPTIMIZERS[name](), pruning=pruning)
    expected = whole.fit(X, y, epochs=12, validation=validation)

    file = tmp_path / "c.safetensors"

    class StopInTheMiddle(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == 6 * 6 + 3:
                os.kill(os.getpid(), signal.SIGTERM)

    first = _trainer(optimizer=OPTIMIZERS[name](), pruning=pruning, checkpoint=file, callbacks=[StopInTheMiddle()])
    with pytest.raises(TrainingInterrupted) as stop:
        first.fit(X, y, epochs=12, validation=validation)
    assert stop.value.signal == signal.SIGTERM and str(file) in str(stop.value)
    assert first.state.batch == 3

    second = ts.Trainer.resume(file, threads=2, progress=False)
    history = second.fit(X, y, validation=validation)
    assert _bits(second.net) == _bits(whole.net)
    timeless = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "connections")
    for column in timeless:
        assert getattr(history, column) == getattr(expected, column)


def test_a_longer_run_continues_a_finished_one_bit_for_bit(tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer()
    whole.fit(X, y, epochs=8)
    short = _trainer(checkpoint=tmp_path)
    short.fit(X, y, epochs=4)
    longer = ts.Trainer.resume(tmp_path, progress=False)
    longer.fit(X, y, epochs=8)
    assert _bits(longer.net) == _bits(whole.net)
    short.fit(X, y, epochs=8)
    assert _bits(short.net) == _bits(whole.net)


def test_resume_of_early_stopping_remembers_the_best_model(tmp_path: Path) -> None:
    X, y = _data()
    validation = _data(seed=11)

    def stopping() -> ts.EarlyStopping:
        return ts.EarlyStopping(monitor="val_loss", patience=4)

    whole = _trainer(callbacks=[stopping()])
    whole.fit(X, y, epochs=60, validation=validation)
    assert whole.stop_reason is not None and len(whole.history) < 60
    best = min(whole.history.val_loss)
    assert whole.net.evaluate(*validation).loss == pytest.approx(best, rel=1e-6)

    first = _trainer(callbacks=[stopping()], checkpoint=tmp_path)
    middle = len(whole.history) - 2

    def interrupt(trainer: ts.Trainer, row: Mapping[str, Any]) -> None:
        if row["epoch"] == middle:
            os.kill(os.getpid(), signal.SIGINT)

    class Interrupt(ts.Callback):
        def on_epoch_end(self, trainer: ts.Trainer, row: Mapping[str, Any]) -> None:
            interrupt(trainer, row)

    first.callbacks.append(Interrupt())
    with pytest.raises(TrainingInterrupted):
        first.fit(X, y, epochs=60, validation=validation)
    second = ts.Trainer.resume(tmp_path, callbacks=[stopping(), Interrupt()], progress=False)
    second.callbacks.pop()
    second.fit(X, y, validation=validation)
    assert _bits(second.net) == _bits(whole.net)
    assert second.history.val_loss == whole.history.val_loss


@pytest.mark.parametrize("event", [e for e in ts.LambdaCallback.EVENTS if e != "on_fit_start"])
def test_a_checkpoint_saved_at_any_event_resumes_bit_for_bit(event: str, tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer()
    whole.fit(X, y, epochs=4)
    saved = []

    def save(trainer: ts.Trainer, *_: Any) -> None:
        if not saved and trainer.state.step > 8:
            trainer.save_checkpoint(tmp_path / "c.safetensors")
            saved.append(trainer.state.step)

    _trainer(callbacks=ts.LambdaCallback(**{event: save})).fit(X, y, epochs=4)
    resumed = ts.Trainer.resume(tmp_path / "c.safetensors", progress=False)
    resumed.fit(X, y)
    assert _bits(resumed.net) == _bits(whole.net)
    assert resumed.history.loss == whole.history.loss


def test_resume_with_a_validation_fraction_and_micro_batches_is_exact(tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer(micro_batch=16)
    whole.fit(X, y, epochs=5, validation=0.2)
    _trainer(micro_batch=16, checkpoint=tmp_path).fit(X, y, epochs=3, validation=0.2)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    with pytest.raises(DataError, match="held back"):
        resumed.fit(X, y, epochs=5, validation=0.3)
    resumed.fit(X, y, epochs=5, validation=0.2)
    assert _bits(resumed.net) == _bits(whole.net)
    assert resumed.history.val_loss == whole.history.val_loss


def test_resume_with_bfloat16_activations_is_exact(tmp_path: Path) -> None:
    X, y = _data()
    whole = _trainer(activation_dtype="bfloat16")
    whole.fit(X, y, epochs=5)
    _trainer(activation_dtype="bfloat16", checkpoint=tmp_path).fit(X, y, epochs=3)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    assert resumed.activation_dtype == "bfloat16"
    resumed.fit(X, y, epochs=5)
    assert _bits(resumed.net) == _bits(whole.net)
    assert resumed.history.loss == whole.history.loss
    plain = _trainer()
    plain.fit(X, y, epochs=5)
    assert _bits(plain.net) != _bits(whole.net)


def test_digits_are_learnt_as_well_with_bfloat16_activations() -> None:
    digits = ts.load_dataset("digits")
    accuracy = {}
    for dtype in ("float32", "bfloat16"):
        net = ts.SparseMLP((64, 200, 100, 10), epsilon=10, activation=ts.AllReLU(0.6), dropout=0.2, seed=0)
        trainer = _trainer(net, activation_dtype=dtype)
        trainer.fit(digits.X_train, digits.y_train, epochs=20)
        accuracy[dtype] = net.score(digits.X_test, digits.y_test)
    assert accuracy["bfloat16"] > 0.93
    assert abs(accuracy["bfloat16"] - accuracy["float32"]) < 0.02


def test_a_resumed_run_keeps_what_decides_its_result(tmp_path: Path) -> None:
    X, y = _data()
    _trainer(checkpoint=tmp_path).fit(X, y, epochs=1)
    for arguments in ({"batch_size": 64}, {"optimizer": "adam"}, {"thread": 2}):
        with pytest.raises(ConfigError, match="keeps its"):
            ts.Trainer.resume(tmp_path, **arguments)


def test_what_cannot_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    X, y = _data()

    class Mine(ts.Topology):
        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta | None:
            return None

    class Odd(ts.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"array": np.zeros(2)}

    blocked = tmp_path / "file"
    blocked.write_text("")
    for arguments, words in (
        ({"topology": Mine(), "checkpoint": tmp_path}, "register_topology"),
        ({"callbacks": [Odd()], "checkpoint": tmp_path}, "tensors"),
        ({"checkpoint": blocked / "c.safetensors"}, "cannot go to"),
    ):
        trainer = _trainer(**arguments)
        with pytest.raises(ConfigError, match=words):
            trainer.fit(X, y, epochs=1)
        assert trainer.state.step == 0
    _trainer(topology=Mine()).fit(X, y, epochs=2)


def test_a_network_rewired_elsewhere_is_not_trained_on_with_the_old_momentum() -> None:
    X, y = _data()
    first = _trainer()
    first.fit(X, y, epochs=2)
    ts.ImportancePruning(20).prune(first.net)
    with pytest.raises(ConfigError, match=r"make a new Trainer"):
        first.fit(X, y, epochs=4)
    second = _trainer(first.net)
    second.fit(X, y, epochs=2)
    with pytest.raises(ConfigError, match=r"make a new Trainer"):
        first.fit(X, y, epochs=4)
    untouched = _trainer()
    ts.ImportancePruning(20).prune(untouched.net)
    untouched.fit(X, y, epochs=2)


def test_interrupted_early_stopping_goes_on_in_the_same_process() -> None:
    X, y = _data()
    validation = _data(seed=11)
    whole = _trainer(callbacks=ts.EarlyStopping(patience=30))
    whole.fit(X, y, epochs=8, validation=validation)

    def interrupt(trainer: ts.Trainer, step: int) -> None:
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    parts = _trainer(callbacks=[ts.EarlyStopping(patience=30), ts.LambdaCallback(on_step_end=interrupt)])
    with pytest.raises(TrainingInterrupted):
        parts.fit(X, y, epochs=8, validation=validation)
    parts.fit(X, y, epochs=8, validation=validation)
    assert _bits(parts.net) == _bits(whole.net)


def test_a_failed_fit_leaves_no_scaling_behind() -> None:
    X, y = _data()
    trainer = _trainer()
    with pytest.raises(DataError):
        trainer.fit(X, y, epochs=1, validation=(X, y - 1))
    assert trainer.net.scaling is None
    trainer.fit(scipy.sparse.csr_array(X), y, epochs=1)


def test_memory_mapped_fortran_and_list_data_train_to_the_same_bits(tmp_path: Path) -> None:
    X, y = _data()
    np.save(tmp_path / "X.npy", X)
    forms = (X, np.load(tmp_path / "X.npy", mmap_mode="r"), np.asfortranarray(X), X.astype(np.float64))
    results = []
    for form in forms:
        trainer = _trainer()
        trainer.fit(form, y, epochs=2)
        results.append(_bits(trainer.net))
    assert all(result == results[0] for result in results)
    _trainer().fit(X.tolist(), y.tolist(), epochs=1)


@pytest.mark.parametrize("validation", [1.5, True, "abc", (1,), 0.0])
def test_a_senseless_validation_is_a_clear_error(validation: Any) -> None:
    X, y = _data()
    with pytest.raises(ConfigError, match="validation"):
        _trainer().fit(X, y, epochs=1, validation=validation)


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    X, y = _data()
    _trainer(checkpoint=tmp_path).fit(X, y, epochs=1)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    with pytest.raises(DataError, match="same data in the same order"):
        resumed.fit(X, (y + 1) % 3, epochs=2)


def test_a_damaged_or_absent_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    X, y = _data()
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        ts.Trainer.resume(tmp_path)
    trainer = _trainer(checkpoint=tmp_path)
    trainer.fit(X, y, epochs=1)
    file = tmp_path / "checkpoint.safetensors"
    whole = file.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            ts.Trainer.resume(tmp_path)
    trainer.net.save(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        ts.Trainer.resume(tmp_path / "model.safetensors")


def test_checkpoint_every_writes_while_training(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Look(ts.Callback):
        def on_epoch_start(self, trainer: ts.Trainer, epoch: int) -> None:
            seen.append((tmp_path / "checkpoint.safetensors").exists())

    X, y = _data()
    _trainer(checkpoint=tmp_path, checkpoint_every=2, callbacks=[Look()]).fit(X, y, epochs=4)
    assert seen == [False, False, True, True]
    with pytest.raises(ConfigError, match="give both"):
        _trainer(checkpoint_every=2)


def test_a_second_signal_acts_at_once() -> None:
    X, y = _data()
    # a shell's background jobs ignore SIGINT
    before, handler = signal.signal(signal.SIGINT, signal.default_int_handler), signal.default_int_handler

    class Twice(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt) as stop:
            _trainer(callbacks=[Twice()]).fit(X, y, epochs=1)
        assert not isinstance(stop.value, TrainingInterrupted)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_regression_learns() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 8)).astype(np.float32)
    y = (X[:, 0] - 2 * X[:, 1] + 0.1 * rng.normal(size=400)).astype(np.float32)
    net = ts.SparseMLP((8, 60, 1), density=0.5, loss="mse", init=ts.HeUniform(fan_in="sparse"), seed=0)
    trainer = _trainer(net, optimizer=ts.SGD(lr=0.02, momentum=0.9), topology=ts.SET(0.1))
    history = trainer.fit(X, y, epochs=60, validation=(X[:50], y[:50]))
    assert history.accuracy[-1] is None
    assert net.score(X, y) > 0.9
    assert net.predict(X).shape == (400,)


def test_a_binary_task_with_one_output_learns() -> None:
    X, y = _data(classes=2)
    net = ts.SparseMLP((12, 40, 1), epsilon=8, seed=0)
    assert net.loss.name == "binary_cross_entropy"
    _trainer(net).fit(X, y, epochs=20)
    assert net.score(X, y) > 0.85
    assert net.predict_proba(X).shape == (200, 2)


def test_raw_integer_features_are_standardised_and_the_model_keeps_the_scaling(tmp_path: Path) -> None:
    X, y = _data()
    raw = np.clip(X * 20 + 128, 0, 255).astype(np.uint8)
    trainer = _trainer()
    trainer.fit(raw, y, epochs=10)
    trainer.net.save(tmp_path / "m.safetensors")
    loaded = ts.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(raw), trainer.net.predict_proba(raw))
    assert loaded.score(raw, y) > 0.8


def test_scipy_csr_input_trains_like_the_same_dense_input_without_centring() -> None:
    X, y = _data()
    X[np.abs(X) < 1] = 0
    results = []
    for data in (scipy.sparse.csr_array(X), X):
        trainer = _trainer()
        trainer.net.scaling = ts.model.InputScaling.fit(scipy.sparse.csr_array(X))
        trainer.fit(data, y, epochs=3)
        results.append(_bits(trainer.net))
    assert results[0] == results[1]


def test_a_validation_fraction_is_held_back() -> None:
    X, y = _data(n=200)
    trainer = _trainer()
    trainer.fit(X, y, epochs=2, validation=0.25)
    assert trainer.history.val_loss[0] is not None
    assert trainer.state.step == 2 * (150 // 32)


def test_training_with_one_layer_and_no_hidden_neurons_works() -> None:
    X, y = _data()
    trainer = _trainer(ts.SparseMLP((12, 3), density=0.5, seed=0))
    trainer.fit(X, y, epochs=10)
    assert trainer.net.score(X, y) > 0.6


def test_divergence_is_an_error_that_names_epoch_and_learning_rate() -> None:
    X, y = _data()
    with pytest.raises(DivergenceError, match=r"epoch 1, batch .*learning rate 1e\+20"):
        _trainer(optimizer=ts.SGD(lr=1e20)).fit(X, y, epochs=2)


BAD_DATA = {
    "wrong feature count": (lambda X, y: (X[:, :-1], y), ShapeError, "expects 12 features"),
    "nan": (lambda X, y: (np.where(X == X[7, 2], np.nan, X).astype(np.float32), y), DataError, "NaN|finite"),
    "infinite": (
        lambda X, y: (np.where(X == X[7, 2], np.inf, X).astype(np.float32), y),
        DataError,
        "inf|finite",
    ),
    "label too large": (lambda X, y: (X, np.where(y == 2, 3, y)), DataError, "3"),
    "negative label": (lambda X, y: (X, y - 1), DataError, "-1"),
    "labels not integers": (lambda X, y: (X, y + 0.5), DataError, "integer"),
    "labels missing": (lambda X, y: (X, y[:-1]), DataError, "199"),
    "empty": (lambda X, y: (X[:0], y[:0]), DataError, "empty|no samples"),
    "batch larger than the data": (lambda X, y: (X[:20], y[:20]), DataError, "larger than the 20"),
    "one-dimensional": (lambda X, y: (X[:, 0], y), ShapeError, "2"),
    "strings": (lambda X, y: (X.astype(str), y), (DataError, TypeError), "dtype"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_a_clear_error(name: str) -> None:
    spoil, error, words = BAD_DATA[name]
    X, y = _data()
    with pytest.raises(error, match=words):
        _trainer().fit(*spoil(X, y), epochs=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"threads": 0},
        {"threads": 1.5},
        {"micro_batch": 10},
        {"micro_batch": 16.0},
        {"activation_dtype": "float16"},
        {"activation_dtype": None},
        {"activation_dtype": ["bfloat16"]},
        {"seed": -1},
        {"standardize": "no"},
        {"pruning": "importance"},
        {"net": None},
    ],
)
def test_bad_arguments_are_clear_errors(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        ts.Trainer(**({"net": ts.SparseMLP((12, 3), density=0.5), "progress": False} | arguments))
