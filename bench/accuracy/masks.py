# SPDX-License-Identifier: BSD-3-Clause
"""What dynamic training finds: which inputs, how many cells it tried, and whether two seeds find the same connections.

    python bench/accuracy/masks.py --data DIR [--seeds 3] [--epochs 20] [--full]

Static, SET, RigL and Top-KAST at density 0.02 on MNIST (784-256-128-10; `--full`: 784-1000-500-10, 100 epochs). Every
pair of seeds is compared up to the order of hidden neurons, beside random masks matched in the same way. Appends to
bench/results/masks.jsonl, and writes bench/results/masks.md and masks.png: connections of each pixel.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import grid
import numpy as np

import trulysparse as ts

RESULTS = grid.RESULTS / "masks.jsonl"
METHODS = ("static", "set", "rigl", "top_kast")
DENSITY = 0.02
INNER = slice(4, 24)  # rows and columns of the middle of the picture, where the digits are


def cases(options: Any) -> list[grid.Case]:
    hidden, epochs = ([1000, 500], 100) if options.full else ([256, 128], 20)
    return [
        {
            "experiment": "masks",
            "dataset": "mnist",
            "method": method,
            "hidden": hidden,
            "density": DENSITY,
            "epochs": options.epochs or epochs,
            "seeds": options.seeds,
            "seed": 0,
            "settings": {
                "optimizer": optimizer().to_config(),
                "init": first_weights(method).to_config(),
                "topology": rule(method).to_config(),
            },
        }
        for method in METHODS
    ]


def rule(method: str) -> ts.Topology:
    updates: dict[str, Any] = {"update_every": 100, "unit": "steps", "end": 0.75, "schedule": "cosine"}
    if method == "set":
        return ts.SET(0.3, drop="magnitude", new_weights="zeros", layers="all", **updates)
    if method == "rigl":
        return ts.RigL(0.3, **updates)
    return ts.TopKAST(backward_density=2 * DENSITY) if method == "top_kast" else ts.Static()


def optimizer() -> ts.SGD:
    return ts.SGD(lr=ts.Cosine(0.05), momentum=0.9, weight_decay=1e-4, decay="l2")


def first_weights(method: str) -> Any:
    return ts.Normal(0.07) if method == "top_kast" else ts.HeUniform(fan_in="sparse")


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load("mnist", place)
    sizes = (data.n_features, *case["hidden"], data.n_classes)
    networks, explored, measured = [], [], []
    for seed in range(case["seeds"]):
        init = first_weights(case["method"])
        net = ts.SparseMLP(sizes, density=case["density"], init=init, seed=seed, threads=1)
        monitor = ts.Monitor()
        _, result = grid.train(
            case | {"seed": seed},
            net,
            data,
            topology=rule(case["method"]),
            optimizer=optimizer(),
            epochs=case["epochs"],
            callbacks=[monitor],
        )
        networks.append(net)
        explored.append(monitor.exploration()[-1])
        measured.append(result)
    pairs = [ts.mask_similarity(a, b) for a, b in itertools.combinations(networks, 2)]
    after = networks[0].layers[0].pattern.out_degree()
    inner = after.reshape(28, 28)[INNER, INNER].sum() / after.sum()
    return {
        "summary": f"{grid.percent([r['test_accuracy'] for r in measured])} %, explored {np.mean(explored):.3f}",
        "test_accuracy": [r["test_accuracy"] for r in measured],
        "explored": explored,
        "similarity": [p.total for p in pairs],
        "layers": [list(p.jaccard) for p in pairs],
        "by_chance": [list(p.by_chance) for p in pairs],
        "inner_part": float(inner),
        "pixels": [int(n) for n in after],
    }


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    rows = [
        [
            r["case"]["method"],
            grid.percent(r["test_accuracy"]),
            f"{grid.spread(r['explored'])[0]:.3f}",
            *(f"{_mean(r['layers'], layer):.3f} ({_mean(r['by_chance'], layer):.3f})" for layer in range(3)),
            f"{100 * r['inner_part']:.0f} %",
        ]
        for r in found
    ]
    header = [
        "method",
        "test accuracy, %",
        "exploration rate",
        "layer 0: alike (by chance)",
        "layer 1",
        "layer 2",
        "of layer 0 in the middle 20 x 20 pixels",
    ]
    return "\n".join(
        [
            f"# What dynamic training finds (MNIST, hidden layers {wanted[0]['hidden']}, density {DENSITY})",
            "",
            f"{wanted[0]['epochs']} epochs, {wanted[0]['seeds']} seeds. Alike: connections that two seeds share, of "
            "those that one of them has, after matching the hidden neurons; by chance: random masks matched the same "
            "way. The middle has 51 % of all pixels. `python bench/accuracy/masks.py --data DIR`.",
            "",
            grid.table(header, rows),
        ]
    )


def _mean(pairs: list[list[float]], layer: int) -> float:
    return grid.spread([pair[layer] for pair in pairs])[0]


def picture(wanted: list[grid.Case], path: Path) -> None:
    """Draw the connections of each pixel, method by method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = grid.results_of(RESULTS, wanted)
    figure, axes = plt.subplots(1, len(found), figsize=(3.3 * len(found), 3.4), squeeze=False)
    for axis, r in zip(axes[0], found, strict=True):
        shown = axis.imshow(np.reshape(r["pixels"], (28, 28)), cmap="magma", interpolation="nearest")
        axis.set_title(r["case"]["method"])
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(shown, ax=axis, shrink=0.8)
    figure.suptitle("outgoing connections of each pixel after training (seed 0)", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    wanted = grid.main(__doc__, RESULTS, cases, run, report)
    if wanted:
        picture(wanted, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
