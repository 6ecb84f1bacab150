# SPDX-License-Identifier: BSD-3-Clause
"""What a topology rule is, and the registry through which files and the command line name one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError
from trulysparse.model import Pattern, SparseLayer
from trulysparse.model.registry import Configurable, Registry

_LAYERS = ("hidden", "all")


def _no_cells() -> NDArray[np.uint64]:
    return np.empty(0, dtype=np.uint64)


@dataclass(frozen=True)
class TopologyDelta:
    """A change of one layer's connections: what stays, and what is new.

    Attributes
    ----------
    mask : ndarray of bool, shape (nnz,), or None
        True for the connections that stay, in pattern order; None keeps all.
    grown : ndarray of uint64
        New cells ``row * n_out + column``, sorted, distinct, none among the kept.
    values : ndarray of float32, shape (len(grown),), or None
        Their weights; None draws them from the layer's initial distribution.
    """

    mask: NDArray[np.bool_] | None = None
    grown: NDArray[np.uint64] = field(default_factory=_no_cells)
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Signals:
    """What a rule may ask of the run while it evolves a layer.

    Attributes
    ----------
    seed : int
        Seed of the run.
    evolution : int
        How many evolutions of the network came before this one; keys the random draws.
    threads : int
        Threads that kernels may use.
    """

    seed: int
    evolution: int
    threads: int

    def draw_missing(
        self, layer: SparseLayer, pattern: Pattern, count: int, mask: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint64]:
        """Draw `count` distinct cells uniformly from those that `pattern` does not have.

        Parameters
        ----------
        layer : SparseLayer
            Its index keys the draw.
        pattern : Pattern
            The connections that may not be drawn.
        count : int
        mask : ndarray of bool, shape (pattern.nnz,), optional
            Where it is False a connection counts as gone, as if `pattern` had been reduced by `keep` before.

        Returns
        -------
        ndarray of uint64, shape (count,)
            Sorted cells, the same for any thread count.
        """
        return pattern.draw_missing(
            count,
            seed=self.seed,
            purpose="regrow_cells",
            layer=layer.index,
            step=self.evolution,
            mask=mask,
            threads=self.threads,
        )


class Topology(Configurable):
    """A rule that rewires layers; subclass it and write `evolve`.

    Parameters
    ----------
    layers : {"hidden", "all"}
        Which weight matrices evolve: "hidden" leaves the output matrix as it was drawn (the paper's choice),
        "all" includes it. A network with a single matrix has no hidden ones.
    """

    dynamic: ClassVar[bool] = True
    """False for rules that never change anything, so that no evolution runs."""
    layers: str = "hidden"

    def __init__(self, *, layers: str = "hidden") -> None:
        if layers not in _LAYERS:
            raise ConfigError(f"{type(self).__name__}: layers={layers!r} is not one of {', '.join(_LAYERS)}")
        self.layers = layers

    def applies_to(self, layer_index: int, n_layers: int) -> bool:
        """Whether weight matrix `layer_index` (from 0) of `n_layers` is evolved."""
        return self.dynamic and (self.layers == "all" or layer_index < n_layers - 1)

    def due(self, finished_epoch: int) -> bool:
        """Whether an evolution follows epoch `finished_epoch` (from 0); never asked after the last."""
        return self.dynamic

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Say how `layer` changes.

        Parameters
        ----------
        layer : SparseLayer
            Its pattern and weights; not to be changed here.
        signals : Signals
            Random draws and what else the run offers.
        step : int
            Training steps made so far.

        Returns
        -------
        TopologyDelta or None
            None leaves the layer alone.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it evolves a layer")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={getattr(self, key)!r}" for key in self.config_keys())
        return f"{type(self).__name__}({arguments})"


TOPOLOGIES: Registry[Topology] = Registry("topology", Topology)

_T = TypeVar("_T", bound=Topology)


def register_topology(name: str) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: make a rule known to run files and the command line under `name`.

    Raises
    ------
    ConfigError
        If another class has the name.
    """
    register: Callable[[type[_T]], type[_T]] = TOPOLOGIES.register(name)  # type: ignore[assignment]  # keeps the class
    return register


def get_topology(spec: Topology | str | Mapping[str, Any]) -> Topology:
    """Return a rule from itself, its name, or a mapping of ``name`` and arguments.

    Raises
    ------
    ConfigError
        If the name or an argument is unknown; the nearest known one is suggested.
    """
    return TOPOLOGIES.get(spec)
