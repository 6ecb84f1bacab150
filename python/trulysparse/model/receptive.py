# SPDX-License-Identifier: BSD-3-Clause
"""First patterns for images: every neuron looks at a window about its own place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DensityWarning, ShapeError
from trulysparse.model.density import DENSITIES, Density, draw_erdos_renyi
from trulysparse.model.images import check_image_shape, find_channels
from trulysparse.model.pattern import Pattern
from trulysparse.model.registry import check_number

__all__ = ["ReceptiveFields", "neuron_places", "pixel_places"]

Places = NDArray[np.float64]
Counts = NDArray[np.int64]
Cells = NDArray[np.uint64]

_PLASTIC = 1.324717957244746  # the real root of x**3 = x + 1
_BLOCK_CELLS = 2**21  # pairs of target and source that are looked at together: memory, never the result
_BLOCK_TARGETS = 1024
_SPARE = (8.0, 16.0)  # by how much more numbers than needed are looked at first: speed, never the result
_NOBODY = np.uint64(2**64 - 1)


def neuron_places(n: int) -> Places:
    """Return where the `n` neurons of a hidden layer are, float64 (n, 2): y (down) and x in [0, 1).

    The additive recurrence of two dimensions, whose steps are 1 and 2 negative powers of the plastic number: any run of
    it covers the square evenly, and the first places do not depend on `n`.
    """
    number = np.arange(1, n + 1, dtype=np.float64)[:, None]
    return np.asarray(np.mod(0.5 + number * np.array([1 / _PLASTIC, 1 / (_PLASTIC * _PLASTIC)]), 1.0))


def pixel_places(shape: tuple[int, int, int], channels_last: bool) -> Places:
    """Return where the values of an image are, float64 (values, 2): y (down) and x of the centre of their pixel."""
    _, height, width = (shape[2], *shape[:2]) if channels_last else shape
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    grid = np.stack(np.broadcast_arrays(y[:, None], x[None, :]), axis=-1)
    repeated = grid[:, :, None] if channels_last else grid[None]
    return np.ascontiguousarray(np.broadcast_to(repeated, (*shape, 2)).reshape(-1, 2))


@DENSITIES.register("receptive_fields")
@dataclass(frozen=True)
class ReceptiveFields(Density):
    """Locally connected layers for images: every hidden neuron has a place, and its sources lie in a window about it.

    Pixels are where they are in the image, all channels of a pixel at one place; the neurons of each hidden layer are
    spread evenly over it. The sources of a hidden neuron are drawn at random among the pixels, or neurons of the layer
    before, that are at most a window away from its place in both directions; windows end at the border. A layer has
    round(epsilon * (n_in + n_out)) connections or, if that is less, all that its windows hold. All neurons of a layer
    get the same number of sources, give or take one; a neuron whose window holds fewer takes all of it, and others
    more. The output layer is that of `ErdosRenyi`. These are first patterns: what a topology rule grows later lies
    anywhere.

    Parameters
    ----------
    shape : sequence of int
        (channels, height, width) or (height, width, channels), as the features of a sample lie in memory. The channels
        are at the end whose size is 1, 3 or 4.
    epsilon : float
        Positive; connections a layer are about epsilon * (n_in + n_out).
    windows : float, None, or sequence of them
        How far sources may be from a neuron's place, in (0, 1] of the height and of the width: a window of 0.1 is 0.2
        high and wide. None is 1, anywhere. A sequence has one for each hidden layer, first to last, and its last one
        also holds for the layers beyond; a single one holds for all. Kept as a tuple of float.
    channels : str, optional
        Where the channels are, ``"first"`` or ``"last"``, where `shape` does not tell; any number of them then.

    Raises
    ------
    ConfigError
        An argument out of range, or a shape that does not tell where its channels are; when patterns are drawn, also
        more windows than hidden layers.
    ShapeError
        When patterns are drawn: images of another number of values than the network has inputs.

    Warns
    -----
    DensityWarning
        When patterns are drawn: `epsilon` asks for more connections than the windows, or the output layer, hold.

    Notes
    -----
    Source of the idea: LeCun, "Generalization and Network Design Strategies" (1989), there with whole windows on a
    grid. Drawing takes time by the pairs of neurons within a window of each other, and memory by the connections.
    """

    shape: tuple[int, int, int]
    epsilon: float = 20.0
    windows: float | Sequence[float | None] | None = (0.1, 0.2, 0.4)
    channels: str | None = None

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "shape", check_image_shape(self.shape))
        set_field(self, "epsilon", check_number(self.epsilon, "epsilon", low=0, low_open=True))
        set_field(self, "windows", _check_windows(self.windows))
        find_channels(self.shape, self.channels)

    def expected_connections(self, sizes: Sequence[int]) -> list[float]:
        expected = []
        for (n_in, n_out), window, sources in self._hidden(sizes):
            held = _count_in_windows(sources, neuron_places(n_out), window)
            expected.append(float(min(round(self.epsilon * (n_in + n_out)), int(held.sum()))))
        n_in, n_out = sizes[-2:]
        return [*expected, min(float(n_in * n_out), self.epsilon * (n_in + n_out))]

    def patterns(self, sizes: Sequence[int], seed: int, threads: int | None = None) -> list[Pattern]:
        patterns: list[Pattern] = []
        for layer, ((n_in, n_out), window, sources) in enumerate(self._hidden(sizes)):
            targets = neuron_places(n_out)
            held = _count_in_windows(sources, targets, window)
            asked, room = round(self.epsilon * (n_in + n_out)), int(held.sum())
            if asked > room:
                warnings.warn(
                    f"layer {layer} ({n_in} -> {n_out}): epsilon={self.epsilon:g} asks for {asked} connections but "
                    f"windows of {window:g} hold {room}, and the layer has all of them; widen its window or lower "
                    "epsilon",
                    DensityWarning,
                    stacklevel=3,
                )
            degrees = _spread(held, min(asked, room))
            cells = _draw(sources, targets, window, degrees, seed, layer, threads)
            patterns.append(Pattern.from_cells(n_in, n_out, cells, threads))
        n_in, n_out = sizes[-2:]
        return [*patterns, draw_erdos_renyi(n_in, n_out, self.epsilon, len(patterns), seed, threads)]

    def _hidden(self, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, int], float, Places]]:
        """Yield (n_in, n_out), window and places of the sources of all layers but the last, once they are checked."""
        wanted = math.prod(self.shape)
        if wanted != sizes[0]:
            raise ShapeError(
                f"images of shape {self.shape} have {wanted} values, but the network has {sizes[0]} inputs; give "
                "ReceptiveFields the shape that the features of one sample have as an image"
            )
        windows, shapes = cast(tuple[float, ...], self.windows), list(pairwise(sizes))[:-1]
        if len(windows) > max(1, len(shapes)):
            raise ConfigError(
                f"windows={windows} of ReceptiveFields has {len(windows)} windows, but the network {tuple(sizes)} has "
                f"{len(shapes)} hidden layer{'' if len(shapes) == 1 else 's'}; give one for each, or a single one for "
                "all"
            )
        for layer, (n_in, n_out) in enumerate(shapes):
            last = find_channels(self.shape, self.channels) == "last"
            sources = neuron_places(n_in) if layer else pixel_places(self.shape, last)
            yield (n_in, n_out), windows[min(layer, len(windows) - 1)], sources


def _check_windows(windows: Any) -> tuple[float, ...]:
    several = isinstance(windows, Sequence | np.ndarray) and not isinstance(windows, str | bytes)
    given = list(windows) if several else [windows]
    if not given:
        raise ConfigError(
            "windows of ReceptiveFields is empty; give one for each hidden layer, such as (0.1, 0.2, 0.4), or a single "
            "one for all"
        )
    return tuple(
        1.0 if window is None else check_number(window, "a window of ReceptiveFields", low=0, high=1, low_open=True)
        for window in given
    )


def _blocks(sources: Places, targets: Places, window: float) -> Iterator[tuple[Counts, Counts, NDArray[np.bool_]]]:
    """Yield targets (t,), sources (s,) and a mask (t, s), True within the window, of blocks that cover all such pairs.

    Every target is in one block. Blocks are small in memory, so both sides are walked from top to bottom.
    """
    by_y, targets_by_y = np.argsort(sources[:, 0], kind="stable"), np.argsort(targets[:, 0], kind="stable")
    y, x = sources[by_y].T.copy()
    reach = window + 1e-9  # rounding: the mask decides, this may only be too wide
    first = np.searchsorted(y, targets[targets_by_y, 0] - reach, "left")
    beyond = np.searchsorted(y, targets[targets_by_y, 0] + reach, "right")
    widest = max(1, int((beyond - first).max(initial=0)))
    rows = min(_BLOCK_TARGETS, max(1, _BLOCK_CELLS // widest))
    for begin in range(0, len(targets), rows):
        some = targets_by_y[begin : begin + rows]
        # first and beyond rise with y
        strip = slice(int(first[begin]), int(beyond[begin + len(some) - 1]))
        near = np.abs(targets[some, 0, None] - y[strip]) <= window
        near &= np.abs(targets[some, 1, None] - x[strip]) <= window
        yield some, by_y[strip], near


def _count_in_windows(sources: Places, targets: Places, window: float) -> Counts:
    """Return how many sources the window of each target holds, int64 (n_out,)."""
    held = np.full(len(targets), len(sources), np.int64)
    if window < 1:
        for some, _, near in _blocks(sources, targets, window):
            held[some] = np.count_nonzero(near, axis=1)
    return held


def _spread(held: Counts, count: int) -> Counts:
    """Share out `count` connections, at most ``held.sum()``: the same for all, give or take one, where windows allow.

    The odd ones go to the first targets, whose places are spread as evenly as those of all.
    """
    low, high = 0, int(held.max(initial=0))
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if int(np.minimum(held, level).sum()) <= count else (low, level - 1)
    degrees = np.minimum(held, low)
    degrees[np.flatnonzero(held > low)[: count - int(degrees.sum())]] += 1
    return degrees


def _draw(
    sources: Places, targets: Places, window: float, degrees: Counts, seed: int, layer: int, threads: int | None
) -> Cells:
    """Return cells, ascending: for each target those ``degrees`` in its window whose random numbers are smallest."""
    n_out = len(targets)
    most = int(degrees.max(initial=0))
    found: list[Cells] = []
    for some, strip, near in _blocks(sources, targets, window):
        degree, held = degrees[some], np.count_nonzero(near, axis=1)
        cells: Cells = (strip.astype(np.uint64) * np.uint64(n_out) + some.astype(np.uint64)[:, None])[near]
        drawn = _kernels.draw_values_at(
            cells, n_out, "uniform", 1.0, seed=seed, purpose="pattern", layer=layer, step=0, threads=threads
        )
        # to sort few: more than `degree` numbers are below this, and where for once they are not, all are looked at
        likely = 2 * (degree + _SPARE[0] * np.sqrt(degree) + _SPARE[1]) / np.maximum(held, 1) - 1
        for bound in (likely, np.full(len(some), 2.0)):
            low = np.flatnonzero(drawn < np.repeat(bound.astype(np.float32), held))
            row = np.searchsorted(np.cumsum(held), low, side="right")
            kept = np.bincount(row, minlength=len(some))
            if np.all(kept >= degree):
                break
        # multiples of 2**-23 in [-1, 1) as whole numbers, then the source, which decides between equal ones
        order = ((drawn[low] + 1) * 2**23).astype(np.uint64) << np.uint64(32) | cells[low] // np.uint64(n_out)
        table = np.full((len(some), max(most, int(kept.max(initial=0)))), _NOBODY)
        table[row, np.arange(len(row)) - np.repeat(np.cumsum(kept) - kept, kept)] = order
        if most:
            # a degree is all that is kept, or one of the two largest: the cuts must be right there
            table.partition((max(most - 2, 0), most - 1), axis=1)
        table = table[:, :most]
        taken = np.arange(most) < np.where(kept == degree, most, degree)[:, None]
        taken &= table != _NOBODY
        chosen, _ = np.nonzero(taken)
        picked = table[taken]
        found.append((picked & np.uint64(2**32 - 1)) * np.uint64(n_out) + some[chosen].astype(np.uint64))
    result = np.concatenate(found) if found else np.empty(0, np.uint64)
    result.sort()
    return result
