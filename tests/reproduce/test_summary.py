# SPDX-License-Identifier: BSD-3-Clause
"""Accuracies of a run, and means over seeds."""

from __future__ import annotations

from typing import Any

import pytest
from tests.reproduce.conftest import result_of

from trulysparse.reproduce.cases import make_case
from trulysparse.reproduce.summary import accuracy_of, summarize


def _curves(whole: list[Any], first: list[Any], second: list[Any]) -> dict[str, list[Any]]:
    return {
        "epoch": list(range(1, len(whole) + 1)),
        "test_accuracy": whole,
        "first_half_accuracy": first,
        "second_half_accuracy": second,
        "connections": [100] * (len(whole) - 1) + [60],
    }


def test_best_is_chosen_on_the_test_part_last_is_the_last_and_selected_on_the_other_half() -> None:
    found = accuracy_of(_curves([0.5, 0.7, 0.6], [0.9, 0.8, 0.5], [0.1, 0.6, 0.7]))
    assert found is not None
    assert (found.best, found.best_epoch, found.last) == (0.7, 2, 0.6)
    assert (found.best_connections, found.best_in_the_end) == (100, 0.6)
    # the first half chooses epoch 1, judged 0.1 by the second; the second chooses epoch 3, judged 0.5 by the first
    assert found.selected == pytest.approx((0.1 + 0.5) / 2)


def test_epochs_without_a_network_of_their_own_are_not_judged() -> None:
    found = accuracy_of(_curves([0.5, 0.99, 0.6], [0.5, None, 0.6], [0.5, None, 0.6]))
    assert found is not None and (found.best, found.best_epoch) == (0.6, 3)
    assert accuracy_of(_curves([0.5], [None], [None])) is None


def test_the_first_of_equal_epochs_is_the_best() -> None:
    found = accuracy_of(_curves([0.6, 0.6], [0.6, 0.6], [0.6, 0.6]))
    assert found is not None and found.best_epoch == 1


def test_a_summary_is_mean_and_deviation_over_seeds() -> None:
    runs = [
        result_of(make_case("madelon", seed=seed), [0.1, best], wall_minutes=minutes, peak_bytes=peak)
        for seed, best, minutes, peak in ((0, 0.5, 1.0, 3_000_000), (1, 0.7, 3.0, 4_000_000))
    ]
    found = summarize(runs)
    assert found.best is not None and found.best.mean == pytest.approx(0.6)
    assert found.best.deviation == pytest.approx(0.1414, abs=1e-4) and found.best.percent() == "60.00 ± 14.14"
    assert (found.seeds, found.minutes.mean, found.peak_mb, found.start, found.end) == ((0, 1), 2.0, 4.0, 100, 60)
    assert found.seconds_per_epoch == pytest.approx(3.0)
    assert summarize(runs[:1]).best.percent() == "50.00"  # type: ignore[union-attr]


def test_a_run_that_diverged_is_counted_and_in_no_mean() -> None:
    case = make_case("madelon")
    runs = [result_of(case, [0.5, 0.6]), result_of(make_case("madelon", seed=1), [0.1], diverged="the loss became nan")]
    found = summarize(runs)
    assert found.diverged == (1,) and found.seeds == (0, 1)
    assert found.best is not None and found.best.mean == 0.6 and found.best.count == 1
    assert found.epochs == (2, 2) and found.runs == "mean of 1 of 2 seeds, 1 diverged"
    nothing = summarize(runs[1:])
    assert nothing.best is nothing.minutes is nothing.end is nothing.peak_mb is nothing.epochs is None
    assert nothing.to_json()["epochs"] is None


def test_memory_of_a_parallel_run_is_that_of_all_processes() -> None:
    run = result_of(make_case("madelon", strategy="wasap"), parallel={"node_bytes": [30_000_000, 1_000_000]})
    assert summarize([run]).peak_mb == 31.0
