# SPDX-License-Identifier: BSD-3-Clause
"""The driver of the plot of accuracy over time: only training is on the clock, all are tested alike."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "bench" / "accuracy"
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("time_to_accuracy")
    for name in ("time_to_accuracy", "grid"):
        sys.modules.pop(name, None)


class Hand:
    """A clock hand that tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def run_clock(driver: ModuleType, step_seconds: float, budget_seconds: float) -> Any:
    hand = Hand()

    def test() -> float:
        hand.seconds += 500.0
        return 0.5

    clock = driver.Clock(budget_seconds, test, now=hand)
    hand.seconds += 77.0
    clock.start()

    def train() -> None:
        while True:
            hand.seconds += step_seconds
            clock.step()

    with pytest.raises(driver.TimeIsUp):
        train()
    return clock


def test_only_training_is_on_the_clock(driver: ModuleType) -> None:
    clock = run_clock(driver, 0.01, 3.0)
    assert clock.steps == pytest.approx(300, abs=1)
    assert [look["seconds"] for look in clock.curve] == pytest.approx(
        [0.01 * look["steps"] for look in clock.curve], abs=1e-6
    )
    assert clock.test_seconds == pytest.approx(500.0 * len(clock.curve))


def test_slow_and_fast_contestants_are_tested_at_the_same_moments(driver: ModuleType) -> None:
    fast, slow = (run_clock(driver, step, 20.0) for step in (0.001, 0.04))
    assert [look["moment"] for look in fast.curve] == [look["moment"] for look in slow.curve]
    for look in slow.curve:
        assert look["seconds"] == pytest.approx(driver.moments(20.0)[look["moment"] - 1], abs=0.0401)


def test_moments_that_passed_in_one_step_are_one_test(driver: ModuleType) -> None:
    clock = run_clock(driver, 2.0, 7.0)
    assert [look["seconds"] for look in clock.curve] == [2.0, 4.0, 6.0, 8.0]


def test_a_run_that_ends_before_its_time_is_tested_at_its_end(driver: ModuleType) -> None:
    hand = Hand()
    clock = driver.Clock(60.0, lambda: 0.25, now=hand)
    clock.start()
    for _ in range(7):
        hand.seconds += 0.1
        clock.step()
    clock.finish()
    clock.finish()
    assert clock.curve[-1]["steps"] == 7
    assert len({look["steps"] for look in clock.curve}) == len(clock.curve)


def test_accuracy_is_counted_from_labels_and_nothing_else(driver: ModuleType) -> None:
    y = np.array([0, 2, 1, 1])
    logits = np.array([[3, 1, 2], [0, 0, 1], [5, 1, 0], [0, 9, 1]], dtype=np.float32)
    assert driver.accuracy(driver.labels_of(logits), y) == 0.75
    with pytest.raises(ValueError, match="shape"):
        driver.accuracy(driver.labels_of(logits[:3]), y)
    logits[0, 0] = np.nan
    with pytest.raises(ValueError, match="diverged"):
        driver.labels_of(logits)


def test_seconds_to_a_level_are_those_of_the_first_test_that_showed_it(driver: ModuleType) -> None:
    curve = [{"seconds": s, "accuracy": a} for s, a in ((1.0, 0.5), (2.0, 0.9), (3.0, 0.8), (4.0, 0.95))]
    assert driver.seconds_to(curve, 0.8) == 2.0
    assert driver.seconds_to(curve, 0.95) == 4.0
    assert driver.seconds_to(curve, 0.96) is None


def test_predictions_that_are_not_those_of_the_logits_are_an_error(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Liar(driver.TrulySparse):  # type: ignore[misc, name-defined]
        def predictions(self) -> Any:
            return self.data.y_test

    monkeypatch.setitem(driver.LIBRARIES, "trulysparse", Liar)
    case = {
        "contestant": "trulysparse",
        "dataset": "digits",
        "minutes": 0.001,
        "threads": 1,
        "seed": 0,
        "settings": driver.contestants("digits")["trulysparse"],
    }
    with pytest.raises(RuntimeError, match="trulysparse: logits and predictions disagree"):
        driver.run(case, None)


def test_the_report_on_digits_holds_each_contestant(driver: ModuleType, tmp_path: Path) -> None:
    names = ["trulysparse", *(["dense", "small-dense-no-dropout"] if HAS_TORCH else [])]
    results = tmp_path / "r.jsonl"
    command = [sys.executable, str(FOLDER / "time_to_accuracy.py"), "--dataset", "digits", "--minutes", "0.016"]
    command += ["--seeds", "1", "--threads", "1", "--results", str(results), "--contestants", *names]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [r["case"]["contestant"] for r in found] == names
    for r in found:
        assert r["processes"] == 1 and r["commit"] and r["train_seconds"] >= 0.96
        accuracies = [look["accuracy"] for look in r["curve"]]
        assert r["last_accuracy"] == accuracies[-1] and r["best_accuracy"] == max(accuracies)
        assert r["curve"][-1]["steps"] == r["steps"] > 0
    page = (tmp_path / "r_digits.md").read_text()
    assert all(f"\n| {name} | 64-" in page for name in names)
    assert (tmp_path / "r_digits.png").read_bytes().startswith(b"\x89PNG")
    wanted = driver.cases(driver.parser().parse_args(command[2:]))
    assert [r["case"]["contestant"] for r in driver.grid.results_of(results, wanted)] == names, "they would run again"


@needs_torch
def test_a_dense_network_of_as_many_parameters_has_at_most_as_many(driver: ModuleType) -> None:
    import trulysparse as ts

    data = ts.load_dataset("digits")
    every = driver.contestants("digits")
    dense, small = (driver.Torch(every[name], data, 0, 1).facts() for name in ("dense", "small-dense"))
    sparse = driver.TrulySparse(every["trulysparse"], data, 0, 1).facts()
    assert dense["sizes"] == sparse["sizes"]
    assert 0.9 * sparse["parameters"] < small["parameters"] < 1.05 * sparse["parameters"] < dense["parameters"]


@needs_torch
def test_both_libraries_train_on_the_same_numbers(driver: ModuleType) -> None:
    import trulysparse as ts
    from trulysparse.model import InputScaling

    data = ts.load_dataset("digits")
    scaling = InputScaling.fit(data.X_train)
    dense = driver.Torch(driver.contestants("digits")["small-dense"], data, 0, 1)
    for got, X in ((dense.X, data.X_train), (dense.X_test, data.X_test)):
        expected = (X.astype(np.float64) - scaling.shift) * scaling.factor
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)
