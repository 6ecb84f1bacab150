# SPDX-License-Identifier: BSD-3-Clause
"""What master and workers say to each other arrives as it was said."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from trulysparse.parallel.transport import Do, Order, Said, Update

ORDERS = [Order(Do.COMPUTE, 2**40, 3, 4, 5, 6, 7, -8, "why"), Order(Do.STOP)]
UPDATES = [
    Update(Said.GRADIENT),
    Update(
        Said.EPOCH,
        **{f.name: i + 0.5 if f.type == "float" else 2**33 + i for i, f in enumerate(fields(Update)[1:-1])},
        text="ä€😀",
    ),
]


def travel(record: Any) -> Any:
    cell = np.full(1, 0xFF, np.uint8).repeat(record.dtype.itemsize).view(record.dtype)
    record.write(cell.reshape(()))
    return type(record).read(np.frombuffer(cell.tobytes(), record.dtype).reshape(()))


@pytest.mark.parametrize("record", [*ORDERS, *UPDATES])
def test_records_arrive_as_they_were_written(record: Any) -> None:
    arrived = travel(record)
    for field in fields(record):
        sent, got = getattr(record, field.name), getattr(arrived, field.name)
        assert got == sent or (got != got and sent != sent), field.name
        assert isinstance(got, int | float | str)


@pytest.mark.parametrize("record", [Order(Do.ABORT), Update(Said.FAILED)])
@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])
@pytest.mark.parametrize("before", range(4))
def test_a_long_text_is_cut_at_a_whole_character(record: Any, letter: str, before: int) -> None:
    text = "." * before + letter * 600
    record.text = text
    arrived = travel(record).text
    assert text.startswith(arrived)
    assert 480 - len(letter.encode()) < len(arrived.encode()) <= 480


def test_records_have_a_place_for_each_field() -> None:
    for kind in (Order, Update):
        assert set(kind.dtype.names or ()) == {field.name for field in fields(kind)}
        assert kind.dtype.itemsize % 8 == 0
