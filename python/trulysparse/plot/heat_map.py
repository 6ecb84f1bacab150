# SPDX-License-Identifier: BSD-3-Clause
"""Which inputs a network looks at."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trulysparse.errors import ConfigError, ShapeError
from trulysparse.model.registry import check_integer
from trulysparse.plot.canvas import figure, write_png

if TYPE_CHECKING:
    from trulysparse.model import SparseMLP

_MEASURES = ("connections", "strength")


def input_heat_map(
    net: SparseMLP,
    path: str | os.PathLike[str],
    *,
    image_shape: tuple[int, ...] | None = None,
    measure: str = "connections",
    title: str | None = None,
) -> Path:
    """Draw how much the first layer takes from each input, and write it as a PNG file.

    A rule that grows by gradient moves connections to inputs that matter: for images of digits away from the border, as
    a figure of the RigL article shows.

    Parameters
    ----------
    net : SparseMLP
    path : str or PathLike
        File to write; it appears only when complete.
    image_shape : tuple of int, optional
        (height, width) of images, or (channels, height, width), whose channels are added up. Default: a square if the
        inputs can be one, else one row.
    measure : {"connections", "strength"}
        Outgoing connections of each input, or the sum of their absolute weights.
    title : str, optional
        Text above the picture.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ConfigError
        If `measure` is unknown, or a side of `image_shape` is not a whole number of at least 1.
    ShapeError
        If `image_shape` does not have as many pixels as the network has inputs.
    """
    if measure not in _MEASURES:
        raise ConfigError(f"measure of input_heat_map must be one of {', '.join(_MEASURES)}, got {measure!r}")
    layer = net.layers[0]
    if measure == "connections":
        amount = layer.pattern.out_degree().astype(np.float64)
    else:
        amount = np.bincount(layer.pattern.sources(), np.abs(layer.values), minlength=layer.n_in).astype(np.float64)
    if image_shape is None:
        side = math.isqrt(layer.n_in)
        image_shape = (side, side) if side * side == layer.n_in else (1, layer.n_in)
    given = image_shape if isinstance(image_shape, Sequence) and not isinstance(image_shape, str) else (image_shape,)
    image_shape = tuple(check_integer(side, "each side of image_shape", low=1) for side in given)
    if math.prod(image_shape) != layer.n_in or len(image_shape) not in (2, 3):
        raise ShapeError(
            f"image_shape {image_shape} has {math.prod(image_shape)} pixels, but the network has {layer.n_in} inputs; "
            "give (height, width) or (channels, height, width)"
        )
    image = amount.reshape(image_shape)
    if image.ndim == 3:
        image = image.sum(axis=0)
    drawn = figure("a heat map", (4.6, 3.8))
    axis = drawn.subplots()
    shown = axis.imshow(image, cmap="magma", aspect="equal" if image.shape[0] > 1 else "auto", interpolation="nearest")
    drawn.colorbar(shown, ax=axis, label="connections" if measure == "connections" else "sum of |weights|")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title or f"{measure} of each input, density {layer.density:.3g}", fontsize=10)
    return write_png(drawn, path)
