# SPDX-License-Identifier: BSD-3-Clause
"""How the features of a sample lie in memory as an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trulysparse.errors import ConfigError
from trulysparse.model.registry import check_integer, nearest

__all__ = ["check_image_shape", "find_channels"]

_CHANNELS = (1, 3, 4)
_PLACES = ("first", "last")


def check_image_shape(shape: Any) -> tuple[int, int, int]:
    """Return `shape` as three positive numbers.

    Parameters
    ----------
    shape : sequence of int
        (channels, height, width) or (height, width, channels).

    Raises
    ------
    ConfigError
        Not three positive whole numbers.
    """
    if not isinstance(shape, Sequence | np.ndarray) or isinstance(shape, str) or len(shape) != 3:
        raise ConfigError(
            f"shape must be (channels, height, width) or (height, width, channels), such as (3, 32, 32), got {shape!r}"
        )
    first, second, third = (check_integer(n, "each number of shape", low=1) for n in shape)
    return first, second, third


def find_channels(shape: tuple[int, int, int], told: str | None) -> str:
    """Return whether channels are "first" or "last": as `told`, else at the end whose size is 1, 3 or 4.

    Raises
    ------
    ConfigError
        `told` is another word, or it is None and `shape` does not tell.
    """
    if told is not None:
        if told not in _PLACES:
            raise ConfigError(f"channels must be 'first' or 'last', got {told!r}{nearest(told, _PLACES)}")
        return told
    places = [place for place, end in zip(_PLACES, (shape[0], shape[2]), strict=True) if end in _CHANNELS]
    if len(places) != 1:
        why = "both ends" if places else "neither end"
        raise ConfigError(
            f"shape {shape} does not tell where the channels are: {why} of it could be a number of channels "
            "(1, 3 or 4); add channels='first' or channels='last'"
        )
    return places[0]
