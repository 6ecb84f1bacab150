# SPDX-License-Identifier: BSD-3-Clause
"""Activations of the hidden layers. The output layer is linear; its loss applies softmax or sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.registry import Configurable, Registry, check_integer, check_number

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AllReLU",
    "LeakyReLU",
    "Linear",
    "PReLU",
    "ReLU",
    "SReLU",
    "Sigmoid",
    "Tanh",
    "get_activation",
]

F32 = npt.NDArray[np.float32]

# A trained slope's gradient divides by the slope, so it is kept from 0.
_LEAST_SLOPE = 1 / 64


class Activation(Configurable):
    """Base of all activations. `PReLU`, `SReLU` and `AllReLU("auto")` train parameters along with the weights."""

    def resolve(self, hidden_number: int) -> tuple[str, float]:
        """Return what the kernels apply in one hidden layer.

        Parameters
        ----------
        hidden_number
            1 for the first hidden layer, 2 for the next.

        Returns
        -------
        kind : str
            "linear", "rectifier", "sigmoid" or "tanh"; "prelu" or "srelu" for those with parameters.
        slope : float
            Slope of a rectifier at and below zero, the first one if it is trained; 0 for the others.

        Raises
        ------
        ConfigError
            `hidden_number` is not a whole number of at least 1.
        """
        return self._kernel(check_integer(hidden_number, "hidden_number", low=1))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        raise NotImplementedError(f"{type(self).__name__} must define _kernel")

    def second_moment(self, hidden_number: int) -> float:
        """Return E f(z)^2 / E z^2 for sums z that are symmetric about 0: (1 + slope^2) / 2 for a rectifier.

        Raises
        ------
        ConfigError
            The ratio depends on the size of z, as for sigmoid, tanh and SReLU.
        """
        kind, slope = self.resolve(hidden_number)
        if kind not in ("linear", "rectifier"):
            raise ConfigError(
                f"gain='activation' and 'signal' know linear activations and rectifiers, not {type(self).__name__}; "
                "give gain a number, for example 1.6 for tanh"
            )
        return 1.0 if kind == "linear" else (1.0 + slope**2) / 2.0

    def parameter_lengths(self, n_out: int) -> dict[str, int]:
        """Return how many trained values of each name a layer of `n_out` neurons has; none for fixed activations."""
        return {}

    def draw_parameters(self, n_out: int, *, seed: int, layer: int, threads: int | None = None) -> dict[str, F32]:
        """Return the first values of the trained parameters of one layer.

        Parameters
        ----------
        n_out
            Neurons of the layer.
        seed, layer
            Of the draws: with a neuron's number they are all that its values depend on.
        threads
            None: all cores.

        Returns
        -------
        parameters : dict of str to ndarray
            float32 arrays of the lengths that `parameter_lengths` says.
        """
        return {}

    def parameter_bounds(self, hidden_number: int) -> dict[str, tuple[float, float]]:
        """Return between which values the trained parameters of a hidden layer are kept; those without are free."""
        return {}


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
@dataclass(frozen=True, repr=False)
class AllReLU(Activation):
    """Alternated left ReLU: x above zero; below, slope -alpha in hidden layers 1, 3..., +alpha in 2, 4...

    Equation 3 of "Truly Sparse Neural Networks at Scale" (Curci, Mocanu, Pechenizkiy 2021), with the sign of
    the authors' code. The paper's values are between 0.05 and 0.75, found by trying several for each data set.

    With ``alpha="auto"`` each hidden layer has a slope of its own, trained with the weights: its gradient
    is read off the stored activations in the backward pass that is made anyway. The optimizer moves the slopes
    like biases, without weight decay, by their gradient divided by the square root of the number of neurons that have
    incoming connections. After each step a slope is put back between 1/64 and 1 in size, with the sign that its layer
    has above, so the signs keep alternating. `SparseMLP.summary` shows what was learned.

    Parameters
    ----------
    alpha
        Size of the slope below zero, in [0, 1], or ``"auto"``.
    start
        First size of every slope with ``alpha="auto"``, in [1/64, 1]; default 0.5.

    Raises
    ------
    ConfigError
        `alpha` or `start` is out of range, or `start` is given beside a number for `alpha`.
    """

    alpha: float | Literal["auto"] = 0.6
    start: float | None = None

    def __post_init__(self) -> None:
        if self.learned:
            start = 0.5 if self.start is None else self.start
            checked = check_number(start, "start of AllReLU", low=_LEAST_SLOPE, high=1)
            object.__setattr__(self, "start", checked)
            return
        if isinstance(self.alpha, str):
            raise ConfigError(f"alpha of AllReLU must be a number in [0, 1] or 'auto', got {self.alpha!r}")
        object.__setattr__(self, "alpha", check_number(self.alpha, "alpha of AllReLU", low=0, high=1))
        if self.start is not None:
            raise ConfigError(
                f"start={self.start!r} of AllReLU is where a learned slope begins, but alpha={self.alpha!r} is fixed; "
                "leave start out, or give alpha='auto'"
            )

    def __repr__(self) -> str:
        return f"AllReLU(alpha={self.alpha!r}" + (f", start={self.start!r})" if self.learned else ")")

    @property
    def learned(self) -> bool:
        """Whether the slopes are trained with the weights."""
        return isinstance(self.alpha, str) and self.alpha == "auto"

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        size = self.alpha if self.start is None else self.start
        return "rectifier", -float(size) if hidden_number % 2 else float(size)

    def parameter_lengths(self, n_out: int) -> dict[str, int]:
        return {"slope": 1} if self.learned else {}

    def draw_parameters(self, n_out: int, *, seed: int, layer: int, threads: int | None = None) -> dict[str, F32]:
        return {"slope": _filled(1, self.resolve(layer + 1)[1])} if self.learned else {}

    def parameter_bounds(self, hidden_number: int) -> dict[str, tuple[float, float]]:
        if not self.learned:
            return {}
        return {"slope": (-1.0, -_LEAST_SLOPE) if hidden_number % 2 else (_LEAST_SLOPE, 1.0)}


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


@ACTIVATIONS.register("prelu")
@dataclass(frozen=True)
class PReLU(Activation):
    """Parametric ReLU: x above zero, slope * x below, the slope trained.  He et al. 2015, arXiv:1502.01852, eq. 1.

    The optimizer moves the slopes like biases, without weight decay. A training step keeps the sums before the
    activation, one float32 a neuron and sample more than `LeakyReLU`.

    Parameters
    ----------
    slope
        First value of every slope, in [-1, 1].
    shared
        One slope for a layer instead of one for each of its neurons. Its gradient is the sum of theirs, so it moves
        faster and wants a smaller learning rate.

    Raises
    ------
    ConfigError
        `slope` is out of range, or `shared` neither true nor false.
    """

    slope: float = 0.25
    shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", check_number(self.slope, "slope of PReLU", low=-1, high=1))
        if not isinstance(self.shared, (bool, np.bool_)):
            raise ConfigError(f"shared of PReLU must be true or false, got {self.shared!r}")
        object.__setattr__(self, "shared", bool(self.shared))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "prelu", 0.0

    def second_moment(self, hidden_number: int) -> float:
        return (1.0 + self.slope**2) / 2.0

    def parameter_lengths(self, n_out: int) -> dict[str, int]:
        return {"slope": 1 if self.shared else n_out}

    def draw_parameters(self, n_out: int, *, seed: int, layer: int, threads: int | None = None) -> dict[str, F32]:
        return {name: _filled(length, self.slope) for name, length in self.parameter_lengths(n_out).items()}


@ACTIVATIONS.register("srelu")
@dataclass(frozen=True)
class SReLU(Activation):
    """S-shaped ReLU: three straight pieces a neuron, their thresholds and outer slopes trained.

    Below l = left_threshold it is l + left_slope * (x - l), above r = l + abs(right_threshold) it is
    r + right_slope * (x - r), and x between.  Jin et al. 2016, arXiv:1512.07030, eq. 1. Storing the right threshold as
    a distance keeps the two in order whatever training does; the default first values are those of keras-contrib. The
    optimizer moves all four like biases, without weight decay. A training step keeps the sums before the
    activation, one float32 a neuron and sample more than a fixed activation.

    Parameters
    ----------
    left_threshold, left_slope, right_threshold, right_slope
        First values: a number for all neurons, or two, between which each neuron's is drawn uniformly.

    Raises
    ------
    ConfigError
        A value that is neither a finite number nor two in ascending order.
    """

    left_threshold: float | tuple[float, float] = 0.0
    left_slope: float | tuple[float, float] = (0.0, 1.0)
    right_threshold: float | tuple[float, float] = (0.0, 5.0)
    right_slope: float | tuple[float, float] = 1.0

    def __post_init__(self) -> None:
        for name in _SRELU:
            object.__setattr__(self, name, _check_start(getattr(self, name), f"{name} of SReLU"))

    def _kernel(self, hidden_number: int) -> tuple[str, float]:
        return "srelu", 0.0

    def parameter_lengths(self, n_out: int) -> dict[str, int]:
        return dict.fromkeys(_SRELU, n_out)

    def draw_parameters(self, n_out: int, *, seed: int, layer: int, threads: int | None = None) -> dict[str, F32]:
        drawn = {}
        neurons = np.arange(n_out, dtype=np.uint64)
        for step, name in enumerate(_SRELU, start=1):  # step 0 of this purpose belongs to the weights
            start = getattr(self, name)
            if not isinstance(start, tuple):
                drawn[name] = _filled(n_out, start)
                continue
            unit = _kernels.draw_values_at(
                neurons, n_out, "uniform", 1.0, seed=seed, purpose="weights", layer=layer, step=step, threads=threads
            )
            low, high = start
            drawn[name] = _filled(n_out, low + (high - low) * (unit.astype(np.float64) + 1) / 2)
        return drawn


_SRELU = ("left_threshold", "left_slope", "right_threshold", "right_slope")


def _filled(length: int, values: float | npt.NDArray[np.float64]) -> F32:
    array = _kernels.aligned_empty(length)
    array[...] = values
    return array


def _check_start(value: Any, name: str) -> float | tuple[float, float]:
    """Return a first value or the range of first values, checked."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if len(value) == 2:
            low, high = (check_number(end, f"each end of {name}") for end in value)
            if low <= high:
                return low, high
        raise ConfigError(f"{name} must be a number, or two in ascending order such as (0.0, 1.0), got {value!r}")
    return check_number(value, name)
