# SPDX-License-Identifier: BSD-3-Clause
"""Make bench/results/scale.md of the runs of `trulysparse scale` in bench/results/scale.jsonl.

python bench/scale/report.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trulysparse._files import replacing

RESULTS = Path(__file__).parents[1] / "results" / "scale.jsonl"
GIB = 2**30


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def name(run: dict[str, Any]) -> str:
    return f"{run['network']}, epsilon {run['epsilon']:g}: {run['connections'] / 1e6:.1f}M connections"


def mode(run: dict[str, Any]) -> str:
    plan = run["plan"]
    return f"{plan['activation_dtype']}, {plan['micro_batch']} columns, {plan['storage']}"


def phase(run: dict[str, Any], wanted: str, key: str) -> float | None:
    return next((p[key] for p in run["phases"] if p["name"] == wanted), None)


def number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def gib(value: float | None) -> str:
    return "" if value is None else f"{value / GIB:.1f}"


def beside(run: dict[str, Any], what: str) -> str:
    """Return the minutes here and those of the paper."""
    here, paper = run["minutes"].get(what), (run["paper_minutes"] or {}).get(what)
    if here is None:
        return ""
    return f"{here:.2f}" + ("" if paper is None else f" / {paper:g} = 1:{paper / here:.1f}")


def command(run: dict[str, Any]) -> str:
    """Return the command that makes this run."""
    plan, settings = run["plan"], dict(run["settings"])
    options: dict[str, Any] = {
        "epsilon": run["epsilon"],
        "samples": run["samples"],
        "test_samples": run["test_samples"],
        "batch_size": run["batch"],
        "steps": len(run["losses"]),
        **{key: plan[key] for key in ("storage", "micro_batch", "activation_dtype")},
        **settings,
    }
    written = [f"--{key.replace('_', '-')} {value}" for key, value in options.items() if value not in (None, "")]
    return f"`trulysparse scale {run['network']} {' '.join(written)}`"


def table_four(runs: list[dict[str, Any]]) -> list[str]:
    header = ["network", "how", "initialisation", "epoch", "evolution", "inference", "peak of steps, GiB", "planned"]
    rows = [
        [
            name(run),
            mode(run),
            *(beside(run, what) for what in ("initialisation", "epoch", "evolution", "inference")),
            gib(phase(run, "steps", "peak_bytes")),
            gib(phase(run, "steps", "planned_bytes")),
        ]
        for run in runs
    ]
    return table(header, rows)


def beyond(runs: list[dict[str, Any]]) -> list[str]:
    header = [
        "network", "how", "initialisation, s", "step, s", "of samples", "evolution, s", "checkpoint, s",
        "resumed, same bits", "peak, GiB", "planned",
    ]  # fmt: skip
    rows = [
        [
            name(run),
            mode(run),
            number(phase(run, "initialisation", "seconds")),
            number(run["typical_step_seconds"]),
            str(run["batch"]),
            number(phase(run, "evolution", "seconds")),
            number(phase(run, "checkpoint", "seconds")),
            {True: "yes", None: ""}.get(run.get("resumes_bit_for_bit"), "no"),
            gib(run["peak_bytes"]),
            gib(run["plan"]["peak_bytes"]),
        ]
        for run in runs
    ]
    return table(header, rows)


def learning(runs: list[dict[str, Any]]) -> list[str]:
    header = [
        "network",
        "how",
        "steps of",
        "first loss",
        "mean of the last five",
        "biases alone",
        "margin",
        "largest gradient, first layer",
    ]
    rows = [
        [
            name(run),
            f"{mode(run)}, lr {run['settings']['lr']:g}",
            f"{len(run['losses'])} of {run['batch']} ({run['samples']} samples)",
            number(run["losses"][0], 3),
            number(sum(run["losses"][-5:]) / 5, 3),
            number(run["bias_only_loss"], 3),
            number(run["bias_only_loss"] - sum(run["losses"][-5:]) / 5, 3),
            f"{run['first_layer_largest_gradient']:.1e}",
        ]
        for run in runs
    ]
    return table(header, rows)


def main() -> None:
    runs = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    learned = [run for run in runs if run["settings"]["lr_scale"] is not None]
    timed = [run for run in runs if run["settings"]["lr_scale"] is None]
    paper = sorted((run for run in timed if run["paper_minutes"]), key=lambda run: run["neurons"])
    larger = [run for run in timed if not run["paper_minutes"]]
    first = runs[0]
    text = [
        "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
        "# Networks of 1 to 250 million neurons",
        "",
        f"Runs of `trulysparse scale` on {first['cores']} cores ({first['cpu']}, {first['isa']}); every "
        "line with its settings, plan and phases is in scale.jsonl; page made by `python bench/scale/report.py`.",
        "",
        "## Beside the paper's table 4",
        "",
        "Minutes here / in the paper (96 cores, 768 GB, 8 or 16 workers). The paper's settings: batches of 128, "
        "dropout 0.4, SET, momentum 0.9. An epoch is 7,000 samples, predicted from the median of ten steps; inference "
        "of 3,000 samples has activations as in training. Peaks are those of the training steps; samples are mapped "
        "from a file.",
        "",
        *table_four(paper),
        "",
        *(f"- {command(run)}" for run in paper),
        "",
        "## Beyond it",
        "",
        *beyond(larger),
        "",
        *(f"- {command(run)}" for run in larger),
        "",
        "## Do they learn?",
        "",
        "With the settings of [docs/design/extreme-scale.md](../../docs/design/extreme-scale.md), on few samples, so "
        "that steps come back to them: this shows that gradients arrive and training works, not that it generalises. "
        "The loss is that of each training batch, before its step.",
        "",
        *learning(learned),
        "",
        *(f"- {command(run)}" for run in learned),
    ]
    with replacing(RESULTS.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
