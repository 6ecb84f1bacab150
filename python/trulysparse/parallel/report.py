# SPDX-License-Identifier: BSD-3-Clause
"""What a parallel run did: who computed, who waited, how stale updates were, what travelled, what memory it took."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, NamedTuple

from trulysparse._files import write_text
from trulysparse.errors import ConfigError, DataError

__all__ = ["ParallelReport", "Phase", "Tally"]

_MOST_LINES = 16
_BAR_WIDTH = 40


class Phase(NamedTuple):
    """A part of the run.

    Parameters
    ----------
    name
        Such as "asynchronous" or "local".
    seconds
        Wall time.
    samples
        Training samples handled by all workers together.
    """

    name: str
    seconds: float
    samples: int

    @property
    def samples_per_second(self) -> float:
        """Training samples a second, of all workers together; 0 if no time was counted."""
        return _rate(self.samples, self.seconds)


@dataclass(frozen=True, kw_only=True)
class ParallelReport:
    """What happened in a parallel run, in plain numbers; its text is a table for the terminal.

    Lists "by worker" have one entry a worker, in the order of workers; lists "by rank" one entry a process.

    Parameters
    ----------
    strategy
        Name of the strategy: "wasap".
    transport
        How gradients and models travelled: "shared" or "messages".
    library
        The MPI library.
    workers, nodes
        Processes that compute gradients, and machines they and the master run on.
    updates
        Gradients that entered the model.
    updates_sent
        Gradients sent by worker, as each worker counted them; None for one that ended before it could tell.
    updates_applied
        Gradients that entered the model by worker, as the master counted them.
    refused
        Gradients that were thrown away because they were of an older model.
    filtered
        Gradients among `updates` that were carried onto a newer topology before they were applied.
    samples
        Training samples handled in all phases.
    phases
        Parts of the run, in order.
    compute_seconds, idle_seconds
        By worker: time spent on gradients and local training, and on waiting for the master.
    updates_per_second
        By worker: gradients that entered the model a second of wall time, over the phases in which any did.
    apply_seconds, evolve_seconds, evaluate_seconds, master_idle_seconds
        What the master did: applying gradients, evolving the topology, evaluating, waiting for workers.
    staleness
        How many updates had so many others come between: the version of the model that a gradient was added to, minus
        that of the model it was computed on, in updates.
    bytes_sent_per_update, bytes_received_per_update
        Mean bytes that left a worker with a gradient, and that came back in answer; refused gradients count too.
    parameters_bytes
        4 x (connections + biases), in the mean over updates: pruning may change it during a run.
    topology_bytes
        Bytes of index arrays sent in the whole run, to all receivers.
    rank_nodes, rank_private_bytes, rank_shared_bytes
        By rank: number of its node, and resident memory that is its own, and that it shares with other ranks.
    node_bytes
        By node: private memory of all its ranks, and once what they share (as the rank has it that touched most of it).
    """

    strategy: str
    transport: str
    library: str
    workers: int
    nodes: int
    updates: int
    updates_sent: list[int | None]
    updates_applied: list[int]
    refused: int
    filtered: int
    samples: int
    phases: list[Phase]
    compute_seconds: list[float]
    idle_seconds: list[float]
    updates_per_second: list[float]
    apply_seconds: float
    evolve_seconds: float
    evaluate_seconds: float
    master_idle_seconds: float
    staleness: dict[int, int]
    bytes_sent_per_update: float
    bytes_received_per_update: float
    parameters_bytes: int
    topology_bytes: int
    rank_nodes: list[int] = field(default_factory=list)
    rank_private_bytes: list[int] = field(default_factory=list)
    rank_shared_bytes: list[int] = field(default_factory=list)
    node_bytes: list[int] = field(default_factory=list)

    @property
    def lost_updates(self) -> int | None:
        """Gradients that were sent and neither applied nor refused; None if a worker could not say how many it sent."""
        sent = [count for count in self.updates_sent if count is not None]
        return sum(sent) - self.updates - self.refused if len(sent) == self.workers else None

    @property
    def mean_staleness(self) -> float:
        """Mean of the staleness histogram; 0 without updates."""
        return _rate(sum(between * count for between, count in self.staleness.items()), sum(self.staleness.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON-able values; staleness has strings for keys, as JSON wants them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values = {key: list(value) if isinstance(value, list) else value for key, value in values.items()}
        values["phases"] = [p._asdict() | {"samples_per_second": p.samples_per_second} for p in self.phases]
        values["staleness"] = {str(between): count for between, count in sorted(self.staleness.items())}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParallelReport:
        """Build the report that `to_dict` was called on.

        Raises
        ------
        DataError
            If a field is missing or unknown, or phases or staleness are no such thing.
        """
        names = [item.name for item in fields(cls)]
        wrong = [f"{name} is missing" for name in names if name not in values]
        wrong += [f"{name!r} is unknown" for name in values if name not in names]
        if wrong:
            raise DataError(f"this is no report of a parallel run of this version: {', '.join(wrong)}")
        known: dict[str, Any] = {
            key: list(value) if isinstance(value, list) else value for key, value in values.items()
        }
        try:
            known["phases"] = [Phase(p["name"], p["seconds"], p["samples"]) for p in values["phases"]]
            known["staleness"] = {int(between): count for between, count in values["staleness"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"phases or staleness of a report of a parallel run cannot be read: {error!r}") from error
        return cls(**known)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report as a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    def __str__(self) -> str:
        facts = [
            *_heading(self),
            *(_phase(phase) for phase in self.phases),
            *_workers(self),
            *_master(self),
            *_traffic(self),
            *_memory(self),
            *_staleness(self),
        ]
        width = max(len(name) for name, _ in facts)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in facts)


class Tally:
    """Counts while a parallel run goes on; cheap enough for every step.

    Parameters
    ----------
    workers
        Processes that compute gradients. They are numbered from 0.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._applied = [0] * workers
        self._compute_seconds = [0.0] * workers
        self._idle_seconds = [0.0] * workers
        self._staleness: dict[int, int] = {}
        self._refused = self._filtered = 0
        self._bytes_up = self._bytes_down = 0
        self._phases: dict[str, tuple[float, int]] = {}
        self._counted = [0] * workers
        self._updating_seconds = 0.0
        self._apply_seconds = self._evolve_seconds = self._evaluate_seconds = self._master_idle_seconds = 0.0
        self._parameters_bytes = self._topology_bytes = 0
        self._parameters_sum = 0
        self._ranks: dict[int, tuple[int, int, int]] = {}

    @property
    def updates(self) -> int:
        """Gradients that entered the model so far."""
        return sum(self._applied)

    def applied(
        self,
        worker: int,
        staleness: int,
        bytes_up: int,
        bytes_down: int,
        compute_seconds: float,
        idle_seconds: float,
        filtered: bool = False,
    ) -> None:
        """Count a gradient that entered the model.

        Parameters
        ----------
        worker
            Whose it was.
        staleness
            Updates that came between the model it was computed on and the one it was added to.
        bytes_up, bytes_down
            What the worker sent with it and gets in answer, index arrays apart.
        compute_seconds, idle_seconds
            What the worker spent on it, and on waiting before it.
        filtered
            Whether it was carried onto a newer topology.
        """
        self._applied[worker] += 1
        between = int(staleness)
        self._staleness[between] = self._staleness.get(between, 0) + 1
        self._filtered += bool(filtered)
        self._parameters_sum += self._parameters_bytes
        self._answered(worker, bytes_up, bytes_down, compute_seconds, idle_seconds)

    def refused(self, worker: int, bytes_up: int, bytes_down: int, compute_seconds: float, idle_seconds: float) -> None:
        """Count a gradient that was thrown away; parameters as for `applied`."""
        self._refused += 1
        self._parameters_sum += self._parameters_bytes
        self._answered(worker, bytes_up, bytes_down, compute_seconds, idle_seconds)

    def worked(self, worker: int, compute_seconds: float, idle_seconds: float = 0.0) -> None:
        """Add a worker's time that belongs to no gradient it sent: local training, the wait at the end."""
        self._compute_seconds[worker] += float(compute_seconds)
        self._idle_seconds[worker] += float(idle_seconds)

    def master(
        self,
        apply_seconds: float = 0.0,
        evolve_seconds: float = 0.0,
        evaluate_seconds: float = 0.0,
        idle_seconds: float = 0.0,
    ) -> None:
        """Add what the master spent."""
        self._apply_seconds += float(apply_seconds)
        self._evolve_seconds += float(evolve_seconds)
        self._evaluate_seconds += float(evaluate_seconds)
        self._master_idle_seconds += float(idle_seconds)

    def phase(self, name: str, seconds: float, samples: int) -> None:
        """Add a stretch of wall time that ends now, and its samples; stretches of one name are one phase."""
        before = self._phases.get(name, (0.0, 0))
        self._phases[name] = (before[0] + float(seconds), before[1] + int(samples))
        if self._applied != self._counted:
            self._updating_seconds += float(seconds)
            self._counted = list(self._applied)

    def topology(self, parameters_bytes: int, index_bytes: int = 0) -> None:
        """Say what the model takes from now on, and what was sent to tell all workers of its connections.

        Parameters
        ----------
        parameters_bytes
            4 x (connections + biases).
        index_bytes
            Bytes of index arrays, times those they were sent to.
        """
        self._parameters_bytes = int(parameters_bytes)
        self._topology_bytes += int(index_bytes)

    def memory(self, rank: int, node: int, private_bytes: int, shared_bytes: int) -> None:
        """Set the resident memory of a rank: its own, and what it shares with other ranks of its node."""
        self._ranks[int(rank)] = (int(node), int(private_bytes), int(shared_bytes))

    def report(
        self,
        *,
        strategy: str,
        transport: str,
        library: str,
        nodes: int,
        updates_sent: Sequence[int | None] | None = None,
    ) -> ParallelReport:
        """Return the report of what was counted.

        Parameters
        ----------
        strategy, transport, library, nodes
            As in the report.
        updates_sent
            What each worker says it sent, None for a worker that ended before it could tell. Default: none told.

        Raises
        ------
        ConfigError
            If `updates_sent` is not one number a worker.
        """
        told: list[int | None] = (
            [None] * self._workers if updates_sent is None else [None if n is None else int(n) for n in updates_sent]
        )
        if len(told) != self._workers:
            raise ConfigError(f"updates_sent needs one number for each of {self._workers} workers, got {len(told)}")
        updates = self.updates
        answered = updates + self._refused
        ranks = [self._ranks[rank] for rank in sorted(self._ranks)]
        return ParallelReport(
            strategy=strategy,
            transport=transport,
            library=library,
            workers=self._workers,
            nodes=nodes,
            updates=updates,
            updates_sent=told,
            updates_applied=list(self._applied),
            refused=self._refused,
            filtered=self._filtered,
            samples=sum(samples for _, samples in self._phases.values()),
            phases=[Phase(name, seconds, samples) for name, (seconds, samples) in self._phases.items()],
            compute_seconds=list(self._compute_seconds),
            idle_seconds=list(self._idle_seconds),
            updates_per_second=[_rate(counted, self._updating_seconds) for counted in self._counted],
            apply_seconds=self._apply_seconds,
            evolve_seconds=self._evolve_seconds,
            evaluate_seconds=self._evaluate_seconds,
            master_idle_seconds=self._master_idle_seconds,
            staleness=dict(sorted(self._staleness.items())),
            bytes_sent_per_update=_rate(self._bytes_up, answered),
            bytes_received_per_update=_rate(self._bytes_down, answered),
            parameters_bytes=round(self._parameters_sum / answered) if answered else self._parameters_bytes,
            topology_bytes=self._topology_bytes,
            rank_nodes=[node for node, _, _ in ranks],
            rank_private_bytes=[private for _, private, _ in ranks],
            rank_shared_bytes=[shared for _, _, shared in ranks],
            node_bytes=[
                sum(private for at, private, _ in ranks if at == node)
                + max(shared for at, _, shared in ranks if at == node)
                for node in sorted({node for node, _, _ in ranks})
            ],
        )

    def _answered(
        self, worker: int, bytes_up: int, bytes_down: int, compute_seconds: float, idle_seconds: float
    ) -> None:
        # NumPy's numbers would stay what they are: a sum of milliseconds in float32 loses them, and JSON refuses them
        self._bytes_up += int(bytes_up)
        self._bytes_down += int(bytes_down)
        self._compute_seconds[worker] += float(compute_seconds)
        self._idle_seconds[worker] += float(idle_seconds)


_Fact = tuple[str, str]


def _rate(amount: float, of: float) -> float:
    return amount / of if of else 0.0


def _three(value: float) -> str:
    """Return a number with three significant digits, or all of them before the point."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 6)}f}"


def _size(n_bytes: float) -> str:
    unit, scale = next((u for u in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if n_bytes >= u[1]), ("B", 1.0))
    return f"{_three(n_bytes / scale)} {unit}"


def _seconds(seconds: float) -> str:
    return f"{_three(seconds)} s"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percent(part: float, whole: float) -> str:
    return f"{100 * _rate(part, whole):.0f} %"


def _heading(r: ParallelReport) -> list[_Fact]:
    sent = [count for count in r.updates_sent if count is not None]
    told = f" of {sum(sent):,} sent" if len(sent) == r.workers else ""
    if sent and not told:
        told = f"; {_plural(r.workers - len(sent), 'worker')} ended before saying how many it sent"
    if r.lost_updates:
        told += f" ({r.lost_updates:,} LOST)"
    return [
        ("strategy", f"{r.strategy}, {_plural(r.workers, 'worker')} on {_plural(r.nodes, 'node')}"),
        ("transport", f"{r.transport}, {r.library}"),
        ("updates", f"{r.updates:,} applied{told}"),
        ("refused", f"{r.refused:,} of an older model"),
        ("filtered", f"{r.filtered:,} carried onto a newer topology"),
    ]


def _phase(phase: Phase) -> _Fact:
    speed = f"{_three(phase.samples_per_second)} samples/s"
    return f"phase {phase.name}", f"{_seconds(phase.seconds)}, {phase.samples:,} samples, {speed}"


def _each(count: int, noun: str, line: Callable[[int], str], spread: Callable[[], list[_Fact]]) -> list[_Fact]:
    """Return a line for each worker or rank, or for many of them their spread."""
    return [(f"{noun} {i}", line(i)) for i in range(count)] if count <= _MOST_LINES else spread()


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    return f"{text(min(values))} least, {text(median(values))} median, {text(max(values))} most"


def _workers(r: ParallelReport) -> list[_Fact]:
    spent = [compute + idle for compute, idle in zip(r.compute_seconds, r.idle_seconds, strict=True)]

    def line(i: int) -> str:
        return (
            f"{r.updates_applied[i]:,} updates, {_three(r.updates_per_second[i])} updates/s, "
            f"computing {_seconds(r.compute_seconds[i])}, "
            f"waiting {_seconds(r.idle_seconds[i])} ({_percent(r.idle_seconds[i], spent[i])})"
        )

    def spread() -> list[_Fact]:
        return [
            ("updates a worker", _spread(r.updates_applied, lambda v: f"{v:,.0f}")),
            ("speed of a worker", _spread(r.updates_per_second, lambda v: f"{_three(v)} updates/s")),
            ("computing a worker", _spread(r.compute_seconds, _seconds)),
            ("waiting a worker", f"{_spread(r.idle_seconds, _seconds)} ({_percent(sum(r.idle_seconds), sum(spent))})"),
        ]

    total = ("all workers", f"{_three(sum(r.updates_per_second))} updates/s")
    return [*_each(r.workers, "worker", line, spread), total]


def _master(r: ParallelReport) -> list[_Fact]:
    parts = {
        "applying": r.apply_seconds,
        "evolving": r.evolve_seconds,
        "evaluating": r.evaluate_seconds,
        "waiting": r.master_idle_seconds,
    }
    # without a parameter server there is nothing to say
    return [("master", ", ".join(f"{what} {_seconds(s)}" for what, s in parts.items()))] if any(parts.values()) else []


def _traffic(r: ParallelReport) -> list[_Fact]:
    def per_update(n_bytes: float) -> str:
        share = f", {n_bytes / r.parameters_bytes:.2f} x the parameters" if r.parameters_bytes else ""
        return f"{_size(n_bytes)} an update{share}"

    return [
        ("parameters", f"{_size(r.parameters_bytes)} (connections and biases)"),
        ("worker sends", per_update(r.bytes_sent_per_update)),
        ("worker receives", per_update(r.bytes_received_per_update)),
        ("topology", f"{_size(r.topology_bytes)} of indices sent in all"),
    ]


def _memory(r: ParallelReport) -> list[_Fact]:
    private, shared = r.rank_private_bytes, r.rank_shared_bytes

    def line(i: int) -> str:
        return f"{_size(private[i])} private, {_size(shared[i])} shared, on node {r.rank_nodes[i]}"

    def spread() -> list[_Fact]:
        return [("private a rank", _spread(private, _size)), ("shared a rank", _spread(shared, _size))]

    nodes = _each(
        len(r.node_bytes),
        "memory of node",
        lambda i: f"{_size(r.node_bytes[i])}, what is shared counted once",
        lambda: [("memory of a node", _spread(r.node_bytes, _size))],
    )
    return [*_each(len(private), "memory of rank", line, spread), *nodes]


def _staleness(r: ParallelReport) -> list[_Fact]:
    """Return the histogram as bars; a wide one has several values a bar."""
    total = sum(r.staleness.values())
    if not total:
        return []
    width = math.ceil((max(r.staleness) + 1) / _MOST_LINES)
    bars = [0] * (max(r.staleness) // width + 1)
    for between, count in r.staleness.items():
        bars[between // width] += count
    lines = [("staleness", f"{_three(r.mean_staleness)} other updates came between, in the mean")]
    for i, count in enumerate(bars):
        label = f"{i}" if width == 1 else f"{i * width}-{(i + 1) * width - 1}"
        # anything above 0 shows
        bar = "#" * math.ceil(_BAR_WIDTH * count / max(bars))
        lines.append((f"{label:>9}", f"{bar:<{_BAR_WIDTH}}  {count:,} ({_percent(count, total)})"))
    return lines
