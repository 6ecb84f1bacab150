# SPDX-License-Identifier: BSD-3-Clause
"""What all tables have: rows that name the cases they take, and the results of those cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trulysparse.reproduce.cases import PAPER_EPOCHS, Case, make_case
from trulysparse.reproduce.datasets import locate, source
from trulysparse.reproduce.files import RESULT, Place, find_mpiexec, read_json
from trulysparse.reproduce.paper import NO_FIGURE, Figure
from trulysparse.reproduce.summary import Summary, summarize

__all__ = ["Options", "Results", "Row", "Table", "cases_of", "dumps", "markdown", "number", "runnable"]


@dataclass(frozen=True)
class Options:
    """What the command line says about a table.

    Attributes
    ----------
    places : tuple of Path
        Where data sets are.
    out : Path
        Where runs and tables go.
    datasets : tuple of str or None
        None: those of the table.
    seeds, epochs, workers : int
    dense_minutes : float
        For each dense run; 0 leaves dense rows out.
    augment : bool
        Whether images are also trained on with the paper's augmentation.
    changes : dict of str to value
        Settings other than the paper's, by ``table.key`` as in a run file.
    """

    places: tuple[Path, ...] = (Path(),)
    out: Path = Path("reproduce")
    datasets: tuple[str, ...] | None = None
    seeds: int = 1
    epochs: int = PAPER_EPOCHS
    workers: int = 2
    dense_minutes: float = 0.0
    augment: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)

    def case(self, dataset: str, **variant: Any) -> Case:
        """Return `make_case` of a variant with what these options say of all runs."""
        return make_case(dataset, epochs=self.epochs, changes=self.changes, **variant)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    dataset : str
    cells : tuple of str
        What the row is about.
    case : Case or None
        The run of seed 0; the other seeds follow from it. None: there is none, and `why` says the reason.
    paper : Figure
        Empty where the paper has none that compares.
    seeds : int or None
        Runs of the row, if not as many as asked for.
    why : str
    """

    dataset: str
    cells: tuple[str, ...]
    case: Case | None
    paper: Figure = NO_FIGURE
    seeds: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes
    ----------
    name, title : str
    datasets : tuple of str
        Those of the paper (and stand-ins).
    rows : callable
        Returns the rows of one data set.
    render : callable
        Returns the text (Markdown) and the same as data, and may write pictures.
    heads : tuple of str
        What stands above `Row.cells`.
    notes : tuple of str
        What is said under the table before all else.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    rows: Callable[[str, Options, Results], list[Row]]
    render: Callable[[Table, Sequence[Row], Results, Options], tuple[str, dict[str, Any]]] = field(repr=False)
    heads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def all_rows(self, options: Options, results: Results) -> list[Row]:
        """Return the rows of all data sets; a line for one that is absent, unless there are results of it."""
        found = []
        for name in options.datasets or self.datasets:
            absent = source(name).files and locate(name, options.places) is None
            if absent and name not in results.datasets:
                looked = ", ".join(str(place) for place in options.places)
                why = f"the data set is absent: no {source(name).files[0]}.npz in {looked}"
                found.append(Row(name, ("",) * len(self.heads), None, why=why))
            else:
                found += self.rows(name, options, results)
        return found


def runnable(case: Case, places: Sequence[Path]) -> bool:
    """Whether the data of a case is there, and what starts its processes."""
    there = not source(case.dataset).files or locate(case.dataset, places) is not None
    return there and (case.strategy == "sequential" or find_mpiexec() is not None)


def cases_of(rows: Sequence[Row], seeds: int) -> list[Case]:
    """Return all runs that rows take, each once; the first seed of all rows comes first."""
    found: dict[str, Case] = {}
    for seed in range(max([seeds, *(row.seeds or 0 for row in rows)])):
        for row in rows:
            if row.case is not None and seed < (seeds if row.seeds is None else row.seeds):
                case = Case(row.case.dataset, row.case.settings, seed)
                found.setdefault(case.name, case)
    return list(found.values())


class Results:
    """All results in a directory, by case; seeds that were not asked for count too: none is dropped.

    Parameters
    ----------
    out : Path
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._groups: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(out.glob(f"*/{RESULT}")):
            result = read_json(file)
            self._groups.setdefault(Case.from_json(result["case"]).group, []).append(result)

    @property
    def datasets(self) -> set[str]:
        """Data sets of which there are results."""
        return {result["case"]["dataset"] for results in self._groups.values() for result in results}

    @property
    def cases(self) -> list[Case]:
        """One case of each group."""
        return [Case.from_json(results[0]["case"]) for results in self._groups.values()]

    def of(self, case: Case) -> list[dict[str, Any]]:
        """Return the results of a case, all seeds."""
        return sorted(self._groups.get(case.group, []), key=lambda result: int(result["case"]["seed"]))

    def summary(self, row: Row) -> Summary | None:
        """Return what the runs of a row came to, None if none is done."""
        results = [] if row.case is None else self.of(row.case)
        return summarize(results) if results else None

    def place(self, result: dict[str, Any]) -> Place:
        """Return where a result lies."""
        return Place(self._out, Case.from_json(result["case"]))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separated; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def dumps(data: Any) -> str:
    """Return JSON text as the files of this package have it."""
    return json.dumps(data, indent=1) + "\n"
