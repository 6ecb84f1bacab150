# SPDX-License-Identifier: BSD-3-Clause
"""What differs from the paper, said under every table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trulysparse.reproduce.cases import PAPER_EPOCHS, Case
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.paper import MACHINE
from trulysparse.reproduce.summary import ABOUT
from trulysparse.reproduce.table import Options, Results, Row

__all__ = ["remarks", "union_seconds"]

_CLEARLY_MORE = 1.1  # a run has clearly more connections than in the end


def remarks(rows: Sequence[Row], results: Results, options: Options, *, accuracies: bool = True) -> list[str]:
    """Return sentences about data, lengths, machine and columns.

    Parameters
    ----------
    rows : sequence of Row
    results : Results
    options : Options
    accuracies : bool
        Whether the table has the columns of accuracies and minutes, which are explained then.
    """
    cases = [row.case for row in rows if row.case is not None]
    groups = {case.group: case for case in cases}
    runs = [run for case in groups.values() for run in results.of(case)]
    said = [*_of_data(rows, results), *_of_slopes(runs), *_of_settings(cases, options), *_of_machines(runs)]
    if accuracies:
        said += [
            *_of_best(rows, results),
            *_of_minutes(rows, results),
            *_of_elapsed(runs),
            "best: the best epoch, chosen on the test part, as the paper does; selected: chosen on one half of the "
            "test part, judged on the other, both ways; last: the last epoch. Mean ± standard deviation over seeds.",
            "min: wall clock of a run from its first epoch on, its measurements included; peak MB: the most memory "
            "that the process had, its data included; of a parallel run what all its processes had when it ended, "
            "what they share once.",
        ]
    return said


def _of_best(rows: Sequence[Row], results: Results) -> list[str]:
    """Say which best epochs had clearly more connections than the network has in the end."""
    said = []
    for row in rows:
        summary = results.summary(row)
        if summary is None or summary.best_in_the_end is None or not summary.end:
            continue
        if (summary.best_connections or 0.0) > _CLEARLY_MORE * summary.end:
            said.append(
                f"{source(row.dataset).title}, {', '.join(row.cells[:1])}, pruned: the best epoch is number "
                f"{summary.best_epoch:,.0f} on average, with {summary.best_connections:,.0f} connections. Of "
                f"the epochs with about as few as in the end ({100 * ABOUT:.0f} % more at most) the best has "
                f"{summary.best_in_the_end.percent()} %."
            )
    return said


def _of_data(rows: Sequence[Row], results: Results) -> list[str]:
    said = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        known = source(dataset)
        if known.note:
            said.append(f"{known.title}: {known.note}.")
        samples = results.n_train(dataset)
        if known.paper_train is not None and samples not in (None, known.paper_train):
            said.append(
                f"{known.title}: {samples:,} training samples, the paper has {known.paper_train:,}; its figures do not "
                "compare and are left out."
            )
        if left_out := results.left_out.get(dataset):
            said.append(
                f"{known.title}: {left_out} result{'s are' if left_out > 1 else ' is'} left out, of other data than "
                "those that are there now or of an earlier version of the runs."
            )
    return said


def _of_slopes(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Say which slopes were learned, where they were."""
    return [
        f"{source(run['case']['dataset']).title}, automatic slopes, seed {run['case']['seed']}: the layers learned "
        f"{', '.join(f'{slope:.2f}' for slope in run['slopes'])}."
        for run in runs
        if run.get("slopes")
    ]


def _of_settings(cases: Sequence[Case], options: Options) -> list[str]:
    said = []
    if options.epochs != PAPER_EPOCHS:
        said.append(
            f"{options.epochs} epochs, the paper has {PAPER_EPOCHS}; start and period of importance pruning are in "
            "proportion."
        )
    if options.changes:
        changes = ", ".join(f"{key} = {value!r}" for key, value in options.changes.items())
        said.append(f"Settings other than the paper's: {changes}.")
    sequential = [case for case in cases if case.strategy == "sequential"]
    without = sorted({case.dataset for case in sequential if _is_papers(case) and not _decays(case)})
    if without and "optimizer.weight_decay" not in options.changes:
        said.append(
            f"No weight decay: {', '.join(source(name).title for name in without)}. The paper names 2e-4, its "
            "sequential program takes that off every step, its parallel program has 0. For images we chose 0 with the "
            "outcome in view: of Fashion-MNIST only that comes to the printed accuracies, and to the printed "
            "connections after pruning. --set optimizer.weight_decay=0.0002 gives the other form."
        )
    images = {case.dataset for case in cases if source(case.dataset).image is not None}
    for dataset in sorted(images):
        title = source(dataset).title
        if any("augment" in case.settings for case in cases if case.dataset == dataset and _is_papers(case)):
            said.append(
                f"{title}: the paper's figures are with augmentation (rotation, shift, flip), beside which they stand."
            )
        else:
            said.append(f"{title}: without the paper's augmentation.")
    minutes = sorted({float(case.settings["stop"]["minutes"]) for case in cases if case.dense})
    if minutes:
        said.append(
            f"Dense rows: one seed, as many epochs as {' or '.join(f'{m:g}' for m in minutes)} minutes allow, with the "
            "sparse rows' settings; their biases count as connections, as in the paper."
        )
    parallel = [case for case in cases if case.strategy != "sequential"]
    if parallel:
        said += [
            f"Parallel rows: {parallel[0].workers} workers and a master, the paper has 5 and a master. While workers "
            "train networks of their own no epoch is judged: best and selected are over the epochs before, and the "
            "averaged network; last is the averaged network.",
        ]
        if not any(_decays(case) for case in parallel):
            said.append("Parallel rows have no weight decay, as the paper's parallel program.")
        factors = sorted({case.settings["parallel"]["hot_start"] for case in parallel if _is_hot(case)})
        said += [
            f"WASAP multiplies the learning rate of its first 5 epochs by {factor:g}: the paper has a larger rate "
            "there and does not say which."
            for factor in factors
        ]
        if any("pruning" in case.settings for case in parallel):
            said.append(
                "Importance pruning takes a percentile of 10 every 20 epochs in parallel rows, as the paper's parallel "
                "code, and of 20 every 10 epochs in sequential ones, as its sequential code."
            )
    return said


def _is_papers(case: Case) -> bool:
    """Whether weight decay has the paper's form, which recipes with none of it do not name."""
    return case.settings["optimizer"].get("decay") == "paper"


def _decays(case: Case) -> bool:
    return bool(case.settings["optimizer"].get("weight_decay"))


def _is_hot(case: Case) -> bool:
    return "hot_start" in case.settings["parallel"]


def _of_elapsed(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Say for each data set in how much time its runs were made, of which several may have run at once."""
    said = []
    for dataset in dict.fromkeys(run["case"]["dataset"] for run in runs):
        of_it = [run for run in runs if run["case"]["dataset"] == dataset]
        seconds = union_seconds(interval for run in of_it for interval in run["intervals"])
        said.append(
            f"{source(dataset).title}: the {len(of_it)} run{'s' if len(of_it) > 1 else ''} of this table took "
            f"{seconds / 60:,.1f} minutes by the clock, in which at least one of them ran."
        )
    return said


def union_seconds(intervals: Iterable[Sequence[float]]) -> float:
    """Return the length of the union of intervals (start, end), in seconds."""
    total, until = 0.0, -math.inf
    for start, end in sorted(map(tuple, intervals)):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _of_minutes(rows: Sequence[Row], results: Results) -> list[str]:
    """Say what all runs of a data set took together, where they are all there."""
    said = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        of_it = [row for row in rows if row.dataset == dataset and row.case is not None and not row.case.dense]
        of_it = [row for row in of_it if not row.further]
        summaries = [results.summary(row) for row in of_it]
        ours = [s.minutes.mean for s in summaries if s is not None and s.minutes is not None]
        paper = [row.paper.minutes for row in of_it if row.paper.minutes is not None]
        if len(of_it) > 1 and len(ours) == len(of_it):
            beside = f"; the paper's {sum(paper):,.0f}" if len(paper) == len(of_it) else ""
            dense = ", the dense ones apart" if any(row.case.dense for row in rows if row.case is not None) else ""
            said.append(
                f"{source(dataset).title}: one seed of all {len(of_it)} rows{dense}, one after the other, takes "
                f"{sum(ours):,.1f} minutes{beside}."
            )
    return said


def _of_machines(runs: Sequence[dict[str, Any]]) -> list[str]:
    machines = dict.fromkeys(
        f"Machine: {run['cpu']}, {run['cores']} cores, {run['isa']}, trulysparse {run['trulysparse']}; {_threads(run)}."
        for run in runs
    )
    commits = list(dict.fromkeys(str(commit) for run in runs for commit in run["commits"] if commit))
    if commits:
        changed = any(commit.endswith("+changes") for commit in commits)
        note = "; +changes: the source was not quite that of the commit" if changed else ""
        machines[f"Made from commit {', '.join(commits)}{note}."] = None
    busy = [run["other_cores_busy"] for run in runs if run["other_cores_busy"] is not None]
    said = list(machines)
    if busy:
        cores = " to ".join(dict.fromkeys(f"{value:.1f}" for value in (min(busy), max(busy))))
        said.append(f"Other processes, further runs included, kept {cores} cores busy meanwhile.")
    return [
        *said,
        f"The paper's machine: {MACHINE}. Its library: SciPy and Numba for sparse rows, Keras for dense ones; here "
        "trulysparse for all.",
    ]


def _threads(run: dict[str, Any]) -> str:
    if "parallel" in run:
        return "a thread for each process"
    jobs, threads = run["jobs"], run["threads"]
    return f"{jobs} run{'s' if jobs > 1 else ''} at once with {threads} thread{'s' if threads > 1 else ''} each"
