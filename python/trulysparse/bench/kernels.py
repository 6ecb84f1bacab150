# SPDX-License-Identifier: BSD-3-Clause
"""Measuring kernels: every operation of every case, checked, then timed with all contestants in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trulysparse.bench.cases import BATCHED, OPERATIONS, Problem, Shape, WrongResult, draw_pattern
from trulysparse.bench.rivals import OURS, Contestant, NotOffered, Operation
from trulysparse.bench.rivals.ours import TrulySparse
from trulysparse.bench.roofline import Roofline
from trulysparse.bench.timing import Timing, alternate, thread_limit

__all__ = ["KernelCase", "kernel_records"]


@dataclass(frozen=True)
class KernelCase:
    """One line of the result.

    Attributes
    ----------
    shape : Shape
    batch : int
        0 for operations that have none.
    threads : int
    operation : str
    """

    shape: Shape
    batch: int
    threads: int
    operation: str

    def key(self) -> dict[str, Any]:
        """Return what identifies the case in a JSON line."""
        return {
            "benchmark": "kernels",
            "shape": str(self.shape),
            "batch": self.batch,
            "threads": self.threads,
            "operation": self.operation,
        }


def kernel_records(
    shapes: Sequence[Shape],
    batches: Callable[[Shape], Sequence[int]],
    threads: Sequence[int],
    rivals: Mapping[str, type[Contestant]],
    roofline: Roofline,
    *,
    seconds: float,
    operations: Sequence[str] = OPERATIONS,
    wanted: Callable[[KernelCase], bool] = lambda case: True,
) -> Iterator[dict[str, Any]]:
    """Measure cases one by one.

    Parameters
    ----------
    shapes, threads, operations : sequence
        What to measure.
    batches : callable
        Batch sizes of a shape.
    rivals : mapping of str to type
        Classes of rivals that were found.
    roofline : Roofline
        Measures roofs as they are needed.
    seconds : float
        Time for each contestant in each case.
    wanted : callable, optional
        False for cases that are to be left out, as a resumed run's finished ones.

    Yields
    ------
    dict
        One line a case.

    Raises
    ------
    WrongResult
        A contestant's result differs from the reference.
    """
    classes: dict[str, type[Contestant]] = {OURS: TrulySparse, **rivals}
    for shape in shapes:
        pattern = None
        shared: dict[str, Any] = {}
        for number, batch in enumerate(batches(shape)):
            cases = [
                KernelCase(shape, batch if operation in BATCHED else 0, count, operation)
                for count in threads
                for operation in operations
                if operation in BATCHED or number == 0  # the others do not depend on the batch
            ]
            cases = [case for case in cases if wanted(case)]
            if not cases:
                continue
            pattern = draw_pattern(shape, 0) if pattern is None else pattern
            problem = Problem(shape, batch, pattern=pattern, shared=shared)
            for count in dict.fromkeys(case.threads for case in cases):
                with thread_limit(count):
                    contestants, refusals = _contestants(classes, problem, count)
                    for case in cases:
                        if case.threads == count:
                            yield _measure(case, problem, contestants, dict(refusals), roofline, seconds)


def _contestants(
    classes: Mapping[str, type[Contestant]], problem: Problem, threads: int
) -> tuple[dict[str, Contestant], dict[str, str]]:
    contestants, refusals = {}, {}
    for name, contestant in classes.items():
        try:
            contestants[name] = contestant(problem, threads)
        except NotOffered as reason:
            refusals[name] = str(reason)
    return contestants, refusals


def checked(operation: Operation, name: str, problem: Problem, contestant: str) -> Operation:
    """Run an operation as often as its check wants and compare the result.

    Raises
    ------
    WrongResult
        If it differs.
    """
    operation.call()
    if name == "update":
        operation.call()
    result = operation.read()
    if name != "evolution":
        problem.check(name, result, contestant)
    return operation


def _measure(
    case: KernelCase,
    problem: Problem,
    contestants: Mapping[str, Contestant],
    not_offered: dict[str, str],
    roofline: Roofline,
    seconds: float,
) -> dict[str, Any]:
    calls = {}
    for name, contestant in contestants.items():
        try:
            operation = checked(contestant.operation(case.operation), case.operation, problem, name)
        except NotOffered as reason:
            not_offered[name] = str(reason)
        else:
            calls[name] = operation.call
    roof, level = (f(case.operation, roofline, case.threads) for f in (problem.roof, problem.level_roof))
    timings = alternate(calls, seconds=seconds, least=3 if problem.flops(case.operation) > 5e8 else 7)
    return {**case.key(), **_figures(case, problem, timings), **_roofs(timings, problem, case, roof, level)} | {
        "not_offered": not_offered
    }


def _figures(case: KernelCase, problem: Problem, timings: Mapping[str, Timing]) -> dict[str, Any]:
    flops, moved = problem.flops(case.operation), problem.bytes_moved(case.operation)
    ours = timings[OURS].median
    others = {name: timing.median for name, timing in timings.items() if name != OURS}
    best = min(others, key=lambda name: others[name]) if others else None
    return {
        "nnz": problem.shape.nnz,
        "density": problem.shape.density,
        "flops": flops,
        "bytes": moved,
        "gflops": flops / ours / 1e9,
        "gbs": moved / ours / 1e9,
        "best_rival": best,
        "ratio": others[best] / ours if best is not None else None,
        "timings": {
            name: {**timing.record(), "gflops": flops / timing.median / 1e9} for name, timing in timings.items()
        },
    }


def _roofs(timings: Mapping[str, Timing], problem: Problem, case: KernelCase, roof: Any, level: Any) -> dict[str, Any]:
    gflops = problem.flops(case.operation) / timings[OURS].median / 1e9
    return {
        "roof": None
        if roof is None
        else {"gflops": roof.gflops, "bound": roof.bound, "fraction": gflops / roof.gflops},
        "level_roof": None
        if level is None
        else {"gflops": level.gflops, "bound": level.bound, "fraction": gflops / level.gflops},
    }


__all__ += ["WrongResult"]
