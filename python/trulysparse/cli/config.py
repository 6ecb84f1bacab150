# SPDX-License-Identifier: BSD-3-Clause
"""Run files: TOML tables whose keys are the arguments of the classes and functions they configure."""

from __future__ import annotations

import copy
import inspect
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trulysparse.data import AUGMENTATIONS, Dataset, known_datasets, load_dataset
from trulysparse.errors import ConfigError
from trulysparse.model import ErdosRenyi, SparseMLP, small_dense
from trulysparse.model.losses import get_loss
from trulysparse.model.mlp import DEFAULT_EPSILON
from trulysparse.model.registry import Registry, nearest
from trulysparse.optim import OPTIMIZERS
from trulysparse.parallel import PARALLEL
from trulysparse.topology import TOPOLOGIES, ImportancePruning
from trulysparse.trainer import EarlyStopping, Trainer

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


def _arguments(function: Callable[..., Any], *without: str) -> list[str]:
    return [key for key in inspect.signature(function).parameters if key not in _PROVIDED | set(without)]


def _table_keys(tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Return the keys that each table may hold, given the names of optimizer and topology in `tables`."""
    keys = {
        "data": ["name", "data"],
        "model": ["hidden", "small_dense", *_arguments(SparseMLP)],
        "pruning": _arguments(ImportancePruning),
        "trainer": _arguments(Trainer, "optimizer", "topology", "pruning", "parallel", "augment"),
        "fit": _arguments(Trainer.fit),
        "early_stopping": _arguments(EarlyStopping),
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


class RunConfig:
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

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.tables: dict[str, Table] = copy.deepcopy(dict(tables))
        self.check()

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
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"--set {assignment!r} is not key=value, for example --set optimizer.momentum=0.8")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        known = _table_keys(self.tables)
        table, *path = name.split(".")
        if not path or table not in known:
            path = [table, *path]
            table = self._table_of(table, text.strip(), known)
        key, *inner = path
        if inner and key in known[table]:
            default = inspect.signature(SparseMLP).parameters.get(key) if table == "model" else None
            now = self.get(table, key, None if default is None else default.default)
            value = _set_inside(now, inner, value, f"{table}.{key}", text.strip())
        self.set(table, key, value)
        self.check()

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
                default = {"name": _NAMED[table]} if table in _NAMED else {}
                arguments[table] = default | self.tables[table]
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
                self.tables["early_stopping"] = {key: getattr(callback, key) for key in _arguments(EarlyStopping)}
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
