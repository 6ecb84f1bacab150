# SPDX-License-Identifier: BSD-3-Clause
"""Training data past the door, in the order of an epoch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.data import Augmentation
from trulysparse.errors import DataError
from trulysparse.model import Inputs, InputScaling

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Ahead:
    """A batch that is being prepared, or is ready."""

    seed: int
    step: int
    rows: Rows
    out: Floats
    ready: Future[Floats]

    def part(self, rows: Rows, seed: int, step: int, column: int) -> Floats | None:
        """Return the samples `rows`, which begin at place `column`, if this batch holds them."""
        place = slice(column, column + rows.size)
        if (seed, step) != (self.seed, self.step) or not np.array_equal(rows, self.rows[place]):
            return None
        return self.ready.result()[place]


class AugmentedInputs(Inputs):
    """Samples that are changed at random, and then scaled, where they are trained on.

    A batch that was announced is prepared by a thread of its own while the one before trains. Whether it was changes no
    bit: what no thread has prepared is made where it is needed.

    Parameters
    ----------
    X, n_features, scaling, where
        As in `Inputs`; dense.
    augmentation : Augmentation

    Raises
    ------
    DataError
        If `X` is sparse.
    ShapeError
        If the augmentation is not for so many features.
    """

    def __init__(
        self,
        X: Any,
        n_features: int,
        scaling: InputScaling | None,
        augmentation: Augmentation,
        where: str = "X",
    ) -> None:
        if hasattr(X, "tocsr"):
            raise DataError(
                f"{where} is sparse and its samples cannot be augmented; pass {where}.toarray(), or leave out augment"
            )
        super().__init__(X, n_features, scaling, where)
        augmentation.check(n_features)
        self.augmentation = augmentation
        self._worker: ThreadPoolExecutor | None = None
        self._ahead: list[_Ahead] = []  # at most two: the batch at hand and the next

    def load_training(self, rows: Rows, out: Floats, threads: int, *, seed: int, step: int, column: int = 0) -> None:
        found = (batch.part(rows, seed, step, column) for batch in self._ahead)
        samples = next((part for part in found if part is not None), None)
        if samples is None:
            samples = self.augmentation.apply(self.X, rows, seed=seed, step=step, threads=threads)
        self._load_dense(samples, np.arange(rows.size), out, threads)

    def prepare(self, rows: Rows, *, seed: int, step: int) -> None:
        """Begin to prepare the batch `rows` of training step `step`; the one announced before stays until the next.

        No batch may be loaded meanwhile by another thread.
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="trulysparse-augment")
        used = self._ahead.pop(0).out if len(self._ahead) == 2 else None
        shape = (rows.size, self.n_features)
        out = used if used is not None and used.shape == shape else np.empty(shape, np.float32)
        # one thread: more would take the kernels' threads away from the batch that trains
        ready = self._worker.submit(self.augmentation.apply, self.X, rows, seed=seed, step=step, out=out, threads=1)
        self._ahead.append(_Ahead(seed, step, rows, out, ready))

    def close(self) -> None:
        """End the thread and let its batches go."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self._worker, self._ahead = None, []


@dataclass(frozen=True)
class Samples:
    """Data that was checked, with its scaling, and targets as the loss wants them.

    Attributes
    ----------
    inputs : Inputs
    targets : ndarray
    rows : ndarray of int64 or None
        Of the samples to train on; None: all.
    validation : (Inputs, ndarray) or None
    """

    inputs: Inputs
    targets: NDArray[Any]
    rows: NDArray[np.int64] | None
    validation: tuple[Inputs, NDArray[Any]] | None

    @property
    def count(self) -> int:
        """How many samples are trained on."""
        return self.inputs.n_samples if self.rows is None else self.rows.size

    def prepare(self, rows: Rows, *, seed: int, step: int) -> None:
        """Announce the batch `rows` of a later step, which saves time where samples are changed at random."""
        self.inputs.prepare(rows, seed=seed, step=step)

    def close(self) -> None:
        """End what `prepare` began."""
        self.inputs.close()

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the samples in the order of an epoch."""
        order = _kernels.shuffle(self.count, seed=seed, purpose="shuffle", step=epoch)
        return order if self.rows is None else self.rows[order]
