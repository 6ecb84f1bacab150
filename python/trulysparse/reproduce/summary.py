# SPDX-License-Identifier: BSD-3-Clause
"""What the runs of one case came to, over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ABOUT", "Accuracy", "Spread", "Summary", "accuracy_of", "converged", "judged", "summarize"]


ABOUT = 0.05
"""Part by which numbers of connections may differ that are called about the same."""


@dataclass(frozen=True)
class Accuracy:
    """Test accuracy of one run, three ways; in [0, 1].

    Attributes
    ----------
    best : float
        Of the best epoch, which is chosen on the test part: what the paper reports.
    last : float
        Of the last epoch.
    selected : float
        The epoch is chosen on one half of the test part and judged on the other, both ways, and averaged: no sample
        chooses the epoch that it judges, and none is taken from training.
    best_epoch : int
    best_connections : int
        In the best epoch.
    best_in_the_end : float
        Of the best epoch that has no more connections than the last, or `ABOUT` more.
    """

    best: float
    last: float
    selected: float
    best_epoch: int
    best_connections: int
    best_in_the_end: float


def judged(curves: Mapping[str, Sequence[Any]]) -> list[int]:
    """Return where in its curves a run has epochs in which its network was judged."""
    keys = ("test_accuracy", "first_half_accuracy", "second_half_accuracy")
    return [i for i in range(len(curves["epoch"])) if all(curves[key][i] is not None for key in keys)]


def accuracy_of(curves: Mapping[str, Sequence[Any]]) -> Accuracy | None:
    """Return the accuracies of a run; None if none was measured.

    Epochs count in which the network of the run was measured; not those of a parallel run's local phase, in which
    every worker has one of its own. Of equal epochs the first is chosen.
    """
    keys = ("epoch", "test_accuracy", "first_half_accuracy", "second_half_accuracy", "connections")
    rows = [tuple(curves[key][i] for key in keys) for i in judged(curves)]
    if not rows:
        return None
    best = max(rows, key=lambda row: row[1])
    few = max(row[1] for row in rows if row[4] <= (1 + ABOUT) * rows[-1][4])
    by_first, by_second = max(rows, key=lambda row: row[2]), max(rows, key=lambda row: row[3])
    return Accuracy(best[1], rows[-1][1], (by_first[3] + by_second[2]) / 2, int(best[0]), int(best[4]), few)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of the sample; 0 of one value)."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))

    def percent(self) -> str:
        """Return it in percent: ``91.38 ± 0.12``, without the deviation of one value."""
        mean = f"{100 * self.mean:.2f}"
        return mean if self.count == 1 else f"{mean} ± {100 * self.deviation:.2f}"

    def to_json(self) -> dict[str, float]:
        """Return it as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """What some runs, one a seed, came to.

    Attributes
    ----------
    seeds : tuple of int
    diverged : tuple of int
        Seeds of those whose loss stopped being finite; they are in no mean.
    best, last, selected : Spread or None
        Accuracies, see `Accuracy`; None if nothing was measured. All that follows is None if all runs diverged.
    best_epoch, best_connections : float or None
        Means over the best epochs.
    best_in_the_end : Spread or None
        See `Accuracy`.
    start, end : float or None
        Mean connections.
    biases : int
    minutes : Spread or None
        Wall clock.
    seconds_per_epoch : float or None
        Mean of training, evolution and evaluation.
    peak_mb : float or None
        Most memory that the process (of a parallel run: all processes) had, in 10^6 bytes; the largest of the runs.
    epochs : tuple of int, or None
        Fewest and most epochs.
    """

    seeds: tuple[int, ...]
    diverged: tuple[int, ...]
    best: Spread | None
    last: Spread | None
    selected: Spread | None
    best_epoch: float | None
    best_connections: float | None
    best_in_the_end: Spread | None
    start: float | None
    end: float | None
    biases: int
    minutes: Spread | None
    seconds_per_epoch: float | None
    peak_mb: float | None
    epochs: tuple[int, int] | None

    @property
    def runs(self) -> str:
        """How many runs the means are of."""
        bad, count = len(self.diverged), len(self.seeds)
        return f"mean of {count - bad} of {count} seeds, {bad} diverged" if bad else str(count)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        spreads = {
            key: None if value is None else value.to_json()
            for key, value in (
                ("best", self.best),
                ("last", self.last),
                ("best_in_the_end", self.best_in_the_end),
                ("selected", self.selected),
                ("minutes", self.minutes),
            )
        }
        return {
            "seeds": list(self.seeds),
            "diverged": list(self.diverged),
            **spreads,
            "best_epoch": self.best_epoch,
            "best_connections": self.best_connections,
            "connections_start": self.start,
            "connections_end": self.end,
            "biases": self.biases,
            "seconds_per_epoch": self.seconds_per_epoch,
            "peak_mb": self.peak_mb,
            "epochs": None if self.epochs is None else list(self.epochs),
        }


def converged(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results that count in means: those whose loss stayed finite."""
    return [result for result in results if not result["diverged"]]


def summarize(results: Sequence[Mapping[str, Any]]) -> Summary:
    """Sum up results of cases that differ in their seed, at least one; those that diverged are in no mean."""
    good = converged(results)
    accuracies = [a for a in (accuracy_of(result["curves"]) for result in good) if a is not None]
    counts = [result["epochs"] for result in good]
    seconds = [
        math.fsum(sum(result["curves"][f"{part}_seconds"]) for part in ("train", "evaluate", "evolve"))
        for result in good
    ]

    def spread(kind: str) -> Spread | None:
        return Spread.of([getattr(a, kind) for a in accuracies]) if accuracies else None

    def mean(key: str) -> float | None:
        return statistics.fmean(result[key] for result in good) if good else None

    return Summary(
        tuple(sorted(result["case"]["seed"] for result in results)),
        tuple(sorted(result["case"]["seed"] for result in results if result["diverged"])),
        spread("best"),
        spread("last"),
        spread("selected"),
        statistics.fmean(a.best_epoch for a in accuracies) if accuracies else None,
        statistics.fmean(a.best_connections for a in accuracies) if accuracies else None,
        spread("best_in_the_end"),
        mean("connections_start"),
        mean("connections_end"),
        int(results[0]["biases"]),
        Spread.of([result["wall_minutes"] for result in good]) if good else None,
        sum(seconds) / sum(counts) if sum(counts) else None,
        max(_peak(result) for result in good) / 1e6 if good else None,
        (min(counts), max(counts)) if good else None,
    )


def _peak(result: Mapping[str, Any]) -> float:
    """Return the most memory of a run; what processes share counts once."""
    return float(sum(result.get("parallel", {}).get("node_bytes", [])) or result["peak_bytes"])
