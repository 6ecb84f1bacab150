# SPDX-License-Identifier: BSD-3-Clause
"""A recipe: the settings of a whole run, as the tables of a run file have them, and what makes a run of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trulysparse.errors import ConfigError, DensityWarning
from trulysparse.model import SparseMLP
from trulysparse.model.registry import nearest
from trulysparse.recipes import paper, tuned
from trulysparse.trainer import Trainer

Tables = dict[str, dict[str, Any]]

KINDS = ("paper", "tuned")


@dataclass(frozen=True, eq=False)
class Recipe:
    """Settings of a whole run on a data set.

    Attributes
    ----------
    dataset : str
        The data set's name.
    kind : {"paper", "tuned", "own"}
        ``"paper"``: tables 1 and 7 of "Truly Sparse Neural Networks at Scale" (Curci, Mocanu, Pechenizkiy 2021), or
        our choice for data that the paper does not use. ``"tuned"``: chosen on samples held out of the training part,
        never on the test part, for networks with no more connections than the paper's. ``"own"``: of `Recipe.of`.
    tables : dict of str to dict
        ``model``, ``optimizer``, ``topology``, ``trainer``, ``fit`` and, where there is one, ``augment``: the tables of
        a run file (docs/guides/run_files.md). A copy, free to change.
    note : str
        Where the settings come from.
    """

    dataset: str
    kind: str
    _tables: Mapping[str, Mapping[str, Any]] = field(repr=False)
    note: str = field(repr=False)

    @classmethod
    def of(cls, dataset: str, tables: Mapping[str, Mapping[str, Any]], note: str = "") -> Recipe:
        """Return a recipe of other settings than the known ones.

        Parameters
        ----------
        dataset : str
        tables : mapping of str to mapping
            As `tables`; ``pruning`` may be there, too.
        note : str
        """
        return cls(dataset, "own", copy.deepcopy(dict(tables)), note)

    @property
    def tables(self) -> Tables:
        return copy.deepcopy({name: dict(table) for name, table in self._tables.items()})

    @property
    def epochs(self) -> int:
        """Epochs of a run."""
        return int(self._tables["fit"]["epochs"])

    def network(self, n_features: int, n_outputs: int, *, seed: int = 0, **changes: Any) -> SparseMLP:
        """Return a fresh network of the recipe.

        Parameters
        ----------
        n_features, n_outputs : int
            Of the data: its columns, and its classes.
        seed : int
            Of connections and weights.
        **changes
            Arguments of `SparseMLP` in place of the recipe's, and ``hidden``, the sizes of the hidden layers.
        """
        table = self.tables["model"] | changes
        if "density" in changes:
            table.pop("epsilon", None)
        elif "epsilon" in changes:
            table.pop("density", None)
        sizes = (n_features, *table.pop("hidden"), n_outputs)
        with warnings.catch_warnings():
            if not changes.keys() & {"hidden", "epsilon", "density"}:  # the paper's output layers are full
                warnings.filterwarnings("ignore", rf"layer {len(sizes) - 2} \(", DensityWarning)
            return SparseMLP(sizes, seed=seed, **table)

    def trainer(self, net: SparseMLP, **changes: Any) -> Trainer:
        """Return a trainer of the recipe for a network.

        Parameters
        ----------
        net : SparseMLP
        **changes
            Arguments of `Trainer` in place of the recipe's, or besides: ``seed``, ``threads``, ``checkpoint``...
        """
        tables = self.tables
        whole: dict[str, Any] = {
            name: tables[name] for name in ("optimizer", "topology", "pruning", "augment") if name in tables
        }
        return Trainer(net, **(whole | tables["trainer"] | changes))


def names(kind: str | None = None) -> tuple[str, ...]:
    """Return the data sets that there are recipes for, of one kind or of any."""
    known = {"paper": paper.names(), "tuned": tuple(tuned.TUNED)}
    if kind is not None:
        return known[_checked(kind)]
    return tuple(sorted({name for some in known.values() for name in some}))


def get(dataset: str, kind: str = "tuned") -> Recipe:
    """Return the recipe for a data set.

    Parameters
    ----------
    dataset : str
        Its name: one of `names(kind)`.
    kind : {"tuned", "paper"}

    Raises
    ------
    ConfigError
        No such recipe; those that there are are named.

    Examples
    --------
    >>> recipe = ts.recipes.get("fashion_mnist")
    >>> net = recipe.network(784, 10)
    >>> history = recipe.trainer(net).fit(X_train, y_train, epochs=recipe.epochs, validation=0.1)
    """
    known = names(kind)
    if dataset not in known:
        raise ConfigError(
            f"there is no {kind} recipe for {dataset!r}{nearest(dataset, known)}; there is one for {', '.join(known)}"
        )
    if kind == "tuned":
        entry = tuned.TUNED[dataset]
        return Recipe(dataset, kind, entry.tables, entry.note)
    tables = paper.preset(dataset)
    tables.pop("data")
    return Recipe(dataset, kind, tables, paper.NOTE)


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise ConfigError(f"recipes are {' or '.join(map(repr, KINDS))}, got {kind!r}{nearest(kind, KINDS)}")
    return kind
