# SPDX-License-Identifier: BSD-3-Clause
"""Runs on augmented samples: what they see, that nothing but seed, step and sample matters, and the thread ahead."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.data import validation_split
from trulysparse.engine import AugmentedInputs, Samples, plan_memory
from trulysparse.errors import ConfigError, DataError, DivergenceError, ShapeError
from trulysparse.model import InputScaling
from trulysparse.trainer import TrainingInterrupted

SHAPE = (3, 8, 8)
AUGMENT = ts.ImageAugmentation(SHAPE)
THREAD = "trulysparse-augment"


def _data(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    X = rng.integers(0, 120, (n, *SHAPE), dtype=np.uint8)
    X[np.arange(n), y, 2:6, 2:6] += 100
    return X.reshape(n, -1), y


def _trainer(**arguments: Any) -> ts.Trainer:
    net = ts.SparseMLP((192, 50, 30, 3), epsilon=6, activation=ts.AllReLU(0.6), dropout=0.2, seed=3)
    defaults: dict[str, Any] = {
        "optimizer": ts.SGD(lr=0.02, momentum=0.9),
        "batch_size": 32,
        "progress": False,
        "seed": 5,
        "threads": 2,
        "augment": AUGMENT,
    }
    return ts.Trainer(net, **(defaults | arguments))


def _bits(net: ts.SparseMLP) -> list[bytes]:
    return [array.tobytes() for layer in net.layers for array in (layer.pattern.cells(), layer.values, layer.bias)]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD)]


class Recorder(AugmentedInputs):
    """Notes which step each batch was loaded for, and whether a thread had prepared it."""

    steps: list[int]
    ready: list[bool]

    def load_training(self, rows: Any, out: Any, threads: int, *, seed: int, step: int, column: int = 0) -> None:
        self.steps.append(step)
        self.ready.append(any(batch.part(rows, seed, step, column) is not None for batch in self._ahead))
        super().load_training(rows, out, threads, seed=seed, step=step, column=column)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr("trulysparse.trainer.trainer.AugmentedInputs", Recorder)
    Recorder.steps, Recorder.ready = [], []
    return Recorder


def test_training_batches_are_augmented_then_standardised() -> None:
    X, _ = _data()
    scaling = InputScaling.fit(X)
    inputs = AugmentedInputs(X, 192, scaling, AUGMENT)
    rows = np.array([7, 100, 3, 3])
    out = _kernels.aligned_zeros((192, 16))
    inputs.load_training(rows, out, 2, seed=4, step=9)
    expected = (AUGMENT.apply(X, rows, seed=4, step=9) - scaling.shift) * scaling.factor
    np.testing.assert_array_equal(out[:, :4], expected.T)
    assert not out[:, 4:].any()


def test_the_scaling_is_fitted_on_augmented_samples_if_asked() -> None:
    X, y = _data()
    plain = _trainer()
    plain.fit(X, y, epochs=0)
    assert plain.net.scaling == InputScaling.fit(X)
    with pytest.raises(ConfigError, match="standardize='augmented' without augment"):
        _trainer(standardize="augmented", augment=None)
    trainer = _trainer(standardize="augmented")
    assert trainer.to_config()["standardize"] == "augmented"
    trainer.fit(X, y, epochs=0)
    scaling = trainer.net.scaling
    assert scaling is not None and scaling != InputScaling.fit(X)
    seen = AUGMENT.apply(X, seed=trainer.seed, step=0)
    seen = (seen.astype(np.float64) - scaling.shift) * scaling.factor
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-5)
    held = _trainer(seed=3, standardize="augmented")
    held.fit(X, y, epochs=0, validation=0.25)
    rows = validation_split(len(X), 0.25, 3)[0]
    assert held.net.scaling == InputScaling.fit(AUGMENT.apply(X, rows, seed=3, step=0))


def test_validation_and_prediction_are_never_augmented() -> None:
    X, y = _data()
    trainer, plain = _trainer(), _trainer(augment=None)
    history = trainer.fit(X, y, epochs=3, validation=(X[:50], y[:50]))
    plain.fit(X, y, epochs=3, validation=(X[:50], y[:50]))
    assert _bits(trainer.net) != _bits(plain.net)
    found = trainer.net.evaluate(X[:50], y[:50], threads=2)
    assert history.val_loss[-1] == found.loss and history.val_accuracy[-1] == found.accuracy
    again = AugmentedInputs(X, 192, trainer.net.scaling, AUGMENT)
    out, raw = _kernels.aligned_zeros((192, 16)), _kernels.aligned_zeros((192, 16))
    again.load(np.arange(16), out, 1)
    _kernels.load_dense(X, np.arange(16), raw, trainer.net.scaling.shift, trainer.net.scaling.factor, 1)
    np.testing.assert_array_equal(out, raw)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"micro_batch": 16},
        {"topology": ts.RigL(0.3, update_every=3)},
        {"topology": ts.RigL(0.3, update_every=3), "micro_batch": 16},
        {"topology": ts.SNFS(0.3)},
        {"topology": ts.TopKAST()},
        {"optimizer": ts.Adam(lr=0.003)},
    ],
    ids=str,
)
def test_bits_depend_on_neither_threads_nor_what_was_prepared(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = _data()
    runs = []
    for threads in (1, 2, 7):
        trainer = _trainer(threads=threads, **settings)
        runs.append((trainer.fit(X, y, epochs=3, validation=0.1).loss, _bits(trainer.net)))
    monkeypatch.setattr(Samples, "prepare", lambda *_, **__: None)
    trainer = _trainer(**settings)
    runs.append((trainer.fit(X, y, epochs=3, validation=0.1).loss, _bits(trainer.net)))
    assert runs[0] == runs[1] == runs[2] == runs[3]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("topology", [ts.SET(0.3), ts.RigL(0.3, update_every=4)], ids=str)
def test_every_step_is_prepared_but_the_first_of_an_epoch(topology: Any, parts: int, recorder: type[Recorder]) -> None:
    X, y = _data()
    trainer = _trainer(topology=topology, micro_batch=None if parts == 1 else 16)
    trainer.fit(X, y, epochs=3)
    steps = 3 * (len(X) // 32)
    assert recorder.steps == [step for step in range(steps) for _ in range(parts)]
    first = [step % (len(X) // 32) == 0 for step in range(steps) for _ in range(parts)]
    assert recorder.ready == [not here for here in first]


def test_micro_batches_see_the_samples_of_the_whole_batch() -> None:
    X, _ = _data()
    inputs = AugmentedInputs(X, 192, InputScaling.fit(X), AUGMENT)
    rows = np.random.default_rng(2).permutation(len(X))[:64]
    whole, part = _kernels.aligned_zeros((192, 64)), _kernels.aligned_zeros((192, 16))
    inputs.load_training(rows, whole, 2, seed=1, step=2)
    for prepared in (False, True):
        if prepared:
            inputs.prepare(rows, seed=1, step=2)
        for column in range(0, 64, 16):
            inputs.load_training(rows[column : column + 16], part, 2, seed=1, step=2, column=column)
            np.testing.assert_array_equal(part, whole[:, column : column + 16])
    inputs.close()


def test_a_batch_that_was_not_announced_is_made_on_the_spot() -> None:
    X, _ = _data()
    inputs = AugmentedInputs(X, 192, None, AUGMENT)
    rows = np.arange(32)
    got, expected = _kernels.aligned_zeros((192, 32)), _kernels.aligned_zeros((192, 32))
    for asked, seed, step in ((rows + 1, 1, 2), (rows, 2, 2), (rows, 1, 3), (rows, 1, 2)):
        inputs.prepare(rows, seed=1, step=2)
        inputs.load_training(asked, got, 2, seed=seed, step=step)
        expected[...] = AUGMENT.apply(X, asked, seed=seed, step=step).T
        np.testing.assert_array_equal(got, expected)
    inputs.close()


@pytest.mark.parametrize("micro_batch", [None, 16])
def test_a_resumed_augmented_run_ends_bit_for_bit_where_the_uninterrupted_one_does(
    micro_batch: int | None, tmp_path: Path
) -> None:
    X, y = _data()
    whole = _trainer(micro_batch=micro_batch)
    expected = whole.fit(X, y, epochs=5, validation=0.1)

    class StopInTheMiddle(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == 2 * 5 + 3:
                os.kill(os.getpid(), signal.SIGTERM)

    file = tmp_path / "c.safetensors"
    first = _trainer(micro_batch=micro_batch, checkpoint=file, callbacks=[StopInTheMiddle()])
    with pytest.raises(TrainingInterrupted):
        first.fit(X, y, epochs=5, validation=0.1)
    assert first.state.batch == 3 and not _threads()
    second = ts.Trainer.resume(file, threads=1, progress=False)
    assert second.augment == AUGMENT
    history = second.fit(X, y, validation=0.1)
    assert _bits(second.net) == _bits(whole.net)
    assert history.loss == expected.loss and history.val_loss == expected.val_loss


def test_one_thread_prepares_and_ends_with_the_run() -> None:
    X, y = _data()
    seen: list[int] = []

    class Watch(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            seen.append(len(_threads()))

    trainer = _trainer(callbacks=[Watch()])
    for epochs in (2, 4):
        trainer.fit(X, y, epochs=epochs)
        assert not _threads()
    assert set(seen) == {1}
    _trainer(callbacks=[Watch()], augment=None).fit(X, y, epochs=1)
    assert seen[-1] == 0


def test_what_goes_wrong_in_the_thread_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = _data()
    right = ts.ImageAugmentation.apply

    def wrong(self: ts.ImageAugmentation, X: Any, rows: Any = None, *, step: int = 0, **more: Any) -> Any:
        if threading.current_thread().name.startswith(THREAD) and step == 3:
            raise OSError("the disk is gone")
        return right(self, X, rows, step=step, **more)

    monkeypatch.setattr(ts.ImageAugmentation, "apply", wrong)
    trainer = _trainer()
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(X, y, epochs=2)
    assert trainer.state.step == 3 and not _threads()


def test_what_cannot_be_augmented_is_refused_at_the_door() -> None:
    X, y = _data()
    with pytest.raises(ShapeError, match=r"images of shape \(3, 9, 9\) have 243 values, but samples have 192 features"):
        _trainer(augment=ts.ImageAugmentation((3, 9, 9)))
    with pytest.raises(DataError, match=r"X is sparse and its samples cannot be augmented; pass X.toarray\(\)"):
        _trainer().fit(scipy.sparse.csr_array(X), y, epochs=1)
    with pytest.raises(ConfigError, match="augmentation"):
        _trainer(augment=10)
    with pytest.raises(ConfigError, match="'image' has no setting 'rotations'"):
        _trainer(augment={"name": "image", "shape": SHAPE, "rotations": 3})


def test_a_configuration_stands_for_the_augmentation() -> None:
    X, y = _data()
    one, other = _trainer(), _trainer(augment={"name": "image", "shape": list(SHAPE)})
    one.fit(X, y, epochs=1)
    other.fit(X, y, epochs=1)
    assert _bits(one.net) == _bits(other.net)
    assert other.to_config()["augment"] == AUGMENT.to_config()
    assert "augment" not in _trainer(augment=None).to_config()


def test_the_memory_plan_counts_augmented_samples() -> None:
    sizes, connections = (192, 50, 3), (500, 100)
    for micro_batch, batches in ((None, 3), (32, 2.25)):
        plain, augmented = (
            plan_memory(sizes, connections, batch_size=128, micro_batch=micro_batch, augmented=augmented)
            for augmented in (False, True)
        )
        assert augmented.held_bytes - plain.held_bytes == batches * 128 * 192 * 4
    trainer = _trainer(memory_budget="1GiB")
    assert trainer.memory_fit is not None
    assert "augmented samples" in [row.name for row in trainer.memory_fit.plan.rows]


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_global_standardisation_has_one_mean_and_one_deviation(kind: str, tmp_path: Path) -> None:
    X, y = _data()
    X = X // np.arange(1, 193, dtype=np.uint8)
    given = scipy.sparse.csr_array(X) if kind == "csr" else X
    trainer = _trainer(augment=None, standardize="global", checkpoint=tmp_path)
    trainer.fit(given, y, epochs=1)
    scaling = trainer.net.scaling
    mean, deviation = X.astype(np.float64).mean(), X.astype(np.float64).std()
    np.testing.assert_allclose(scaling.shift, np.full(192, 0.0 if kind == "csr" else mean), rtol=1e-6)
    np.testing.assert_allclose(scaling.factor, np.full(192, 1 / deviation), rtol=1e-6)
    resumed = ts.Trainer.resume(tmp_path, progress=False)
    assert resumed.standardize == "global" and resumed.net.scaling == scaling


def test_global_standardisation_of_equal_values_leaves_them_finite() -> None:
    equal = InputScaling.fit(np.full((7, 5), 0.1), common=True)
    assert np.all(equal.factor == 1) and np.all(equal.shift == np.float32(0.1))
    steps = InputScaling.fit(np.tile(np.arange(5.0), (7, 1)), common=True)  # constant features, of different values
    np.testing.assert_allclose(steps.factor, 1 / np.arange(5.0).std(), rtol=1e-6)


def test_standardize_takes_features_for_true() -> None:
    X, y = _data()
    nets = []
    for standardize in (True, "features"):
        trainer = _trainer(standardize=standardize)
        trainer.fit(X, y, epochs=1)
        assert trainer.to_config()["standardize"] is True
        nets.append(_bits(trainer.net))
    assert nets[0] == nets[1]
    assert _trainer(standardize=False).to_config()["standardize"] is False
    with pytest.raises(ConfigError, match="standardize='all' is neither True"):
        _trainer(standardize="all")


@pytest.mark.parametrize(("standardize", "hinted"), [("features", True), ("augmented", False), ("global", False)])
def test_a_run_that_diverges_on_augmented_samples_is_told_of_their_scaling(standardize: str, hinted: bool) -> None:
    X, y = _data()
    trainer = _trainer(standardize=standardize, optimizer=ts.SGD(lr=1e6, momentum=0.9))
    with pytest.raises(DivergenceError, match="lower the learning rate") as raised:
        trainer.fit(X, y, epochs=20)
    assert ("set standardize='augmented'" in str(raised.value)) == hinted
