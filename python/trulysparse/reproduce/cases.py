# SPDX-License-Identifier: BSD-3-Clause
"""A case: one training run that tables are made of, told from others by its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trulysparse.errors import ConfigError
from trulysparse.model import ErdosRenyi
from trulysparse.model.density import get_density
from trulysparse.model.registry import check_integer, nearest
from trulysparse.recipes.paper import parallel_preset, preset
from trulysparse.reproduce.datasets import Shape, source

__all__ = ["CHANGEABLE", "PAPER_EPOCHS", "RELU", "Case", "activation_label", "check_change", "make_case"]

PAPER_EPOCHS = 500
RELU: dict[str, Any] = {"name": "relu"}
# "sequential": after epochs 210, 220, ... 490; the released parallel code prunes less, and less often
_PRUNING = {
    "sequential": {"percentile": 20.0, "start": 200, "period": 10},
    "parallel": {"percentile": 10.0, "start": 200, "period": 20},
}
# a guess, for estimates of time beside runs that end by the clock
_WORK_A_SECOND = 5e9
_AUGMENTATION = {"rotation": 10.0, "shift": 0.1, "flip": True}

CHANGEABLE = ("model", "optimizer", "topology", "trainer", "pruning", "parallel", "augment")

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
    """

    dataset: str
    settings: Settings = field(hash=False)
    seed: int = 0

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
        return json.dumps([self.dataset, self.settings], sort_keys=True)

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
        return {"dataset": self.dataset, "settings": self.settings, "seed": self.seed}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Case:
        """Return the case that `to_json` wrote."""
        return cls(values["dataset"], values["settings"], values["seed"])


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
        Of a parallel run.
    dense_minutes : float, optional
        A dense network, trained for at most so many minutes.
    seed, epochs : int
    changes : mapping of str to value, optional
        Settings other than the paper's, by ``table.key``. Those of a table that the case does not have are left out.
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
    if augment and image is not None:
        settings["augment"] = {"name": "image", "shape": list(image), **_AUGMENTATION}
    for key, value in (changes or {}).items():
        check_change(key)
        table, _, name = key.partition(".")
        if table in settings:
            settings[table][name] = value
    return Case(dataset, settings, check_integer(seed, "seed", low=0))


def check_change(key: str) -> None:
    """Raise ConfigError unless `key` is TABLE.KEY with a table that may be changed."""
    table, _, name = key.partition(".")
    if table not in CHANGEABLE or not name:
        raise ConfigError(
            f"{key!r} is no setting of a run: write TABLE.KEY, TABLE one of {', '.join(CHANGEABLE)}"
            + nearest(table, CHANGEABLE)
        )


def _pruning(strategy: str, epochs: int) -> dict[str, Any]:
    events = _PRUNING["sequential" if strategy == "sequential" else "parallel"]
    scale = epochs / PAPER_EPOCHS
    return {
        "percentile": events["percentile"],
        "start": round(events["start"] * scale),
        "period": max(1, round(events["period"] * scale)),
    }
