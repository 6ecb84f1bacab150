# SPDX-License-Identifier: BSD-3-Clause
"""The experiment on the parts of recipes: every variant is a run, and differs from the recipe in one thing."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import trulysparse as ts
from trulysparse.recipes import Recipe
from trulysparse.recipes.tables import RunTables

FOLDER = Path(__file__).parents[2] / "bench" / "accuracy"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("recipes")
    for name in ("recipes", "grid"):
        sys.modules.pop(name, None)


def test_every_variant_is_a_run_of_its_own(driver: ModuleType) -> None:
    cases = driver.cases(Namespace(dataset="all", epochs=None, seeds=1))
    assert {case["dataset"] for case in cases} == set(ts.recipes.names("tuned"))
    for dataset in ts.recipes.names("tuned"):
        mine = [case for case in cases if case["dataset"] == dataset]
        assert mine[0]["variant"] == "the recipe" and mine[0]["settings"] == ts.recipes.get(dataset).tables
        assert len({str(case["settings"]) for case in mine}) == len(mine) >= 10
        assert 0 < mine[0]["held_out"] < 1
        for case in mine:
            RunTables(case["settings"]).check()
            recipe = Recipe.of(dataset, case["settings"])
            shape = {"fashion_mnist": (784, 10), "cifar10": (3072, 10), "madelon": (500, 2), "higgs": (28, 2)}[dataset]
            recipe.trainer(recipe.network(*shape), progress=False)
