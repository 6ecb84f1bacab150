# SPDX-License-Identifier: BSD-3-Clause
"""Top-KAST: the network is the strongest weights, and somewhat more of them are trained."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trulysparse._files import replacing
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.model import Pattern, SparseLayer, SparseMLP
from trulysparse.model.memory import available_bytes
from trulysparse.model.progress import Progress
from trulysparse.model.registry import check_integer, check_number, nearest
from trulysparse.topology.base import RuleState, Signals, TopologyDelta, register_topology
from trulysparse.topology.exploration import Exploration
from trulysparse.topology.master import DenseMaster, LazyMaster, Master, find, top
from trulysparse.topology.periodic import Periodic

if TYPE_CHECKING:
    from trulysparse.topology.importance import ImportancePruning

F32 = NDArray[np.float32]
Cells = NDArray[np.uint64]

_CHOICES = ("top", "random")
_MASTERS = ("auto", "dense", "lazy")
_FILL_CELLS = 1 << 20


@register_topology("top_kast")
class TopKAST(Periodic):
    """The network consists of the weights of largest magnitude; gradients also go to the next largest.

    Every cell has a weight theta. A, the forward set, holds as many cells of largest |theta| as the layer had
    connections at the start, and is the network (less what importance pruning takes, whose weights become 0). B, the
    backward set, holds A and the next largest. Outputs and the gradients of activations use A only; the weights of B
    are trained, all others keep their last value. A and B are chosen anew every `refresh_every` steps, before the first
    step too; the optimizer's state follows, from A to B without A and back as well, and is dropped where a cell leaves
    B.
    Jayakumar et al. 2020, "Top-KAST: Top-K Always Sparse Training", arXiv:2106.03517, section 2.

    Parameters
    ----------
    backward_density : float, optional
        Density of B over all layers to which the rule applies, in (0, 1], at least that of A. Each layer gets as many
        cells for each of its connections as the others, but for those that become full. None: twice the density of A.
    refresh_every : int
        Steps between two choices of A and B. The paper's is 1; it reports 100 as harmless.
    regularizer : float
        Factor c of the exploration regularizer (eq. 3 of the paper), whose gradient is c * theta on A and c / D * theta
        on the rest of B, D the density of A in the layer; 0 is off: then nothing holds back weights of B that the
        network does not see, and where B is much larger than A training may break down.
    choice : {"top", "random"}
        What B has besides A: the next largest, or (for comparison) cells drawn uniformly at every refresh.
    master : {"auto", "dense", "lazy"}
        How theta is kept; the result is the same, bit for bit. "dense": 4 bytes for each cell of the layer. "lazy":
        cells that were never in B are not stored, since their first draw can be repeated; the others take 12 bytes.
        "auto": "dense" if that takes at most half of the available memory, else "lazy".
    master_dir : str, optional
        Directory for files that are mapped to memory, in place of memory, with "dense". For one run at a time.
    end : float
        Part of the run after which A and B stay as they are, in (0, 1].
    layers : {"all", "hidden"}
        Which matrices the rule applies to; full ones stay as they are, but are regularized.

    Attributes
    ----------
    master_used : str or None
        "dense" or "lazy", once a run has begun; the run's state says it too: ``state.rule.numbers["master"]``.

    Notes
    -----
    A step costs the forward pass and the gradients of activations on A and the gradients of weights on B, and there is
    optimizer state for B alone. First weights are the library's, a function of the network's seed, layer and cell:
    those of a full network of the same seed, but for sparse fan-in, where a layer's one scale is the median over its
    neurons. A network that was trained before keeps the weights of its connections. Where an earlier network is put
    back (early stopping), the sets are chosen again before the next step, from its weights and the others as the last
    refresh left them. A begins with the largest of all first weights, which are larger than those of other methods:
    initialise with the scale of the dense layer or less (``fan_in="dense"``, the default, or ``Normal(std)``).
    """

    explores = True

    def __init__(
        self,
        backward_density: float | None = None,
        *,
        refresh_every: int = 100,
        regularizer: float = 1e-4,
        choice: str = "top",
        master: str = "auto",
        master_dir: str | None = None,
        end: float = 1.0,
        layers: str = "all",
    ) -> None:
        refresh_every = check_integer(refresh_every, "TopKAST's refresh_every", low=1)
        super().__init__(update_every=refresh_every, unit="steps", end=end, layers=layers)
        if backward_density is not None:
            backward_density = check_number(
                backward_density, "TopKAST's backward_density", low=0, high=1, low_open=True
            )
        self.backward_density = backward_density
        self.refresh_every = refresh_every
        self.regularizer = check_number(regularizer, "TopKAST's regularizer", low=0)
        for key, value, allowed in (("choice", choice, _CHOICES), ("master", master, _MASTERS)):
            if value not in allowed:
                raise ConfigError(
                    f"TopKAST's {key} must be one of {', '.join(allowed)}, got {value!r}{nearest(value, allowed)}"
                )
        if master_dir is not None and not isinstance(master_dir, str | os.PathLike):
            raise ConfigError(f"TopKAST's master_dir must be the path of a directory, got {master_dir!r}")
        if master_dir is not None and master == "lazy":
            raise ConfigError("TopKAST's master_dir is for master='dense'; with 'lazy' there is nothing to put there")
        self.choice = choice
        self.master = master
        self.master_dir = None if master_dir is None else os.fspath(master_dir)
        self.master_used: str | None = None

    def due(self, progress: Progress) -> bool:
        """Whether the sets are chosen before the next step: at whole intervals, the first step included."""
        return progress.step == 0 or super().due(progress)

    def check(self, net: SparseMLP) -> None:
        """Raise ConfigError if B would be smaller than A, or `master_dir` is not a directory."""
        self.backward_counts([layer for layer in net.layers if self.applies_to(layer.index, len(net.layers))])
        if self.master_dir is not None and not Path(self.master_dir).is_dir():
            raise ConfigError(f"TopKAST's master_dir {self.master_dir} is not a directory; make it first")

    def check_pruning(self, pruning: ImportancePruning) -> None:
        """Refuse the options that take neurons away: every cell has a weight here, and may be chosen."""
        if pruning.remove_outgoing or pruning.compact or not pruning.regrow_into_pruned:
            raise ConfigError(
                "TopKAST works beside importance pruning with its default options only (without remove_outgoing, "
                "compact, regrow_into_pruned=False), since it chooses among the cells of all neurons; leave them out, "
                "or prune when the run is over (prune(net))"
            )

    def connections_pruned(self, layer: SparseLayer, mask: NDArray[np.bool_], state: RuleState) -> None:
        """Remember what has to be 0 at the next refresh, so that it ranks last."""
        name, cells = f"pruned.{layer.index}", layer.pattern.cells()[~mask]
        state.tensors[name] = np.union1d(state.tensors.get(name, np.empty(0, np.uint64)), cells)

    def backward_counts(self, layers: Sequence[SparseLayer]) -> list[int]:
        """Return |B| for each of the layers to which the rule applies.

        Raises
        ------
        ConfigError
            If `backward_density` is below the density of the layers.
        """
        cells = [layer.n_in * layer.n_out for layer in layers]
        counts = [layer.nnz for layer in layers]
        if not layers or not sum(counts):
            return counts
        density = sum(counts) / sum(cells)
        backward = min(1.0, 2 * density) if self.backward_density is None else self.backward_density
        # how many connections a density gives is rounded, or even drawn: "equal" is not to fail for that
        if backward < 0.99 * density:
            raise ConfigError(
                f"TopKAST's backward_density={backward:g} is below the density {density:.4g} of the network's own "
                f"connections, which are trained too; give at least that, or leave it out for twice as much"
            )
        budget = max(round(backward * sum(cells)), sum(counts))
        growing = set(range(len(layers)))
        while True:
            full = sum(n for i, n in enumerate(cells) if i not in growing)
            present = sum(counts[i] for i in growing)
            factor = (budget - full) / present if present else 1.0
            over = {i for i in growing if counts[i] and counts[i] * factor >= cells[i]}
            growing -= over
            if not over:
                return [
                    min(cells[i], max(n, int(n * factor + 0.5))) if i in growing else cells[i]
                    for i, n in enumerate(counts)
                ]

    def l2(self, layer: SparseLayer) -> tuple[float, float]:
        """Return c and c / D, the density D by the layer's count of connections."""
        if not self.regularizer or not layer.nnz:
            return 0.0, 0.0
        return self.regularizer, self.regularizer / layer.density

    def training_flops(self, sparse: float, dense: float) -> float:
        """Return 2 f_A + f_B: forward pass and gradients of activations on A, gradients of weights on B."""
        backward = 2 * sparse if self.backward_density is None else self.backward_density * dense
        return 2.0 * sparse + max(sparse, min(backward, dense))

    def plan(
        self, layers: Sequence[SparseLayer], signals: Signals
    ) -> Iterator[tuple[SparseLayer, TopologyDelta | None]]:
        """Choose the sets of each layer."""
        numbers = signals.state.numbers
        if "master" not in numbers:
            numbers["master"] = self._choose_master(layers)
        self.master_used = numbers["master"]
        for layer, count in zip(layers, self.backward_counts(layers), strict=True):
            if layer.density == 1.0:
                signals.exploring.setdefault(layer.index, _nothing(layer, signals))
                yield layer, None
            else:
                yield layer, self._refresh(layer, count, signals)

    def _refresh(self, layer: SparseLayer, count: int, signals: Signals) -> TopologyDelta | None:
        """Write the weights of B back, choose A and B, move B's other part to where it is trained."""
        index, threads = layer.index, signals.threads
        exploring = signals.exploring.get(index)
        if exploring is None:
            exploring = _nothing(layer, signals)
        cells = np.concatenate([layer.pattern.cells(), exploring.layer.pattern.cells()])
        values = np.concatenate([layer.values, exploring.layer.values])
        if not np.isfinite(values).all():
            raise DivergenceError(
                f"layer {index} cannot be evolved: its weights hold NaN or infinity; training diverged, "
                "try a smaller learning rate"
            )
        order = np.argsort(cells, kind="stable")  # two ascending runs: a merge
        cells = cells[order]
        untrained = f"scale.{index}" not in signals.state.numbers and _is_first_draw(layer, signals)
        master = self._open_master(layer, signals)
        if untrained:
            layer.values[...] = master.at(layer.pattern.cells())  # the same, but for the scale of sparse fan-in
        else:
            master.write(cells, values[order])
        pruned = signals.state.tensors.pop(f"pruned.{index}", None)
        if pruned is not None:
            master.write(pruned, np.zeros(pruned.size, np.float32))
        chosen, weights = master.strongest(count if self.choice == "top" else layer.nnz)
        mark = top(weights, layer.nnz, threads)
        forward, rest = np.flatnonzero(mark), np.flatnonzero(~mark)
        others, other_weights = chosen[rest], weights[rest]
        chosen, weights = chosen[forward], weights[forward]
        if self.choice == "random":
            others = Pattern.from_cells(layer.n_in, layer.n_out, chosen, threads).draw_missing(
                count - layer.nnz,
                seed=signals.seed,
                purpose="regrow_cells",
                layer=index,
                step=signals.evolution,
                threads=threads,
            )
            other_weights = master.at(others)
        if isinstance(master, LazyMaster):
            _keep_lazy(master, index, signals.state)
        slots = signals.slots[index]
        before = {name: np.concatenate([array, exploring.slots[name]]) for name, array in slots.items()}

        place, known = find(cells, others)
        came_from = order[place]
        if others.size != exploring.nnz or not np.array_equal(others, exploring.layer.pattern.cells()):
            signals.exploring[index] = Exploration.build(
                layer,
                Pattern.from_cells(layer.n_in, layer.n_out, others, threads),
                other_weights,
                {name: _carried(array, came_from, known) for name, array in before.items()},
            )
        else:
            signals.exploring[index] = exploring
        place, known = find(cells, chosen)
        came_from = order[place]
        stays = known & (came_from < layer.nnz)
        if stays.all():
            return None
        mask = np.zeros(layer.nnz, np.bool_)
        mask[came_from[stays]] = True
        comes = ~stays
        return TopologyDelta(
            mask,
            chosen[comes],
            np.ascontiguousarray(weights[comes]),
            {name: _carried(array, came_from[comes], known[comes]) for name, array in before.items()},
        )

    def _choose_master(self, layers: Sequence[SparseLayer]) -> str:
        if self.master != "auto":
            return self.master
        needed = 4 * sum(layer.n_in * layer.n_out for layer in layers if layer.density < 1.0)
        available = available_bytes()
        fits = self.master_dir is not None or available is None or needed <= available // 2
        return "dense" if fits else "lazy"

    def _open_master(self, layer: SparseLayer, signals: Signals) -> Master:
        """Return theta of a layer, made from the first draw where the run's state does not have it."""
        index, state, threads = layer.index, signals.state, signals.threads
        scale_name, dense_name = f"scale.{index}", f"theta.{index}"
        if scale_name not in state.numbers:
            # one for all: were it each target's own, those with few connections by chance would get most of A
            state.numbers[scale_name] = float(np.median(layer.initializer.scale(layer.pattern)))
        draw = functools.partial(
            layer.initializer.draw_at,
            n_out=layer.n_out,
            scale=state.numbers[scale_name],
            seed=signals.network_seed,
            layer=index,
            threads=threads,
        )
        n_cells = layer.n_in * layer.n_out
        if state.numbers["master"] == "lazy":
            kept = {key: state.tensors[f"{key}.{index}"] for key in _LAZY if f"{key}.{index}" in state.tensors}
            limit = state.numbers.get(f"limit.{index}", (np.inf, 0))
            return LazyMaster(n_cells, draw, threads, **kept, limit=(limit[0], limit[1]))
        array = state.tensors.get(dense_name)
        if array is None:
            array = self._allocate(n_cells, index)
            for start in range(0, n_cells, _FILL_CELLS):
                stop = min(start + _FILL_CELLS, n_cells)
                array[start:stop] = draw(np.arange(start, stop, dtype=np.uint64))
            state.tensors[dense_name] = array
        elif self.master_dir is not None and not isinstance(array, np.memmap):
            mapped = self._allocate(n_cells, index)  # a resumed run: the file is made again from the checkpoint
            mapped[...] = array
            state.tensors[dense_name] = array = mapped
        return DenseMaster(array, threads)

    def _allocate(self, n_cells: int, index: int) -> F32:
        if self.master_dir is None:
            return np.empty(n_cells, np.float32)
        path = Path(self.master_dir) / f"top_kast_{index}.f32"
        try:
            # a new file: one of that name may be mapped by another trainer of this process
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    file.truncate(4 * n_cells)
                    if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash later
                        os.posix_fallocate(file.fileno(), 0, 4 * n_cells)
                mapped = np.memmap(temporary, np.float32, "r+", shape=(n_cells,))
        except OSError as error:
            raise ConfigError(
                f"TopKAST's master_dir cannot hold {path} of {4 * n_cells:,} bytes: {error}; "
                "choose another directory, or master='lazy'"
            ) from error
        return mapped


_LAZY = ("cells", "values", "spare_cells", "spare_values")


def _keep_lazy(master: LazyMaster, index: int, state: RuleState) -> None:
    state.tensors.update({f"{key}.{index}": getattr(master, key) for key in _LAZY})
    state.numbers[f"limit.{index}"] = list(master.limit)


def _is_first_draw(layer: SparseLayer, signals: Signals) -> bool:
    """Whether the weights are as they were drawn."""
    first = layer.initializer.draw(layer.pattern, seed=signals.network_seed, layer=layer.index, threads=signals.threads)
    return np.array_equal(layer.values, first)


def _nothing(layer: SparseLayer, signals: Signals) -> Exploration:
    none = np.empty(0, np.float32)
    pattern = Pattern.from_cells(layer.n_in, layer.n_out, np.empty(0, np.uint64))
    return Exploration.build(layer, pattern, none, dict.fromkeys(signals.slots[layer.index], none))


def _carried(array: F32, place: NDArray[np.int64], known: NDArray[np.bool_]) -> F32:
    """Return the entries of an array at some places, zero where they are not known."""
    return np.where(known, array[place], np.float32(0)) if array.size else np.zeros(place.size, np.float32)
