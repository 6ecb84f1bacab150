# SPDX-License-Identifier: BSD-3-Clause
"""What each part of a tuned recipe brings: the recipe, and the recipe with one thing otherwise, on held-out samples.

    python bench/accuracy/recipes.py --data DIR [--dataset fashion_mnist] [--epochs N] [--seeds 2]

The recipes of `trulysparse.recipes` were chosen so (Madelon's with five such parts in turn): a part of the training
samples is held out and judged after every epoch; the test part is never read. Appends to
bench/results/recipe_choices.jsonl and writes recipe_choices.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import grid

import trulysparse as ts
from trulysparse.recipes import Recipe, paper

RESULTS = grid.RESULTS / "recipe_choices.jsonl"
Tables = dict[str, dict[str, Any]]

HELD_OUT = {"fashion_mnist": 1 / 6, "cifar10": 0.1, "madelon": 0.2, "higgs": 0.2}
EPOCHS = {"fashion_mnist": 60, "cifar10": 30, "madelon": 2000, "higgs": 200}


def _with(table: str, **entries: Any) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables[table] = tables.get(table, {}) | entries

    return change


def _without(table: str) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables.pop(table, None)
        if table == "augment":
            tables["trainer"].pop("standardize", None)

    return change


def _rate(factor: float) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        lr = tables["optimizer"]["lr"]
        tables["optimizer"]["lr"] = lr | {"lr": lr["lr"] * factor} if isinstance(lr, dict) else lr * factor

    return change


def _topology(**entries: Any) -> Callable[[Tables], None]:
    def change(tables: Tables) -> None:
        tables["topology"] = entries

    return change


def _random_connections(tables: Tables) -> None:
    epsilon = tables["model"].pop("density")["epsilon"]
    tables["model"]["epsilon"] = epsilon


def _papers(tables: Tables) -> None:
    """Put the paper's settings in place, all of them."""
    papers = paper.preset(tables["data"]["name"])
    tables.clear()
    tables.update(papers)


VARIANTS: dict[str, Callable[[Tables], None]] = {
    "the recipe": lambda tables: None,
    "half the learning rate": _rate(0.5),
    "twice the learning rate": _rate(2.0),
    "dropout 0.3": _with("model", dropout=0.3),
    "no dropout": _with("model", dropout=0.0),
    "ReLU": _with("model", activation={"name": "relu"}),
    "slopes that choose themselves": _with("model", activation={"name": "all_relu", "alpha": "auto"}),
    "SET, 30 % an epoch to the end": _topology(name="set", drop_fraction=0.3, schedule="constant", end=1.0),
    "SET, to 80 % of the run": _topology(name="set", drop_fraction=0.3, schedule="cosine", end=0.8),
    "connections that stay": _topology(name="static"),
    "connections to anywhere": _random_connections,
    "images as they are": _without("augment"),
    "weight decay 1e-4": _with("optimizer", weight_decay=1e-4, decay="l2"),
    "the paper's settings": _papers,
}


def tables_of(dataset: str, variant: str) -> Tables | None:
    """Return the settings of a variant; None where it is the recipe itself or does not apply."""
    tables = copy.deepcopy(ts.recipes.get(dataset).tables)
    plain = copy.deepcopy(tables)
    if variant == "connections to anywhere" and tables["model"]["density"]["name"] != "receptive_fields":
        return None
    tables["data"] = {"name": dataset}
    VARIANTS[variant](tables)
    tables.pop("data")
    return None if tables == plain and variant != "the recipe" else tables


def cases(options: Any) -> list[grid.Case]:
    return [
        {
            "experiment": "recipes",
            "dataset": dataset,
            "variant": variant,
            "held_out": HELD_OUT[dataset],
            "epochs": options.epochs or EPOCHS[dataset],
            "seed": seed,
            "settings": tables,
        }
        for dataset in ts.recipes.names("tuned")
        if options.dataset in ("all", dataset)
        for variant in VARIANTS
        if (tables := tables_of(dataset, variant)) is not None
        for seed in range(options.seeds)
    ]


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load(case["dataset"], place)
    recipe = Recipe.of(case["dataset"], case["settings"])
    net = recipe.network(data.n_features, data.n_classes or 1, seed=case["seed"])
    start = net.connections
    trainer = recipe.trainer(net, seed=case["seed"], threads=1, progress=False)
    try:
        history = trainer.fit(data.X_train, data.y_train, epochs=case["epochs"], validation=case["held_out"])
    except ts.DivergenceError as error:
        return {"summary": f"diverged: {error}", "diverged": True, "connections": start}
    return {
        "summary": f"held-out accuracy {100 * history.val_accuracy[-1]:.2f} %",
        "diverged": False,
        "accuracy": history.val_accuracy[-1],
        "train_accuracy": history.rows[-1]["accuracy"],
        "connections": start,
        "connections_end": net.connections,
        "curve": history.val_accuracy,
    }


def report(options: Any, wanted: list[grid.Case]) -> str:
    lines = ["# What each part of a tuned recipe brings", ""]
    found = grid.results_of(RESULTS, wanted)
    for dataset in dict.fromkeys(case["dataset"] for case in wanted):
        mine = [r for r in found if r["case"]["dataset"] == dataset]
        if not mine:
            continue
        case = mine[0]["case"]
        rows = []
        for variant in dict.fromkeys(r["case"]["variant"] for r in mine):
            runs = [r for r in mine if r["case"]["variant"] == variant]
            kept = [r for r in runs if not r["diverged"]]
            rows.append(
                [
                    variant,
                    grid.percent([r["accuracy"] for r in kept]) if kept else "diverged",
                    grid.percent([r["train_accuracy"] for r in kept]) if kept else "",
                    f"{grid.spread([r['connections'] for r in runs])[0]:,.0f}",
                    str(len(runs)) if len(kept) == len(runs) else f"{len(kept)} of {len(runs)}",
                ]
            )
        lines += [
            f"## {dataset}",
            "",
            f"{case['epochs']} epochs, {100 * case['held_out']:.0f} % of the training samples held out, accuracy after "
            "the last epoch; the test part was not read.",
            "",
            grid.table(["", "held-out accuracy %", "training accuracy %", "connections", "seeds"], rows),
            "",
        ]
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    grid.main(
        __doc__ or "",
        RESULTS,
        cases,
        run,
        report,
        seeds=2,
        variants={"dataset": ("all", *ts.recipes.names("tuned"))},
    )
