# SPDX-License-Identifier: BSD-3-Clause
"""Recipes: that they make runs, that tuned ones have no more connections, and that the command line takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.cli import main
from trulysparse.errors import ConfigError
from trulysparse.model.density import get_density

SIZES = {"fashion_mnist": (784, 10), "cifar10": (3072, 10), "madelon": (500, 2), "higgs": (28, 2), "digits": (64, 10)}


def _expected(name: str, kind: str) -> float:
    recipe = ts.recipes.get(name, kind)
    model = recipe.tables["model"]
    n_features, n_outputs = SIZES[name]
    sizes = (n_features, *model["hidden"], n_outputs)
    spec = model["density"] if "density" in model else ts.ErdosRenyi(model["epsilon"])
    return sum(get_density(spec).expected_connections(sizes))


@pytest.mark.parametrize("name", ts.recipes.names("tuned"))
def test_a_tuned_recipe_has_no_more_connections_than_the_papers(name: str) -> None:
    assert _expected(name, "tuned") <= _expected(name, "paper")


@pytest.mark.parametrize("kind", ts.recipes.KINDS)
def test_every_recipe_makes_a_run(kind: str) -> None:
    rng = np.random.default_rng(0)
    for name in ts.recipes.names(kind):
        if name not in SIZES:
            continue
        recipe = ts.recipes.get(name, kind)
        assert recipe.kind == kind and recipe.dataset == name and recipe.note and recipe.epochs >= 1
        n_features, n_outputs = SIZES[name]
        hidden = [30] * len(recipe.tables["model"]["hidden"])
        net = recipe.network(n_features, n_outputs, hidden=hidden, density=0.2, seed=3)
        assert net.sizes == (n_features, *hidden, n_outputs)
        trainer = recipe.trainer(net, seed=7, batch_size=16, progress=False, threads=1)
        assert trainer.seed == 7 and trainer.optimizer == recipe.trainer(net, progress=False).optimizer
        assert (trainer.augment is not None) == ("augment" in recipe.tables)
        X = rng.integers(0, 256, (64, n_features), dtype=np.uint8)
        history = trainer.fit(X, rng.integers(0, n_outputs, 64), epochs=2)
        assert np.isfinite(history.loss).all()


def test_tables_are_a_copy() -> None:
    recipe = ts.recipes.get("fashion_mnist")
    recipe.tables["model"]["hidden"].append(3)
    recipe.tables["optimizer"]["lr"] = 7
    assert recipe.tables == ts.recipes.get("fashion_mnist").tables
    assert recipe.tables["model"]["hidden"] == [1000, 1000, 1000]


def test_epsilon_and_density_replace_each_other() -> None:
    paper = ts.recipes.get("madelon", "paper")
    assert paper.network(500, 2, density=0.5).connections > 3 * paper.network(500, 2, epsilon=2).connections
    tuned = ts.recipes.get("fashion_mnist")
    assert tuned.network(784, 10, density=0.01).connections == pytest.approx(0.01 * 2_794_000, rel=0.02)


def test_unknown_recipes_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no tuned recipe for 'fashon_mnist'; did you mean 'fashion_mnist'"):
        ts.recipes.get("fashon_mnist")
    with pytest.raises(ConfigError, match="recipes are 'paper' or 'tuned', got 'tune'; did you mean 'tuned'"):
        ts.recipes.get("fashion_mnist", "tune")
    assert set(ts.recipes.names()) == set(ts.recipes.names("paper")) | set(ts.recipes.names("tuned"))


def _images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 300), ("test", 100)):
        arrays[f"X_{part}"] = rng.integers(0, 256, (count, 784), dtype=np.uint8)
        arrays[f"y_{part}"] = rng.integers(0, 10, count)
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    return tmp_path


def test_the_command_line_starts_from_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(_images(tmp_path))
    command = ["train", "fashion_mnist", "--data", data, "--epochs", "1", "--quiet", "--set", "model.hidden=[20,20]"]
    assert main([*command, "--set", "model.epsilon=5", "--recipe", "tuned", "--out", str(tmp_path / "run")]) == 0
    made = ts.Trainer.resume(tmp_path / "run", progress=False)
    recipe = ts.recipes.get("fashion_mnist")
    assert made.augment == ts.ImageAugmentation(**{k: v for k, v in recipe.tables["augment"].items() if k != "name"})
    assert made.optimizer.to_config()["lr"]["lr"] == recipe.tables["optimizer"]["lr"]["lr"]
    capsys.readouterr()
    assert main(["train", "nowhere", "--data", data, "--recipe", "tuned"]) == 2
    assert "there is no tuned recipe for 'nowhere'" in capsys.readouterr().err
    (tmp_path / "mine.toml").write_text("[data]\nname = 'digits'\n")
    assert main(["train", str(tmp_path / "mine.toml"), "--recipe", "paper"]) == 2
    assert "is a run file with its own" in capsys.readouterr().err


@pytest.mark.slow
def test_the_recipe_for_fashion_mnist_beats_the_papers_in_few_epochs(shared_data: Callable[[str], Path]) -> None:
    data = ts.load_dataset("fashion_mnist", data=str(shared_data("fashion_mnist.npz")))
    found = {}
    for kind in ts.recipes.KINDS:
        recipe = ts.recipes.get("fashion_mnist", kind)
        trainer = recipe.trainer(recipe.network(784, 10), progress=False)
        history = trainer.fit(data.X_train, data.y_train, epochs=15, validation=1 / 6)
        found[kind] = history.val_accuracy[-1]
    assert found["tuned"] > found["paper"] + 0.01


def test_a_recipe_of_own_tables_makes_network_and_trainer_and_can_be_a_key() -> None:
    tables = ts.recipes.get("digits", "paper").tables | {"pruning": {"percentile": 5.0, "start": 1, "period": 1}}
    recipe = ts.recipes.Recipe.of("digits", tables)
    tables["model"]["hidden"].append(3)  # it has a copy
    net = recipe.network(64, 10, seed=2)
    trainer = recipe.trainer(net, seed=2, progress=False)
    assert net.sizes == (64, 256, 256, 10) and recipe.kind == "own"
    assert trainer.optimizer.weight_decay == 1e-4 and trainer.pruning is not None
    assert {recipe: 1}[recipe] == 1 and recipe != ts.recipes.Recipe.of("digits", tables)
