# SPDX-License-Identifier: BSD-3-Clause
from dataclasses import dataclass

import numpy as np
import pytest

from trulysparse.errors import ConfigError
from trulysparse.model.registry import Configurable, Registry, check_integer, check_number


class Shape(Configurable):
    pass


@pytest.fixture
def shapes():
    registry = Registry("shape", Shape)

    @registry.register("circle")
    @dataclass
    class Circle(Shape):
        radius: float
        colour: str | None = None
        inner: Shape | None = None

    return registry


def test_nested_configuration_and_absent_values(shapes):
    circle = shapes.get({"name": "circle", "radius": 2})
    assert circle.to_config() == {"name": "circle", "radius": 2}
    ring = shapes.find("circle")(3, inner=circle)
    assert ring.to_config() == {"name": "circle", "radius": 3, "inner": {"name": "circle", "radius": 2}}
    assert shapes.get(circle) is circle


def test_missing_and_unknown_settings(shapes):
    with pytest.raises(ConfigError, match="'circle' needs radius"):
        shapes.get("circle")
    with pytest.raises(ConfigError, match="no setting 'color', it takes radius, colour, inner; did you mean 'colour'"):
        shapes.get({"name": "circle", "radius": 1, "color": "red"})
    with pytest.raises(ConfigError, match="unknown shape None"):
        shapes.get({"name": None})


def test_names_are_unique(shapes):
    with pytest.raises(ConfigError, match="taken by Circle"):
        shapes.register("circle")(Shape)


def test_check_number():
    assert check_number(np.float32(0.5), "x", low=0) == 0.5
    for value in ("1", True, None, [1], np.nan, np.inf, 1j, np.zeros(2)):
        with pytest.raises(ConfigError, match="x must be a finite number, got"):
            check_number(value, "x")
    with pytest.raises(ConfigError, match=r"x must be a number in \[0, 1\), got 1"):
        check_number(1, "x", low=0, high=1, high_open=True)
    with pytest.raises(ConfigError, match=r"x must be a number in \(0, inf\), got 0"):
        check_number(0, "x", low=0, low_open=True)


def test_check_integer():
    assert check_integer(np.int8(3), "n", low=1) == 3
    for value in (0, 1.0, True, "3", None):
        with pytest.raises(ConfigError, match="n must be a whole number of at least 1, got"):
            check_integer(value, "n", low=1)
