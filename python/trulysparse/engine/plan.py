# SPDX-License-Identifier: BSD-3-Clause
"""What training a network takes in memory, array by array, before any of it is allocated; and how to fit a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model import SparseMLP
from trulysparse.model.activations import Activation, get_activation
from trulysparse.model.inference import ACTIVATION_DTYPES, BATCH_SIZE, columns_at_once, row_length, stored_dtype
from trulysparse.model.layer import STORAGES
from trulysparse.model.memory import parse_bytes
from trulysparse.model.registry import check_integer, nearest
from trulysparse.model.summary import format_bytes
from trulysparse.optim import SGD, Optimizer
from trulysparse.topology import Topology

__all__ = [
    "EVALUATIONS",
    "Fit",
    "MemoryPlan",
    "MemoryRow",
    "fit_to_budget",
    "plan_memory",
    "plan_network",
    "plan_prediction",
    "plan_table",
]

EVALUATIONS = ("frozen", "layers", "none")
"""How a run evaluates: in three batches or more (with a copy of the weights), in fewer, or not at all."""

ALWAYS, TRAINING = "always", "training"
PHASES = ("initialisation", "step", "evolution", "evaluation")

_ITEM_BYTES, _GRAIN, _ROW_COST = 40, 2048, 4  # of the work plans: work.hpp
_DRAW_BYTES = 16  # of a grown cell while it is drawn, besides mask and pattern
_FAR_BEYOND_CACHE = 1 << 25
_WIDE = 2**31


@dataclass(frozen=True)
class MemoryRow:
    """Some arrays of one kind.

    Attributes
    ----------
    name : str
    nbytes : int
    when : str
        "always" from the start; "training" from the first step on (zeros take no memory before it); else only for as
        long as that lasts:
        "initialisation" (building the second index), "step", "evolution", "evaluation".
    """

    name: str
    nbytes: int
    when: str = ALWAYS

    @property
    def held(self) -> bool:
        """Whether it is there between two steps."""
        return self.when in (ALWAYS, TRAINING)


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes; prints as a table.

    Attributes
    ----------
    sizes : tuple of int
        Neurons of every layer, inputs first.
    connections : tuple of int
        Of every layer.
    batch_size : int
    micro_batch : int or None
    storage : str
    activation_dtype : str
    evaluation_batch : int
        Samples that are evaluated at a time.
    rows : tuple of MemoryRow
    """

    sizes: tuple[int, ...]
    connections: tuple[int, ...]
    batch_size: int
    micro_batch: int | None
    storage: str
    activation_dtype: str
    evaluation_batch: int
    rows: tuple[MemoryRow, ...]

    def nbytes(self, *when: str) -> int:
        """Return the sum of the rows of some times."""
        return sum(row.nbytes for row in self.rows if row.when in when)

    @property
    def held_bytes(self) -> int:
        """What is there between two steps."""
        return self.nbytes(ALWAYS, TRAINING)

    def phase_bytes(self, phase: str) -> int:
        """Return what is there at the height of a phase."""
        return self.nbytes(*((ALWAYS, phase) if phase == "initialisation" else (ALWAYS, TRAINING, phase)))

    @property
    def peak_phase(self) -> str:
        """The phase that takes most."""
        return max(PHASES, key=self.phase_bytes)

    @property
    def peak_bytes(self) -> int:
        """What is there at the height of that phase: what must fit."""
        return self.phase_bytes(self.peak_phase)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan in plain values, for a result file."""
        return {
            "storage": self.storage,
            "micro_batch": self.micro_batch,
            "activation_dtype": self.activation_dtype,
            "evaluation_batch": self.evaluation_batch,
            "held_bytes": self.held_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_phase": self.peak_phase,
            "rows": [{"name": row.name, "bytes": row.nbytes, "when": row.when} for row in self.rows],
        }

    def __str__(self) -> str:
        width = "whole batches" if self.micro_batch is None else f"micro-batches of {self.micro_batch}"
        neurons, connections = sum(self.sizes[1:]), sum(self.connections)
        lines = [
            f"{neurons:,} neurons, {connections:,} connections; storage {self.storage!r}, {width}, "
            f"activations in {self.activation_dtype}"
        ]
        shown = [
            (row.name + ("" if row.held else f" (during {row.when})"), row.nbytes) for row in self.rows if row.nbytes
        ]
        shown += [("held between steps", self.held_bytes), (f"peak, during {self.peak_phase}", self.peak_bytes)]
        name_width = max(len(name) for name, _ in shown)
        return "\n".join(lines + [f"  {name:<{name_width}}  {format_bytes(n):>10}" for name, n in shown])


@dataclass(frozen=True)
class _Layer:
    """One layer's numbers."""

    index: int
    n_in: int
    n_out: int
    nnz: int
    storage: str

    @property
    def offset(self) -> int:
        """Bytes of a position among the connections."""
        return 4 if self.nnz < _WIDE else 8

    @property
    def by_source(self) -> int:
        return self.offset * (self.n_in + 1) + 4 * self.nnz

    @property
    def pointers(self) -> int:
        """Bytes of where each target's connections begin."""
        return self.offset * (self.n_out + 1)

    @property
    def by_target(self) -> int:
        """Bytes of the second index as far as it is kept, a copy of the weights in its order apart."""
        kept = {"balanced": 4 + self.offset, "fast": 4, "lean": 0}[self.storage]
        return kept * self.nnz + (self.pointers if kept else 0)

    @property
    def building(self) -> int:
        """Bytes besides the second index while it is built: its entries, and the permutation where that is let go."""
        if self.storage == "lean":
            return 0
        return (8 + self.offset + (self.offset if self.storage == "fast" else 0)) * self.nnz

    @property
    def sorting(self) -> int:
        """Bytes besides weights in the order of the second index while they are brought into it."""
        return 12 * self.nnz + self.pointers

    @property
    def passing(self) -> int:
        """Bytes of a second index with weights that is built for one pass and thrown away, at their most."""
        return 8 * self.nnz + self.sorting

    @property
    def items(self) -> int:
        """Work items of both directions."""
        rows = (self.n_in, self.n_out) if self.storage != "lean" else (self.n_in,)
        return sum(-(-(_ROW_COST * n + self.nnz) // _GRAIN) for n in rows)


def plan_memory(
    sizes: Sequence[int],
    connections: Sequence[float],
    *,
    batch_size: int = 128,
    micro_batch: int | None = None,
    storage: str = "balanced",
    activation_dtype: str = "float32",
    optimizer: Optimizer | None = None,
    topology: Topology | None = None,
    dropout: float | Sequence[float] = 0.0,
    activation: Activation | str | Mapping[str, Any] = "relu",
    augmented: bool = False,
    samples: int = 0,
    sample_bytes: int | None = None,
    evaluation: str = "frozen",
    evaluation_batch: int | None = None,
    evaluate_in_float32: bool = True,
) -> MemoryPlan:
    """Return what training a network takes, in one process.

    Not counted: the interpreter and its libraries, scratch of the kernels (a few MB), freed memory that the C library
    keeps for the next time (up to 64 MiB with glibc), in-degrees and scales while weights are drawn by sparse fan-in
    (about 30 bytes a neuron of the widest layer), what a rule keeps in `RuleState` or explores (`TopKAST`), what an
    event of importance pruning takes, and the copy of the best network that early stopping keeps.

    Parameters
    ----------
    sizes
        Neurons of every layer, inputs first.
    connections
        Of every layer, as they are or are expected.
    batch_size, micro_batch, storage, activation_dtype
        As in `Trainer`.
    optimizer
        None: momentum SGD.
    topology
        None: nothing evolves.
    dropout, activation
        As in `SparseMLP`.
    augmented
        Whether samples are changed at random (`Trainer(augment=...)`).
    samples
        Samples held in memory, with a label of 8 bytes each.
    sample_bytes
        Of one sample; None: 4 a feature.
    evaluation
        One of `EVALUATIONS`.
    evaluation_batch
        Samples evaluated at a time; None: as many as prediction would take on this machine now.
    evaluate_in_float32
        False: activations of an evaluation have the dtype of those of training.

    Raises
    ------
    ConfigError
        An argument that is unknown or out of range.
    """
    sizes, counts = tuple(int(n) for n in sizes), tuple(round(n) for n in connections)
    if len(sizes) < 2 or len(counts) != len(sizes) - 1:
        raise ConfigError(f"{len(sizes)} sizes need {max(1, len(sizes) - 1)} numbers of connections, got {len(counts)}")
    if storage not in STORAGES:
        raise ConfigError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}{nearest(storage, STORAGES)}")
    stored_dtype(activation_dtype)
    if evaluation not in EVALUATIONS:
        raise ConfigError(f"evaluation must be one of {', '.join(EVALUATIONS)}, got {evaluation!r}")
    batch_size = check_integer(batch_size, "batch_size", low=1)
    layers = [
        _Layer(i, n_in, n_out, nnz, storage)
        for i, ((n_in, n_out), nnz) in enumerate(zip(pairwise(sizes), counts, strict=True))
    ]
    optimizer = SGD() if optimizer is None else optimizer
    slots = len(optimizer.slots)
    rule_slots = 0 if topology is None else len(topology.slots)
    kind = get_activation(activation)
    trained = [kind.parameter_lengths(n) for n in sizes[1:-1]]
    trained_bytes = 4 * sum(sum(lengths.values()) for lengths in trained)
    neurons, nnz_total = sum(sizes[1:]), sum(counts)
    width = batch_size if micro_batch is None else min(micro_batch, batch_size)
    parts = -(-batch_size // width)
    fused = optimizer.fused and (parts == 1 or optimizer.fused_microbatches)

    data = samples * ((4 * sizes[0] if sample_bytes is None else sample_bytes) + 8)
    rows = [
        MemoryRow("samples and labels", data),
        MemoryRow("connections by source", sum(layer.by_source for layer in layers)),
        MemoryRow("connections by target", sum(layer.by_target for layer in layers)),
        MemoryRow("weights", 4 * nnz_total),
        MemoryRow("biases", 4 * neurons + trained_bytes),
        MemoryRow(
            "optimizer state", 4 * (slots + rule_slots) * nnz_total + slots * (4 * neurons + trained_bytes), TRAINING
        ),
        MemoryRow("work plans", _ITEM_BYTES * sum(layer.items for layer in layers)),
        MemoryRow("gradients of weights", 0 if fused else 4 * nnz_total, TRAINING),
        MemoryRow("gradients of biases", _neuron_gradients(layers, trained_bytes, parts, fused), TRAINING),
    ]
    if storage == "fast" or (storage == "balanced" and parts > 2):
        rows.append(MemoryRow("weights by target", 4 * nnz_total, TRAINING))
    rates = list(dropout) if isinstance(dropout, Sequence) else [dropout] * (len(sizes) - 2)
    rows += _activation_rows(
        sizes, kind, trained, rates, row_length(width, stored_dtype(activation_dtype)), activation_dtype
    )
    if augmented:
        rows.append(MemoryRow("augmented samples", 4 * sizes[0] * (2 * batch_size + width), TRAINING))
    rows += _initialisation_rows(layers)
    if storage == "lean":
        rows.append(MemoryRow("a layer's second index", max(layer.passing for layer in layers), "step"))
    elif storage == "fast":
        rows.append(MemoryRow("sorting a layer's weights", max(layer.sorting for layer in layers), "step"))
    if topology is not None:
        ld = row_length(width, stored_dtype(activation_dtype))
        rows += _evolution_rows(layers, topology, slots + rule_slots, parts, ld, activation_dtype)
    dtype = "float32" if evaluate_in_float32 else activation_dtype
    if evaluation_batch is None:
        evaluation_batch = _evaluation_batch(sizes, dtype, sum(row.nbytes for row in rows if row.held))
    rows += _evaluation_rows(sizes, layers, evaluation, evaluation_batch, dtype)
    return MemoryPlan(sizes, counts, batch_size, micro_batch, storage, activation_dtype, evaluation_batch, tuple(rows))


def _neuron_gradients(layers: Sequence[_Layer], trained_bytes: int, parts: int, fused: bool) -> int:
    """Return the bytes of what the backward pass leaves for each neuron; one layer's are used up where it is fused."""
    one, every = max(4 * layer.n_out for layer in layers), sum(4 * layer.n_out for layer in layers)
    trained = trained_bytes * (1 if parts == 1 else 2)
    return trained + (one if fused else every if parts == 1 else every + one)


def _activation_rows(
    sizes: Sequence[int],
    kind: Activation,
    trained: Sequence[Mapping[str, int]],
    rates: Sequence[float],
    ld: int,
    activation_dtype: str,
) -> list[MemoryRow]:
    hidden, bits = sizes[1:-1], ld // 8
    rectified = [kind.resolve(number)[0] == "rectifier" for number in range(1, len(hidden) + 1)]
    signs = sum(n * bits for n, has in zip(hidden, rectified, strict=True) if has)
    kept = sum(n * bits for n, rate in zip(hidden, rates, strict=True) if round(rate * 65536))
    apart = [bool(lengths) and not has for lengths, has in zip(trained, rectified, strict=True)]
    z = sum(n * ld * 4 for n, has in zip(hidden, apart, strict=True) if has)
    itemsize = ACTIVATION_DTYPES[activation_dtype].itemsize
    return [
        MemoryRow("inputs and outputs of a micro-batch", (sizes[0] + sizes[-1]) * ld * 4, TRAINING),
        MemoryRow("activations of a micro-batch", sum(hidden) * ld * itemsize, TRAINING),
        MemoryRow("sums before trained activations", z, TRAINING),
        MemoryRow("signs and dropout, as bits", signs + kept, TRAINING),
    ]


def _initialisation_rows(layers: Sequence[_Layer]) -> list[MemoryRow]:
    """Return what building the second indices, one after the other, takes above all of them."""
    most, later = 0, sum(layer.by_target for layer in layers)
    for layer in layers:
        later -= layer.by_target
        most = max(most, layer.building - later)
    return [MemoryRow("transposition of a layer", most, "initialisation")]


def _evolution_rows(
    layers: Sequence[_Layer], topology: Topology, slots: int, parts: int, ld: int, activation_dtype: str
) -> list[MemoryRow]:
    """Return what an evolution takes: layers are rewired one by one, their second indices built at the end."""
    rows = []
    if topology.wants_gradient:
        bfloat16 = activation_dtype != "float32"
        if parts == 1:
            copies = sum(layer.n_in for layer in layers[1:]) + bfloat16 * sum(layer.n_out for layer in layers[:-1])
        else:
            copies = sum(layer.n_in + layer.n_out for layer in layers)
        rows.append(MemoryRow("activations and deltas of a batch, for the rule", 4 * copies * parts * ld, "evolution"))
    changing = [layer for layer in layers if topology.applies_to(layer.index, len(layers))]
    if not changing:
        return rows
    part = min(1.0, float(getattr(topology, "drop_fraction", 0.5)))
    most, which, freed = 0, changing[0], 0
    for layer in changing:
        grown = round(part * layer.nnz)
        drawing = layer.nnz + layer.offset * (layer.n_in + 1) + _DRAW_BYTES * grown
        arrays = layer.by_source + 4 * (1 + slots) * layer.nnz
        needed = max(drawing, arrays + layer.nnz + (8 + 4) * grown) - freed
        if needed > most:
            most, which = needed, layer
        freed += layer.by_target
    rows.append(MemoryRow(f"layer {which.index} anew, mask and grown cells", most, "evolution"))
    transposing, missing = 0, freed
    for layer in changing:
        missing -= layer.by_target
        transposing = max(transposing, layer.building - missing)
    rows.append(MemoryRow("transposition after it, above that", max(0, transposing - most), "evolution"))
    return rows


def _widest_hidden(sizes: Sequence[int]) -> int:
    """Return the neurons of the two buffers that hidden layers take turns in."""
    hidden = sizes[1:-1]
    return max(hidden[::2], default=0) + max(hidden[1::2], default=0)


def _evaluation_batch(sizes: Sequence[int], dtype: str, held: int) -> int:
    """Return how many samples prediction takes at a time beside what is held, on this machine now."""
    return columns_at_once(sizes, BATCH_SIZE, stored_dtype(dtype), held)


def _evaluation_activations(sizes: Sequence[int], batch: int, dtype: str) -> int:
    ld, stored = row_length(batch, stored_dtype(dtype)), stored_dtype(dtype)
    return ld * (stored.itemsize * _widest_hidden(sizes) + 4 * (sizes[0] + sizes[-1]))


def _evaluation_rows(
    sizes: Sequence[int], layers: Sequence[_Layer], evaluation: str, batch: int, dtype: str
) -> list[MemoryRow]:
    if evaluation == "none":
        return []
    frozen, storage = evaluation == "frozen", layers[0].storage
    copies = sum(4 * layer.n_out for layer in layers) if frozen else 0
    if storage == "balanced":
        weights = sum(4 * layer.nnz for layer in layers) if frozen else 0
    elif storage == "fast":
        weights = max(layer.sorting for layer in layers)
    else:
        copies, weights = 0, max(layer.passing for layer in layers)
    return [
        MemoryRow("two layers' activations", _evaluation_activations(sizes, batch, dtype), "evaluation"),
        MemoryRow("weights in their order", weights + copies, "evaluation"),
    ]


def plan_network(
    net: SparseMLP,
    *,
    batch_size: int = 128,
    micro_batch: int | None = None,
    storage: str = "balanced",
    activation_dtype: str = "float32",
    optimizer: Optimizer | None = None,
    topology: Topology | None = None,
    augmented: bool = False,
    samples: int = 0,
    sample_bytes: int | None = None,
    evaluation: str = "frozen",
    evaluation_batch: int | None = None,
    evaluate_in_float32: bool = True,
) -> MemoryPlan:
    """Return what training `net`, as it is, takes: `plan_memory` with its sizes, connections and settings."""
    return plan_memory(
        net.sizes,
        [layer.nnz for layer in net.layers],
        batch_size=batch_size,
        micro_batch=micro_batch,
        storage=storage,
        activation_dtype=activation_dtype,
        optimizer=optimizer,
        topology=topology,
        dropout=net.dropout,
        activation=net.activation,
        augmented=augmented,
        samples=samples,
        sample_bytes=sample_bytes,
        evaluation=evaluation,
        evaluation_batch=evaluation_batch,
        evaluate_in_float32=evaluate_in_float32,
    )


def plan_prediction(
    sizes: Sequence[int],
    connections: Sequence[int],
    *,
    activation: Activation | str | Mapping[str, Any] = "relu",
) -> tuple[MemoryRow, ...]:
    """Return what a frozen network (`SparseMLP.freeze`) holds, and takes while it predicts ("evaluation").

    Parameters
    ----------
    sizes, connections, activation
        As in `plan_memory`.
    """
    shapes = zip(pairwise(sizes), connections, strict=True)
    layers = [_Layer(i, n_in, n_out, nnz, "balanced") for i, ((n_in, n_out), nnz) in enumerate(shapes)]
    kind = get_activation(activation)
    # A rectifier's trained slope becomes a setting of the frozen layer.
    trained = 4 * sum(
        sum(kind.parameter_lengths(n).values())
        for number, n in enumerate(sizes[1:-1], start=1)
        if kind.resolve(number)[0] != "rectifier"
    )
    return (
        MemoryRow("connections by target", sum(layer.offset * (layer.n_out + 1) + 4 * layer.nnz for layer in layers)),
        MemoryRow("weights", 4 * sum(connections)),
        MemoryRow("biases", 4 * sum(sizes[1:]) + trained),
        MemoryRow(
            "two layers' activations",
            _evaluation_activations(sizes, _evaluation_batch(sizes, "float32", 0), "float32"),
            "evaluation",
        ),
    )


def plan_table(plans: Mapping[str, MemoryPlan]) -> str:
    """Return plans side by side, a column each."""
    names = list(dict.fromkeys((row.name, row.when) for plan in plans.values() for row in plan.rows))
    table = []
    for name, when in names:
        found = [sum(row.nbytes for row in p.rows if (row.name, row.when) == (name, when)) for p in plans.values()]
        if any(found):
            held = when in (ALWAYS, TRAINING)
            table.append((name if held else f"{name} (during {when})", found))
    table.append(("held between steps", [plan.held_bytes for plan in plans.values()]))
    table.append(("peak", [plan.peak_bytes for plan in plans.values()]))
    width = max(len(name) for name, _ in table)
    cells = [(name, [format_bytes(n) if n else "-" for n in found]) for name, found in table]
    return "\n".join(
        f"  {name:<{width}}" + "".join(f"  {cell:>10}" for cell in row) for name, row in [("", list(plans)), *cells]
    )


@dataclass(frozen=True)
class Fit:
    """Settings that fit a budget.

    Attributes
    ----------
    plan : MemoryPlan
        With the storage, micro-batch and activations that were chosen.
    why : str
        One sentence: what was chosen, and why.
    """

    plan: MemoryPlan
    why: str


def fit_to_budget(
    budget: int | str,
    sizes: Sequence[int],
    connections: Sequence[float],
    *,
    batch_size: int = 128,
    micro_batch: int | None = None,
    storage: str | None = None,
    activation_dtype: str | None = None,
    optimizer: Optimizer | None = None,
    topology: Topology | None = None,
    dropout: float | Sequence[float] = 0.0,
    activation: Activation | str | Mapping[str, Any] = "relu",
    augmented: bool = False,
    samples: int = 0,
    sample_bytes: int | None = None,
    evaluation: str = "frozen",
    evaluate_in_float32: bool = True,
    storages: Sequence[str] = STORAGES,
) -> Fit:
    """Choose storage, micro-batch width and, if allowed, the dtype of activations so that a run fits `budget`.

    Settings are tried one after the other: float32 before bfloat16, ``storages`` in their order, and narrow
    micro-batches first where a layer's activations are far larger than a cache, whole batches first where not. The
    choice is a function of the arguments alone, not of the machine, so a run keeps its bits wherever it goes; only how
    many samples are evaluated at a time, which changes no bit, is also limited by what the machine has left.

    Parameters
    ----------
    budget
        Bytes, or a size such as "20GiB".
    sizes, connections, batch_size, optimizer, topology, dropout, activation, augmented, samples, sample_bytes
        As in `plan_memory`.
    evaluation, evaluate_in_float32
        As in `plan_memory`.
    micro_batch, storage, activation_dtype
        None: to be chosen.
    storages
        Modes to choose from.

    Raises
    ------
    ConfigError
        With the arithmetic and with what would fit, if nothing does.
    """
    limit = parse_bytes(budget)
    sizes = tuple(int(n) for n in sizes)

    def plan(
        storage: str,
        width: int | None,
        dtype: str,
        neurons: float = 1.0,
        connections_part: float = 1.0,
        evaluation_batch: int = _kernels.LANE,
    ) -> MemoryPlan:
        ends = {0, len(sizes) - 1}
        return plan_memory(
            [n if i in ends else max(1, round(neurons * n)) for i, n in enumerate(sizes)],
            [connections_part * count for count in connections],
            batch_size=batch_size,
            micro_batch=width,
            storage=storage,
            activation_dtype=dtype,
            optimizer=optimizer,
            topology=topology,
            dropout=dropout,
            activation=activation,
            augmented=augmented,
            samples=samples,
            sample_bytes=sample_bytes,
            evaluation=evaluation,
            evaluation_batch=evaluation_batch,
            evaluate_in_float32=evaluate_in_float32,
        )

    dtypes = tuple(ACTIVATION_DTYPES) if activation_dtype is None else (activation_dtype,)
    modes = tuple(storages) if storage is None else (storage,)
    widths = _widths(sizes, batch_size) if micro_batch is None else (micro_batch,)
    tried: list[MemoryPlan] = []
    for dtype in dtypes:
        for mode in modes:
            for width in widths:
                found = plan(mode, width, dtype)
                if found.peak_bytes <= limit:
                    most = _evaluation_batch(sizes, "float32" if evaluate_in_float32 else dtype, found.held_bytes)
                    wider = (plan(mode, width, dtype, evaluation_batch=min(n, most)) for n in (BATCH_SIZE, 64, 32))
                    found = next((one for one in wider if one.peak_bytes <= limit), found)
                    return Fit(found, _why(found, tried, limit, micro_batch is None))
                tried.append(found)
    smallest = min(tried, key=lambda one: one.peak_bytes)
    best = (smallest.storage, smallest.micro_batch, smallest.activation_dtype)
    raise ConfigError(
        f"a memory budget of {format_bytes(limit)} is too small for sizes {_text(sizes)} with "
        f"{sum(smallest.connections):,} connections: at the least {format_bytes(smallest.peak_bytes)} are needed with "
        f"{_settings(smallest)} ({_main_rows(smallest)}); "
        + _advice(limit, plan, best, activation_dtype, storage, micro_batch)
    )


def _text(sizes: Sequence[int]) -> str:
    return "-".join(map(str, sizes)) if len(sizes) < 8 else f"{sizes[0]}-{sizes[1]}-...-{sizes[-1]}"


def _settings(plan: MemoryPlan) -> str:
    micro = "whole batches" if plan.micro_batch is None else f"micro_batch={plan.micro_batch}"
    return f"storage={plan.storage!r}, {micro}, activation_dtype={plan.activation_dtype!r}"


def _main_rows(plan: MemoryPlan) -> str:
    there = (ALWAYS, plan.peak_phase) if plan.peak_phase == "initialisation" else (ALWAYS, TRAINING, plan.peak_phase)
    rows = sorted((row for row in plan.rows if row.when in there), key=lambda row: -row.nbytes)
    return ", ".join(f"{row.name} {format_bytes(row.nbytes)}" for row in rows[:5] if row.nbytes)


def _widths(sizes: Sequence[int], batch_size: int) -> tuple[int | None, ...]:
    narrower = [width for width in (128, 64, 32, 16) if width < batch_size]
    if 4 * max(sizes[1:]) * batch_size > _FAR_BEYOND_CACHE:
        return (*(width for width in narrower if width <= 32), None)
    return (None, *narrower)


def _why(plan: MemoryPlan, tried: Sequence[MemoryPlan], limit: int, chosen: bool) -> str:
    parts = []
    if plan.micro_batch is not None and chosen:
        wider = [one for one in tried if one.storage == plan.storage and one.activation_dtype == plan.activation_dtype]
        reason = (
            f"{_part_width(wider[0])} would take {format_bytes(wider[0].peak_bytes)}"
            if wider
            else f"a batch of {max(plan.sizes[1:]):,} neurons is far larger than a cache"
        )
        parts.append(f"{plan.micro_batch} samples at a time because {reason}")
    for field, name in (("storage", "storage"), ("activation_dtype", "activations")):
        others = [one for one in tried if getattr(one, field) != getattr(plan, field)]
        if others:
            least = min(others, key=lambda one: one.peak_bytes)
            parts.append(
                f"{name} {getattr(plan, field)!r} because {getattr(least, field)!r} would take at least "
                f"{format_bytes(least.peak_bytes)}"
            )
    reasons = f": {'; '.join(parts)}" if parts else ""
    return (
        f"memory budget {format_bytes(limit)}, planned peak {format_bytes(plan.peak_bytes)} with "
        f"{_settings(plan)}{reasons}"
    )


def _part_width(plan: MemoryPlan) -> str:
    return "the whole batch" if plan.micro_batch is None else f"{plan.micro_batch} at a time"


def _advice(
    limit: int,
    plan: Any,
    best: tuple[str, int | None, str],
    activation_dtype: str | None,
    storage: str | None,
    micro_batch: int | None,
) -> str:
    """Say what would fit: settings that were held fast, else a smaller network."""
    freer = []
    mode, width, dtype = best
    candidates = {
        "activation_dtype='bfloat16'": (mode, width, "bfloat16") if activation_dtype == "float32" else None,
        "storage='lean'": ("lean", width, dtype) if storage not in (None, "lean") else None,
        f"micro_batch={_kernels.LANE}": (mode, _kernels.LANE, dtype) if micro_batch not in (None, 16) else None,
    }
    for name, settings in candidates.items():
        if settings is not None:
            needed = plan(*settings).peak_bytes
            if needed <= limit:
                freer.append(f"{name} ({format_bytes(needed)})")
    if freer:
        return f"what would fit is {' or '.join(freer)}"
    neurons = _largest(lambda part: plan(*best, neurons=part, connections_part=part).peak_bytes <= limit)
    sizes = plan(*best).sizes
    fits = []
    if neurons > 0 and len(sizes) > 2:
        fits.append(f"hidden layers of {neurons:.0%} of the neurons (the widest {int(neurons * max(sizes[1:-1])):,})")
    fewer = _largest(lambda part: plan(*best, connections_part=part).peak_bytes <= limit)
    if fewer > 0:
        fits.append(f"{fewer:.0%} of the connections (epsilon or density times {fewer:.2g})")
    return f"what would fit is {' or '.join(fits)}" if fits else "the samples alone leave no room: map them from a file"


def _largest(fits: Any) -> float:
    """Return the largest part in (0, 1) that fits, to a hundredth of itself, rounded down; 0 if nothing does."""
    low, high = 0.0, 1.0
    if not fits(1e-4):
        return 0.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low >= 0.01 else 0.0
