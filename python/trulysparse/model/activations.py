# SPDX-License-Identifier: BSD-3-Clause
"""Activations of the hidden layers. The output layer is linear; its loss applies softmax or sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

from trulysparse.model.registry import Configurable, Registry, check_integer, check_number

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AllReLU",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "get_activation",
]


class Activation(Configurable):
    """Base of all activations."""

    def resolve(self, hidden_number: int) -> tuple[str, float]:
        """Return what the kernels apply in one hidden layer.

        Parameters
        ----------
        hidden_number
            1 for the first hidden layer, 2 for the next.

        Returns
        -------
        kind : str
            "linear", "rectifier", "sigmoid" or "tanh".
        slope : float
            Slope of a rectifier at and below zero; 0 for the others.

        Raises
        ------
        ConfigError
            `hidden_number` is not a whole number of at least 1.
        """
        return self._kernel(check_integer(hidden_number, "hidden_number", low=1))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        raise NotImplementedError(f"{type(self).__name__} must define _kernel")


ACTIVATIONS: Registry[Activation] = Registry("activation", Activation)


def get_activation(spec: object) -> Activation:
    """Return the activation that an object, a name ("relu") or a configuration stands for."""
    return ACTIVATIONS.get(spec)


@ACTIVATIONS.register("relu")
@dataclass(frozen=True)
class ReLU(Activation):
    """max(x, 0)."""

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "rectifier", 0.0


@ACTIVATIONS.register("leaky_relu")
@dataclass(frozen=True)
class LeakyReLU(Activation):
    """x above zero, slope * x below, the same slope in every layer.

    Parameters
    ----------
    slope
        Slope below zero, in [0, 1].

    Raises
    ------
    ConfigError
        `slope` is out of range.
    """

    slope: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", check_number(self.slope, "slope of LeakyReLU", low=0, high=1))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "rectifier", self.slope


@ACTIVATIONS.register("all_relu")
@dataclass(frozen=True)
class AllReLU(Activation):
    """Alternated left ReLU: x above zero; below, slope -alpha in hidden layers 1, 3..., +alpha in 2, 4...

    Equation 3 of "Truly Sparse Neural Networks at Scale" (Curci, Mocanu, Pechenizkiy 2021), with the sign of
    the authors' code. The paper's values are between 0.05 and 0.75.

    Parameters
    ----------
    alpha
        Size of the slope below zero, in [0, 1].

    Raises
    ------
    ConfigError
        `alpha` is out of range.
    """

    alpha: float = 0.6

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_number(self.alpha, "alpha of AllReLU", low=0, high=1))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "rectifier", -self.alpha if hidden_number % 2 else self.alpha


@ACTIVATIONS.register("sigmoid")
@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "sigmoid", 0.0


@ACTIVATIONS.register("tanh")
@dataclass(frozen=True)
class Tanh(Activation):
    """Hyperbolic tangent."""

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "tanh", 0.0


@ACTIVATIONS.register("linear")
@dataclass(frozen=True)
class Linear(Activation):
    """The identity."""

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "linear", 0.0
