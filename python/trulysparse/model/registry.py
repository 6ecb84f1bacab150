# SPDX-License-Identifier: BSD-3-Clause
"""What has a name and a configuration: activations, densities, initialisers, losses, optimizers..."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Generic, Self, SupportsIndex, TypeVar, cast

from trulysparse.errors import ConfigError

__all__ = ["Configurable", "Registry", "check_integer", "check_number", "check_seed", "nearest"]


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_number(
    value: object,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as a float, or raise ConfigError unless it is a finite number within the given range."""
    left = "(" if low_open or math.isinf(low) else "["
    right = ")" if high_open or math.isinf(high) else "]"
    ends = f"{left}{low:g}, {high:g}{right}"
    allowed = f"a number in {ends}" if math.isfinite(low) or math.isfinite(high) else "a finite number"
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")
    try:
        number = float(cast(float, value))
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be {allowed}, got {value!r}") from None
    inside = (low < number if low_open else low <= number) and (number < high if high_open else number <= high)
    if not math.isfinite(number) or not inside:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")
    return number


def check_integer(value: object, name: str, *, low: int, high: int | None = None) -> int:
    """Return `value` as an int, or raise ConfigError unless it is a whole number in [low, high]."""
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise ConfigError(f"{name} must be {allowed}, got {value!r}") from None
    if number < low or (high is not None and number > high):
        raise ConfigError(f"{name} must be {allowed}, got {value!r}")
    return number


def check_seed(seed: object) -> int:
    """Return `seed` as an int, or raise ConfigError unless it is a whole number in [0, 2**64)."""
    return check_integer(seed, "seed", low=0, high=2**64 - 1)


class Configurable:
    """Something whose constructor arguments are its attributes, and its configuration."""

    name: ClassVar[str]

    @classmethod
    def config_keys(cls) -> tuple[str, ...]:
        """Names of the constructor's arguments, in order."""
        return tuple(p for p in inspect.signature(cls).parameters)

    def to_config(self) -> dict[str, Any]:
        """Return ``{"name": ..., argument: value, ...}`` in plain values, without arguments that are None."""
        config: dict[str, Any] = {"name": self.name}
        for key in self.config_keys():
            value = getattr(self, key)
            if isinstance(value, Configurable):
                value = value.to_config()
            elif isinstance(value, tuple):
                value = list(value)
            if value is not None:
                config[key] = value
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build one from what `to_config` returned.

        Raises
        ------
        ConfigError
            A key that the constructor does not have, or one that is missing.
        """
        arguments = {key: value for key, value in config.items() if key != "name"}
        allowed = cls.config_keys()
        for key in arguments:
            if key not in allowed:
                can = ", ".join(allowed) if allowed else "no settings"
                raise ConfigError(f"{cls.name!r} has no setting {key!r}, it takes {can}{nearest(key, allowed)}")
        needed = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
        missing = [key for key in needed if key not in arguments]
        if missing:
            raise ConfigError(
                f"{cls.name!r} needs {' and '.join(missing)}, for example {{name = {cls.name!r}, {missing[0]} = ...}}"
            )
        return cls(**arguments)


T = TypeVar("T", bound=Configurable)


class Registry(Generic[T]):
    """Classes by name, so that a string or a configuration can stand for an object.

    Parameters
    ----------
    kind
        What the classes are, for messages: "activation".
    base
        Their common base class.
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: enter the class under `name`.

        Raises
        ------
        ConfigError
            The name is taken by another class.
        """

        def enter(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ConfigError(f"the {self.kind} name {name!r} is taken by {self._classes[name].__name__}")
            cls.name = name
            self._classes[name] = cls
            return cls

        return enter

    def names(self) -> tuple[str, ...]:
        """Names of all classes, sorted."""
        return tuple(sorted(self._classes))

    def find(self, name: object) -> type[T]:
        """Return the class called `name`, or raise ConfigError suggesting the nearest."""
        if not isinstance(name, str) or name not in self._classes:
            names = self.names()
            raise ConfigError(f"unknown {self.kind} {name!r}, allowed are {', '.join(names)}{nearest(name, names)}")
        return self._classes[name]

    def get(self, spec: object) -> T:
        """Return the object that `spec` stands for.

        Parameters
        ----------
        spec
            An object of the base class (returned as it is), a name, or a mapping with the key ``name`` and
            the constructor's arguments.

        Raises
        ------
        ConfigError
            An unknown name or setting, or a `spec` of another type.
        """
        if isinstance(spec, self.base):
            return spec
        if isinstance(spec, str):
            return self.find(spec).from_config({})
        if isinstance(spec, Mapping):
            if "name" not in spec:
                raise ConfigError(f"a configured {self.kind} needs the key 'name', one of {', '.join(self.names())}")
            return self.find(spec["name"]).from_config(spec)
        raise ConfigError(
            f"the {self.kind} must be {self.base.__name__}, a name or a configuration, got {spec!r} of type "
            f"{type(spec).__name__}; allowed names are {', '.join(self.names())}"
        )
