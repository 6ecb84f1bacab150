# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import NetworkSnapshot, restore_network
from trulysparse.errors import CheckpointError, ConfigError
from trulysparse.trainer.callbacks import BestModel, Callback, CallbackList, EarlyStopping, LambdaCallback
from trulysparse.trainer.history import History, Row


def _net() -> ts.SparseMLP:
    return ts.SparseMLP((4, 8, 2), density=0.5, seed=0)


class _Run:
    """The least that callbacks need of a trainer: each epoch sets every weight to its number."""

    settled = True

    def __init__(self, *, validate_every: int = 1, epochs: int = 100) -> None:
        self.net = _net()
        self.history = History()
        self.validate_every = validate_every
        self.epochs = epochs
        self.stop_reason: str | None = None
        self.finished = True

    def stop(self, reason: str) -> None:
        self.stop_reason = reason

    def restore(self, snapshot: NetworkSnapshot) -> None:
        restore_network(self.net, snapshot)

    def go(self, callback: Callback, values: list[float | None], *, monitor: str = "val_loss") -> None:
        for value in values:
            if self.stop_reason:
                return
            epoch = len(self.history) + 1
            for layer in self.net.layers:
                layer.values[...] = epoch
            row: Row = {"epoch": epoch, "loss": 1.0, "accuracy": 0.5, "val_loss": None, "val_accuracy": None}
            row |= {"connections": 3, "train_seconds": 0.1, "eval_seconds": 0.0, "evolve_seconds": 0.0}
            row[monitor] = value
            self.history.append(row)
            callback.on_epoch_end(self, row)  # type: ignore[arg-type]

    def weights(self) -> set[float]:
        return {float(w) for layer in self.net.layers for w in layer.values}


def _run(callback: Callback, values: list[float | None], **options: Any) -> _Run:
    monitor = options.pop("monitor", "val_loss")
    run = _Run(**options)
    callback.on_fit_start(run)  # type: ignore[arg-type]
    run.go(callback, values, monitor=monitor)
    callback.on_fit_end(run, run.history)  # type: ignore[arg-type]
    return run


def test_early_stopping_stops_after_patience_and_restores_the_best() -> None:
    stopper = EarlyStopping(patience=3)
    run = _run(stopper, [0.9, 0.5, 0.6, 0.5, 0.7, 0.1])
    assert len(run.history) == 5
    assert run.stop_reason == "val_loss was best in epoch 2 (0.5) and has not improved for 3 epochs"
    assert (stopper.best, stopper.best_epoch, stopper.waited) == (0.5, 2, 3)
    assert run.weights() == {2.0}


def test_best_network_is_restored_without_an_early_stop() -> None:
    run = _run(EarlyStopping(patience=9), [0.9, 0.5, 0.6])
    assert run.stop_reason is None
    assert run.weights() == {2.0}


def test_restore_brings_the_pattern_back() -> None:
    run, stopper = _Run(), EarlyStopping(patience=9)
    stopper.on_fit_start(run)  # type: ignore[arg-type]
    run.go(stopper, [0.5])
    before = run.net.layers[0].weights.toarray()
    layer = run.net.layers[0]
    keep = np.arange(layer.nnz) % 2 == 0
    pattern, (values,) = layer.pattern.keep(keep, [layer.values])
    layer.replace(pattern, values)
    run.go(stopper, [0.6])
    stopper.on_fit_end(run, run.history)  # type: ignore[arg-type]
    np.testing.assert_array_equal(run.net.layers[0].weights.toarray(), before)


def test_without_restore_the_last_network_stays() -> None:
    stopper = EarlyStopping(patience=2, restore_best=False)
    run = _run(stopper, [0.5, 0.6, 0.7, 0.8])
    assert run.weights() == {3.0}
    assert stopper.tensors() == {}


@pytest.mark.parametrize(
    ("arguments", "values", "best_epoch"),
    [
        ({"monitor": "val_accuracy"}, [0.1, 0.4, 0.3], 2),
        ({"monitor": "loss"}, [0.5, 0.4, 0.45], 2),
        ({"monitor": "connections", "mode": "min"}, [5, 3, 4], 2),
        ({"monitor": "val_loss", "mode": "max"}, [0.5, 0.6, 0.4], 2),
        ({"monitor": "val_loss", "min_delta": 0.2}, [0.5, 0.4, 0.29], 3),
        ({"monitor": "val_loss", "min_delta": 0.25}, [1.0, 0.75, 0.5], 3),
        ({"monitor": "val_loss"}, [0.5, math.nan, 0.6], 1),
        ({"monitor": "val_loss"}, [0.5, 0.5, 0.5], 1),
    ],
)
def test_what_counts_as_better(arguments: dict[str, Any], values: list[float], best_epoch: int) -> None:
    stopper = EarlyStopping(patience=50, **arguments)
    _run(stopper, values, monitor=arguments["monitor"])
    assert stopper.best_epoch == best_epoch


def test_never_a_number_stops_too() -> None:
    run = _run(EarlyStopping(patience=3), [math.nan] * 9)
    assert run.stop_reason == "val_loss never was a number and has not improved for 3 epochs"
    assert len(run.history) == 3


def test_epochs_without_validation_count_but_do_not_judge() -> None:
    values = [None, None, 0.5, None, None, 0.6, None, None, 0.7]
    run = _run(EarlyStopping(patience=5), values, validate_every=3)
    assert len(run.history) == 9
    run = _run(EarlyStopping(patience=3), values, validate_every=3)
    assert len(run.history) == 6


@pytest.mark.parametrize("callback", [EarlyStopping(), BestModel("model.safetensors")])
def test_metric_that_is_not_measured_is_an_error(callback: Callback) -> None:
    with pytest.raises(ConfigError, match="follows val_loss, which this run does not measure; pass validation="):
        _run(callback, [None])


def test_accuracy_of_a_regression_is_an_error() -> None:
    with pytest.raises(ConfigError, match="a regression has no accuracy"):
        _run(EarlyStopping("accuracy"), [None], monitor="accuracy")


def test_state_goes_through_a_checkpoint() -> None:
    values = [0.9, 0.5, 0.6, 0.7, 0.8, 0.9]
    whole = EarlyStopping(patience=4)
    expected = _run(whole, values)

    first, second, run = EarlyStopping(patience=4), EarlyStopping(patience=4), _Run()
    first.on_fit_start(run)  # type: ignore[arg-type]
    run.go(first, values[:4])
    tensors = {name: array.copy() for name, array in first.tensors().items()}
    second.load_state_dict(first.state_dict(), tensors)
    second.on_fit_start(run)  # type: ignore[arg-type]
    run.go(second, values[4:])
    second.on_fit_end(run, run.history)  # type: ignore[arg-type]
    assert second.state_dict() == whole.state_dict()
    assert (run.stop_reason, run.weights()) == (expected.stop_reason, expected.weights())


def test_state_of_another_metric_is_refused() -> None:
    saved = EarlyStopping("loss", restore_best=False).state_dict()
    with pytest.raises(CheckpointError, match=r"followed loss \(min\), this run val_loss \(min\)"):
        EarlyStopping("val_loss").load_state_dict(saved, {})


def test_checkpoint_without_the_best_network_is_refused() -> None:
    stopper = EarlyStopping(restore_best=False)
    _run(stopper, [0.5])
    with pytest.raises(CheckpointError, match="does not hold the best network"):
        EarlyStopping().load_state_dict(stopper.state_dict(), stopper.tensors())


def test_a_fresh_run_forgets_the_one_before() -> None:
    stopper = EarlyStopping(patience=2)
    _run(stopper, [0.1, 0.2, 0.3])
    run = _run(stopper, [0.9, 0.8])
    assert (stopper.best, stopper.best_epoch, stopper.waited) == (0.8, 2, 0)
    assert run.weights() == {2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor": "speed"}, "EarlyStopping: metric 'speed'"),
        ({"monitor": "connections"}, 'mode="min" or mode="max"'),
        ({"mode": "up"}, "mode='up' is unknown"),
        ({"patience": 0}, "patience=0"),
        ({"patience": 1.5}, r"patience=1\.5"),
        ({"patience": True}, "patience=True"),
        ({"min_delta": -1}, "min_delta=-1"),
        ({"min_delta": math.inf}, "min_delta=inf"),
    ],
)
def test_arguments_of_early_stopping_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EarlyStopping(**arguments)


def test_best_model_keeps_the_file_of_the_best_epoch(tmp_path: Path) -> None:
    path = tmp_path / "new" / "best.safetensors"
    keeper = BestModel(path)
    _run(keeper, [0.9, 0.5, 0.6])
    assert (keeper.best, keeper.best_epoch) == (0.5, 2)
    assert {float(w) for w in ts.load(path).layers[0].values} == {2.0}


def test_best_model_goes_on_after_a_checkpoint(tmp_path: Path) -> None:
    first, second = BestModel(tmp_path / "a.safetensors"), BestModel(tmp_path / "b.safetensors")
    run = _run(first, [0.9, 0.5])
    second.load_state_dict(first.state_dict(), {})
    second.on_fit_start(run)  # type: ignore[arg-type]
    run.go(second, [0.6])
    assert not (tmp_path / "b.safetensors").exists()
    run.go(second, [0.4])
    assert second.best_epoch == 4
    assert (tmp_path / "b.safetensors").exists()


def test_events_reach_every_callback_in_order() -> None:
    seen: list[tuple[str, str]] = []

    def note(who: str) -> LambdaCallback:
        return LambdaCallback(**{e: lambda *_, e=e: seen.append((who, e)) for e in LambdaCallback.EVENTS})

    both: Any = CallbackList([note("a"), note("b")])
    both.on_fit_start(None)
    both.on_epoch_start(None, 1)
    both.on_evolution(None, None)
    both.on_step_end(None, 1)
    both.on_epoch_end(None, {})
    both.on_fit_end(None, None)
    order = ("on_fit_start", "on_epoch_start", "on_evolution", "on_step_end", "on_epoch_end", "on_fit_end")
    assert seen == [(who, event) for event in order for who in ("a", "b")]
    assert (len(both), [c is both[i] for i, c in enumerate(both)]) == (2, [True, True])


def test_steps_go_only_to_those_that_want_them() -> None:
    class Counter(Callback):
        steps = 0

        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            self.steps = step

    counter = Counter()
    assert [c.wants_steps for c in (counter, Callback(), EarlyStopping())] == [True, False, False]
    assert LambdaCallback(on_step_end=print).wants_steps
    assert not LambdaCallback(on_fit_end=print).wants_steps
    both: Any = CallbackList([Callback(), counter])
    both.on_step_end(None, 7)
    assert counter.steps == 7


def test_what_is_no_callback_is_refused() -> None:
    strange: list[Any] = [print, EarlyStopping]
    with pytest.raises(ConfigError, match="functions go into LambdaCallback"):
        CallbackList(strange[:1])
    with pytest.raises(ConfigError, match="make an instance of it"):
        CallbackList(strange[1:])
    with pytest.raises(ConfigError, match="unknown event 'on_epoch'; events are on_fit_start"):
        LambdaCallback(on_epoch=print)
    nothing: Any = 3
    with pytest.raises(ConfigError, match="cannot be called"):
        LambdaCallback(on_fit_end=nothing)
