# SPDX-License-Identifier: BSD-3-Clause
"""Settings as tables, whose keys are the arguments of classes and functions: what run files and `--set` hold."""

from __future__ import annotations

import copy
import inspect
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trulysparse.data import AUGMENTATIONS, known_datasets
from trulysparse.errors import ConfigError
from trulysparse.model import SparseMLP
from trulysparse.model.registry import Registry, nearest
from trulysparse.optim import OPTIMIZERS
from trulysparse.parallel import PARALLEL
from trulysparse.topology import TOPOLOGIES, ImportancePruning
from trulysparse.trainer import EarlyStopping, Trainer

__all__ = ["RunTables", "Table", "arguments_of", "named", "read_assignment"]

Table = dict[str, Any]

# Arguments that a run file does not set, because the run itself provides them.
_PROVIDED = {"self", "net", "X", "y", "sizes", "callbacks", "checkpoint", "progress", "threads"}

# Options of the command that people look for among the settings.
_OPTIONS = {key: f"--{key}" for key in ("out", "overwrite", "quiet", "resume", "threads")} | {
    "callbacks": "the table [early_stopping]",
    "checkpoint": "--out",
    "progress": "--quiet",
}

# What [optimizer], [topology]... mean where they do not say a name, and settings that exclude each other.
_NAMED = {"optimizer": "sgd", "topology": "set", "parallel": "wasap", "augment": "image"}
_EITHER = {"epsilon": "density", "density": "epsilon"}


def arguments_of(function: Callable[..., Any], *without: str) -> list[str]:
    """Return the arguments of a function that a run file may set."""
    return [key for key in inspect.signature(function).parameters if key not in _PROVIDED | set(without)]


def named(table: str, entries: Mapping[str, Any]) -> Table:
    """Return the entries of a table with the name that it means where it does not say one."""
    return ({"name": _NAMED[table]} if table in _NAMED else {}) | dict(entries)


def _table_keys(tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Return the keys that each table may hold, given the names of optimizer and topology in `tables`."""
    keys = {
        "data": ["name", "data"],
        "model": ["hidden", "small_dense", *arguments_of(SparseMLP)],
        "pruning": arguments_of(ImportancePruning),
        "trainer": arguments_of(Trainer, "optimizer", "topology", "pruning", "parallel", "augment"),
        "fit": arguments_of(Trainer.fit),
        "early_stopping": arguments_of(EarlyStopping),
    }
    registries: dict[str, Registry[Any]] = {
        "optimizer": OPTIMIZERS,
        "topology": TOPOLOGIES,
        "parallel": PARALLEL,
        "augment": AUGMENTATIONS,
    }
    for table, registry in registries.items():
        keys[table] = ["name", *registry.find(tables.get(table, {}).get("name", _NAMED[table])).config_keys()]
    return keys


def read_assignment(assignment: str) -> tuple[str, Any, str]:
    """Return name, value and the value's text of ``name=value``; the value is TOML, or else a word."""
    name, equals, text = assignment.partition("=")
    name, text = name.strip(), text.strip()
    if not equals or not name:
        raise ConfigError(f"--set {assignment!r} is not key=value, for example --set optimizer.momentum=0.8")
    try:
        return name, tomllib.loads(f"value = {text}")["value"], text
    except tomllib.TOMLDecodeError:
        return name, text, text


class RunTables:
    """The settings of one run, table by table.

    Parameters
    ----------
    tables : mapping of str to mapping
        As in a run file (`RunConfig` of the command line says which tables there are).

    Raises
    ------
    ConfigError
        For an unknown table or key, with the nearest known one.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.tables: dict[str, Table] = copy.deepcopy(dict(tables))
        self.check()

    def check(self) -> None:
        """Raise ConfigError for an unknown table or key, or a value that no other check would see in time."""
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
                    if key in _OPTIONS:
                        raise ConfigError(f"{key!r} in [{table}] is not a setting; use {_OPTIONS[key]} instead")
                    raise ConfigError(
                        f"unknown key {key!r} in [{table}]: known are {', '.join(known[table])}"
                        + nearest(key, known[table])
                    )
        for key, value in self.tables.get("data", {}).items():
            if not isinstance(value, str):
                raise ConfigError(f"[data] {key}={value!r} is not a name or path; write it in quotes")
        if not isinstance(self.get("model", "small_dense", False), bool):
            raise ConfigError(f"[model] small_dense={self.get('model', 'small_dense')!r} is neither true nor false")
        fraction = self.get("fit", "validation")
        if fraction is not None and (isinstance(fraction, bool) or not isinstance(fraction, int | float)):
            raise ConfigError(f"[fit] validation={fraction!r} is not a number between 0 and 1; 0.1 holds back a tenth")

    def set(self, table: str, key: str, value: Any) -> None:
        """Set one key, and drop what can no longer stand beside it.

        A new optimizer or topology name drops the arguments that the new one does not take; epsilon and density replace
        each other; a place for the data replaces a path that stands as its name.
        """
        entries = self.tables.setdefault(table, {})
        if (table, key) == ("data", "data") and isinstance(value, str) and self.data_path() is not None:
            inside = Path(value) / Path(entries["name"]).name
            self.tables[table] = {"name": str((inside if inside.exists() else Path(value)).resolve())}
            return
        if table == "model" and key in _EITHER:
            entries.pop(_EITHER[key], None)
        entries[key] = value
        if key == "name" and table in _NAMED:
            allowed = _table_keys({table: {"name": value}})[table]
            self.tables[table] = {k: v for k, v in entries.items() if k in allowed}

    def set_text(self, assignment: str) -> None:
        """Apply ``--set key=value``: ``table.key=value``, or a bare key that only one table knows; TOML values.

        Further dots lead into inline tables: ``model.activation.alpha=0.3``.

        Raises
        ------
        ConfigError
            If the key is unknown or stands in several tables.
        """
        name, value, text = read_assignment(assignment)
        self.put(self.path(name, text), value, text)
        self.check()

    def path(self, name: str, text: str = "...") -> tuple[str, ...]:
        """Return where ``--set name=text`` leads: table, key, and keys of inline tables; a bare key finds its table.

        Raises
        ------
        ConfigError
            If the key is unknown or stands in several tables.
        """
        known = _table_keys(self.tables)
        table, *path = name.split(".")
        if not path or table not in known:
            return (self._table_of(table, text, known), table, *path)
        return (table, *path)

    def put(self, path: Sequence[str], value: Any, text: str | None = None) -> None:
        """Set what `path` leads to; further keys than table and key lead into inline tables."""
        table, key, *inner = path
        if inner and key in _table_keys(self.tables).get(table, ()):
            default = inspect.signature(SparseMLP).parameters.get(key) if table == "model" else None
            now = self.get(table, key, None if default is None else default.default)
            value = _set_inside(now, inner, value, f"{table}.{key}", str(value) if text is None else text)
        self.set(table, key, value)

    @staticmethod
    def _table_of(key: str, text: str, known: Mapping[str, list[str]]) -> str:
        """Return the only table that has `key`."""
        tables = [t for t, keys in known.items() if key in keys]
        if len(tables) == 1:
            return tables[0]
        if tables:
            choices = " or ".join(f"{t}.{key}" for t in tables)
            raise ConfigError(f"--set {key}: which one? Write {choices}")
        if key in _NAMED:
            option = f", or --topology {text}" if key == "topology" else ""
            raise ConfigError(f"--set {key}: this is a table; write --set {key}.name={text}{option}")
        if key in known:
            raise ConfigError(
                f"--set {key}: this is a table; write --set {key}.KEY=VALUE, KEY: {', '.join(known[key])}"
            )
        if key in _OPTIONS:
            raise ConfigError(f"--set {key}: this is not a setting; use {_OPTIONS[key]} instead")
        every = [f"{t}.{k}" for t, keys in known.items() for k in keys]
        hint = nearest(key, {*known, *(k.partition(".")[2] for k in every)})
        raise ConfigError(f"--set {key}: no such key{hint or ': known are ' + ', '.join(every)}")

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """Return one value, or `default` where it is not set."""
        return self.tables.get(table, {}).get(key, default)

    def data_path(self) -> Path | None:
        """Return the path that stands as the data set's name, or None if it is a name indeed."""
        name = self.get("data", "name")
        if not isinstance(name, str):
            return None
        path = Path(name)
        obvious = path.suffix in (".npz", ".npy") or os.sep in name or name in (".", "..")
        free = self.get("data", "data") is None and name not in known_datasets()
        return path if obvious or (free and path.is_dir()) else None


def _set_inside(now: Any, path: list[str], value: Any, where: str, text: str) -> Table:
    """Return the inline table `now` with the entry at `path` set; a name alone counts as a table."""
    table = {"name": now} if isinstance(now, str) else now
    if not isinstance(table, dict):
        state = "not set" if table is None else f"{table!r}, not a table"
        raise ConfigError(
            f"--set {where}.{'.'.join(path)}: {where} is {state}; "
            f"write the whole of it: --set {where}='{{name = \"...\", {path[0]} = {text}}}'"
        )
    key, *rest = path
    if rest:
        value = _set_inside(table.get(key), rest, value, f"{where}.{key}", text)
    # what belonged to another name has no meaning for the new one
    return {"name": value} if key == "name" and table.get(key) != value else table | {key: value}
