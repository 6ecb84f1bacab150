# SPDX-License-Identifier: BSD-3-Clause
"""Random changes of training samples, anew at every step: functions of the seed, the step and the sample alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trulysparse import _kernels
from trulysparse.errors import ConfigError, DataError, ShapeError
from trulysparse.model.images import check_image_shape, find_channels
from trulysparse.model.registry import Configurable, Registry, check_number, nearest

__all__ = ["AUGMENTATIONS", "Augmentation", "ImageAugmentation", "get_augmentation"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

_FILLS = ("nearest", "constant")


class Augmentation(Configurable):
    """Base of what changes training samples at random, before they are standardised."""

    def check(self, n_features: int) -> None:
        """Raise ShapeError unless samples of `n_features` features can be changed."""
        raise NotImplementedError(f"{type(self).__name__} must define check")

    def apply(
        self,
        X: NDArray[Any],
        rows: Rows | None = None,
        *,
        seed: int = 0,
        step: int = 0,
        out: Floats | None = None,
        threads: int | None = None,
    ) -> Floats:
        """Return some samples, changed.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Raw samples, of any dtype that a network trains on.
        rows : ndarray of int64, shape (batch,), optional
            Which of them; default all.
        seed, step : int
            What the changes are drawn from, with the numbers of the rows: of a run, its seed and the training step.
        out : ndarray of float32, shape (batch, n_features), optional
            Written to and returned.
        threads : int, optional
            Threads to use; the result does not depend on it.

        Returns
        -------
        ndarray of float32, shape (batch, n_features)
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply")


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", Augmentation)


def get_augmentation(spec: Augmentation | str | Mapping[str, Any] | None) -> Augmentation | None:
    """Return an augmentation from itself or a mapping of ``name`` and arguments; None stays None.

    Raises
    ------
    ConfigError
        If the name or an argument is unknown; the nearest known one is suggested.
    """
    return None if spec is None else AUGMENTATIONS.get(spec)


@AUGMENTATIONS.register("image")
@dataclass(frozen=True)
class ImageAugmentation(Augmentation):
    """Images turned, shifted and mirrored at random: what the paper trains CIFAR-10 with.

    Each image gets an angle, two shifts and a coin of its own at every step. It is turned about its centre, moved by
    parts of pixels and read off between its pixels (bilinear), then mirrored or not: one interpolation in all.

    Parameters
    ----------
    shape : sequence of int
        (channels, height, width) or (height, width, channels), as the features of a sample lie in memory. The channels
        are at the end whose size is 1, 3 or 4.
    rotation : float
        Degrees, from 0 to 180: angles are uniform in [-rotation, rotation).
    shift : float
        Part of height and width, from 0 to 1: shifts down and to the right are uniform in [-shift, shift) of them.
    flip : bool
        Mirror every other image, left to right, by chance.
    fill : str
        What is seen beyond the edges: ``"nearest"``, the nearest pixel of the edge; or ``"constant"``, the raw value 0,
        black, into which the outermost pixels fade within one pixel.
    channels : str, optional
        Where the channels are, ``"first"`` or ``"last"``, where `shape` does not tell; any number of them then.

    Raises
    ------
    ConfigError
        An argument out of range, or a shape that does not tell where its channels are.

    Notes
    -----
    Source: Curci, Mocanu and Pechenizkiy, "Truly Sparse Neural Networks at Scale" (arXiv:2102.01732), data
    augmentation of CIFAR-10.
    """

    shape: tuple[int, int, int]
    rotation: float = 10.0
    shift: float = 0.1
    flip: bool = True
    fill: str = "nearest"
    channels: str | None = None

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "shape", check_image_shape(self.shape))
        set_field(self, "rotation", check_number(self.rotation, "rotation (degrees)", low=0, high=180))
        set_field(self, "shift", check_number(self.shift, "shift (part of height and width)", low=0, high=1))
        if not isinstance(self.flip, bool | np.bool_):
            raise ConfigError(f"flip={self.flip!r} is neither True nor False")
        set_field(self, "flip", bool(self.flip))
        if self.fill not in _FILLS:
            raise ConfigError(f"fill must be one of {', '.join(_FILLS)}, got {self.fill!r}{nearest(self.fill, _FILLS)}")
        find_channels(self.shape, self.channels)

    @property
    def channels_last(self) -> bool:
        """Whether the channels of a pixel lie side by side."""
        return find_channels(self.shape, self.channels) == "last"

    def check(self, n_features: int) -> None:
        wanted = math.prod(self.shape)
        if wanted != n_features:
            raise ShapeError(
                f"images of shape {self.shape} have {wanted} values, but samples have {n_features} features; give "
                "ImageAugmentation the shape that the features of one sample have as an image"
            )

    def apply(
        self,
        X: NDArray[Any],
        rows: Rows | None = None,
        *,
        seed: int = 0,
        step: int = 0,
        out: Floats | None = None,
        threads: int | None = None,
    ) -> Floats:
        if hasattr(X, "tocsr"):
            raise DataError("images cannot be augmented as a sparse matrix; pass X.toarray()")
        if X.ndim == 2:  # of another number of dimensions the kernel speaks
            self.check(X.shape[1])
        rows = np.arange(len(X), dtype=np.int64) if rows is None else rows
        if out is None:
            out = np.empty((len(rows), math.prod(self.shape)), np.float32)
        last = self.channels_last
        channels, height, width = (self.shape[2], *self.shape[:2]) if last else self.shape
        _kernels.augment_images(
            X,
            rows,
            out,
            channels,
            height,
            width,
            channels_last=last,
            rotation=self.rotation,
            shift=self.shift,
            flip=self.flip,
            nearest=self.fill == "nearest",
            seed=seed,
            step=step,
            threads=threads,
        )
        return out
