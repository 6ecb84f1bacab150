# SPDX-License-Identifier: BSD-3-Clause
"""What differs from the paper, said under every table."""

from __future__ import annotations

from collections.abc import Sequence

from trulysparse.reproduce.cases import PAPER_EPOCHS
from trulysparse.reproduce.datasets import source
from trulysparse.reproduce.paper import MACHINE
from trulysparse.reproduce.table import Options, Results, Row

__all__ = ["remarks"]


def remarks(rows: Sequence[Row], results: Results, options: Options) -> list[str]:
    """Return sentences about data, lengths, machine and columns."""
    said = []
    found = {row.dataset: result for row in rows if row.case is not None for result in results.of(row.case)}
    for dataset in dict.fromkeys(row.dataset for row in rows):
        known = source(dataset)
        if known.note:
            said.append(f"{known.title} {known.note}.")
        if dataset in found and known.paper_train is not None:
            samples = found[dataset]["data"]["n_train"]
            if samples != known.paper_train:
                said.append(
                    f"{known.title}: {samples:,} of the paper's {known.paper_train:,} training samples; the paper's "
                    "accuracy is not to be expected."
                )
    if options.epochs != PAPER_EPOCHS:
        said.append(
            f"{options.epochs} epochs, the paper has {PAPER_EPOCHS}; start and period of importance pruning are in "
            "proportion."
        )
    machines = dict.fromkeys(
        f"{result['cpu']}, {result['cores']} cores, {result['isa']}, trulysparse {result['trulysparse']}, "
        f"{result['jobs']} runs at once, {result['threads']} threads each"
        for row in rows
        if row.case is not None
        for result in results.of(row.case)
    )
    said += [f"Machine: {machine}." for machine in machines]
    said += [
        f"The paper's machine: {MACHINE}.",
        "best: the best epoch, chosen on the test part, as the paper does; selected: chosen on one half of the test "
        "part, judged on the other, both ways; last: the last epoch. Mean ± standard deviation over seeds.",
        "min: wall clock of a run, its measurements included.",
    ]
    return said
