# SPDX-License-Identifier: BSD-3-Clause
"""What the reviewers of Top-KAST asked for, on CIFAR-10.

    python bench/accuracy/top_kast.py --data DIR [--seeds 3] [--epochs 15] [--full]

Forward and backward sparsity 0.9/0.8, 0.95/0.9, 0.95/0.8 and 0.8/0.8; the exploration set as the next in the ranking
against drawn at random, at the same backward density; the regulariser on and off; beside them static, SET, RigL,
gradual magnitude pruning and dense training; wall-clock time, memory, several seeds. Default: 3072-512-256-10, 15
epochs; `--full`: 3072-4000-1000-4000-10, 200 epochs. Appends to bench/results/top_kast.jsonl and writes
bench/results/top_kast.md.
"""

from __future__ import annotations

from typing import Any

import grid

import trulysparse as ts

RESULTS = grid.RESULTS / "top_kast.jsonl"
STRENGTH = 1e-3

# (method, forward density, backward density, how the exploration set is chosen, regulariser)
SETTINGS: list[tuple[str, float, float, str, float]] = [
    *(
        ("top_kast", forward, backward, choice, strength)
        for forward, backward in ((0.1, 0.2), (0.05, 0.1), (0.05, 0.2))
        for choice in ("top", "random")
        for strength in (STRENGTH, 0.0)
    ),
    ("top_kast", 0.2, 0.2, "top", STRENGTH),
    ("top_kast", 0.2, 0.2, "top", 0.0),
    # The regulariser is weight decay on the forward set, so the others are tried with as much of it, and without.
    *(
        (method, density, density, "", strength)
        for density in (0.1, 0.05)
        for method in ("static", "set", "rigl", "gmp")
        for strength in (STRENGTH, 0.0)
    ),
    ("dense", 1.0, 1.0, "", STRENGTH),
    ("dense", 1.0, 1.0, "", 0.0),
]


def cases(options: Any) -> list[grid.Case]:
    hidden, epochs = ([4000, 1000, 4000], 200) if options.full else ([512, 256], 15)
    every = [
        {
            "experiment": "top_kast",
            "dataset": "cifar10",
            "method": method,
            "forward_density": forward,
            "backward_density": backward,
            "choice": choice,
            "regularizer": strength,
            "hidden": hidden,
            "epochs": options.epochs or epochs,
            "seed": seed,
        }
        for seed in range(options.seeds)
        for method, forward, backward, choice, strength in SETTINGS
    ]
    return [case | {"settings": settings(case)} for case in every]


def settings(case: grid.Case) -> dict[str, Any]:
    """Return all else that decides a result, as plain values."""
    return {
        "optimizer": optimizer(case).to_config(),
        "init": first_weights(case).to_config(),
        "topology": rule(case).to_config(),
    }


def optimizer(case: grid.Case) -> ts.SGD:
    decay = 1e-4 + (0.0 if case["method"] == "top_kast" else case["regularizer"])
    return ts.SGD(lr=ts.Cosine(0.05), momentum=0.9, weight_decay=decay, decay="l2")


def first_weights(case: grid.Case) -> Any:
    # Top-KAST takes the largest of all first weights: with the scale of a sparse layer they would be far too large.
    return ts.Normal(0.03) if case["method"] == "top_kast" else ts.HeUniform(fan_in="sparse")


def rule(case: grid.Case) -> ts.Topology:
    method, density = case["method"], case["forward_density"]
    if method == "top_kast":
        return ts.TopKAST(
            backward_density=case["backward_density"],
            choice=case["choice"],
            regularizer=case["regularizer"],
            refresh_every=100,
        )
    if method == "set":
        return ts.SET(0.3, drop="magnitude", schedule="cosine", update_every=100, unit="steps", end=0.75,
                      new_weights="zeros", layers="all")  # fmt: skip
    if method == "rigl":
        return ts.RigL(0.3, schedule="cosine", update_every=100, end=0.75)
    return ts.GMP(density, update_every=100, start=0.0, end=0.75, scope="uniform") if method == "gmp" else ts.Static()


def run(case: grid.Case, place: str) -> dict[str, Any]:
    data = grid.load("cifar10", place)
    sizes = (data.n_features, *case["hidden"], data.n_classes)
    forward = 1.0 if case["method"] == "gmp" else case["forward_density"]
    net = ts.SparseMLP(sizes, density=ts.Uniform(forward), init=first_weights(case), seed=case["seed"], threads=1)
    try:
        trainer, measured = grid.train(
            case, net, data, topology=rule(case), optimizer=optimizer(case), epochs=case["epochs"]
        )
    except ts.DivergenceError as error:
        return {"summary": f"diverged: {error}", "diverged": True}
    memory = trainer.state.memory(net)
    return measured | {
        "working_bytes": memory["network"] + memory["exploring"] + memory["optimizer"],
        "master_bytes": memory["rule"] + memory["rule_files"],
    }


def _broken(result: dict[str, Any]) -> bool:
    """Whether a run ended in numbers that are none, or learnt nothing: the loss of guessing is log(10) = 2.30."""
    return bool(result.get("diverged")) or result["train_loss"] > 2.2


def report(options: Any, wanted: list[grid.Case]) -> str:
    found = grid.results_of(RESULTS, wanted)
    rows = []
    for method, forward, backward, choice, strength in SETTINGS:
        key = (method, forward, backward, choice, strength)
        names = ("method", "forward_density", "backward_density", "choice", "regularizer")
        some = [r for r in found if tuple(r["case"][name] for name in names) == key]
        if not some:
            continue
        dense = [r for r in found if r["case"]["method"] == "dense"]
        learnt = [r for r in some if not _broken(r)]
        label = [method, f"{1 - forward:.2f} / {1 - backward:.2f}", choice, f"{strength:g}"]
        note = f" ({len(some) - len(learnt)} of {len(some)} broke down)" if len(learnt) < len(some) else ""
        if not learnt:
            rows.append([*label, note.strip(" ()"), *[""] * 5])
            continue
        some = learnt
        seconds = grid.spread([r["train_seconds"] + r["evolve_seconds"] for r in some])[0]
        whole = grid.spread([r["train_seconds"] + r["evolve_seconds"] for r in dense])[0] if dense else float("nan")
        share = sum(r["evolve_seconds"] for r in some) / sum(r["train_seconds"] + r["evolve_seconds"] for r in some)
        rows.append(
            [
                *label,
                grid.percent([r["test_accuracy"] for r in some]) + note,
                f"{grid.spread([r['train_loss'] for r in some])[0]:.3f}",
                f"{seconds:.1f} ({seconds / whole:.2f})",
                f"{100 * share:.0f} %",
                f"{some[0]['working_bytes'] / 1e6:.1f} + {some[0]['master_bytes'] / 1e6:.1f}",
                f"{some[0]['step_flops_of_dense']:.2f}",
            ]
        )
    header = [
        "method",
        "sparsity forward / backward",
        "exploration set",
        "regulariser or decay",
        "test accuracy, %",
        "train loss",
        "seconds (of dense)",
        "of it refreshes or updates",
        "MB at work + master",
        "FLOPs of dense",
    ]
    return "\n".join(
        [
            f"# Top-KAST on CIFAR-10, hidden layers {wanted[0]['hidden']}",
            "",
            f"{wanted[0]['epochs']} epochs, one thread a run, {options.processes} runs at a time; mean ± standard "
            f"deviation over {options.seeds} seeds, after the last epoch. The seconds of dense training are this "
            "library's own, with all connections. `python bench/accuracy/top_kast.py --data DIR`.",
            "",
            grid.table(header, rows),
        ]
    )


def main() -> None:
    grid.main(__doc__, RESULTS, cases, run, report)


if __name__ == "__main__":
    main()
