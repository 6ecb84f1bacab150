# SPDX-License-Identifier: BSD-3-Clause
"""`python -m trulysparse.reproduce.run CASE.json`: one case in a process of its own (under mpiexec: in several).

The result lands beside the case's file. A run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trulysparse._files import write_text
from trulysparse.bench.machine import Neighbours, provenance
from trulysparse.data import Dataset
from trulysparse.errors import ConfigError, DensityWarning, DivergenceError
from trulysparse.model import SparseMLP
from trulysparse.parallel import PARALLEL
from trulysparse.parallel.world import World, check_launch, end_all, import_mpi, launched_rank
from trulysparse.recipes import Recipe
from trulysparse.reproduce.cases import Case
from trulysparse.reproduce.datasets import fingerprint_of, load
from trulysparse.reproduce.files import (
    CHECKPOINT,
    HISTORY,
    LOG,
    MODEL,
    PROGRESS,
    PRUNED,
    RESULT,
    ProgressFile,
    held,
    read_json,
)
from trulysparse.reproduce.measure import Measure, curves
from trulysparse.trainer import Trainer, TrainingInterrupted

__all__ = ["main", "run_case"]

_EPOCHS_BETWEEN_CHECKPOINTS = 25


def run_case(
    case: Case,
    directory: Path,
    data: Dataset,
    *,
    threads: int | None,
    facts: Mapping[str, Any],
    fingerprint: str,
    origin: Mapping[str, Any] | None = None,
    started: float | None = None,
) -> None:
    """Train as a case says, and write result, network and history to its directory.

    Parameters
    ----------
    case : Case
    directory : Path
    data : Dataset
        With a test part.
    threads : int or None
    facts : mapping
        What else the result shall hold.
    fingerprint : str
        Of the data, see `fingerprint_of`.
    origin : mapping, optional
        `provenance()` of when the process began; default that of now.
    started : float, optional
        When that was, in seconds since 1970; default now.
    """
    origin = provenance() if origin is None else origin
    settings = case.settings
    parallel = _strategy(case)
    main = parallel is None or check_launch(parallel["name"], PARALLEL.get(parallel).minimum) == 0
    progress = ProgressFile(directory, case.epochs, os.getpid())
    minutes = settings.get("stop", {}).get("minutes")
    measure = Measure(data, report=progress, minutes=minutes, commit=origin["commit"], started=started)

    def prepare() -> Trainer:
        own: dict[str, Any] = {
            "threads": threads,
            "callbacks": [measure] if main else [],
            "checkpoint": directory / CHECKPOINT,
            "checkpoint_every": _EPOCHS_BETWEEN_CHECKPOINTS,
            "progress": False,
        }
        if (directory / CHECKPOINT).is_file():
            return Trainer.resume(directory / CHECKPOINT, outline=not main, **own)
        recipe = Recipe.of(case.dataset, settings)
        if parallel is not None:
            own["parallel"] = parallel
        return recipe.trainer(_network(recipe, case, data, threads), seed=case.seed, **own)

    if parallel is None:
        trainer = prepare()
    else:
        world = World.open(parallel["name"], 1)
        with world.together("preparing the run"):
            trainer = prepare()
        world.close()
    neighbours = Neighbours()
    if main:
        progress(trainer.state.epoch)
    start = _connections_at_start(trainer)
    diverged = None
    try:
        trainer.fit(data.X_train, data.y_train, epochs=case.epochs, validation=(data.X_test, data.y_test))
    except DivergenceError as error:
        diverged = str(error)
    except TrainingInterrupted:
        if not trainer.finished:  # a signal in the last step came too late to stop anything
            raise
    if not main:
        return
    trainer.net.save(directory / MODEL)
    trainer.history.to_csv(directory / HISTORY)
    (directory / PRUNED).unlink(missing_ok=True)  # of an earlier result
    found = curves(trainer.history, measure)
    measure.end()
    write_text(
        directory / RESULT,
        json.dumps(
            {
                "case": case.to_json(),
                "resolved": {"model": trainer.net.to_config(), "trainer": trainer.to_config()},
                "data": {
                    "n_train": data.n_train,
                    "n_test": data.n_test,
                    "n_features": data.n_features,
                    "n_classes": data.n_classes,
                    "fingerprint": fingerprint,
                },
                "connections_start": start,
                "connections_end": trainer.net.connections,
                "biases": sum(layer.n_out for layer in trainer.net.layers),
                "slopes": _slopes(trainer.net),
                "epochs": len(trainer.history),
                "stop_reason": trainer.stop_reason,
                "diverged": diverged,
                "wall_minutes": measure.wall_seconds / 60,
                # of a parallel run these would be those of one process among several
                "cpu_minutes": measure.cpu_seconds / 60 if parallel is None else None,
                "peak_bytes": measure.peak,
                "threads": trainer.threads,
                "other_cores_busy": neighbours.cores() if parallel is None else None,
                "intervals": measure.intervals,
                **({} if trainer.parallel_report is None else {"parallel": trainer.parallel_report.to_dict()}),
                **facts,
                **origin,
                "commits": measure.commits,
                "curves": found,
            }
        )
        + "\n",
    )
    (directory / CHECKPOINT).unlink(missing_ok=True)
    progress.remove()


def _strategy(case: Case) -> dict[str, Any] | None:
    """Return the arguments of the parallel strategy, None for one process."""
    table = dict(case.settings.get("parallel", {}))
    table.pop("workers", None)
    return {"broadcast": False, **table} if table else None


def _network(recipe: Recipe, case: Case, data: Dataset, threads: int | None) -> SparseMLP:
    if data.n_classes is None:
        raise ConfigError(f"{case.dataset} has no classes, but the paper's tables are of classifications")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DensityWarning)  # the paper's output layers are full, and so are dense rows
        return recipe.network(data.n_features, data.n_classes, seed=case.seed, threads=threads)


def _slopes(net: SparseMLP) -> list[float] | None:
    """Return the slope that each hidden layer learned, None if layers have none, or one a neuron."""
    learned = [layer.activation_parameters.get("slope") for layer in net.layers[:-1]]
    return [float(slope[0]) for slope in learned if slope is not None and slope.size == 1] or None


def _connections_at_start(trainer: Trainer) -> int:
    """Return the connections before the first epoch; of a run that goes on, as its first row says."""
    rows = trainer.history.rows
    return int(rows[0]["connections"] or 0) if rows else trainer.net.connections


def main(argv: Sequence[str] | None = None) -> int:
    """Run one case; 0 is success, 3 that another process works on it, 143 that a signal ended it."""
    origin, started = provenance(), time.time()  # before anything that takes time: the source may change meanwhile
    parser = argparse.ArgumentParser(
        prog="trulysparse.reproduce.run", description="Run one case of the paper's tables."
    )
    parser.add_argument("case", type=Path, metavar="CASE.json")
    parser.add_argument("--data", type=Path, metavar="FILE", help="the data set (digits need none)")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--facts", type=json.loads, default={}, metavar="JSON", help="what else the result shall hold")
    arguments = parser.parse_args(argv)
    directory = arguments.case.parent
    first = (launched_rank() or 0) == 0
    try:
        case = Case.from_json(read_json(arguments.case))
        if not first:
            _run(case, arguments, origin, started)
            return 0
        with held(directory) as mine:
            if not mine:
                print(f"{directory}: another process works on this case", file=sys.stderr)
                return _leave(3)
            if (directory / RESULT).is_file():  # another command made it before this process came to look
                return _leave(0)
            # of an earlier process, whose number may be another's now
            (directory / PROGRESS).unlink(missing_ok=True)
            if (directory / LOG).is_file():
                os.truncate(directory / LOG, 0)
            _run(case, arguments, origin, started)
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal
    except Exception:
        traceback.print_exc()
        end_all(1)
        return 1
    return 0


def _leave(code: int) -> int:
    """Return the code after ending the other ranks, which know nothing; MPI must have started for that."""
    if launched_rank() is not None:
        import_mpi()
        end_all(code)
    return code


def _run(case: Case, arguments: argparse.Namespace, origin: Mapping[str, Any], started: float) -> None:
    """Load the data and run the case."""
    run_case(
        case,
        arguments.case.parent,
        load(case.dataset, arguments.data),
        threads=arguments.threads,
        facts=arguments.facts,
        fingerprint=fingerprint_of(case.dataset, arguments.data),
        origin=origin,
        started=started,
    )


if __name__ == "__main__":
    sys.exit(main())
