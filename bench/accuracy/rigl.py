# SPDX-License-Identifier: BSD-3-Clause
"""Dynamic against static sparse training, the comparison of the RigL paper, on Fashion-MNIST or MNIST.

    python bench/accuracy/rigl.py --data DIR [--dataset mnist --scaling image] [--seeds 5] [--epochs 20] [--full]

Static, Small-Dense, SET, SNFS, RigL, gradual magnitude pruning, Top-KAST and dense training at 90, 95, 98 and 99 %
sparsity (density 0.1 to 0.01, distributed by ERK), at simple and double length. Default: 784-256-256-256-10, 20 epochs;
`--full`: 784-1000-1000-1000-10, 200 epochs. `--scaling feature` standardises every pixel by itself, as the trainer
does; `image` all pixels alike, so that those at the border, which hardly ever differ from zero, stay small. The figures
are the test accuracy after the last epoch: nothing is selected on test data. Appends to bench/results/rigl.jsonl and
writes the table to bench/results/rigl.md (rigl_mnist_image.md for the command above).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import grid
import numpy as np

import trulysparse as ts
from trulysparse.model.inputs import InputScaling

DENSITIES = (0.1, 0.05, 0.02, 0.01)
METHODS = ("static", "small_dense", "set", "snfs", "rigl", "gmp", "top_kast")
LENGTHS = (1, 2)
RESULTS = grid.RESULTS / "rigl.jsonl"

# The settings of the RigL paper for all rules that drop and grow: every 100 steps, cosine from 0.3, three quarters of
# the run; the same learning rate for all, along half a cosine, so that a longer run stretches its whole schedule.
UPDATES: dict[str, Any] = {"update_every": 100, "unit": "steps", "end": 0.75}


def cases(options: Any) -> list[grid.Case]:
    hidden, epochs = ([1000] * 3, 200) if options.full else ([256] * 3, 20)
    common = {
        "experiment": "rigl",
        "dataset": options.dataset,
        "scaling": options.scaling,
        "hidden": hidden,
        "epochs": options.epochs or epochs,
    }
    every = []
    for seed in range(options.seeds):
        for length in LENGTHS:
            every.append({**common, "method": "dense", "density": 1.0, "length": length, "seed": seed})
            every += [
                {**common, "method": method, "density": density, "length": length, "seed": seed}
                for density in DENSITIES
                for method in METHODS
            ]
    return [case | {"settings": settings(case["method"], case["density"])} for case in every]


def settings(method: str, density: float) -> dict[str, Any]:
    """Return all else that decides a result, as plain values."""
    return {
        "optimizer": optimizer().to_config(),
        "init": first_weights(method).to_config(),
        "topology": rule(method, density).to_config(),
    }


def optimizer() -> ts.SGD:
    return ts.SGD(lr=ts.Cosine(0.05), momentum=0.9, weight_decay=1e-4, decay="l2")


def first_weights(method: str) -> Any:
    # Top-KAST takes the largest of all first weights: with the scale of a sparse layer they would be far too large.
    return ts.Normal(0.07) if method == "top_kast" else ts.HeUniform(fan_in="sparse")


def rule(method: str, density: float) -> ts.Topology:
    if method in ("static", "dense", "small_dense"):
        return ts.Static()
    if method == "set":
        return ts.SET(0.3, drop="magnitude", schedule="cosine", new_weights="zeros", layers="all", **UPDATES)
    if method == "rigl":
        return ts.RigL(0.3, schedule="cosine", **UPDATES)
    if method == "snfs":
        return ts.SNFS(0.3, schedule="cosine", **UPDATES)
    if method == "gmp":
        return ts.GMP(density, update_every=100, start=0.0, end=0.75, scope="erk")
    return ts.TopKAST(backward_density=2 * density, regularizer=1e-4, refresh_every=100)


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load(case["dataset"], place)
    sizes = (data.n_features, *case["hidden"], data.n_classes)
    method, density = case["method"], case["density"]
    arguments: dict[str, Any] = {"init": first_weights(method), "seed": case["seed"], "threads": 1}
    if method == "small_dense":
        net = ts.small_dense(sizes, density=density, **arguments)
    else:
        net = ts.SparseMLP(sizes, density=1.0 if method in ("dense", "gmp") else density, **arguments)
    if case["scaling"] == "image":
        ones = np.ones(data.n_features, dtype=np.float32)
        net.scaling = InputScaling(data.X_train.mean() * ones, ones / data.X_train.std())
    epochs = case["epochs"] * case["length"]
    _, measured = grid.train(case, net, data, topology=rule(method, density), optimizer=optimizer(), epochs=epochs)
    if method in ("static", "set", "snfs", "rigl", "top_kast") and net.connections != measured["connections_start"]:
        raise RuntimeError(f"{case}: {net.connections} connections, {measured['connections_start']} at the start")
    return measured


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    if not found:
        return "no results yet"
    case = found[0]["case"]

    def rows(length: int, text: Callable[[list[dict[str, Any]]], str]) -> list[list[str]]:
        lines = []
        for method in ("dense", *METHODS):
            cells = []
            for density in DENSITIES:
                key = (method, 1.0 if method == "dense" else density, length)
                some = [r for r in found if tuple(r["case"][k] for k in ("method", "density", "length")) == key]
                cells.append(text(some) if some else "")
            lines.append([method, *cells])
        return lines

    header = ["method", *(f"density {density}" for density in DENSITIES)]
    lines = [
        f"# Dynamic sparse training on {options.dataset}, hidden layers {case['hidden']}",
        "",
        "Pixels standardised "
        + ("one by one." if case["scaling"] == "feature" else "all alike: the mean image value 0, the deviation 1."),
        "",
        f"Test accuracy in percent after the last epoch, mean ± standard deviation over {options.seeds} seeds; "
        f"{case['epochs']} epochs at simple length, {'the full' if options.full else 'the default'} sizes of "
        f"`python bench/accuracy/rigl.py --data DIR --dataset {options.dataset} --scaling {options.scaling}`.",
        "",
        "All methods: ReLU, no dropout, momentum SGD, batch 128, learning rate 0.05 along half a cosine, L2 decay "
        "1e-4, He's scale of the sparse fan-in, ERK densities; updates every 100 steps until 0.75 of the run. "
        "Top-KAST, which takes the largest of all first weights, begins with N(0, 0.07^2), trains twice as many "
        "weights as it has connections, and has its regulariser (1e-4) besides.",
    ]
    for length in LENGTHS:
        accuracy = rows(length, lambda some: grid.percent([r["test_accuracy"] for r in some]))
        lines += ["", f"## {length}x training", "", grid.table(header, accuracy)]
    lines += ["", "## RigL against SET and static, seed by seed", "", _paired(found)]
    for title, text in (
        ("Seconds of training at simple length on one thread, and the part of it that updates take", _seconds),
        ("FLOPs of training beside dense training, by the accounting of the RigL paper", _flops),
    ):
        lines += ["", f"## {title}", "", grid.table(header, rows(1, text))]
    return "\n".join(lines)


def _paired(found: list[dict[str, Any]]) -> str:
    """Return differences of accuracy in points, paired by seed, where connections are fewest."""
    rows = []
    for length in LENGTHS:
        for density in DENSITIES[2:]:
            by_seed: dict[str, dict[int, float]] = {method: {} for method in METHODS}
            for r in found:
                case = r["case"]
                if (case["density"], case["length"]) == (density, length) and case["method"] in by_seed:
                    by_seed[case["method"]][case["seed"]] = 100 * r["test_accuracy"]
            cells = []
            for a, b in (("rigl", "set"), ("rigl", "static"), ("set", "static")):
                seeds = sorted(by_seed[a].keys() & by_seed[b].keys())
                some = [by_seed[a][seed] - by_seed[b][seed] for seed in seeds]
                wins = sum(d > 0 for d in some)
                mean, deviation = grid.spread(some) if some else (float("nan"), 0.0)
                cells.append(f"{mean:+.2f} ± {deviation:.2f} ({wins} of {len(some)})")
            rows.append([f"{length}x, density {density}", *cells])
    text = grid.table(["run", "RigL - SET", "RigL - static", "SET - static"], rows)
    return text + ("\n\nIn brackets: seeds in which the first is better.")


def _seconds(some: list[dict[str, Any]]) -> str:
    total = [r["train_seconds"] + r["evolve_seconds"] for r in some]
    share = sum(r["evolve_seconds"] for r in some) / sum(total)
    return f"{grid.spread(total)[0]:.1f} s, {100 * share:.0f} %"


def _flops(some: list[dict[str, Any]]) -> str:
    whole = [some[0]["sizes"][0], *some[0]["case"]["hidden"], some[0]["sizes"][-1]]
    # a small dense network is measured beside the large one, as the others are
    own = [sum(a * b for a, b in pairwise(r["sizes"])) / sum(a * b for a, b in pairwise(whole)) for r in some]
    ratios = [r["step_flops_of_dense"] * part for r, part in zip(some, own, strict=True)]
    return f"{grid.spread(ratios)[0]:.3f}"


def main() -> None:
    variants = {"dataset": ("fashion_mnist", "mnist"), "scaling": ("feature", "image")}
    grid.main(__doc__, RESULTS, cases, run, report, seeds=5, variants=variants)


if __name__ == "__main__":
    main()
