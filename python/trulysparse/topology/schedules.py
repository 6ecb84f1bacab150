# SPDX-License-Identifier: BSD-3-Clause
"""How the fraction of connections that an update replaces changes in the course of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trulysparse.model.registry import Configurable, Registry, check_number

__all__ = [
    "DROP_SCHEDULES",
    "ConstantDrop",
    "CosineDrop",
    "DropSchedule",
    "LinearDrop",
    "PowerDrop",
    "get_drop_schedule",
]


class DropSchedule(Configurable):
    """Base of all schedules of the drop fraction: a factor that the rule's `drop_fraction` is multiplied by.

    Subclass it, register it in `DROP_SCHEDULES` and write `factor`.
    """

    def factor(self, part: float) -> float:
        """Return the factor when `part` of the updating phase is over.

        Parameters
        ----------
        part
            In [0, 1]: 0 at the first step, 1 at the end of updates.

        Returns
        -------
        float
            In [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} must define factor")

    def _check(self, key: str, *, high: float = math.inf, low_open: bool = False) -> None:
        where = f"{key} of {type(self).__name__}"
        object.__setattr__(self, key, check_number(getattr(self, key), where, low=0, high=high, low_open=low_open))


DROP_SCHEDULES: Registry[DropSchedule] = Registry("drop schedule", DropSchedule)


def get_drop_schedule(spec: object) -> DropSchedule:
    """Return the schedule that an object, a name ("cosine") or a configuration means.

    Raises
    ------
    ConfigError
        An unknown name or setting.
    """
    return DROP_SCHEDULES.get(spec)


@DROP_SCHEDULES.register("constant")
@dataclass(frozen=True)
class ConstantDrop(DropSchedule):
    """The same fraction at every update."""

    def factor(self, part: float) -> float:
        return 1.0


@dataclass(frozen=True)
class _Falling(DropSchedule):
    """Falls from 1 to `final`."""

    final: float = 0.0

    def __post_init__(self) -> None:
        self._check("final", high=1)


@DROP_SCHEDULES.register("cosine")
@dataclass(frozen=True)
class CosineDrop(_Falling):
    """Half a cosine from 1 down to `final`: (1 + cos(pi t)) / 2.  RigL, Evci et al. 2020, section 3(2).

    Parameters
    ----------
    final
        Factor at the end of updates, in [0, 1].
    """

    def factor(self, part: float) -> float:
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * part))


@DROP_SCHEDULES.register("linear")
@dataclass(frozen=True)
class LinearDrop(_Falling):
    """A straight line from 1 down to `final`.

    Parameters
    ----------
    final
        Factor at the end of updates, in [0, 1].
    """

    def factor(self, part: float) -> float:
        return 1.0 - (1.0 - self.final) * part


@DROP_SCHEDULES.register("power")
@dataclass(frozen=True)
class PowerDrop(DropSchedule):
    """(1 - t)^exponent: the larger the exponent, the earlier the topology settles.

    Parameters
    ----------
    exponent
        Positive.
    """

    exponent: float = 3.0

    def __post_init__(self) -> None:
        self._check("exponent", low_open=True)

    def factor(self, part: float) -> float:
        return float((1.0 - part) ** self.exponent)
