# SPDX-License-Identifier: BSD-3-Clause
"""The restart experiment of the RigL paper: out of a bad static solution, new connections lead to a lower loss.

    python bench/accuracy/restart.py --data DIR [--seeds 5] [--epochs 20] [--full]

A static network of density 0.02 (Fashion-MNIST, ERK) is trained until its learning rate has fallen to zero. From that
one solution training starts again with the full learning rate, once with the same connections and once with RigL's
updates; besides, RigL from the beginning, with as many epochs in all. What counts is the loss on the training data.
Appends to bench/results/restart.jsonl and writes bench/results/restart.md.
"""

from __future__ import annotations

from typing import Any

import grid

import trulysparse as ts

RESULTS = grid.RESULTS / "restart.jsonl"
VARIANTS = ("static, then static", "static, then RigL", "RigL from the beginning")
DENSITY = 0.02
INIT = ts.HeUniform(fan_in="sparse")


def cases(options: Any) -> list[grid.Case]:
    hidden, epochs = ([1000] * 3, 100) if options.full else ([256] * 3, 20)
    return [
        {
            "experiment": "restart",
            "dataset": "fashion_mnist",
            "variant": variant,
            "hidden": hidden,
            "density": DENSITY,
            "epochs": options.epochs or epochs,
            "seed": seed,
            "settings": {
                "optimizer": _optimizer().to_config(),
                "init": INIT.to_config(),
                "topology": _rigl().to_config(),
            },
        }
        for seed in range(options.seeds)
        for variant in VARIANTS
    ]


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load(case["dataset"], place)
    sizes = (data.n_features, *case["hidden"], data.n_classes)
    net = ts.SparseMLP(sizes, density=case["density"], init=INIT, seed=case["seed"], threads=1)
    rigl = _rigl()
    second: ts.Topology = ts.Static() if case["variant"] == VARIANTS[0] else rigl
    first = rigl if case["variant"] == VARIANTS[2] else ts.Static()
    _, before = grid.train(case, net, data, topology=first, optimizer=_optimizer(), epochs=case["epochs"])
    _, after = grid.train(case, net, data, topology=second, optimizer=_optimizer(), epochs=case["epochs"])
    before["loss_curve"] += after.pop("loss_curve")
    return (
        before | {"restart_train_loss": before["train_loss"], "restart_test_accuracy": before["test_accuracy"]} | after
    )


def _rigl() -> ts.RigL:
    return ts.RigL(0.3, schedule="cosine", update_every=100, end=0.75)


def _optimizer() -> ts.SGD:
    return ts.SGD(lr=ts.Cosine(0.05), momentum=0.9)


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    rows = []
    for variant in VARIANTS:
        some = [r for r in found if r["case"]["variant"] == variant]
        if not some:
            continue
        keys = ("restart_train_loss", "train_loss")
        losses = [grid.spread([r[key] for r in some]) for key in keys]
        accuracy = [grid.percent([r[key] for r in some]) for key in ("restart_test_accuracy", "test_accuracy")]
        rows.append([variant, *(f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in losses), *accuracy])
    epochs = wanted[0]["epochs"]
    return "\n".join(
        [
            f"# Out of a bad static solution (Fashion-MNIST, hidden layers {wanted[0]['hidden']}, density {DENSITY})",
            "",
            f"{epochs} epochs, then {epochs} more from what they gave, the learning rate starting again; mean ± "
            f"standard deviation over {options.seeds} seeds. `python bench/accuracy/restart.py --data DIR`.",
            "",
            grid.table(
                ["run", "train loss at the restart", "train loss at the end", "test accuracy, restart", "end"], rows
            ),
        ]
    )


def main() -> None:
    grid.main(__doc__, RESULTS, cases, run, report, seeds=5)


if __name__ == "__main__":
    main()
