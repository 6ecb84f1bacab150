# SPDX-License-Identifier: BSD-3-Clause
"""Losses: their targets, value and gradient, and how outputs become predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DataError, ShapeError
from trulysparse.model.registry import Configurable, Registry

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "MeanSquaredError",
    "default_loss",
    "get_loss",
]

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


def _as_array(y: object, where: str) -> Array:
    if hasattr(y, "tocsr"):
        raise TypeError(f"{where} is a sparse {type(y).__name__}, targets must be dense; pass {where}.toarray()")
    try:
        array = np.asarray(y)
    except ValueError as error:
        raise ShapeError(f"{where} is not a rectangular array: {error}") from None
    if array.size == 0:
        raise DataError(f"{where} is empty (shape {array.shape}); at least one sample is needed")
    return array


class Loss(Configurable):
    """Base of all losses."""

    has_accuracy: ClassVar[bool]

    def check_outputs(self, n_outputs: int) -> None:
        """Raise ConfigError if a network with this many outputs cannot have this loss."""

    def check_targets(self, y: object, n_outputs: int, where: str = "y") -> Array:
        """Check targets and bring them into the form that `batch` takes.

        Parameters
        ----------
        y
            One entry (or row) a sample.
        n_outputs
            Outputs of the network.
        where
            What to call `y` in messages.

        Returns
        -------
        prepared : ndarray
            int32 labels (N,), or float32 targets (N, n_outputs).

        Raises
        ------
        DataError
            Values that are not finite, out of range or not integers; no samples.
        ShapeError
            A shape that does not fit the network.
        TypeError
            A dtype that is not numeric.
        """
        raise NotImplementedError(f"{type(self).__name__} must define check_targets")

    def batch(self, prepared: Array, rows: npt.NDArray[np.int64], ld: int) -> Array:
        """Return the targets of samples `rows` in the form that the loss takes.

        Labels are int32 (batch,), others float32 (n_outputs, ld), zero beyond the batch.
        """
        targets = _kernels.aligned_zeros((prepared.shape[1], ld))
        targets[:, : len(rows)] = prepared[rows].T
        return targets

    def __call__(
        self, z: F32, targets: Array, batch: int, scale: float, delta: F32 | None, threads: int
    ) -> tuple[float, int]:
        """Return the loss summed over the batch and the number of correct samples; write the gradient.

        Parameters
        ----------
        z
            Outputs of the last layer, (n_outputs, ld).
        targets
            What `batch` returned.
        batch
            Samples in it.
        scale
            Multiplies the gradient: 1 / batch size.
        delta
            Receives the gradient by `z`, (n_outputs, ld); may be `z`; None: not wanted.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def proba(self, z: F32, batch: int, out: F32, threads: int) -> None:
        """Write the probabilities of the outputs `z` into `out`, both (n_outputs, ld)."""
        raise NotImplementedError(f"{type(self).__name__} must define proba")

    def probabilities(self, out: F32) -> F32:
        """Bring (N, n_outputs) of what `proba` gave into the form that users get."""
        return out

    def predictions(self, z: F32) -> Array:
        """Turn outputs (N, n_outputs) of the last layer into what `predict` returns."""
        raise NotImplementedError(f"{type(self).__name__} must define predictions")


LOSSES: Registry[Loss] = Registry("loss", Loss)


def get_loss(spec: object) -> Loss:
    """Return the loss that an object, a name ("cross_entropy") or a configuration stands for."""
    return LOSSES.get(spec)


def default_loss(n_outputs: int) -> Loss:
    """Cross-entropy for two outputs or more, binary cross-entropy for one."""
    return CrossEntropy() if n_outputs >= 2 else BinaryCrossEntropy()


@LOSSES.register("cross_entropy")
@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax(z)[label]: one label out of n_outputs for each sample.

    Targets are integers from 0 to n_outputs - 1, shape (N,); booleans count as 0 and 1.
    """

    has_accuracy: ClassVar[bool] = True

    def check_outputs(self, n_outputs: int) -> None:
        if n_outputs < 2:
            raise ConfigError(
                f"cross_entropy needs at least 2 outputs, the network has {n_outputs}; use "
                "loss='binary_cross_entropy', "
                "or two outputs"
            )

    def check_targets(self, y: object, n_outputs: int, where: str = "y") -> Array:
        labels = _as_array(y, where)
        if labels.ndim != 1:
            cure = (
                f"pass {where}.ravel()" if labels.shape[1:] == (1,) else f"for one-hot rows pass {where}.argmax(axis=1)"
            )
            raise ShapeError(f"labels {where} must have shape (samples,), got {labels.shape}; {cure}")
        if labels.dtype.kind not in "biu":
            raise DataError(
                f"labels {where} must be integers from 0 to {n_outputs - 1}, got dtype {labels.dtype}; pass "
                "whole numbers "
                f"as {where}.astype(int), names of classes as np.unique({where}, return_inverse=True)[1]"
            )
        wrong = (labels < 0) | (labels >= n_outputs)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(
                f"labels {where} must be from 0 to {n_outputs - 1}, as the network has {n_outputs} outputs; "
                f"got {labels[first]} "
                f"at position {first} ({np.count_nonzero(wrong)} of {len(labels)} are out of range, from "
                f"{labels.min()} to "
                f"{labels.max()}); renumber them with np.unique({where}, return_inverse=True)[1], or build a "
                "network with more outputs"
            )
        return labels.astype(np.int32)

    def batch(self, prepared: Array, rows: npt.NDArray[np.int64], ld: int) -> Array:
        labels: Array = prepared[rows]
        return labels

    def __call__(
        self, z: F32, targets: Array, batch: int, scale: float, delta: F32 | None, threads: int
    ) -> tuple[float, int]:
        return _kernels.softmax_cross_entropy(z, targets, scale, delta, threads)

    def proba(self, z: F32, batch: int, out: F32, threads: int) -> None:
        _kernels.softmax(z, batch, out, threads)

    def predictions(self, z: F32) -> Array:
        labels: Array = z.argmax(axis=1).astype(np.int64)
        return labels


def _target_matrix(y: object, n_outputs: int, where: str) -> Array:
    targets = _as_array(y, where)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets {where} must be numbers, got dtype {targets.dtype}; pass {where}.astype(float)")
    if targets.ndim == 1 and n_outputs == 1:
        targets = targets[:, None]
    if targets.ndim != 2 or targets.shape[1] != n_outputs:
        want = "(samples,) or (samples, 1)" if n_outputs == 1 else f"(samples, {n_outputs})"
        raise ShapeError(
            f"targets {where} must have shape {want} for a network with {n_outputs} outputs, got {targets.shape}"
        )
    with np.errstate(over="ignore"):
        prepared = np.ascontiguousarray(targets, dtype=np.float32)
    finite = np.isfinite(prepared)
    if not finite.all():
        row, column = (int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
        raise DataError(
            f"targets {where} hold {finite.size - np.count_nonzero(finite)} values that are NaN, infinite or "
            "too large for "
            f"32-bit floats, the first is {targets[row, column]} at row {row}, column {column}; remove or "
            "replace these samples"
        )
    return prepared


@LOSSES.register("binary_cross_entropy")
@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), p = sigmoid(z), mean over the outputs: independent yes-no questions.

    Targets are in [0, 1], shape (N,) with one output, else (N, n_outputs).
    """

    has_accuracy: ClassVar[bool] = True

    def check_targets(self, y: object, n_outputs: int, where: str = "y") -> Array:
        prepared = _target_matrix(y, n_outputs, where)
        wrong = (prepared < 0) | (prepared > 1)
        if wrong.any():
            row, column = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            raise DataError(
                f"targets {where} of binary_cross_entropy must be from 0 to 1, got {prepared[row, column]:g} "
                f"at row {row}, "
                f"column {column} ({np.count_nonzero(wrong)} of {wrong.size} are out of range); for labels "
                "-1 and 1 pass "
                f"{where} > 0, for more than two classes use loss='cross_entropy' with one output a class"
            )
        return prepared

    def __call__(
        self, z: F32, targets: Array, batch: int, scale: float, delta: F32 | None, threads: int
    ) -> tuple[float, int]:
        return _kernels.binary_cross_entropy(z, targets, batch, scale, delta, threads)

    def proba(self, z: F32, batch: int, out: F32, threads: int) -> None:
        _kernels.sigmoid(z, batch, out, threads)

    def probabilities(self, out: F32) -> F32:
        return np.concatenate([1 - out, out], axis=1) if out.shape[1] == 1 else out

    def predictions(self, z: F32) -> Array:
        labels = (z > 0).astype(np.int64)
        return labels[:, 0] if z.shape[1] == 1 else labels


@LOSSES.register("mse")
@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """(z - t)^2, averaged over the outputs: regression.

    Targets are finite numbers, shape (N,) with one output, else (N, n_outputs).
    """

    has_accuracy: ClassVar[bool] = False

    def check_targets(self, y: object, n_outputs: int, where: str = "y") -> Array:
        return _target_matrix(y, n_outputs, where)

    def __call__(
        self, z: F32, targets: Array, batch: int, scale: float, delta: F32 | None, threads: int
    ) -> tuple[float, int]:
        return _kernels.mean_squared_error(z, targets, batch, scale, delta, threads)

    def proba(self, z: F32, batch: int, out: F32, threads: int) -> None:
        raise ConfigError(
            "a network with loss='mse' predicts numbers, not probabilities; use predict instead of predict_proba"
        )

    def predictions(self, z: F32) -> Array:
        return z[:, 0] if z.shape[1] == 1 else z
