# SPDX-License-Identifier: BSD-3-Clause
"""A case: one training run that tables are made of, told from others by its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trulysparse import recipes
from trulysparse.errors import ConfigError
from trulysparse.model import ErdosRenyi
from trulysparse.model.density import get_density
from trulysparse.model.registry import check_integer
from trulysparse.recipes.paper import parallel_preset, preset
from trulysparse.recipes.tables import RunTables, read_assignment
from trulysparse.reproduce.datasets import Shape, source

__all__ = [
    "PAPER_EPOCHS",
    "RELU",
    "REVISION",
    "Case",
    "activation_label",
    "comparable",
    "make_case",
    "read_changes",
    "recipe_case",
]

PAPER_EPOCHS = 500
REVISION = 1
"""Raised by hand when the same settings come to mean other results: results of another revision are not used."""
RELU: dict[str, Any] = {"name": "relu"}
# "sequential": after epochs 210, 220, ... 490; the released parallel code prunes less, and less often
_PRUNING = {
    "sequential": {"percentile": 20.0, "start": 200, "period": 10},
    "parallel": {"percentile": 10.0, "start": 200, "period": 20},
}
# a guess, for estimates of time beside runs that end by the clock
_WORK_A_SECOND = 5e9
_AUGMENTATION = {"rotation": 10.0, "shift": 0.1, "flip": True}

_CHANGEABLE = ("model", "optimizer", "topology", "trainer", "pruning", "parallel", "augment")
# what --set may not say, and what does
_REFUSED = {
    "seed": "--seeds",
    "model.seed": "--seeds",
    "trainer.seed": "--seeds",
    "threads": "--jobs",
    "trainer.threads": "--jobs",
    "model.threads": "--jobs",
    "workers": "--workers",
    "parallel.workers": "--workers",
    "parallel.name": "table3, which has rows of both,",
    "epochs": "--epochs",
    "fit.epochs": "--epochs",
}

Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One training run.

    Attributes
    ----------
    dataset : str
        A name of `datasets.SOURCES`.
    settings : dict of str to dict
        Tables as in a run file, without data and seeds, and besides them ``augment`` (arguments of the augmentation)
        and ``stop`` (``minutes``, after which the run ends). Together with data set and seed: what the case is.
    seed : int
        Of network, order, dropout and topology.
    revision : int
        See `REVISION`.
    """

    dataset: str
    settings: Settings = field(hash=False)
    seed: int = 0
    revision: int = REVISION

    @property
    def epochs(self) -> int:
        """Epochs of the run, if nothing ends it before."""
        return int(self.settings["fit"]["epochs"])

    @property
    def strategy(self) -> str:
        """The name of the parallel strategy, or "sequential"."""
        return str(self.settings.get("parallel", {}).get("name", "sequential"))

    @property
    def workers(self) -> int:
        """Workers of a parallel run, 1 of a sequential one."""
        return int(self.settings.get("parallel", {}).get("workers", 1))

    @property
    def dense(self) -> bool:
        """Whether every weight exists."""
        return self.settings["model"].get("density") == 1.0

    @property
    def group(self) -> str:
        """What all seeds of a case have in common."""
        return json.dumps([self.dataset, self.settings, self.revision], sort_keys=True)

    @property
    def label(self) -> str:
        """A readable name, without the seed."""
        return "-".join(
            [
                self.dataset,
                activation_label(self.settings["model"]["activation"]),
                *(["dense"] if self.dense else []),
                *(["pruned"] if "pruning" in self.settings else []),
                *(["augmented"] if "augment" in self.settings else []),
                *([f"{self.strategy}{self.workers}"] if self.strategy != "sequential" else []),
                f"{self.epochs}epochs",
            ]
        )

    @property
    def name(self) -> str:
        """Name of the directory: readable, and another one for other settings."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
        return f"{self.label}-seed{self.seed}-{digest[:6]}"

    def sizes(self, n_features: int, n_classes: int) -> tuple[int, ...]:
        """Return the neurons of every layer."""
        return (n_features, *self.settings["model"]["hidden"], n_classes)

    def work(self, shape: Shape) -> float:
        """Return how much there is to compute, in samples times connections: for estimates of time."""
        model = self.settings["model"]
        spec = model["density"] if "density" in model else ErdosRenyi(model["epsilon"])
        layers = get_density(spec).expected_connections(self.sizes(shape.n_features, 10))
        work = float(self.epochs) * shape.n_train * sum(layers)
        return min(work, 60 * self.settings["stop"]["minutes"] * _WORK_A_SECOND) if "stop" in self.settings else work

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {"dataset": self.dataset, "settings": self.settings, "seed": self.seed, "revision": self.revision}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        """Return the case that `to_json` wrote."""
        return cls(values["dataset"], values["settings"], values["seed"], values.get("revision", 0))


def activation_label(activation: Mapping[str, Any]) -> str:
    """Return an activation in a few letters: ``relu``, ``all_relu0.6``."""
    return "".join(str(value) for value in activation.values())


def make_case(
    dataset: str,
    *,
    activation: Mapping[str, Any] | None = None,
    pruning: bool = False,
    augment: bool = False,
    strategy: str = "sequential",
    workers: int = 2,
    dense_minutes: float | None = None,
    seed: int = 0,
    epochs: int = PAPER_EPOCHS,
    changes: Mapping[str, Any] | None = None,
) -> Case:
    """Return a case with the paper's settings (its table 7).

    Parameters
    ----------
    dataset : str
        A name of `datasets.SOURCES`.
    activation : mapping, optional
        Name and arguments; default the paper's All-ReLU for the data set.
    pruning : bool
        With importance pruning. In a run of other than 500 epochs its start and period are in proportion.
    augment : bool
        With the paper's augmentation: rotation, shift and flip; images only.
    strategy : str
        "sequential", "wasap" or "wassp".
    workers : int
        Of a parallel run, which has no weight decay, as the paper's parallel program.
    dense_minutes : float, optional
        A dense network, trained for at most so many minutes.
    seed, epochs : int
    changes : mapping of str to value, optional
        Settings other than the paper's, as `read_changes` returns them. Those of tables that the case does not have
        are left out, and those that would make it another variant: the topology of a dense network, for example.
    """
    image = source(dataset).image
    check_integer(epochs, "epochs", low=1)
    tables = preset(dataset)
    settings: Settings = {key: dict(tables[key]) for key in ("model", "optimizer", "topology", "trainer")}
    settings["fit"] = {"epochs": epochs}
    if activation is not None:
        settings["model"]["activation"] = dict(activation)
    if dense_minutes is not None:
        settings["model"].pop("epsilon", None)
        settings["model"]["density"] = 1.0
        settings["topology"] = {"name": "static"}
        settings["stop"] = {"minutes": float(dense_minutes)}
    if pruning:
        settings["pruning"] = _pruning(strategy, epochs)
    if strategy != "sequential":
        settings["parallel"] = {
            "name": strategy,
            "workers": check_integer(workers, "workers", low=1),
            **parallel_preset(dataset, strategy),
        }
        settings["optimizer"]["weight_decay"] = 0.0
    if augment and image is not None:
        settings["augment"] = {"name": "image", "shape": list(image), **_AUGMENTATION}
    for key, value in (changes or {}).items():
        path = tuple(key.split("."))
        own: list[tuple[str, ...]] = [("model", "activation")] if activation is not None else []
        own += [("topology",), ("model", "density"), ("model", "epsilon")] if dense_minutes is not None else []
        if path[0] in settings and not any(path[: len(start)] == start for start in own):
            settings[path[0]] = _changed(settings, path, value)
    return Case(dataset, settings, check_integer(seed, "seed", low=0))


def recipe_case(dataset: str, *, epochs: int | None = None) -> Case:
    """Return the case of a tuned recipe, of as many epochs as it has or of `epochs`."""
    recipe = recipes.get(dataset)
    settings: Settings = recipe.tables
    settings["fit"] = {"epochs": recipe.epochs if epochs is None else check_integer(epochs, "epochs", low=1)}
    return Case(dataset, settings)


def _changed(settings: Settings, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the table of `path` with a change, as a run file would have it."""
    entries = settings[path[0]]
    workers = {key: entries[key] for key in ("workers",) if key in entries}  # of mpiexec, not of a run file
    tables = RunTables({path[0]: {key: entries[key] for key in entries if key not in workers}})
    tables.put(path, value)
    tables.check()
    return tables.tables[path[0]] | workers


def read_changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Read ``--set`` as `trulysparse train` does: ``table.key=value``, or a bare key that only one table knows.

    Returns
    -------
    dict of str to value
        By ``table.key``, and further keys of inline tables.

    Raises
    ------
    ConfigError
        For unknown keys, and for those that an option of the command or the case itself decides.
    """
    tables = RunTables({key: value for key, value in preset("fashion_mnist").items() if key in _CHANGEABLE})
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, value, text = read_assignment(assignment)
        if name in _REFUSED:
            raise ConfigError(f"--set {name}: the command decides this; use {_REFUSED[name]} instead")
        path = tables.path(name, text)
        key = ".".join(path)
        if key in _REFUSED:
            raise ConfigError(f"--set {name}: the command decides this; use {_REFUSED[key]} instead")
        tables.put(path, value, text)
        tables.check()
        if path[0] not in _CHANGEABLE:
            raise ConfigError(
                f"--set {name}: [{path[0]}] is no table of these runs; they have {', '.join(_CHANGEABLE)}, and "
                "--epochs and --data are options"
            )
        found[key] = value
    return found


def comparable(case: Case, n_train: int | None) -> bool:
    """Whether the paper's figures may stand beside a case: trained on as much data, augmented where the paper does.

    Parameters
    ----------
    case : Case
    n_train : int or None
        Samples that it is trained on; None if unknown, which compares with nothing.
    """
    known = source(case.dataset)
    return n_train is not None and n_train == known.paper_train and (known.image is None or "augment" in case.settings)


def _pruning(strategy: str, epochs: int) -> dict[str, Any]:
    events = _PRUNING["sequential" if strategy == "sequential" else "parallel"]
    scale = epochs / PAPER_EPOCHS
    return {
        "percentile": events["percentile"],
        "start": round(events["start"] * scale),
        "period": max(1, round(events["period"] * scale)),
    }
