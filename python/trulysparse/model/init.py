# SPDX-License-Identifier: BSD-3-Clause
"""First values of the weights, and of the connections that are grown later. Biases start at zero."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.pattern import Pattern
from trulysparse.model.registry import Configurable, Registry, check_number, nearest

__all__ = ["INITIALIZERS", "HeUniform", "Initializer", "Normal", "Xavier", "get_initializer"]

_FAN_INS = ("dense", "sparse")
_GAINS = ("activation", "signal")


class Initializer(Configurable):
    """Base of all initialisers.

    With ``fan_in="dense"`` the scale is that of the dense layer of the same shape, as in the paper's code; a
    sparse layer then starts with pre-activations far smaller than a dense one. With ``fan_in="sparse"`` it
    follows the in-degree k_j of each target neuron j (counted as 1 where j has no incoming connection).
    """

    distribution: ClassVar[str]
    fan_in: str
    gain: float | str | None = None
    # The part of a sum's mean square that activation and dropout of the layer at hand pass on; 0 before it is known.
    _passed: ClassVar[float] = 0.0

    @property
    def follows_layer(self) -> bool:
        """Whether the scale depends on activation and dropout of the layer, which `for_layer` has to tell."""
        return isinstance(self.gain, str)

    def for_layer(self, passed: float) -> Self:
        """Return the initialiser of one layer.

        Parameters
        ----------
        passed
            Mean square of the layer's outputs in training, as a part of that of its sums: `Activation.second_moment`
            / (1 - dropout), 1 for the output layer.
        """
        if not self.follows_layer:
            return self
        bound = copy.copy(self)
        object.__setattr__(bound, "_passed", check_number(passed, "passed", low=0, low_open=True))
        return bound

    def _check_gain(self) -> None:
        if isinstance(self.gain, str):
            if self.gain not in _GAINS:
                raise ConfigError(
                    f"gain of {type(self).__name__} must be a positive number, 'activation' or 'signal', got "
                    f"{self.gain!r}{nearest(self.gain, _GAINS)}"
                )
            if self.gain == "signal" and self.fan_in != "sparse":
                raise ConfigError(
                    f"gain='signal' of {type(self).__name__} makes up for neurons without inputs and needs "
                    "fan_in='sparse'; with dense fan-in use gain='activation'"
                )
        elif self.gain is not None:
            number = check_number(self.gain, f"gain of {type(self).__name__}", low=0, low_open=True)
            object.__setattr__(self, "gain", number)

    def _power(self, connected: float) -> float:
        """Return fan-in times the variance of a weight; `connected` is the part of the targets that have inputs."""
        if self.gain is None:
            return 2.0  # half of the mean square passes a ReLU
        if not isinstance(self.gain, str):
            return self.gain**2
        if not self._passed:
            raise ConfigError(
                f"gain={self.gain!r} of {type(self).__name__} depends on the layer: give the initialiser to a network, "
                "or take that of one layer from for_layer"
            )
        return 1.0 / (self._passed * (connected if self.gain == "signal" and connected else 1.0))

    def _check_fan_in(self) -> None:
        if self.fan_in not in _FAN_INS:
            raise ConfigError(
                f"fan_in of {type(self).__name__} must be 'dense' or 'sparse', got {self.fan_in!r}"
                f"{nearest(self.fan_in, _FAN_INS)}"
            )

    def scale(self, pattern: Pattern) -> float | npt.NDArray[np.float32]:
        """Return the limit of a uniform or the standard deviation of a normal distribution.

        Returns
        -------
        scale : float or ndarray
            One number, or float32 (n_out,) with ``fan_in="sparse"``.
        """
        if self.fan_in == "dense":
            return self._dense_scale(pattern.n_in, pattern.n_out)
        in_degree = pattern.in_degree()
        power = self._power(np.count_nonzero(in_degree) / pattern.n_out)
        return self._sparse_scale(pattern, np.maximum(in_degree, 1), power).astype(np.float32)

    def _dense_scale(self, n_in: int, n_out: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} must define _dense_scale")

    def _sparse_scale(
        self, pattern: Pattern, in_degree: npt.NDArray[np.int64], power: float
    ) -> npt.NDArray[np.float64]:
        raise NotImplementedError(f"{type(self).__name__} must define _sparse_scale")

    def draw(self, pattern: Pattern, *, seed: int, layer: int, threads: int | None = None) -> npt.NDArray[np.float32]:
        """Draw the first weights of a layer, float32 (nnz,) in pattern order."""
        return _kernels.draw_values(
            pattern.n_in,
            pattern.n_out,
            pattern.row_ptr,
            pattern.col_idx,
            self.distribution,
            self.scale(pattern),
            seed=seed,
            purpose="weights",
            layer=layer,
            step=0,
            threads=threads,
        )

    def draw_at(
        self,
        cells: Any,
        *,
        n_out: int,
        scale: float | npt.NDArray[np.float32],
        seed: int,
        layer: int,
        threads: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Draw the first weights of any cells (uint64): what `draw` gives them where the pattern has this `scale`."""
        return _kernels.draw_values_at(
            cells,
            n_out,
            self.distribution,
            scale,
            seed=seed,
            purpose="weights",
            layer=layer,
            step=0,
            threads=threads,
        )

    def draw_grown(
        self, cells: Any, pattern: Pattern, *, seed: int, layer: int, step: int, threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Draw the values of cells that evolution `step` grows, float32 (len(cells),).

        With ``fan_in="sparse"`` the in-degrees are those of `pattern`.
        """
        return _kernels.draw_values_at(
            cells,
            pattern.n_out,
            self.distribution,
            self.scale(pattern),
            seed=seed,
            purpose="regrow_values",
            layer=layer,
            step=step,
            threads=threads,
        )


INITIALIZERS: Registry[Initializer] = Registry("initialiser", Initializer)


def get_initializer(spec: object) -> Initializer:
    """Return the initialiser that an object, a name ("he_uniform") or a configuration stands for."""
    return INITIALIZERS.get(spec)


@INITIALIZERS.register("he_uniform")
@dataclass(frozen=True)
class HeUniform(Initializer):
    """U(-a, a), a = sqrt(6 / n_in), or sqrt(6 / k_j) with sparse fan-in.  He et al. 2015, arXiv:1502.01852.

    Parameters
    ----------
    fan_in
        "dense" (the paper's) or "sparse".
    gain
        What the mean square of a layer's sums is, as a part of that of its inputs: g^2 in a = sqrt(3 g^2 / fan-in).
        None: sqrt(2), made for ReLU without dropout. A number: that. "activation": what keeps the mean square of
        outputs that have inputs, in training, given the layer's activation and dropout. "signal": it also makes up
        for the neurons of the layer without any input; needs sparse fan-in.
    """

    fan_in: str = "dense"
    gain: float | str | None = None
    distribution: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        self._check_fan_in()
        self._check_gain()

    def _dense_scale(self, n_in: int, n_out: int) -> float:
        return math.sqrt(3.0 * self._power(1.0) / n_in)

    def _sparse_scale(
        self, pattern: Pattern, in_degree: npt.NDArray[np.int64], power: float
    ) -> npt.NDArray[np.float64]:
        return np.sqrt(3.0 * power / in_degree)


@INITIALIZERS.register("xavier")
@dataclass(frozen=True)
class Xavier(Initializer):
    """U(-a, a), a = sqrt(6 / (n_in + n_out)), or sqrt(6 / (k_j + k_out)) with sparse fan-in.

    Glorot & Bengio 2010. k_out is the mean out-degree of the sources, nnz / n_in, so that the limit depends
    on the target only.

    Parameters
    ----------
    fan_in
        "dense" (the paper's) or "sparse".
    """

    fan_in: str = "dense"
    distribution: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        self._check_fan_in()

    def _dense_scale(self, n_in: int, n_out: int) -> float:
        return math.sqrt(6.0 / (n_in + n_out))

    def _sparse_scale(
        self, pattern: Pattern, in_degree: npt.NDArray[np.int64], power: float
    ) -> npt.NDArray[np.float64]:
        limits: npt.NDArray[np.float64] = np.sqrt(6.0 / (in_degree + pattern.nnz / pattern.n_in))
        return limits


@INITIALIZERS.register("normal")
@dataclass(frozen=True)
class Normal(Initializer):
    """N(0, std^2); with sparse fan-in N(0, 2 / k_j), the normal form of He et al. on the in-degree.

    Parameters
    ----------
    std
        Standard deviation; None means 0.1, the paper's. With ``fan_in="sparse"`` the in-degree decides it.
    fan_in
        "dense" or "sparse".
    gain
        As in `HeUniform`, g^2 in N(0, g^2 / k_j); needs sparse fan-in.

    Raises
    ------
    ConfigError
        `std` is not positive, or is given together with ``fan_in="sparse"``; `gain` is given without that.
    """

    std: float | None = None
    fan_in: str = "dense"
    gain: float | str | None = None
    distribution: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        self._check_fan_in()
        self._check_gain()
        if self.gain is not None and self.fan_in == "dense":
            raise ConfigError(
                f"Normal(gain={self.gain!r}) needs fan_in='sparse'; with dense fan-in std alone sets the scale"
            )
        if self.fan_in == "sparse":
            if self.std is not None:
                raise ConfigError(
                    f"Normal(std={self.std!r}, fan_in='sparse') sets the scale twice: sparse fan-in means "
                    "std = sqrt(2 / in-degree); leave out std, or use fan_in='dense'"
                )
        else:
            std = 0.1 if self.std is None else check_number(self.std, "std of Normal", low=0, low_open=True)
            object.__setattr__(self, "std", std)

    def _dense_scale(self, n_in: int, n_out: int) -> float:
        return 0.1 if self.std is None else self.std

    def _sparse_scale(
        self, pattern: Pattern, in_degree: npt.NDArray[np.int64], power: float
    ) -> npt.NDArray[np.float64]:
        return np.sqrt(power / in_degree)
