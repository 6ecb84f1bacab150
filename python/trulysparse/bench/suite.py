# SPDX-License-Identifier: BSD-3-Clause
"""Everything that is measured, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trulysparse.bench.cases import OPERATIONS, Shape
from trulysparse.bench.epochs import break_even_record, busy_core_record, epoch_record, inference_record
from trulysparse.bench.kernels import KernelCase, kernel_records
from trulysparse.bench.networks import NETWORKS, Data, Network
from trulysparse.bench.records import identity
from trulysparse.bench.rivals import Contestant
from trulysparse.bench.roofline import Roofline

__all__ = ["DENSITIES", "Plan", "measure"]

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    parts : sequence of str
        Of "roofline", "kernels", "epochs", "busy", "break-even", "inference".
    shapes : sequence of Shape
    batches : callable
        Batch sizes of a shape.
    threads : sequence of int
    networks : sequence of Network
        For epochs and busy.
    operations : sequence of str
    seconds, epoch_seconds : float
        Time for each contestant in each case; in each epoch.
    data : callable
        Gives a network's data.
    done : set of tuple
        Identities of finished measurements, left out.
    """

    parts: Sequence[str]
    shapes: Sequence[Shape]
    batches: Callable[[Shape], Sequence[int]]
    threads: Sequence[int]
    networks: Sequence[Network] = (NETWORKS["fashion_mnist"],)
    operations: Sequence[str] = OPERATIONS
    seconds: float = 0.05
    epoch_seconds: float = 2.0
    data: Callable[[Network], Data] = Data
    done: frozenset[tuple[Any, ...]] = field(default_factory=frozenset)


def measure(
    plan: Plan,
    rivals: Mapping[str, type[Contestant]],
    say: Callable[[str], object] = lambda text: None,
    roofline: Roofline | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure a plan.

    Parameters
    ----------
    plan : Plan
    rivals : mapping of str to type
        Classes of rivals that were found.
    say : callable, optional
        Told what is left out and why.
    roofline : Roofline, optional

    Yields
    ------
    dict
        One line a measurement.

    Raises
    ------
    WrongResult
        A contestant computed something else than the reference, or did not learn.
    """
    roofline = Roofline() if roofline is None else roofline

    def wanted(**key: Any) -> bool:
        return identity(key) not in plan.done

    if "roofline" in plan.parts:
        for threads in plan.threads:
            if wanted(benchmark="roofline", threads=threads):
                yield roofline.machine(threads).record()
    if "kernels" in plan.parts:
        yield from kernel_records(
            plan.shapes,
            plan.batches,
            plan.threads,
            rivals,
            roofline,
            seconds=plan.seconds,
            operations=plan.operations,
            wanted=lambda case: wanted(**_key(case)),
        )
    yield from _networks(plan, tuple(rivals), wanted)
    if "break-even" in plan.parts:
        for threads in plan.threads:
            if "torch-dense" not in rivals:
                say("no break-even: it needs PyTorch (pip install torch)")
                break
            if wanted(benchmark="break_even", shape="4096x4096", batch=128, threads=threads):
                yield break_even_record(DENSITIES, threads, max(0.1, plan.seconds))
    if "inference" in plan.parts and wanted(benchmark="inference", network="fashion_mnist", batch=1, threads=1):
        yield inference_record(max(0.2, plan.seconds))


def _key(case: KernelCase) -> dict[str, Any]:
    return case.key()


def _networks(plan: Plan, rivals: Sequence[str], wanted: Callable[..., bool]) -> Iterator[dict[str, Any]]:
    for network in plan.networks:
        data: Data | None = None
        for threads in plan.threads:
            key = {"network": network.name, "threads": threads}
            if "epochs" in plan.parts and wanted(benchmark="epoch", batch=network.batch, **key):
                data = plan.data(network) if data is None else data
                yield epoch_record(network, data, threads, rivals, plan.epoch_seconds)
            if "busy" in plan.parts and threads > 1 and wanted(benchmark="busy_core", **key):
                data = plan.data(network) if data is None else data
                yield busy_core_record(network, data, threads)
