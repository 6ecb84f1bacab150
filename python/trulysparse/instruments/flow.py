# SPDX-License-Identifier: BSD-3-Clause
"""How much of a gradient arrives at the connections that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.engine import Engine
from trulysparse.errors import ShapeError
from trulysparse.model import Inputs, SparseMLP
from trulysparse.model.registry import check_integer
from trulysparse.optim import SGD
from trulysparse.trainer.callbacks import Callback

if TYPE_CHECKING:
    from trulysparse.trainer.history import Row
    from trulysparse.trainer.trainer import Trainer

__all__ = ["GradientFlow", "GradientFlowProbe", "gradient_flow"]

_COLUMNS = 128


@dataclass(frozen=True)
class GradientFlow:
    """The gradient of the mean loss over some samples, dropout off, as numbers.

    Attributes
    ----------
    loss : float
    weights, biases : tuple of float
        Squared Euclidean norm of the gradient of each layer's connections, and of its biases.
    absolute : tuple of float
        Sum of the absolute gradients of each layer's connections.
    connections : tuple of int
        Connections of each layer.
    """

    loss: float
    weights: tuple[float, ...]
    biases: tuple[float, ...]
    absolute: tuple[float, ...]
    connections: tuple[int, ...]

    @property
    def total(self) -> float:
        """Squared norm over all connections: to first order, the learning rate times what a step takes from the loss.

        "Truly Sparse Neural Networks at Scale", figure 5.
        """
        return math.fsum(self.weights)

    def effective(self, p: int = 2) -> float:
        """Return effective gradient flow: the mean over layers of the p-norm divided by the connections.

        Tessera, Hooker & Rosman 2021, "Keep the Gradients Flowing", arXiv:2102.01670. Layers without connections
        are left out.

        Parameters
        ----------
        p : {1, 2}
        """
        check_integer(p, "p of effective gradient flow", low=1, high=2)
        norms = self.absolute if p == 1 else tuple(math.sqrt(square) for square in self.weights)
        shares = [norm / count for norm, count in zip(norms, self.connections, strict=True) if count]
        return math.fsum(shares) / len(shares) if shares else 0.0


def gradient_flow(net: SparseMLP, X: Any, y: Any, *, threads: int | None = None) -> GradientFlow:
    """Measure the gradient flow of a network on some samples; the network does not change.

    Parameters
    ----------
    net : SparseMLP
    X, y
        Samples and targets as `SparseMLP.evaluate` takes them; one batch, of any size.
    threads : int, optional
        Default: the network's own setting.

    Raises
    ------
    ShapeError, DataError, TypeError
        Samples or targets that do not fit the network or each other.
    """
    inputs = Inputs(X, net.sizes[0], net.scaling)
    targets = net.loss.check_targets(y, net.sizes[-1], "y")
    if len(targets) != inputs.n_samples or not inputs.n_samples:
        raise ShapeError(f"X has {inputs.n_samples} samples and y {len(targets)}; give as many of each, at least one")
    number = _kernels.resolve_threads(net.threads if threads is None else threads)
    engine = Engine(net, SGD(), seed=0, threads=number, dropout=False, micro_batch=_COLUMNS)
    loss, weights, biases = engine.gradients(inputs, targets, np.arange(inputs.n_samples))
    return GradientFlow(
        loss,
        tuple(_kernels.sum_of_squares(gradient, number) for gradient in weights),
        tuple(_kernels.sum_of_squares(gradient, number) for gradient in biases),
        tuple(float(np.abs(gradient).sum(dtype=np.float64)) for gradient in weights),
        tuple(layer.nnz for layer in net.layers),
    )


class GradientFlowProbe(Callback):
    """Measures the gradient flow on the same samples after every so many epochs.

    Parameters
    ----------
    X, y
        The samples, as `gradient_flow` takes them: raw features, a few hundred are enough.
    every : int
        Epochs between two measurements.

    Attributes
    ----------
    epochs : list of int
        When it was measured.
    flows : list of GradientFlow
        What was measured.
    """

    def __init__(self, X: Any, y: Any, *, every: int = 1) -> None:
        self._X, self._y = X, y
        self.every = check_integer(every, "GradientFlowProbe's every", low=1)
        self.epochs: list[int] = []
        self.flows: list[GradientFlow] = []

    @property
    def total(self) -> list[float]:
        """`GradientFlow.total` of each measurement."""
        return [flow.total for flow in self.flows]

    def on_fit_start(self, trainer: Trainer) -> None:
        """Forget an earlier run, unless this one goes on with it."""
        if len(trainer.history) == 0:
            self.epochs, self.flows = [], []

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Measure."""
        epoch = int(row["epoch"] or 0)
        if epoch % self.every == 0:
            self.epochs.append(epoch)
            self.flows.append(gradient_flow(trainer.net, self._X, self._y, threads=trainer.threads))

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements."""
        return {
            "epochs": self.epochs,
            "flows": [
                [flow.loss, *(list(v) for v in (flow.weights, flow.biases, flow.absolute, flow.connections))]
                for flow in self.flows
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take the measurements back."""
        self.epochs = list(state["epochs"])
        self.flows = [GradientFlow(loss, *(tuple(values) for values in rest)) for loss, *rest in state["flows"]]
