# SPDX-License-Identifier: BSD-3-Clause
"""How many connections each layer starts with, and which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DensityWarning, ShapeError
from trulysparse.model.pattern import Pattern
from trulysparse.model.registry import Configurable, Registry, check_integer, check_number, nearest

__all__ = ["DENSITIES", "ERK", "Density", "ErdosRenyi", "Given", "Uniform", "get_density"]

_SAMPLERS = ("bernoulli", "replacement")


class Density(Configurable):
    """Base of all density distributions."""

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        """Draw the first pattern of every layer.

        Parameters
        ----------
        sizes
            Neurons of every layer, inputs first.
        seed
            Seed of the draws; the same seed gives the same patterns on any number of threads.
        threads
            None means all cores this process may use.

        Returns
        -------
        patterns : list of Pattern
            One a layer, len(sizes) - 1 of them.
        """
        raise NotImplementedError(f"{type(self).__name__} must define patterns")

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        """Return the expected number of connections of every layer."""
        raise NotImplementedError(f"{type(self).__name__} must define expected_connections")


DENSITIES: Registry[Density] = Registry("density", Density)


def get_density(spec: object) -> Density:
    """Return the density distribution that `spec` stands for.

    Parameters
    ----------
    spec
        A number (the global density, distributed by `ERK`), an object, or a configuration such as
        ``{"name": "uniform", "density": 0.1}``.

    Raises
    ------
    ConfigError
        An unknown name, or a number outside (0, 1].
    """
    if isinstance(spec, (Density, str, Mapping)):
        return DENSITIES.get(spec)
    if isinstance(spec, (int, float, np.integer, np.floating)):
        return ERK(float(check_number(spec, "density", low=0, high=1, low_open=True)))
    raise ConfigError(
        f"density must be a number in (0, 1], a Density such as ERK(0.05) or a configuration, got {spec!r} "
        "of type "
        f"{type(spec).__name__}; patterns of your own go into Given([...])"
    )


def _counts(sizes: Sequence[int], densities: Sequence[float]) -> list[float]:
    return [
        float(min(round(density * n_in * n_out), n_in * n_out))
        for (n_in, n_out), density in zip(pairwise(sizes), densities, strict=True)
    ]


def _exact(sizes: Sequence[int], densities: Sequence[float], seed: int, threads: int | None) -> list[Pattern]:
    patterns = []
    counts = _counts(sizes, densities)
    for layer, ((n_in, n_out), count) in enumerate(zip(pairwise(sizes), counts, strict=True)):
        csr = _kernels.sample_exact(
            n_in, n_out, int(count), seed=seed, purpose="pattern", layer=layer, step=0, threads=threads
        )
        patterns.append(Pattern(n_in, n_out, *csr, validate=False))
    return patterns


def draw_erdos_renyi(n_in: int, n_out: int, epsilon: float, layer: int, seed: int, threads: int | None) -> Pattern:
    """Draw every cell of a layer with probability epsilon * (n_in + n_out) / (n_in * n_out), for a `patterns` method.

    Warns
    -----
    DensityWarning
        The probability would pass 1: the layer is full.
    """
    cells, asked = n_in * n_out, epsilon * (n_in + n_out)
    if asked > cells:
        warnings.warn(
            f"layer {layer} ({n_in} -> {n_out}): epsilon={epsilon:g} asks for {asked:.0f} connections "
            f"(density {asked / cells:.3g}) but there is room for {cells}; the layer is full (density 1)",
            DensityWarning,
            stacklevel=4,  # who made the network, by way of patterns
        )
    probability = min(1.0, asked / cells)
    csr = _kernels.sample_bernoulli(
        n_in, n_out, probability, seed=seed, purpose="pattern", layer=layer, step=0, threads=threads
    )
    return Pattern(n_in, n_out, *csr, validate=False)


@DENSITIES.register("erdos_renyi")
@dataclass(frozen=True)
class ErdosRenyi(Density):
    """Each connection of a layer exists with probability epsilon * (n_in + n_out) / (n_in * n_out).

    Mocanu et al. 2018 (SET) and "Truly Sparse Neural Networks at Scale". The output layer follows the same
    rule.

    Parameters
    ----------
    epsilon
        Positive; connections a layer are about epsilon * (n_in + n_out).
    sampler
        "bernoulli": every cell independently; a layer whose probability would pass 1 is full, with a
        DensityWarning. "replacement": epsilon * (n_in + n_out) draws with replacement, of which the distinct
        cells remain, as in the older SET codes; such a layer is never quite full.

    Raises
    ------
    ConfigError
        `epsilon` is not a positive number, or an unknown sampler.
    """

    epsilon: float
    sampler: str = "bernoulli"

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", check_number(self.epsilon, "epsilon", low=0, low_open=True))
        if self.sampler not in _SAMPLERS:
            raise ConfigError(
                f"sampler of ErdosRenyi must be 'bernoulli' or 'replacement', got {self.sampler!r}"
                f"{nearest(self.sampler, _SAMPLERS)}"
            )

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        expected = []
        for n_in, n_out in pairwise(sizes):
            cells, asked = n_in * n_out, self.epsilon * (n_in + n_out)
            if self.sampler == "bernoulli":
                expected.append(min(float(cells), asked))
            else:
                # expm1/log1p: cells * (1 - (1 - 1/cells)**draws) loses all digits in a huge layer
                expected.append(float(-cells * np.expm1(round(asked) * np.log1p(-1 / cells))) if cells > 1 else 1.0)
        return expected

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        patterns = []
        for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
            if self.sampler == "replacement":
                draws = round(self.epsilon * (n_in + n_out))
                csr = _kernels.sample_with_replacement(
                    n_in, n_out, draws, seed=seed, purpose="pattern", layer=layer, step=0, threads=threads
                )
                patterns.append(Pattern(n_in, n_out, *csr, validate=False))
            else:
                patterns.append(draw_erdos_renyi(n_in, n_out, self.epsilon, layer, seed, threads))
        return patterns


@DENSITIES.register("erk")
@dataclass(frozen=True)
class ERK(Density):
    """Layer densities proportional to ((n_in + n_out) / (n_in * n_out))^power, for a global density.

    A layer whose share would pass 1 is full, and the others are scaled down again until the budget is met.
    Evci et al. 2020, arXiv:1911.11134 (for layers without kernels, Erdos-Renyi-Kernel is Erdos-Renyi).

    Parameters
    ----------
    density
        Connections of the whole network as a part of all cells, in (0, 1].
    power
        1 is Erdos-Renyi, 0 gives every layer the same density.
    dense
        0-based numbers of layers that shall be full; they count towards the global density. Negative numbers
        count from the end.

    Raises
    ------
    ConfigError
        A setting out of range; when patterns are drawn, also a layer that does not exist, or full layers that
        take more than the global density allows.
    """

    density: float
    power: float = 1.0
    dense: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        density = check_number(self.density, "density of ERK", low=0, high=1, low_open=True)
        object.__setattr__(self, "density", density)
        object.__setattr__(self, "power", check_number(self.power, "power of ERK", low=0))
        if isinstance(self.dense, (str, bytes)) or not isinstance(self.dense, Sequence):
            raise ConfigError(f"dense of ERK must be a sequence of layer numbers, got {self.dense!r}")
        dense = tuple(check_integer(layer, "a layer number in dense of ERK", low=-(2**24)) for layer in self.dense)
        object.__setattr__(self, "dense", dense)

    def densities(self, sizes: Sequence[int]) -> list[float]:
        """Return the density of every layer."""
        shapes = list(pairwise(sizes))
        layers = range(len(shapes))
        for layer in self.dense:
            if not -len(shapes) <= layer < len(shapes):
                raise ConfigError(
                    f"dense of ERK names layer {layer}, but the network has {len(shapes)} layers (0 to {layers[-1]})"
                )
        cells = [n_in * n_out for n_in, n_out in shapes]
        full = {layer % len(shapes) for layer in self.dense}
        budget = self.density * sum(cells)
        if full and sum(cells[layer] for layer in full) > budget:
            raise ConfigError(
                f"the full layers {sorted(full)} of ERK alone have {sum(cells[layer] for layer in full)} "
                "connections, a "
                f"global density of {self.density:g} allows {budget:.0f}; raise density or name fewer layers "
                "in dense"
            )
        raw = [((n_in + n_out) / (n_in * n_out)) ** self.power for n_in, n_out in shapes]
        while len(full) < len(shapes):
            others = [layer for layer in layers if layer not in full]
            room = budget - sum(cells[layer] for layer in full)
            factor = room / sum(raw[layer] * cells[layer] for layer in others)
            top = max(raw[layer] for layer in others)
            if factor * top <= 1:
                return [1.0 if layer in full else factor * raw[layer] for layer in layers]
            full |= {layer for layer in others if raw[layer] == top}
        return [1.0] * len(shapes)

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        return _counts(sizes, self.densities(sizes))

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        return _exact(sizes, self.densities(sizes), seed, threads)


@DENSITIES.register("uniform")
@dataclass(frozen=True)
class Uniform(Density):
    """The same density in every layer, counts exact.

    Parameters
    ----------
    density
        In (0, 1].
    dense_first
        Leave the first layer full, as RigL's experiments do.

    Raises
    ------
    ConfigError
        `density` is out of range.
    """

    density: float
    dense_first: bool = False

    def __post_init__(self) -> None:
        density = check_number(self.density, "density of Uniform", low=0, high=1, low_open=True)
        object.__setattr__(self, "density", density)
        if not isinstance(self.dense_first, (bool, np.bool_)):
            raise ConfigError(f"dense_first of Uniform must be true or false, got {self.dense_first!r}")
        object.__setattr__(self, "dense_first", bool(self.dense_first))

    def _densities(self, sizes: Sequence[int]) -> list[float]:
        densities = [self.density] * (len(sizes) - 1)
        if self.dense_first:
            densities[0] = 1.0
        return densities

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        return _counts(sizes, self._densities(sizes))

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        return _exact(sizes, self._densities(sizes), seed, threads)


@DENSITIES.register("given")
class Given(Density):
    """Patterns of your own.

    Parameters
    ----------
    patterns
        One a layer, each a Pattern, a SciPy sparse matrix (its stored entries are the connections) or a
        boolean array, of shape (n_in, n_out).

    Raises
    ------
    ConfigError
        Something else among the patterns.
    ShapeError
        When the network is built: patterns that do not fit its sizes.
    """

    def __init__(self, patterns: Sequence[Any]) -> None:
        if isinstance(patterns, (str, bytes, Mapping)) or not isinstance(patterns, Sequence) or not patterns:
            raise ConfigError(f"Given takes a list of patterns, one a layer, got {type(patterns).__name__}")
        self._patterns = [self._pattern(layer, p) for layer, p in enumerate(patterns)]

    @staticmethod
    def _pattern(layer: int, given: Any) -> Pattern:
        if isinstance(given, Pattern):
            return given
        if isinstance(given, np.ndarray):
            return Pattern.from_dense(given)
        if hasattr(given, "tocsr"):
            return Pattern.from_scipy(given)
        raise ConfigError(
            f"pattern {layer} of Given must be a Pattern, a SciPy sparse matrix or a boolean array, "
            f"got {type(given).__name__}"
        )

    def to_config(self) -> dict[str, Any]:
        """Return only the name: the patterns themselves are stored with the model, so this rebuilds nothing."""
        return {"name": self.name}

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        return [float(pattern.nnz) for pattern in self._patterns]

    def __repr__(self) -> str:
        return f"Given({self._patterns!r})"

    def __eq__(self, other: object) -> bool:
        return self._patterns == other._patterns if isinstance(other, Given) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        wanted = list(pairwise(sizes))
        got = [p.shape for p in self._patterns]
        if got != wanted:
            raise ShapeError(f"Given holds patterns of shapes {got}, sizes {tuple(sizes)} need {wanted}")
        return list(self._patterns)
