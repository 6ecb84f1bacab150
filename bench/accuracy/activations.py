# SPDX-License-Identifier: BSD-3-Clause
"""All-ReLU beside ReLU, leaky ReLU, PReLU and SReLU, with the gradient flow of each (figure 5 of "Truly Sparse ...").

    python bench/accuracy/activations.py --data DIR [--seeds 3] [--epochs 25] [--full]

SET with the paper's settings (dropout 0.3, weight decay 2e-4 in the paper's form, All-ReLU's alpha of table 7), on
Fashion-MNIST and Madelon, with `--full` CIFAR-10 too. Default: narrower hidden layers for Fashion-MNIST, 25 epochs,
and 200 on Madelon; `--full`: the paper's sizes and 500 epochs. Appends to bench/results/activations.jsonl and writes
bench/results/activations.md and activations.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grid

import trulysparse as ts
from trulysparse.recipes.paper import sequential_preset as preset

RESULTS = grid.RESULTS / "activations.jsonl"
ACTIVATIONS = ("all_relu", "relu", "leaky_relu", "prelu", "srelu")
EPOCHS = {"fashion_mnist": 25, "madelon": 200, "cifar10": 20}
PROBE = 1024
RULE = ts.SET(0.3)


def cases(options: Any) -> list[grid.Case]:
    names = ("fashion_mnist", "madelon", "cifar10") if options.full else ("fashion_mnist", "madelon")
    every = []
    for name in names:
        hidden = preset(name)["model"]["hidden"]
        narrow = [256] * 3 if name == "fashion_mnist" else hidden
        every += [
            {
                "experiment": "activations",
                "dataset": name,
                "activation": activation,
                "hidden": hidden if options.full else narrow,
                "epochs": options.epochs or (500 if options.full else EPOCHS[name]),
                "seed": seed,
                "settings": {**preset(name), "activation": _activation(name, activation), "topology": RULE.to_config()},
            }
            for seed in range(options.seeds)
            for activation in ACTIVATIONS
        ]
    return every


def _activation(name: str, activation: str) -> Any:
    """Return what the experiment's word for an activation means on a data set."""
    meaning = {"all_relu": preset(name)["model"]["activation"], "leaky_relu": {"name": "leaky_relu", "slope": 0.25}}
    return meaning.get(activation, activation)


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load(case["dataset"], place)
    settings = preset(case["dataset"])
    model = settings["model"]
    activation = _activation(case["dataset"], case["activation"])
    density = model.get("density", {"name": "erdos_renyi", "epsilon": model.get("epsilon")})
    net = ts.SparseMLP(
        (data.n_features, *case["hidden"], data.n_classes),
        density=density,
        activation=activation,
        dropout=model["dropout"],
        init=model["init"],
        seed=case["seed"],
        threads=1,
    )
    probe = ts.GradientFlowProbe(data.X_train[:PROBE], data.y_train[:PROBE])
    _, measured = grid.train(
        case | {"batch_size": settings["trainer"]["batch_size"]},
        net,
        data,
        topology=RULE,
        optimizer=settings["optimizer"],
        epochs=case["epochs"],
        callbacks=[probe],
    )
    return measured | {"activation": net.activation.to_config(), "gradient_flow": [float(f) for f in probe.total]}


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    lines = ["# Activations", ""]
    lines.append(
        f"SET, the paper's settings, mean ± standard deviation over {options.seeds} seeds, after the last epoch; "
        f"gradient flow: squared norm of the gradient of the connections on {PROBE} training samples, without dropout, "
        "mean over epochs. `python bench/accuracy/activations.py --data DIR`."
    )
    for name in dict.fromkeys(case["dataset"] for case in wanted):
        rows = []
        for activation in ACTIVATIONS:
            some = [r for r in found if r["case"]["dataset"] == name and r["case"]["activation"] == activation]
            if not some:
                continue
            flows = [sum(r["gradient_flow"]) / len(r["gradient_flow"]) for r in some]
            late = [r["gradient_flow"][-1] for r in some]
            loss, deviation = grid.spread([r["train_loss"] for r in some])
            seconds = grid.spread([r["train_seconds"] for r in some])[0]
            rows.append(
                [
                    activation,
                    grid.percent([r["test_accuracy"] for r in some]),
                    f"{loss:.4f} ± {deviation:.4f}",
                    f"{grid.spread(flows)[0]:.3g}",
                    f"{grid.spread(late)[0]:.3g}",
                    f"{seconds:.1f}",
                ]
            )
        case = next(c for c in wanted if c["dataset"] == name)
        lines += ["", f"## {name}, hidden layers {case['hidden']}, {case['epochs']} epochs", ""]
        header = ["activation", "test accuracy, %", "train loss", "gradient flow", "at the end", "seconds"]
        lines.append(grid.table(header, rows))
    return "\n".join(lines)


def picture(wanted: list[grid.Case], path: Path) -> None:
    """Draw the gradient flow of each activation over the epochs, mean over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    found = grid.results_of(RESULTS, wanted)
    names = list(dict.fromkeys(case["dataset"] for case in wanted))
    figure, axes = plt.subplots(1, len(names), figsize=(5.5 * len(names), 4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for activation in ACTIVATIONS:
            some = [
                r["gradient_flow"]
                for r in found
                if (r["case"]["dataset"], r["case"]["activation"]) == (name, activation)
            ]
            if some:
                curve = np.mean(some, axis=0)
                axis.plot(np.arange(1, curve.size + 1), curve, label=activation)
        axis.set_title(name)
        axis.set_xlabel("epoch")
        axis.set_yscale("log")
    axes[0][0].set_ylabel("gradient flow (squared norm)")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    wanted = grid.main(__doc__, RESULTS, cases, run, report)
    if wanted:
        picture(wanted, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
