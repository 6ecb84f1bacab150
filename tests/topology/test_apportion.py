# SPDX-License-Identifier: BSD-3-Clause
"""Shares add up to the total exactly, and stay within the room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trulysparse.topology.apportion import apportion


@given(
    total=st.integers(0, 10**6),
    places=st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**5)), max_size=6),
)
def test_the_sum_is_exact_and_no_place_overflows(total: int, places: list[tuple[float, int]]) -> None:
    shares, room = [share for share, _ in places], [space for _, space in places]
    given_ = apportion(total, shares, room)
    assert sum(given_) == min(total, sum(room))
    assert all(0 <= g <= space for g, space in zip(given_, room, strict=True))


def test_largest_remainders_get_the_rest_and_full_places_pass_on() -> None:
    assert apportion(10, [1, 1, 1], [100, 100, 100]) == [4, 3, 3]
    assert apportion(10, [5, 3, 2], [1, 100, 100]) == [1, 5, 4]
    assert apportion(5, [1, 0], [3, 10]) == [3, 2]
