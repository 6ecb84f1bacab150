# SPDX-License-Identifier: BSD-3-Clause
"""JSON lines: one measurement each, with the machine that made it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trulysparse.errors import DataError

__all__ = ["KEYS", "append", "identity", "read"]

KEYS = ("benchmark", "shape", "network", "batch", "threads", "operation")
"""What tells one measurement from another."""


def identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a record from others of its run."""
    return tuple(record.get(key) for key in KEYS)


def append(path: Path, record: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Append a record and facts about its origin as one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({**record, **facts}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file; of those with the same identity, the last. A torn last line is left out.

    Raises
    ------
    DataError
        A line that is not JSON, but the last.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(f"{path}, line {number}: not a JSON line ({error})") from None
    return latest(records)


def latest(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last record of each identity, in the order of first appearance."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        found[identity(record)] = record
    return list(found.values())
