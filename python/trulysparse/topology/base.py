# SPDX-License-Identifier: BSD-3-Clause
"""What a topology rule is, and the registry through which files and the command line name one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from trulysparse.errors import ConfigError
from trulysparse.model import Pattern, SparseLayer, SparseMLP
from trulysparse.model.progress import Progress
from trulysparse.model.registry import Configurable, Registry
from trulysparse.topology.exploration import Exploration
from trulysparse.topology.gradient import LayerGradient, open_part, widen_cells

if TYPE_CHECKING:
    from trulysparse.topology.importance import ImportancePruning

_LAYERS = ("hidden", "all")
_START = Progress(0, 0.0, 1, 1)


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
    slots : mapping of str to ndarray of float32, shape (len(grown),)
        Their optimizer state (or the rule's own arrays); what is not named here starts at zero.
    """

    mask: NDArray[np.bool_] | None = None
    grown: NDArray[np.uint64] = field(default_factory=_no_cells)
    values: NDArray[np.float32] | None = None
    slots: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass
class RuleState:
    """What a rule remembers from one evolution to the next; checkpoints hold it.

    Attributes
    ----------
    numbers : dict
        Plain values (numbers, strings, lists of them) by name.
    tensors : dict of str to ndarray
        Arrays by name.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)


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
    progress : Progress
        Where the run is.
    lr : float
        Learning rate of the step that comes next.
    state : RuleState
        What the rule remembers; its own to change.
    slots : sequence of dict of str to ndarray
        For each layer of the network the arrays that go along with its connections, in pattern order: the optimizer's
        state ("velocity", "m", "v") and the rule's own (`Topology.slots`). They may be changed in place.
    gradients : mapping of int to LayerGradient
        By layer number, for rules that set `wants_gradient`.
    closed : mapping of int to ndarray of bool, shape (n_out,)
        Target neurons, by layer number, that may get no new connections.
    exploring : dict of int to Exploration
        By layer number, the connections that are trained without taking part in the output; the rule's own to change.
    network_seed : int
        Seed of the network's first weights.
    layer_lr : mapping of int to float
        By layer number, the learning rate of its weights where that is not `lr`.
    """

    seed: int
    evolution: int
    threads: int
    progress: Progress = _START
    lr: float = 0.0
    state: RuleState = field(default_factory=RuleState)
    slots: Sequence[dict[str, NDArray[np.float32]]] = ()
    gradients: Mapping[int, LayerGradient] = field(default_factory=dict)
    closed: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    exploring: dict[int, Exploration] = field(default_factory=dict)
    network_seed: int = 0
    layer_lr: Mapping[int, float] = field(default_factory=dict)

    def lr_of(self, layer: SparseLayer) -> float:
        """Return the learning rate that the weights of a layer have in the step that comes next."""
        return self.layer_lr.get(layer.index, self.lr)

    def gradient(self, layer: SparseLayer) -> LayerGradient:
        """Return the gradient of a layer's weights, missing ones included, on the batch at hand.

        Raises
        ------
        ConfigError
            If the rule did not ask for gradients.
        """
        if layer.index not in self.gradients:
            raise ConfigError(
                f"there is no gradient of layer {layer.index} at hand; a rule that needs it sets wants_gradient = True"
            )
        return self.gradients[layer.index]

    def room(self, layer: SparseLayer, mask: NDArray[np.bool_] | None = None) -> int:
        """Return how many cells of a layer may be grown.

        Parameters
        ----------
        layer : SparseLayer
        mask : ndarray of bool, shape (nnz,), optional
            Where it is False a connection counts as gone, and its cell as free.
        """
        closed, columns = self.closed.get(layer.index), layer.pattern.col_idx
        targets = layer.n_out
        if mask is not None:
            columns = columns[mask]
        if closed is not None:
            targets -= int(np.count_nonzero(closed))
            columns = columns[~closed[columns]]
        return layer.n_in * targets - columns.size

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
            Sorted cells, the same for any thread count. Fewer than `count` only where neurons are closed to new
            connections and the others have no room.

        Raises
        ------
        PatternError
            If there are fewer free cells.
        """
        closed = self.closed.get(layer.index)
        columns = None
        if closed is not None:
            pattern, columns = open_part(pattern, mask, closed, self.threads)
            mask = None
            count = min(count, pattern.n_in * pattern.n_out - pattern.nnz)
        cells = pattern.draw_missing(
            count,
            seed=self.seed,
            purpose="regrow_cells",
            layer=layer.index,
            step=self.evolution,
            mask=mask,
            threads=self.threads,
        )
        return cells if columns is None else widen_cells(cells, columns, layer.n_out)


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
    wants_gradient: bool = False
    """True: the batch of a step at which the rule is due gives its gradients to the rule (`Signals.gradient`) instead
    of moving the weights."""
    prunes_dense: ClassVar[bool] = False
    """True for rules that begin with a dense network and make it sparse; the command line then starts from one."""
    observes: ClassVar[bool] = False
    """True: `observe` is called at every training step for every layer to which the rule applies."""
    explores: ClassVar[bool] = False
    """True: the rule fills `Signals.exploring`, and acts before the next step whenever that is empty."""
    slots: ClassVar[tuple[str, ...]] = ()
    """Names of float32 arrays of the rule's own that go along with the connections, beside the optimizer's."""
    layers: str = "hidden"

    def __init__(self, *, layers: str = "hidden") -> None:
        if layers not in _LAYERS:
            raise ConfigError(f"{type(self).__name__}: layers={layers!r} is not one of {', '.join(_LAYERS)}")
        self.layers = layers

    def applies_to(self, layer_index: int, n_layers: int) -> bool:
        """Whether weight matrix `layer_index` (from 0) of `n_layers` is evolved."""
        return self.dynamic and (self.layers == "all" or layer_index < n_layers - 1)

    def check(self, net: SparseMLP) -> None:
        """Raise ConfigError if the rule cannot work on `net`; asked when a run begins, before its first step."""

    def check_run(self, net: SparseMLP, whole: Progress) -> None:
        """Refuse a run in which the rule cannot work, warn of one in which it would never act; asked with `check`.

        Parameters
        ----------
        net : SparseMLP
        whole : Progress
            The start of the run, with the number of its steps.
        """
        if self.wants_gradient and self.dynamic and all(self.due(replace(whole, step=step)) for step in (1, 2, 3)):
            raise ConfigError(
                f"{type(self).__name__} would take every batch for its gradients and leave none to train on; act every "
                "second step at most (update_every), or make batches smaller, so that an epoch has several"
            )

    def check_pruning(self, pruning: ImportancePruning) -> None:
        """Raise ConfigError if the rule cannot work beside `pruning`; asked when a trainer is made."""

    def connections_pruned(self, layer: SparseLayer, mask: NDArray[np.bool_], state: RuleState) -> None:
        """Take note that importance pruning takes connections of a layer, where `mask` is False, before it does."""

    def settled(self, progress: Progress) -> bool:
        """Whether the network has the density that the run is to end with; what is best is looked for only then."""
        return True

    def due(self, progress: Progress) -> bool:
        """Whether the rule acts before the step that comes next; asked before every step, the first one too.

        The default is before every epoch but the first.
        """
        return self.dynamic and progress.step > 0 and progress.starts_epoch

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Yield each layer and how it changes; a change is carried out before the next one is asked for.

        The default asks `evolve` layer by layer. Rules that rank over the whole network override this.

        Parameters
        ----------
        layers : sequence of SparseLayer
            Those to which the rule applies.
        signals : Signals
        """
        for layer in layers:
            yield layer, self.evolve(layer, signals, signals.progress.step)

    def evolve(self, layer: SparseLayer, signals: Signals, step: int) -> TopologyDelta | None:
        """Say how `layer` changes.

        Parameters
        ----------
        layer : SparseLayer
            Its pattern is not to be changed here; its weights may be moved in place.
        signals : Signals
            Random draws, gradients and what else the run offers.
        step : int
            Training steps made so far.

        Returns
        -------
        TopologyDelta or None
            None leaves the layer alone.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it evolves a layer")

    def observe(self, gradient: LayerGradient, state: RuleState, first: bool) -> None:
        """Take note of the gradient of one layer in one training step; only called if `observes`.

        Parameters
        ----------
        gradient : LayerGradient
            Of this (micro-)batch; valid during the call only.
        state : RuleState
            What the rule remembers.
        first : bool
            Whether this is the first micro-batch of the step; the step's gradient is the sum over all.
        """

    def l2(self, layer: SparseLayer) -> tuple[float, float]:
        """Return what of each weight is added to its gradient, beside the optimizer's own decay.

        Asked at every step for each layer to which the rule applies.

        Returns
        -------
        of_connections, of_exploring : float
            For the layer's connections, and for those that are only explored.
        """
        return 0.0, 0.0

    def neurons_removed(self, state: RuleState, kept: Sequence[NDArray[np.bool_]]) -> None:
        """Follow a compaction: take what belongs to the neurons that go out of the arrays that the rule remembers.

        `Topology.slots` follow by themselves. Called before the neurons go; the default serves rules without
        tensors.

        Parameters
        ----------
        state : RuleState
            What the rule remembers; changed in place.
        kept : sequence of ndarray of bool
            For each hidden layer, which of its neurons stay.

        Raises
        ------
        ConfigError
            If the rule remembers arrays and does not say how they follow.
        """
        if state.tensors:
            raise ConfigError(
                f"{type(self).__name__} remembers arrays ({', '.join(sorted(state.tensors))}) and does not say how "
                "they follow when neurons are removed; define its neurons_removed, or prune with compact=False"
            )

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return the average FLOPs of a training step for one sample, by the accounting of the RigL paper, appendix H.

        Parameters
        ----------
        sparse, dense : float
            FLOPs of the forward pass of one sample through the network, and through a dense one of the same sizes.
        """
        return 3.0 * sparse

    def step_flops(self, sparse: float, dense: float) -> float:
        """Return the FLOPs of a training step of one sample while the network is as it is, counted as `training_flops`.

        The two differ for rules whose density falls: there `training_flops` is the average over a run.
        """
        return self.training_flops(sparse, dense)

    def __repr__(self) -> str:
        defaults = {key: p.default for key, p in inspect.signature(type(self)).parameters.items()}
        told = {key: getattr(self, key) for key in self.config_keys()}
        other = [f"{k}={v!r}" for k, v in told.items() if v != defaults[k] and getattr(v, "name", v) != defaults[k]]
        return f"{type(self).__name__}({', '.join(other)})"


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
