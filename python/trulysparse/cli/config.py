# SPDX-License-Identifier: BSD-3-Clause
"""Run files: TOML tables whose keys are the arguments of the classes and functions they configure."""

from __future__ import annotations

import copy
import inspect
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trulysparse.data import Dataset, load_dataset
from trulysparse.errors import ConfigError
from trulysparse.model import SparseMLP
from trulysparse.model.registry import nearest
from trulysparse.optim import OPTIMIZERS
from trulysparse.topology import TOPOLOGIES, ImportancePruning
from trulysparse.trainer import EarlyStopping, Trainer

Table = dict[str, Any]

# Arguments that a run file does not set, because the run itself provides them.
_PROVIDED = {"self", "net", "X", "y", "sizes", "callbacks", "checkpoint", "progress", "threads"}


def _arguments(function: Callable[..., Any], *without: str) -> list[str]:
    return [key for key in inspect.signature(function).parameters if key not in _PROVIDED | set(without)]


def _table_keys(tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Return the keys that each table may hold, given the names of optimizer and topology in `tables`."""
    keys = {
        "data": ["name", "data"],
        "model": ["hidden", *_arguments(SparseMLP)],
        "pruning": _arguments(ImportancePruning),
        "trainer": _arguments(Trainer, "optimizer", "topology", "pruning"),
        "fit": _arguments(Trainer.fit),
        "early_stopping": _arguments(EarlyStopping),
    }
    for table, registry, default in (("optimizer", OPTIMIZERS, "sgd"), ("topology", TOPOLOGIES, "set")):
        keys[table] = ["name", *registry.find(tables.get(table, {}).get("name", default)).config_keys()]
    return keys


class RunConfig:
    """The settings of one run, table by table.

    Parameters
    ----------
    tables : mapping of str to mapping
        As read from a run file. Tables: ``data``, ``model`` (arguments of `SparseMLP`, with ``hidden`` for the sizes
        between input and output), ``optimizer`` and ``topology`` (``name`` and its arguments), ``pruning``,
        ``trainer``, ``fit``, ``early_stopping``.

    Raises
    ------
    ConfigError
        For an unknown table or key, with the nearest known one.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.tables: dict[str, Table] = copy.deepcopy(dict(tables))
        self.check()

    @classmethod
    def from_file(cls, path: str | Path) -> RunConfig:
        """Read a TOML run file.

        Raises
        ------
        ConfigError
            If it is missing, not TOML, or holds unknown keys.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                tables = tomllib.load(file)
        except FileNotFoundError:
            raise ConfigError(f"there is no run file {path}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        try:
            return cls(tables)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def check(self) -> None:
        """Raise ConfigError for an unknown table or key."""
        for table, entries in self.tables.items():
            if not isinstance(entries, dict):
                raise ConfigError(
                    f"{table!r} stands outside any table; write it under one of "
                    f"{', '.join(f'[{t}]' for t in _table_keys({}))}"
                )
        known = _table_keys(self.tables)
        for table, entries in self.tables.items():
            if table not in known:
                raise ConfigError(f"unknown table [{table}]: known are {', '.join(known)}{nearest(table, known)}")
            for key in entries:
                if key not in known[table]:
                    raise ConfigError(
                        f"unknown key {key!r} in [{table}]: known are {', '.join(known[table])}"
                        + nearest(key, known[table])
                    )

    def set(self, table: str, key: str, value: Any) -> None:
        """Set one key; a new optimizer or topology name drops the arguments that the new one does not take."""
        entries = self.tables.setdefault(table, {})
        entries[key] = value
        if key == "name" and table in ("optimizer", "topology"):
            allowed = _table_keys({table: {"name": value}})[table]
            self.tables[table] = {k: v for k, v in entries.items() if k in allowed}

    def set_text(self, assignment: str) -> None:
        """Apply ``--set key=value``: ``table.key=value``, or a bare key that only one table knows; TOML values.

        Raises
        ------
        ConfigError
            If the key is unknown or stands in several tables.
        """
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"--set {assignment!r} is not key=value, for example --set optimizer.momentum=0.8")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        known = _table_keys(self.tables)
        table, dot, key = name.partition(".")
        if not dot:
            key = name
            tables = [t for t, keys in known.items() if key in keys]
            if len(tables) > 1:
                choices = " or ".join(f"{t}.{key}" for t in tables)
                raise ConfigError(f"--set {key}: which one? Write {choices}")
            if not tables:
                every = [f"{t}.{k}" for t, keys in known.items() for k in keys]
                hint = nearest(key, {k.partition(".")[2] for k in every})
                raise ConfigError(f"--set {key}: no such key{hint or ': known are ' + ', '.join(every)}")
            table = tables[0]
        self.set(table, key, value)
        self.check()

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """Return one value, or `default` where it is not set."""
        return self.tables.get(table, {}).get(key, default)

    def load_data(self) -> Dataset:
        """Load the data set that [data] names."""
        return load_dataset(self.get("data", "name", "digits"), data=self.get("data", "data"))

    def build_net(self, data: Dataset, threads: int | None) -> SparseMLP:
        """Build the network for `data`: its input and output sizes come from there."""
        arguments = dict(self.tables.get("model", {}))
        hidden = arguments.pop("hidden", [])
        if not isinstance(hidden, list) or not all(isinstance(n, int) for n in hidden):
            raise ConfigError(f"[model] hidden={hidden!r} is not a list of layer sizes such as [1000, 1000]")
        if data.task == "regression":
            arguments.setdefault("loss", "mse")
            outputs = 1 if data.y_train.ndim == 1 else data.y_train.shape[1]
        else:
            one_output = arguments.get("loss") == "binary_cross_entropy" and data.n_classes == 2
            outputs = 1 if one_output else data.n_classes
        return SparseMLP((data.n_features, *hidden, outputs), threads=threads, **arguments)

    def trainer_arguments(self) -> dict[str, Any]:
        """Return what [optimizer], [topology], [pruning] and [trainer] say, as arguments of `Trainer`."""
        arguments: dict[str, Any] = dict(self.tables.get("trainer", {}))
        for table in ("optimizer", "topology", "pruning"):
            if table in self.tables:
                arguments[table] = self.tables[table]
        return arguments

    def callbacks(self) -> list[EarlyStopping]:
        """Return the callbacks that the file asks for."""
        return [EarlyStopping(**self.tables["early_stopping"])] if "early_stopping" in self.tables else []

    def to_toml(self) -> str:
        """Return the settings as TOML text that `from_file` reads back."""
        import tomli_w

        return tomli_w.dumps({table: _plain(entries) for table, entries in self.tables.items() if entries})


def _plain(table: Mapping[str, Any]) -> Table:
    """Drop what TOML has no word for (None means: not set)."""
    return {key: value for key, value in table.items() if value is not None}
