# SPDX-License-Identifier: BSD-3-Clause
"""Augmented images: what SciPy makes of the same draws, and what they may depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
from tests.reference import philox

import trulysparse as ts
from trulysparse.data import get_augmentation
from trulysparse.errors import ConfigError, DataError, ShapeError

DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "int64", "float32", "float64"]
COLOUR, LAST, GREY = (3, 32, 32), (12, 9, 3), (1, 28, 28)
SEED, STEP = 5, 17


def _images(shape: tuple[int, ...], n: int = 12, dtype: str = "uint8") -> np.ndarray:
    top = min(255, np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else 255
    values = np.random.default_rng(1).integers(0, top + 1, (n, int(np.prod(shape))))
    return values.astype(dtype)


def _drawn(row: int) -> tuple[float, float, float, bool]:
    """Return what is drawn for a row: three numbers in [-1, 1), and whether it is mirrored."""
    words = philox.draw(SEED, "augment", 0, STEP, row)
    angle, down, right = ((int(word) >> 8) / 2**23 - 1.0 for word in words[:3])
    return angle, down, right, bool(words[3] >> 31)


def _by_scipy(augmentation: ts.ImageAugmentation, X: np.ndarray) -> np.ndarray:
    out = np.empty(X.shape)
    mode = "nearest" if augmentation.fill == "nearest" else "grid-constant"
    for row, sample in enumerate(X):
        planes = sample.reshape(augmentation.shape).astype(np.float64)
        if augmentation.channels_last:
            planes = np.moveaxis(planes, -1, 0)
        height, width = planes.shape[1:]
        angle, down, right, mirrored = _drawn(row)
        radians = np.deg2rad(augmentation.rotation * angle)
        matrix = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
        centre = np.array([height - 1, width - 1]) / 2
        moved = centre + augmentation.shift * np.array([height * down, width * right])
        changed = [
            scipy.ndimage.affine_transform(plane, matrix, moved - matrix @ centre, order=1, mode=mode)
            for plane in planes
        ]
        result = np.stack([plane[:, ::-1] if augmentation.flip and mirrored else plane for plane in changed])
        out[row] = (np.moveaxis(result, 0, -1) if augmentation.channels_last else result).reshape(-1)
    return out


@pytest.mark.parametrize("fill", ["nearest", "constant"])
@pytest.mark.parametrize("shape", [COLOUR, LAST, GREY], ids=str)
@pytest.mark.parametrize("bounds", [(10.0, 0.1), (180.0, 0.6), (0.0, 0.3), (45.0, 0.0)], ids=str)
def test_augmented_images_are_what_scipy_makes_of_the_same_draws(
    shape: tuple[int, int, int], bounds: tuple[float, float], fill: str
) -> None:
    augmentation = ts.ImageAugmentation(shape, *bounds, fill=fill)
    X = _images(shape, 40)
    got = augmentation.apply(X, seed=SEED, step=STEP)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, _by_scipy(augmentation, X), atol=4e-3, rtol=0)  # of 255
    assert np.abs(got - X).max() > 20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [COLOUR, LAST, GREY], ids=str)
def test_without_changes_values_stay_exactly_and_flips_are_exact(shape: tuple[int, int, int], dtype: str) -> None:
    X = _images(shape, dtype=dtype)
    same = ts.ImageAugmentation(shape, rotation=0, shift=0, flip=False).apply(X, seed=SEED, step=STEP)
    np.testing.assert_array_equal(same, X.astype(np.float32))
    flipped = ts.ImageAugmentation(shape, rotation=0, shift=0).apply(X, seed=SEED, step=STEP)
    mirrored = [_drawn(row)[3] for row in range(len(X))]
    assert 0 < sum(mirrored) < len(X)
    axis = 1 if shape == LAST else 2
    for row, turned in enumerate(mirrored):
        image = X[row].reshape(shape).astype(np.float32)
        np.testing.assert_array_equal(flipped[row].reshape(shape), np.flip(image, axis) if turned else image)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_strides_do_not_change_the_result(dtype: str) -> None:
    augmentation = ts.ImageAugmentation(COLOUR)
    X = _images(COLOUR) // 2
    expected = augmentation.apply(X, seed=SEED, step=STEP)
    wide = np.zeros((len(X) * 2, X.shape[1]), dtype)
    wide[::2] = X
    for given in (X.astype(dtype), np.asfortranarray(X.astype(dtype)), wide[::2]):
        np.testing.assert_array_equal(augmentation.apply(given, seed=SEED, step=STEP), expected)


def test_bits_depend_on_seed_step_and_row_alone() -> None:
    augmentation = ts.ImageAugmentation(COLOUR)
    X = _images(COLOUR, 30)
    whole = augmentation.apply(X, seed=SEED, step=STEP, threads=1)
    rows = np.array([17, 3, 3, 29])
    for threads in (1, 2, 7):
        np.testing.assert_array_equal(augmentation.apply(X, seed=SEED, step=STEP, threads=threads), whole)
        some = augmentation.apply(X, rows, seed=SEED, step=STEP, threads=threads)
        np.testing.assert_array_equal(some, whole[rows])
    for other in ({"seed": SEED + 1, "step": STEP}, {"seed": SEED, "step": STEP + 1}):
        assert not np.any(np.all(augmentation.apply(X, **other) == whole, axis=1))
    same = ts.ImageAugmentation(COLOUR).apply(np.repeat(X[:1], 30, axis=0), seed=SEED, step=STEP)
    assert len(np.unique(same, axis=0)) == 30


def test_angles_shifts_and_flips_are_drawn_evenly() -> None:
    """A ramp moves by what it is shifted; a flip changes the sign of its slope."""
    n, size = 4000, 41
    ramp = np.repeat(np.broadcast_to(np.arange(size, dtype=np.float32), (size, size)).reshape(1, -1), n, axis=0)
    moved = ts.ImageAugmentation((1, size, size), rotation=0, shift=0.2).apply(ramp).reshape(n, size, size)
    middle = size // 2
    shift = (moved[:, middle, middle] - middle) / size
    assert np.abs(shift).max() <= 0.2 + 1e-5 and np.abs(shift).max() > 0.199
    counts, _ = np.histogram(shift, 10, (-0.2, 0.2))
    assert np.abs(counts - n / 10).max() < 5 * np.sqrt(n / 10)
    slopes = np.sign(moved[:, middle, middle + 1] - moved[:, middle, middle])
    assert abs(int(np.sum(slopes < 0)) - n / 2) < 5 * np.sqrt(n / 4)
    turned = ts.ImageAugmentation((1, size, size), rotation=30, shift=0, flip=False).apply(ramp).reshape(n, size, size)
    angle = np.rad2deg(np.arcsin(np.clip(turned[:, middle - 1, middle] - turned[:, middle, middle], -1, 1)))
    assert np.abs(angle).max() <= 30.01 and np.abs(angle).max() > 29.8
    counts, _ = np.histogram(angle, 10, (-30.01, 30.01))
    assert np.abs(counts - n / 10).max() < 5 * np.sqrt(n / 10)


@pytest.mark.parametrize(
    ("shape", "channels", "last"),
    [
        ((3, 32, 32), None, False),
        ((32, 32, 3), None, True),
        ((4, 8, 8), None, False),
        ((8, 8, 1), None, True),
        ((3, 8, 4), "first", False),
        ((3, 8, 4), "last", True),
        ((7, 8, 9), "last", True),
    ],
)
def test_channels_are_at_the_end_that_could_be_channels(shape: Any, channels: str | None, last: bool) -> None:
    assert ts.ImageAugmentation(shape, channels=channels).channels_last is last


@pytest.mark.parametrize("shape", [(3, 32, 4), (1, 5, 1), (7, 8, 9), (32, 3, 32)])
def test_a_shape_that_does_not_tell_its_channels_asks_for_them(shape: Any) -> None:
    with pytest.raises(ConfigError, match="add channels='first' or channels='last'"):
        ts.ImageAugmentation(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (32, 32)}, r"shape must be \(channels, height, width\).*got \(32, 32\)"),
        ({"shape": "3x32x32"}, "shape must be"),
        ({"shape": (3, 0, 32)}, "each number of shape must be a whole number of at least 1, got 0"),
        ({"rotation": 181}, r"rotation \(degrees\) must be a number in \[0, 180\], got 181"),
        ({"shift": 10}, r"shift \(part of height and width\) must be a number in \[0, 1\], got 10"),
        ({"flip": "yes"}, "flip='yes' is neither True nor False"),
        ({"fill": "nearst"}, "fill must be one of nearest, constant.*did you mean 'nearest'"),
        ({"channels": "frist"}, "channels must be 'first' or 'last'.*did you mean 'first'"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ts.ImageAugmentation(**({"shape": COLOUR} | arguments))


def test_it_is_made_again_from_its_configuration() -> None:
    augmentation = ts.ImageAugmentation(np.array([3, 8, 4]), 5, shift=0, flip=False, channels="last")
    config = augmentation.to_config()
    assert config == {
        "name": "image", "shape": [3, 8, 4], "rotation": 5.0, "shift": 0.0, "flip": False, "fill": "nearest",
        "channels": "last",
    }  # fmt: skip
    assert get_augmentation(config) == augmentation and get_augmentation(None) is None
    assert "channels" not in ts.ImageAugmentation(COLOUR).to_config()
    with pytest.raises(ConfigError, match="unknown augmentation 'images', allowed are image; did you mean 'image'"):
        get_augmentation({"name": "images"})


def test_samples_that_are_no_images_of_the_shape_are_refused() -> None:
    augmentation = ts.ImageAugmentation(COLOUR)
    with pytest.raises(ShapeError, match=r"images of shape \(3, 32, 32\) have 3072 values, but samples have 784"):
        augmentation.apply(_images(GREY))
    with pytest.raises(ShapeError, match="X"):
        augmentation.apply(_images(GREY)[0])
    with pytest.raises(DataError, match=r"sparse matrix; pass X.toarray\(\)"):
        augmentation.apply(scipy.sparse.csr_array(_images(GREY)))
    with pytest.raises(ValueError, match="rows must be sample numbers between 0 and 11, got 12"):
        augmentation.apply(_images(COLOUR), np.array([12]))
    with pytest.raises(ShapeError, match="out"):
        augmentation.apply(_images(COLOUR), out=np.empty((3, 3072), np.float32))
