# SPDX-License-Identifier: BSD-3-Clause
"""The forward pass without training. The last, smaller batch counts like the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError, ShapeError
from trulysparse.model.inputs import Inputs
from trulysparse.model.losses import Loss
from trulysparse.model.memory import available_bytes
from trulysparse.model.registry import nearest

# Samples at a time; results do not depend on it. Longer rows (4 KB at 1024) collide in cache.
BATCH_SIZE = 128

__all__ = [
    "ACTIVATION_DTYPES",
    "BATCH_SIZE",
    "Evaluation",
    "Stage",
    "columns_at_once",
    "evaluate_inputs",
    "forward_batches",
    "output_rows",
    "row_length",
    "stored_dtype",
]

F32 = npt.NDArray[np.float32]
F32_DTYPE: np.dtype[Any] = np.dtype(np.float32)
Stored = npt.NDArray[np.float32] | npt.NDArray[np.uint16]
ACTIVATION_BYTES = 1 << 28
"""Both activation buffers together, unless an eighth of the free memory is more: wide networks get smaller batches."""

# How activations pass from layer to layer. NumPy has no bfloat16, so its bits are held as uint16.
ACTIVATION_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}
_LINE_BYTES = 64


def stored_dtype(activation_dtype: str) -> np.dtype[Any]:
    """Return how activations of that name are held.

    Raises
    ------
    ConfigError
        An unknown name.
    """
    if not isinstance(activation_dtype, str) or activation_dtype not in ACTIVATION_DTYPES:
        raise ConfigError(
            f"activation_dtype must be one of {', '.join(ACTIVATION_DTYPES)}, got {activation_dtype!r}"
            + nearest(activation_dtype, ACTIVATION_DTYPES)
        )
    return ACTIVATION_DTYPES[activation_dtype]


def row_length(width: int, dtype: np.dtype[Any]) -> int:
    """Return the row length for `width` samples: whole cache lines, or one half line of bfloat16."""
    line = _LINE_BYTES // dtype.itemsize
    ld = _kernels.padded(width)
    return ld if ld < line else -(-ld // line) * line


class Stage(Protocol):
    """One layer as prediction sees it."""

    @property
    def n_in(self) -> int: ...
    @property
    def n_out(self) -> int: ...

    def forward(self, x: Stored, y: Stored, threads: int) -> None:
        """Write ``f(x W + b)`` of x (n_in, ld) into y (n_out, ld)."""


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on some samples.

    Parameters
    ----------
    loss
        Mean over the samples.
    accuracy
        Part of the samples classified correctly; None for regression.
    n_samples
        How many samples were counted: all that were given.
    """

    loss: float
    accuracy: float | None
    n_samples: int


def columns_at_once(sizes: Sequence[int], batch_size: int, dtype: np.dtype[Any], held_bytes: int = 0) -> int:
    """Return how many samples prediction takes at a time: `batch_size`, or what there is room for now.

    Parameters
    ----------
    sizes
        Neurons of every layer, inputs first.
    batch_size
        The most.
    dtype
        How activations pass between layers.
    held_bytes
        Of the memory that is free now, what will be taken by then.
    """
    hidden = sizes[1:-1]
    column = dtype.itemsize * (max(hidden[::2], default=0) + max(hidden[1::2], default=0))
    if batch_size * column <= ACTIVATION_BYTES:
        return batch_size
    room = max(ACTIVATION_BYTES, ((available_bytes() or 0) - held_bytes) // 8) // column
    return max(1, min(batch_size, max(_kernels.LANE, room // _kernels.LANE * _kernels.LANE)))


def forward_batches(
    stages: Sequence[Stage], inputs: Inputs, batch_size: int, threads: int, dtype: np.dtype[Any] = F32_DTYPE
) -> Iterator[tuple[npt.NDArray[np.int64], F32]]:
    """Run all samples through the stages, without dropout.

    Parameters
    ----------
    stages
        At least one.
    inputs
        The samples.
    batch_size
        Samples at a time; see `columns_at_once`.
    threads
        At least 1.
    dtype
        How activations pass between layers, one of `ACTIVATION_DTYPES`; inputs and outputs are float32.

    Yields
    ------
    rows : ndarray
        int64 (batch,), which samples.
    z : ndarray
        float32 (n_outputs, ld), ld >= batch: their outputs. Overwritten by the next batch.
    """
    columns = min(batch_size, inputs.n_samples)
    ld = row_length(columns, dtype)
    hidden = [stage.n_out for stage in stages[:-1]]
    buffers = [_kernels.aligned_zeros(max(hidden[parity::2], default=0) * ld, dtype) for parity in (0, 1)]
    first, last = (_kernels.aligned_zeros(n * ld) for n in (stages[0].n_in, stages[-1].n_out))
    for start in range(0, inputs.n_samples, columns):
        rows = np.arange(start, min(start + columns, inputs.n_samples), dtype=np.int64)
        ld = row_length(len(rows), dtype)
        x: Stored = first[: stages[0].n_in * ld].reshape(-1, ld)
        inputs.load(rows, first[: stages[0].n_in * ld].reshape(-1, ld), threads)
        for number, stage in enumerate(stages[:-1]):
            y = buffers[number % 2][: stage.n_out * ld].reshape(stage.n_out, ld)
            stage.forward(x, y, threads)
            x = y
        z = last[: stages[-1].n_out * ld].reshape(-1, ld)
        stages[-1].forward(x, z, threads)
        yield rows, z


def output_rows(
    stages: Sequence[Stage],
    inputs: Inputs,
    batch_size: int,
    threads: int,
    loss: Loss | None = None,
    dtype: np.dtype[Any] = F32_DTYPE,
) -> F32:
    """Return the outputs of all samples, float32 (N, n_outputs); with `loss`, their probabilities."""
    n_outputs = stages[-1].n_out
    result = np.empty((inputs.n_samples, n_outputs), dtype=np.float32)
    for rows, z in forward_batches(stages, inputs, batch_size, threads, dtype):
        out = z
        if loss is not None:
            out = _kernels.aligned_empty(z.shape)
            loss.proba(z, len(rows), out, threads)
        _kernels.store_transposed(out, len(rows), result[rows[0] : rows[-1] + 1], threads)
    return result


def _blocks(
    batches: Iterable[tuple[npt.NDArray[np.int64], F32]], n_samples: int
) -> Iterator[tuple[npt.NDArray[np.int64], F32]]:
    """Regroup outputs into `BATCH_SIZE` samples each, so that sums over them do not depend on the width of a batch."""
    held: F32 | None = None
    filled = 0
    for rows, z in batches:
        whole = len(rows) == BATCH_SIZE or int(rows[-1]) + 1 == n_samples
        if filled == 0 and whole and len(rows) <= BATCH_SIZE:
            yield rows, z
            continue
        start = 0
        while start < len(rows):
            if held is None:
                held = _kernels.aligned_zeros((z.shape[0], BATCH_SIZE))
            some = min(BATCH_SIZE - filled, len(rows) - start)
            held[:, filled : filled + some] = z[:, start : start + some]
            filled, start = filled + some, start + some
            end = int(rows[start - 1]) + 1
            if filled == BATCH_SIZE or end == n_samples:
                block = held
                if filled < BATCH_SIZE:
                    block = _kernels.aligned_zeros((z.shape[0], _kernels.padded(filled)))
                    block[:, :filled] = held[:, :filled]
                yield np.arange(end - filled, end, dtype=np.int64), block
                filled = 0


def evaluate_inputs(
    stages: Sequence[Stage],
    loss: Loss,
    inputs: Inputs,
    targets: Any,
    batch_size: int,
    threads: int,
    dtype: np.dtype[Any] = F32_DTYPE,
) -> Evaluation:
    """Mean loss and accuracy over all samples.

    Parameters
    ----------
    targets
        What ``loss.check_targets`` returned.

    Raises
    ------
    ShapeError
        Another number of targets than samples.
    """
    n = inputs.n_samples
    if len(targets) != n:
        raise ShapeError(f"there are {n} samples but {len(targets)} targets; each sample needs one")
    total, correct = 0.0, 0
    for rows, z in _blocks(forward_batches(stages, inputs, batch_size, threads, dtype), n):
        batch_targets = loss.batch(targets, rows, z.shape[1])
        loss_sum, right = loss(z, batch_targets, len(rows), 1.0, None, threads)
        total += loss_sum
        correct += right
    return Evaluation(total / n, correct / n if loss.has_accuracy else None, n)
