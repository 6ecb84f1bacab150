# SPDX-License-Identifier: BSD-3-Clause
"""The forward pass without training. The last, smaller batch counts like the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ShapeError
from trulysparse.model.inputs import Inputs
from trulysparse.model.losses import Loss

# Samples at a time; results do not depend on it. Longer rows (4 KB at 1024) collide in cache.
BATCH_SIZE = 128

__all__ = ["BATCH_SIZE", "Evaluation", "Stage", "evaluate_inputs", "forward_batches", "output_rows"]

F32 = npt.NDArray[np.float32]
ACTIVATION_BYTES = 1 << 28  # both activation buffers together; wide networks get smaller batches


class Stage(Protocol):
    """One layer as prediction sees it."""

    @property
    def n_in(self) -> int: ...
    @property
    def n_out(self) -> int: ...

    def forward(self, x: F32, y: F32, threads: int) -> None:
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


def _columns(stages: Sequence[Stage], batch_size: int) -> int:
    widths = [stages[0].n_in, *(stage.n_out for stage in stages)]
    room = ACTIVATION_BYTES // (4 * (max(widths[::2]) + max(widths[1::2])))
    return max(1, min(batch_size, max(_kernels.LANE, room // _kernels.LANE * _kernels.LANE)))


def forward_batches(
    stages: Sequence[Stage], inputs: Inputs, batch_size: int, threads: int
) -> Iterator[tuple[npt.NDArray[np.int64], F32]]:
    """Run all samples through the stages, without dropout.

    Parameters
    ----------
    stages
        At least one.
    inputs
        The samples.
    batch_size
        Samples at a time; less where the activations would pass `ACTIVATION_BYTES`.
    threads
        At least 1.

    Yields
    ------
    rows : ndarray
        int64 (batch,), which samples.
    z : ndarray
        float32 (n_outputs, ld), ld >= batch: their outputs. Overwritten by the next batch.
    """
    columns = _columns(stages, min(batch_size, inputs.n_samples))
    widths = [stages[0].n_in, *(stage.n_out for stage in stages)]
    buffers = [_kernels.aligned_zeros(max(widths[parity::2]) * _kernels.padded(columns)) for parity in (0, 1)]
    for start in range(0, inputs.n_samples, columns):
        rows = np.arange(start, min(start + columns, inputs.n_samples), dtype=np.int64)
        ld = _kernels.padded(len(rows))
        x = buffers[0][: widths[0] * ld].reshape(widths[0], ld)
        inputs.load(rows, x, threads)
        for number, stage in enumerate(stages, start=1):
            y = buffers[number % 2][: stage.n_out * ld].reshape(stage.n_out, ld)
            stage.forward(x, y, threads)
            x = y
        yield rows, x


def output_rows(
    stages: Sequence[Stage], inputs: Inputs, batch_size: int, threads: int, loss: Loss | None = None
) -> F32:
    """Return the outputs of all samples, float32 (N, n_outputs); with `loss`, their probabilities."""
    n_outputs = stages[-1].n_out
    result = np.empty((inputs.n_samples, n_outputs), dtype=np.float32)
    for rows, z in forward_batches(stages, inputs, batch_size, threads):
        out = z
        if loss is not None:
            out = _kernels.aligned_empty(z.shape)
            loss.proba(z, len(rows), out, threads)
        _kernels.store_transposed(out, len(rows), result[rows[0] : rows[-1] + 1], threads)
    return result


def evaluate_inputs(
    stages: Sequence[Stage], loss: Loss, inputs: Inputs, targets: Any, batch_size: int, threads: int
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
    for rows, z in forward_batches(stages, inputs, batch_size, threads):
        batch_targets = loss.batch(targets, rows, z.shape[1])
        loss_sum, right = loss(z, batch_targets, len(rows), 1.0, None, threads)
        total += loss_sum
        correct += right
    return Evaluation(total / n, correct / n if loss.has_accuracy else None, n)
