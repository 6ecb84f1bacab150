# SPDX-License-Identifier: BSD-3-Clause
"""The tables by name."""

from __future__ import annotations

from trulysparse.errors import ConfigError
from trulysparse.model.registry import nearest
from trulysparse.reproduce.accuracy_tables import TABLE_2, TABLE_3, TABLE_5, TABLE_OF_RECIPES
from trulysparse.reproduce.flow_figure import FIGURE_5
from trulysparse.reproduce.pruned_table import TABLE_6
from trulysparse.reproduce.table import Table

__all__ = ["TABLES", "find_table"]

TABLES = {table.name: table for table in (TABLE_2, TABLE_3, TABLE_5, TABLE_6, FIGURE_5, TABLE_OF_RECIPES)}


def find_table(name: str) -> Table:
    """Return a table by name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in TABLES:
        raise ConfigError(f"unknown table {name!r}: known are {', '.join(TABLES)}{nearest(name, TABLES)}")
    return TABLES[name]
