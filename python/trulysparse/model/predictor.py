# SPDX-License-Identifier: BSD-3-Clause
"""What a trained network does for its users, whatever its layers are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError, ShapeError
from trulysparse.model.inference import (
    BATCH_SIZE,
    F32_DTYPE,
    Evaluation,
    Stage,
    columns_at_once,
    evaluate_inputs,
    output_rows,
    stored_dtype,
)
from trulysparse.model.inputs import Inputs, InputScaling
from trulysparse.model.losses import Loss
from trulysparse.model.registry import check_integer

__all__ = ["Predictor"]

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


class Predictor:
    """Predicts, given `_stages`; see `SparseMLP` and `FrozenMLP`."""

    loss: Loss
    scaling: InputScaling | None
    threads: int | None

    def decision(
        self, X: Any, *, batch_size: int = BATCH_SIZE, threads: int | None = None, activation_dtype: str = "float32"
    ) -> F32:
        """Return the outputs before softmax or sigmoid, float32 (N, n_outputs).

        Parameters
        ----------
        X
            (N, n_features) raw features, as `Inputs` takes them: dense or SciPy CSR.
        batch_size
            Samples at a time; fewer where the activations of a wide network would take too much memory. The
            result does not depend on it.
        threads
            None: the network's own setting.
        activation_dtype
            How activations pass between hidden layers: "float32", or "bfloat16": half the memory, faster in networks
            far larger than the caches, rounded to 8 significant bits.

        Raises
        ------
        ShapeError, DataError, TypeError
            Samples that do not fit the network; see `Inputs`.
        """
        return self._rows(X, batch_size, threads, dtype=self._dtype(activation_dtype))

    def predict_proba(
        self, X: Any, *, batch_size: int = BATCH_SIZE, threads: int | None = None, activation_dtype: str = "float32"
    ) -> F32:
        """Return probabilities, float32; parameters and errors as in `decision`.

        Returns
        -------
        proba : ndarray
            (N, n_outputs). With one output and binary cross-entropy (N, 2): of "no" and of "yes".

        Raises
        ------
        ConfigError
            The network is for regression.
        """
        if not self.loss.has_accuracy:
            raise ConfigError(
                f"a network with loss={self.loss.name!r} predicts numbers, not probabilities; use predict "
                "instead of predict_proba"
            )
        rows = self._rows(X, batch_size, threads, self.loss, dtype=self._dtype(activation_dtype))
        return self.loss.probabilities(rows)

    def predict(
        self, X: Any, *, batch_size: int = BATCH_SIZE, threads: int | None = None, activation_dtype: str = "float32"
    ) -> Array:
        """Return what the network says; parameters and errors as in `decision`.

        Returns
        -------
        y : ndarray
            int64 labels (N,); with several binary outputs int64 0 or 1 (N, n_outputs); for regression float32
            (N,), or (N, n_outputs) with several outputs.
        """
        return self.loss.predictions(
            self.decision(X, batch_size=batch_size, threads=threads, activation_dtype=activation_dtype)
        )

    def evaluate(
        self,
        X: Any,
        y: Any,
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        activation_dtype: str = "float32",
    ) -> Evaluation:
        """Return mean loss and accuracy over all samples, the last incomplete batch too.

        Parameters
        ----------
        X
            As in `decision`.
        y
            Integer labels (N,) from 0, or targets as the network's loss takes them.

        Raises
        ------
        ShapeError, DataError, TypeError
            Samples or targets that do not fit the network or each other.
        """
        inputs, targets = self._inputs(X), self.loss.check_targets(y, self.sizes[-1], "y")
        return self.evaluate_inputs(
            inputs, targets, batch_size=batch_size, threads=threads, activation_dtype=activation_dtype
        )

    def evaluate_inputs(
        self,
        inputs: Inputs,
        targets: Any,
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        activation_dtype: str = "float32",
    ) -> Evaluation:
        """`evaluate` of samples that were checked already; targets as ``loss.check_targets`` returned them."""
        dtype = self._dtype(activation_dtype)
        stages, columns, some = self._plan(inputs, batch_size, threads, dtype)
        return evaluate_inputs(stages, self.loss, inputs, targets, columns, some, dtype)

    def score(
        self,
        X: Any,
        y: Any,
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
        activation_dtype: str = "float32",
    ) -> float:
        """Return the accuracy, or for regression R^2, the coefficient of determination (mean over outputs).

        Parameters and errors as in `evaluate`. R^2 of targets that are all equal is 1 if met exactly, else 0.
        """
        if self.loss.has_accuracy:
            accuracy = self.evaluate(
                X, y, batch_size=batch_size, threads=threads, activation_dtype=activation_dtype
            ).accuracy
            assert accuracy is not None
            return accuracy
        targets = self.loss.check_targets(y, self.sizes[-1], "y").astype(np.float64)
        outputs = self.decision(X, batch_size=batch_size, threads=threads, activation_dtype=activation_dtype)
        if len(targets) != len(outputs):
            raise ShapeError(f"there are {len(outputs)} samples but {len(targets)} targets; each sample needs one")
        residual = ((targets - outputs) ** 2).sum(axis=0)
        spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        ratio = np.divide(residual, spread, out=(residual > 0).astype(np.float64), where=spread > 0)
        return float(np.mean(1.0 - ratio))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer, inputs first."""
        raise NotImplementedError(f"{type(self).__name__} must define sizes")

    def _stages(self, batches: int, threads: int) -> Sequence[Stage]:
        """Return what to run `batches` batches through."""
        raise NotImplementedError(f"{type(self).__name__} must define _stages")

    def _rows(
        self,
        X: Any,
        batch_size: int,
        threads: int | None,
        loss: Loss | None = None,
        dtype: np.dtype[Any] = F32_DTYPE,
    ) -> F32:
        inputs = self._inputs(X)
        stages, columns, some = self._plan(inputs, batch_size, threads, dtype)
        return output_rows(stages, inputs, columns, some, loss, dtype)

    def _plan(
        self, inputs: Inputs, batch_size: int, threads: int | None, dtype: np.dtype[Any]
    ) -> tuple[Sequence[Stage], int, int]:
        """Return what to run the samples through, how many at a time, and on how many threads."""
        batch_size, some = self._batching(batch_size, threads)
        columns = columns_at_once(self.sizes, min(batch_size, max(1, inputs.n_samples)), dtype)
        return self._stages(-(-inputs.n_samples // columns), some), columns, some

    @property
    def _trained_activations(self) -> bool:
        """Whether activations have parameters: they are computed in float32 only."""
        raise NotImplementedError(f"{type(self).__name__} must define _trained_activations")

    def _dtype(self, activation_dtype: str) -> np.dtype[Any]:
        dtype = stored_dtype(activation_dtype)
        if dtype != F32_DTYPE and self._trained_activations:
            raise ConfigError(
                f"activation_dtype={activation_dtype!r}: networks with trained activations predict in float32; "
                "leave it out"
            )
        return dtype

    def _inputs(self, X: Any) -> Inputs:
        return Inputs(X, self.sizes[0], self.scaling)

    def _batching(self, batch_size: int, threads: int | None) -> tuple[int, int]:
        batch_size = check_integer(batch_size, "batch_size", low=1)
        threads = self.threads if threads is None else check_integer(threads, "threads", low=1)
        return batch_size, _kernels.resolve_threads(threads)
