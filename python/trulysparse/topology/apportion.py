# SPDX-License-Identifier: BSD-3-Clause
"""Distributing a number of new connections over layers, exactly."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["apportion"]


def apportion(total: int, shares: Sequence[float], room: Sequence[int]) -> list[int]:
    """Distribute `total` over places in proportion to `shares`, none above its `room`; the sum is exact.

    Fractions go to the largest remainders (of equal ones to the first), what a full place cannot take to the others
    in proportion again. Where no share is left above 0, the free places count as the shares.

    Parameters
    ----------
    total : int
        At most ``sum(room)``; more is cut to that.
    shares : sequence of float
        Not negative.
    room : sequence of int
        Not negative.

    Returns
    -------
    list of int
        One for each place; they add up to ``min(total, sum(room))``.
    """
    given = [0] * len(room)
    left = min(total, sum(room))
    while left > 0:
        open_ = [i for i, space in enumerate(room) if given[i] < space and shares[i] > 0]
        weights = {i: float(shares[i]) for i in open_}
        if not open_:
            weights = {i: float(space - given[i]) for i, space in enumerate(room) if given[i] < space}
        whole = sum(weights.values())
        wish = {i: left * (weight / whole) for i, weight in weights.items()}
        full = [i for i, want in wish.items() if want >= room[i] - given[i]]
        if full:
            for i in full:
                take = min(left, room[i] - given[i])
                given[i] += take
                left -= take
            continue
        for i, want in wish.items():
            given[i] += int(want)
        rest = left - sum(int(want) for want in wish.values())
        for i in sorted(wish, key=lambda i: (int(wish[i]) - wish[i], i))[:rest]:
            given[i] += 1
        left = 0
    return given
