# SPDX-License-Identifier: BSD-3-Clause
"""Run files: TOML tables whose keys are the arguments of the classes and functions they configure."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trulysparse.data import Dataset, load_dataset
from trulysparse.errors import ConfigError
from trulysparse.model import ErdosRenyi, SparseMLP, small_dense
from trulysparse.model.losses import get_loss
from trulysparse.model.mlp import DEFAULT_EPSILON
from trulysparse.recipes.tables import RunTables, Table, arguments_of, named
from trulysparse.trainer import EarlyStopping, Trainer

__all__ = ["RunConfig"]


class RunConfig(RunTables):
    """The settings of one run, table by table.

    Parameters
    ----------
    tables : mapping of str to mapping
        As read from a run file. Tables: ``data``, ``model`` (arguments of `SparseMLP`, with ``hidden`` for the sizes
        between input and output, and ``small_dense`` for the dense network of as many parameters), ``optimizer`` and
        ``topology`` (``name`` and its arguments), ``pruning``, ``parallel`` (as ``topology``; without it one process
        trains), ``augment`` (as ``topology``; without it training samples stay as they are), ``trainer``, ``fit``,
        ``early_stopping``.

    Raises
    ------
    ConfigError
        For an unknown table or key, with the nearest known one.
    """

    @classmethod
    def from_file(cls, path: str | Path) -> RunConfig:
        """Read a TOML run file.

        Raises
        ------
        ConfigError
            If it is missing, a directory, not TOML in UTF-8, or holds unknown keys.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                tables = tomllib.load(file)
        except FileNotFoundError:
            raise ConfigError(f"there is no run file {path}") from None
        except IsADirectoryError:
            raise ConfigError(f"{path} is a directory, not a run file; give the TOML file itself") from None
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        try:
            return cls(tables)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def resolve_paths(self) -> None:
        """Make the paths in [data] absolute, so that the settings hold in any directory."""
        path, data = self.data_path(), self.get("data", "data")
        if path is not None:
            self.tables["data"]["name"] = str(path.resolve())
        if data is not None:
            self.tables["data"]["data"] = str(Path(data).resolve())

    def load_data(self) -> Dataset:
        """Load the data set that [data] names."""
        return load_dataset(self.get("data", "name", "digits"), data=self.get("data", "data"))

    def build_net(self, data: Dataset, threads: int | None, *, outline: bool = False) -> SparseMLP:
        """Build the network for `data`: its input and output sizes come from there.

        With `outline` it has no connections: another process has them.
        """
        arguments = dict(self.tables.get("model", {}))
        hidden = arguments.pop("hidden", [])
        if not isinstance(hidden, list) or not all(isinstance(n, int) for n in hidden):
            raise ConfigError(f"[model] hidden={hidden!r} is not a list of layer sizes such as [1000, 1000]")
        if data.task == "regression":
            arguments.setdefault("loss", "mse")
            outputs = 1 if data.y_train.ndim == 1 else data.y_train.shape[1]
        else:
            loss = arguments.get("loss")
            one_output = loss is not None and get_loss(loss).name == "binary_cross_entropy" and data.n_classes == 2
            outputs = 1 if one_output else data.n_classes
        sizes = (data.n_features, *hidden, outputs)
        if not arguments.pop("small_dense", False):
            if outline:
                return SparseMLP.outline(_network_config(sizes, arguments))
            return SparseMLP(sizes, threads=threads, **arguments)
        density, epsilon = arguments.pop("density", None), arguments.pop("epsilon", None)
        if density is None:
            density = ErdosRenyi(DEFAULT_EPSILON if epsilon is None else epsilon)
        return small_dense(sizes, density=density, threads=threads, **arguments)

    def trainer_arguments(self) -> dict[str, Any]:
        """Return what [trainer] and the tables of its parts say, as arguments of `Trainer`."""
        arguments: dict[str, Any] = dict(self.tables.get("trainer", {}))
        for table in ("optimizer", "topology", "pruning", "parallel", "augment"):
            if table in self.tables:
                arguments[table] = named(table, self.tables[table])
        return arguments

    def callbacks(self) -> list[EarlyStopping]:
        """Return the callbacks that the file asks for."""
        return [EarlyStopping(**self.tables["early_stopping"])] if "early_stopping" in self.tables else []

    def resolve(self, trainer: Trainer) -> None:
        """Write out every setting that decides the result, so that the file outlives a change of defaults."""
        model, settings = trainer.net.to_config(), trainer.to_config()
        hidden = model.pop("sizes")[1:-1]
        if trainer.state.removed:  # a resumed run that was compacted: the file says how it began
            hidden = [n + gone for n, gone in zip(hidden, trainer.state.removed, strict=True)]
        pruning = settings.pop("pruning")
        self.tables = {
            "data": {"name": "digits"} | self.tables.get("data", {}),
            "model": {"hidden": hidden} | model,
            "optimizer": settings.pop("optimizer"),
            "topology": settings.pop("topology"),
            "pruning": {} if pruning is None else {k: v for k, v in pruning.items() if k != "name"},
            "parallel": settings.pop("parallel", {}),
            "augment": settings.pop("augment", {}),
            "trainer": settings | {"checkpoint_every": trainer.checkpoint_every},
            "fit": self.tables.get("fit", {}) | {"epochs": trainer.epochs},
        }
        for callback in trainer.callbacks:
            if isinstance(callback, EarlyStopping):
                self.tables["early_stopping"] = {key: getattr(callback, key) for key in arguments_of(EarlyStopping)}
        self.check()

    def to_toml(self) -> str:
        """Return the settings as TOML text that `from_file` reads back."""
        import tomli_w

        return tomli_w.dumps({table: _plain(entries) for table, entries in self.tables.items() if entries})


def _network_config(sizes: tuple[int, ...], arguments: Table) -> Table:
    """Return what `SparseMLP.to_config` would of a network with these arguments."""
    defaults = {key: p.default for key, p in inspect.signature(SparseMLP).parameters.items()}
    given = {key: arguments.get(key, defaults[key]) for key in ("activation", "dropout", "init", "loss", "seed")}
    density, epsilon = arguments.get("density"), arguments.get("epsilon")
    if density is None:
        density = ErdosRenyi(DEFAULT_EPSILON if epsilon is None else epsilon)
    return {"sizes": sizes, "density": density, **given}


def _plain(table: Mapping[str, Any]) -> Table:
    """Drop what TOML has no word for (None means: not set)."""
    return {key: value for key, value in table.items() if value is not None}
