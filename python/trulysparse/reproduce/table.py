# SPDX-License-Identifier: BSD-3-Clause
"""What all tables have: rows that name the cases they take, and the results of those cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trulysparse.reproduce.cases import PAPER_EPOCHS, REVISION, Case, comparable, make_case
from trulysparse.reproduce.datasets import fingerprint_of, locate, shape_of, source
from trulysparse.reproduce.files import RESULT, Place, find_mpiexec, read_json
from trulysparse.reproduce.paper import NO_FIGURE, Figure
from trulysparse.reproduce.summary import Summary, summarize

__all__ = [
    "Options",
    "Results",
    "Row",
    "Table",
    "absence",
    "cases_of",
    "dumps",
    "markdown",
    "number",
    "page",
    "runnable",
]


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
    both_decays : bool
        Whether table 2 also shows runs with 2e-4 of weight decay where the settings have none, if they are there.
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
    both_decays: bool = False

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
    further : bool
        Not one of the paper's rows: in no sum over them.
    """

    dataset: str
    cells: tuple[str, ...]
    case: Case | None
    paper: Figure = NO_FIGURE
    seeds: int | None = None
    why: str = ""
    further: bool = False


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
    draw : callable or None
        Returns the figure that stands above, None where there is nothing to draw.
    """

    name: str
    title: str
    datasets: tuple[str, ...]
    rows: Callable[[str, Options, Results], list[Row]]
    render: Callable[[Table, Sequence[Row], Results, Options], tuple[str, dict[str, Any]]] = field(repr=False)
    heads: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    draw: Callable[[Table, Sequence[Row], Results], Any] | None = field(default=None, repr=False)

    def all_rows(self, options: Options, results: Results) -> list[Row]:
        """Return the rows of all data sets; a line for one that is absent, unless there are results of it."""
        found = []
        for name in options.datasets or self.datasets:
            absent = source(name).files and locate(name, options.places) is None
            if absent and name not in results.datasets:
                found.append(Row(name, ("",) * len(self.heads), None, why=absence(name)))
            else:
                found += self.rows(name, options, results)
        return found


def absence(dataset: str) -> str:
    """Say that a data set is absent; without places, which tables do not tell."""
    return f"the data set is absent: no {source(dataset).files[0]}.npz where --data says"


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
                case = replace(row.case, seed=seed)
                found.setdefault(case.name, case)
    return list(found.values())


class Results:
    """All results in a directory, by case; seeds that were not asked for count too: none is dropped.

    Results of other data than those that are there now are left out, and so are those of an earlier `REVISION`. Of
    a data set that is absent the newest result says which data count.

    Parameters
    ----------
    out : Path
    places : sequence of Path
        Where data sets are.

    Attributes
    ----------
    left_out : dict of str to int
        How many results of each data set are not used.
    """

    def __init__(self, out: Path, places: Sequence[Path] = ()) -> None:
        self._out, self._places = out, places
        self._groups: dict[str, list[dict[str, Any]]] = {}
        self.left_out: dict[str, int] = {}
        self._data: dict[str, dict[str, Any]] = {}
        by_data: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(out.glob(f"*/{RESULT}")):
            result = read_json(file)
            by_data.setdefault(result["case"]["dataset"], []).append(result)
        for dataset, found in by_data.items():
            path = locate(dataset, places)
            if path is None and source(dataset).files:
                present = max(found, key=lambda result: str(result["date"]))["data"]["fingerprint"]
            else:
                present = fingerprint_of(dataset, path)
            for result in found:
                case = Case.from_json(result["case"])
                if case.revision == REVISION and result["data"]["fingerprint"] == present:
                    self._groups.setdefault(case.group, []).append(result)
                    self._data[dataset] = result["data"]
                else:
                    self.left_out[dataset] = self.left_out.get(dataset, 0) + 1

    def n_train(self, dataset: str) -> int | None:
        """Return the training samples of a data set: of its results, else of the data; None if both are absent."""
        if dataset in self._data:
            return int(self._data[dataset]["n_train"])
        path = locate(dataset, self._places)
        return None if path is None and source(dataset).files else shape_of(dataset, path).n_train

    def beside(self, case: Case, figure: Figure | None) -> Figure:
        """Return the paper's figure where it compares with a case, else none."""
        return figure if figure is not None and comparable(case, self.n_train(case.dataset)) else NO_FIGURE

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


def page(
    table: Table,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    data: Sequence[Mapping[str, Any]],
    said: Sequence[str],
    *,
    picture: str = "",
) -> tuple[str, dict[str, Any]]:
    """Return a whole table as Markdown text, and as data.

    Parameters
    ----------
    table : Table
    header : sequence of str
    lines, data : sequence
        The rows as cells, and as values.
    said : sequence of str
        Sentences below, after those of the table itself.
    picture : str
        Name of a file to be shown above.
    """
    said = [*table.notes, *said]
    shown = f"![{table.title}]({picture})\n\n" if picture else ""
    text = f"# {table.title}\n\n{shown}{markdown(header, lines)}\n\n" + "".join(f"- {line}\n" for line in said)
    return text, {"table": table.name, "rows": list(data), "remarks": said}
