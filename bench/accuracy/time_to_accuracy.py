# SPDX-License-Identifier: BSD-3-Clause
"""Test accuracy against seconds of training: truly sparse, dense in PyTorch, and dense with as many parameters.

    python bench/accuracy/time_to_accuracy.py --data DIR [--dataset cifar10] [--minutes 5] [--seeds 3]
    python bench/accuracy/time_to_accuracy.py --data DIR --contestants trulysparse small-dense --results try.jsonl

Each contestant trains for so many minutes in a process of its own, one after the other, on the same threads. The clock
runs from the first step on, through shuffling, batches, updates and evolutions, and stands still while the network is
tested. All are tested at the same moments of their clock, each a tenth later than the one before, so all have as many
chances of a lucky test; labels, not logits, are counted, by one function. trulysparse has the paper's settings and
standardises its batches on the clock. PyTorch's networks have ReLU, He's initialisation, the same batches, learning
rate and momentum, and no weight decay (the paper's decay is an L2 coefficient of 0.02 at its learning rate); dropout is
the paper's, and none under the names that say so. Their standardised data is one tensor, ready before the clock starts.

Resumes where it was stopped. Appends to bench/results/time_to_accuracy.jsonl and, when all runs are there, writes
time_to_accuracy.md and .png beside it (with the name of another data set than fashion_mnist).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grid
import numpy as np
from numpy.typing import NDArray

import trulysparse as ts
from trulysparse._files import replacing
from trulysparse.bench.machine import Neighbours
from trulysparse.cli.config import RunConfig
from trulysparse.model import InputScaling, get_density, small_dense_sizes
from trulysparse.optim import Progress, get_schedule
from trulysparse.plot.canvas import figure, write_png
from trulysparse.recipes.paper import preset

RESULTS = grid.RESULTS / "time_to_accuracy.jsonl"
DEFAULT_DATASET = "fashion_mnist"
LEVELS = {"cifar10": (0.40, 0.45, 0.50, 0.55, 0.60), "digits": (0.80, 0.90, 0.95)}
DEFAULT_LEVELS = (0.85, 0.87, 0.88, 0.89, 0.90)
FIRST_SECONDS, RATIO = 0.5, 1.1  # the first test, and how much later each is than the one before
NO_END = 10**6  # epochs of a run that only the clock ends
WARM_UP_STEPS = 3
# lengths of runs whose learning rate falls to nothing, to end within the minutes that there are
RECIPE_EPOCHS = (5, 20, 80)
DENSE_EPOCHS = 15
TEST_BATCH = 1000


def contestants(dataset: str) -> dict[str, dict[str, Any]]:
    """Return the settings of all contestants: what is compared is changed here.

    Of library "trulysparse": the tables of a run file. Of library "torch": `width` "full" (the sizes of the sparse
    network) or "parameters" (narrower, with as many parameters), and the optimizer. A learning rate may be a schedule;
    then `fit` (there `epochs`) must say how long the run is.
    """
    paper = preset(dataset)
    ours = {table: paper[table] for table in ("model", "optimizer", "topology", "trainer")}
    dense = {
        "library": "torch",
        "width": "full",
        "like": ours["model"],
        "lr": ours["optimizer"]["lr"],
        "momentum": ours["optimizer"]["momentum"],
        "weight_decay": 0.0,
        "dropout": ours["model"]["dropout"],
        "batch_size": ours["trainer"]["batch_size"],
    }
    small = {**dense, "width": "parameters"}
    found = {
        "trulysparse": {"library": "trulysparse", **ours},
        "dense": dense,
        "dense-no-dropout": {**dense, "dropout": 0.0},
        "small-dense": small,
        "small-dense-no-dropout": {**small, "dropout": 0.0},
    }
    if dataset in ts.recipes.names("tuned"):
        recipe = {"library": "trulysparse", **ts.recipes.get(dataset).tables}
        falling = {"lr": {"name": "cosine", "lr": 0.03}, "dropout": 0.1}  # with the recipe's 0.1 the dense one diverges
        found |= {
            **{f"trulysparse-recipe-{epochs}": {**recipe, "fit": {"epochs": epochs}} for epochs in RECIPE_EPOCHS},
            "dense-falling-rate": {**dense, **falling, "fit": {"epochs": DENSE_EPOCHS}},
            "small-dense-falling-rate": {**small, **falling, "fit": {"epochs": max(RECIPE_EPOCHS)}},
        }
    return found


class TimeIsUp(Exception):
    """The clock has run out."""


class Clock:
    """Counts seconds of training, and has the network tested at fixed moments while it stands still.

    Parameters
    ----------
    budget_seconds
        Of training; the step after which they are over raises `TimeIsUp`.
    test
        Returns the test accuracy of the network as it is.
    now
        Seconds from anywhere.
    """

    def __init__(
        self, budget_seconds: float, test: Callable[[], float], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.budget_seconds = budget_seconds
        self.steps = 0
        self.test_seconds = 0.0
        self.curve: list[dict[str, Any]] = []
        self._test, self._now = test, now
        self._moments = moments(budget_seconds)
        self._passed = 0
        self._began = math.nan

    def start(self) -> None:
        """Begin to count; everything before is preparation."""
        self._began = self._now()

    def step(self) -> None:
        """Count a step of training that was made, test if it is time."""
        self.steps += 1
        reading = self._now()
        seconds = reading - self._began
        if seconds < self._moments[self._passed]:
            return
        while self._passed < len(self._moments) and seconds >= self._moments[self._passed]:
            self._passed += 1
        self._look(seconds)
        paused = self._now() - reading
        self.test_seconds += paused
        self._began += paused
        if seconds >= self.budget_seconds:
            raise TimeIsUp

    def finish(self) -> None:
        """Test at the end of a run that had all its epochs before the time was up."""
        if not self.curve or self.curve[-1]["steps"] != self.steps:
            self._look(self._now() - self._began)

    def _look(self, seconds: float) -> None:
        look = {"moment": self._passed, "seconds": seconds, "steps": self.steps, "accuracy": self._test()}
        self.curve.append(look)


def moments(budget_seconds: float) -> list[float]:
    """Return the seconds of training after which networks are tested; the last is the whole time."""
    growing = (FIRST_SECONDS * RATIO**k for k in itertools.count())
    return [*itertools.takewhile(lambda s: s < budget_seconds, growing), budget_seconds]


def labels_of(logits: NDArray[Any]) -> NDArray[np.int64]:
    """Return the classes that outputs (samples, classes) mean.

    Raises
    ------
    ValueError
        If outputs are not finite: the training diverged.
    """
    if not np.isfinite(logits).all():
        raise ValueError("outputs of the network are not finite: training diverged; lower the learning rate")
    return np.argmax(logits, axis=1)


def accuracy(predicted: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the part of predicted labels that is right.

    Raises
    ------
    ValueError
        If there are not as many predictions as labels.
    """
    if predicted.shape != y.shape:
        raise ValueError(f"predictions have shape {predicted.shape}, labels {y.shape}; each sample has one of both")
    return int(np.count_nonzero(predicted == y)) / y.size


class TrulySparse:
    """A run of this library as its run file says."""

    def __init__(self, settings: Mapping[str, Any], data: ts.Dataset, seed: int, threads: int) -> None:
        self.data = data
        self.threads = threads
        config = RunConfig({table: entries for table, entries in settings.items() if table != "library"})
        config.set("model", "seed", seed)
        config.set("trainer", "seed", seed)
        self.epochs = config.get("fit", "epochs", NO_END)
        self._config = config
        self.net = config.build_net(data, threads)
        self.batch_size = config.get("trainer", "batch_size")
        warm = WARM_UP_STEPS * self.batch_size
        self._trainer(config.build_net(data, threads)).fit(data.X_train[:warm], data.y_train[:warm], epochs=1)

    def _trainer(self, net: ts.SparseMLP, callbacks: Sequence[ts.Callback] = ()) -> ts.Trainer:
        arguments = self._config.trainer_arguments()
        return ts.Trainer(net, threads=self.threads, callbacks=callbacks, progress=False, **arguments)

    def train(self, clock: Clock) -> None:
        self._trainer(self.net, [_Ticks(clock)]).fit(self.data.X_train, self.data.y_train, epochs=self.epochs)

    def logits(self) -> NDArray[Any]:
        return self.net.decision(self.data.X_test)

    def predictions(self) -> NDArray[Any]:
        return np.asarray(self.net.predict(self.data.X_test))

    def facts(self) -> dict[str, Any]:
        net = self.net
        parameters = net.connections + sum(net.sizes[1:])
        return {"sizes": list(net.sizes), "parameters": parameters, "connections": net.connections}


class _Ticks(ts.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_fit_start(self, trainer: ts.Trainer) -> None:
        self.clock.start()

    def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
        self.clock.step()


class Torch:
    """A dense network in PyTorch with a loop without detours: data in one tensor, rows gathered by index."""

    def __init__(self, settings: Mapping[str, Any], data: ts.Dataset, seed: int, threads: int) -> None:
        try:
            import torch
        except ImportError as error:
            raise ImportError(
                "the dense contestants need PyTorch; install it with: pip install torch, or run "
                "--contestants trulysparse"
            ) from error
        self.torch = torch
        torch.set_flush_denormal(True)  # before the pool of threads is made, which takes it over
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.settings = settings
        self.batch_size = settings["batch_size"]
        self.epochs = settings.get("fit", {}).get("epochs", NO_END)
        sizes = (data.n_features, *settings["like"]["hidden"], data.n_outputs)
        self.sizes = small_dense_sizes(sizes, _sparse_parameters(settings, sizes)) if _narrow(settings) else sizes
        scaling = InputScaling.fit(data.X_train)
        self.X, self.X_test = (_standardised(torch, X, scaling) for X in (data.X_train, data.X_test))
        self.y = torch.from_numpy(np.asarray(data.y_train, dtype=np.int64))
        self.model = self._model()
        warm = self._model()
        optimizer = self._optimizer(warm)
        for _ in range(WARM_UP_STEPS):
            self._step(warm, optimizer, torch.arange(self.batch_size))

    def _model(self) -> Any:
        nn, (*hidden, last) = self.torch.nn, [self._layer(n_in, n_out) for n_in, n_out in pairwise(self.sizes)]
        dropout = self.settings["dropout"]
        after = [nn.ReLU()] if dropout == 0 else [nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*(module for layer in hidden for module in (layer, *after)), last)

    def _layer(self, n_in: int, n_out: int) -> Any:
        linear = self.torch.nn.Linear(n_in, n_out)
        self.torch.nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        self.torch.nn.init.zeros_(linear.bias)
        return linear

    def _optimizer(self, model: Any) -> Any:
        settings = self.settings
        return self.torch.optim.SGD(
            model.parameters(),
            lr=0.0,
            momentum=settings["momentum"],
            weight_decay=settings["weight_decay"],
            fused=True,
        )

    def _step(self, model: Any, optimizer: Any, rows: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        output = model(self.X.index_select(0, rows))
        self.torch.nn.functional.cross_entropy(output, self.y.index_select(0, rows)).backward()
        optimizer.step()

    def train(self, clock: Clock) -> None:
        torch, model, size = self.torch, self.model, self.batch_size
        optimizer, schedule = self._optimizer(model), get_schedule(self.settings["lr"])
        count = len(self.y)
        batches = count // size
        clock.start()
        for epoch in range(self.epochs):
            order = torch.randperm(count)
            for batch in range(batches):
                step = epoch * batches + batch
                lr = schedule.value(Progress(step, step / batches, batches, self.epochs))
                optimizer.param_groups[0]["lr"] = lr
                self._step(model, optimizer, order[batch * size : (batch + 1) * size])
                clock.step()

    def logits(self) -> NDArray[Any]:
        return np.asarray(self._outputs().numpy())

    def predictions(self) -> NDArray[Any]:
        return np.asarray(self._outputs().argmax(dim=1).numpy())

    def _outputs(self) -> Any:
        self.model.eval()
        with self.torch.inference_mode():
            found = self.torch.cat([self.model(part) for part in self.X_test.split(TEST_BATCH)])
        self.model.train()
        return found

    def facts(self) -> dict[str, Any]:
        parameters = sum(p.numel() for p in self.model.parameters())
        return {"sizes": list(self.sizes), "parameters": parameters, "torch": self.torch.__version__}


def _standardised(torch: Any, X: Any, scaling: InputScaling) -> Any:
    """Return samples (samples, features) in float32, scaled as trulysparse scales its batches."""
    found = torch.empty(X.shape)
    for start in range(0, X.shape[0], TEST_BATCH):
        block = X[start : start + TEST_BATCH]
        block = block.toarray() if hasattr(block, "toarray") else block
        part = (block.astype(np.float32) - scaling.shift) * scaling.factor
        found[start : start + len(part)] = torch.from_numpy(part)
    return found


def _narrow(settings: Mapping[str, Any]) -> bool:
    if settings["width"] not in ("full", "parameters"):
        raise ValueError(f"width={settings['width']!r} of a dense contestant is neither 'full' nor 'parameters'")
    return bool(settings["width"] == "parameters")


def _sparse_parameters(settings: Mapping[str, Any], sizes: tuple[int, ...]) -> int:
    """Return the weights and biases that the sparse network is expected to have."""
    model = settings["like"]
    density = get_density(model.get("density", {"name": "erdos_renyi", "epsilon": model.get("epsilon")}))
    return round(sum(density.expected_connections(sizes))) + sum(sizes[1:])


LIBRARIES: dict[str, Callable[[Mapping[str, Any], ts.Dataset, int, int], TrulySparse | Torch]] = {
    "trulysparse": TrulySparse,
    "torch": Torch,
}


def run(case: grid.Case, place: str | None) -> dict[str, Any]:
    """Train one contestant, in this process, until its time is up."""
    data = ts.load_dataset(case["dataset"], data=place)
    if data.task != "classification" or data.y_test is None:
        raise ValueError(f"{case['dataset']} has no labels to test on; take a data set of classes with a test part")
    settings, y = case["settings"], data.y_test
    contestant = LIBRARIES[settings["library"]](settings, data, case["seed"], case["threads"])
    neighbours = Neighbours()
    clock = Clock(60 * case["minutes"], lambda: accuracy(labels_of(contestant.logits()), y))
    with contextlib.suppress(TimeIsUp):
        contestant.train(clock)
    clock.finish()
    others = neighbours.cores()
    last, again = clock.curve[-1]["accuracy"], accuracy(contestant.predictions(), y)
    if last != again:
        raise RuntimeError(f"{case['contestant']}: logits and predictions disagree ({last}, {again}): this is a bug")
    best = max(look["accuracy"] for look in clock.curve)
    return {
        "summary": f"best {100 * best:.2f} %, last {100 * last:.2f} %, {clock.steps} steps",
        "best_accuracy": best,
        "last_accuracy": last,
        "steps": clock.steps,
        "epochs": clock.steps / (data.n_train // contestant.batch_size),
        "train_seconds": clock.curve[-1]["seconds"],
        "test_seconds": clock.test_seconds,
        "others_used_cores": others,
        "affinity": sorted(os.sched_getaffinity(0)),
        **contestant.facts(),
        "curve": clock.curve,
    }


def cases(options: Any) -> list[grid.Case]:
    """Return every contestant with every seed; seeds outermost, so that all have results early."""
    every = contestants(options.dataset)
    return [
        {
            "experiment": "time_to_accuracy",
            "dataset": options.dataset,
            "contestant": name,
            "minutes": options.minutes,
            "threads": options.threads,
            "seed": seed,
            "settings": every[name],
        }
        for seed in range(options.seeds)
        for name in options.contestants
    ]


def seconds_to(curve: Sequence[Mapping[str, Any]], level: float) -> float | None:
    """Return the seconds of training at the first test with at least that accuracy; None if there was none."""
    return next((look["seconds"] for look in curve if look["accuracy"] >= level), None)


def report(wanted: list[grid.Case], found: list[dict[str, Any]]) -> str:
    """Return the page: seconds to each level, and accuracies."""
    case = wanted[0]
    levels = LEVELS.get(case["dataset"], DEFAULT_LEVELS)
    rows = []
    for name, some in _by_contestant(found).items():
        others = [r["others_used_cores"] for r in some if r["others_used_cores"] is not None]
        rows.append(
            [
                name,
                _network(some[0]),
                f"{grid.spread([r['parameters'] for r in some])[0]:,.0f}",
                *(_seconds([seconds_to(r["curve"], level) for r in some]) for level in levels),
                grid.percent([r["best_accuracy"] for r in some]),
                grid.percent([r["last_accuracy"] for r in some]),
                f"{grid.spread([r['epochs'] for r in some])[0]:.1f}",
                f"{max(others):.2f}" if others else "unknown",
            ]
        )
    header = [
        "contestant",
        "network",
        "parameters",
        *(f"s to {100 * level:g} %" for level in levels),
        "best, %",
        "last, %",
        "epochs",
        "cores others used",
    ]
    seeds = len({c["seed"] for c in wanted})
    return "\n".join(
        [
            "<!-- SPDX-License-Identifier: BSD-3-Clause -->",
            f"# Seconds of training to an accuracy: {case['dataset']}",
            "",
            f"{case['minutes']:g} minutes of training each, {case['threads']} threads, one after the other, each in a "
            f"process of its own; seeds: {seeds}. Seconds: mean over the seeds that reached the level (least to most), "
            "at the first test that showed it. All are tested at the same moments, off the clock, "
            f'{len(moments(60 * case["minutes"]))} times at most; "best" is chosen by looking at the test data, '
            '"last" is not; both mean ± standard deviation over seeds. trulysparse: the paper\'s settings (SET, '
            "All-ReLU). Dense: PyTorch, ReLU, same batches, learning rate and momentum, no weight decay, the paper's "
            "dropout or none. small-dense has at most as many parameters as the sparse network. Where others used "
            "more than a small part of a core, the seconds say little. "
            f"`python bench/accuracy/time_to_accuracy.py --data DIR --dataset {case['dataset']}`.",
            "",
            grid.table(header, rows),
        ]
    )


def _by_contestant(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in found:
        groups.setdefault(result["case"]["contestant"], []).append(result)
    return groups


def _network(result: Mapping[str, Any]) -> str:
    return "-".join(map(str, result["sizes"]))


def _seconds(values: Sequence[float | None]) -> str:
    """Return mean and range of those that reached the level, and how many did if not all."""
    reached = [v for v in values if v is not None]
    if not reached:
        return "never"
    text = f"{grid.spread(reached)[0]:.3g}"
    if len(values) > 1:
        text += f" ({min(reached):.3g} to {max(reached):.3g})"
    return text if len(reached) == len(values) else f"{text}, {len(reached)} of {len(values)} seeds"


def picture(found: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over seconds of training: the mean of the seeds, and a band from the least to the largest."""
    case = found[0]["case"]
    levels = LEVELS.get(case["dataset"], DEFAULT_LEVELS)
    drawn = figure("accuracy over time", (8.5, 6.0))
    axis = drawn.subplots()
    top = 0.0
    for name, some in _by_contestant(found).items():
        curves = [{look["moment"]: look for look in r["curve"]} for r in some]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        seconds = [np.mean([curve[m]["seconds"] for curve in curves]) for m in shared]
        values = 100 * np.array([[curve[m]["accuracy"] for curve in curves] for m in shared]).reshape(len(shared), -1)
        top = max(top, float(values.max(initial=0.0)))
        label = f"{name}: {_network(some[0])}, {some[0]['parameters']:,} parameters"
        (line,) = axis.plot(seconds, values.mean(axis=1), label=label, linewidth=2.2 if name == "trulysparse" else 1.4)
        if len(some) > 1:
            axis.fill_between(seconds, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.15)
    axis.set_xscale("log")
    low = 100 * levels[0] - 10
    if top > low:
        axis.set_ylim(low, top + 1)
    axis.set_xlabel(f"seconds of training ({case['threads']} threads, tests apart)")
    axis.set_ylabel("test accuracy, %")
    axis.set_title(f"{case['dataset']}, {case['minutes']:g} minutes each", fontsize=11)
    axis.grid(alpha=0.25, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside lower center", frameon=False, fontsize="small")
    write_png(drawn, path)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="directory of NAME.npz, or the file (digits needs none)")
    options.add_argument("--dataset", default=DEFAULT_DATASET, help="default: %(default)s")
    options.add_argument("--minutes", type=float, default=5.0, help="of training a contestant (default: %(default)g)")
    options.add_argument("--seeds", type=int, default=3, help="runs a contestant (default: %(default)s)")
    options.add_argument("--threads", type=int, default=2, help="of each contestant (default: %(default)s)")
    options.add_argument("--contestants", nargs="+", metavar="NAME", help="some of them (default: all)")
    options.add_argument("--results", type=Path, default=RESULTS, help="JSON lines; page and picture go beside them")
    options.add_argument("--fresh", action="store_true", help="run also what the results file holds already")
    options.add_argument("--report", action="store_true", help="run nothing, print what the results file says")
    return options


def main() -> None:
    options = parser().parse_args()
    known = list(contestants(options.dataset))
    options.contestants = options.contestants or known
    if strangers := set(options.contestants) - set(known):
        raise SystemExit(f"no contestant is called {', '.join(sorted(strangers))}; there are {', '.join(known)}")
    if options.minutes <= 0 or options.seeds < 1 or options.threads < 1:
        raise SystemExit("--minutes must be above 0, --seeds and --threads at least 1")
    options.processes = 1  # together they would take each other's cores
    wanted = cases(options)
    if not options.report:
        grid.run_all(wanted, run, options.results, options)
    found = grid.results_of(options.results, wanted)
    text = report(wanted, found)
    print(text)
    if len(found) == len(wanted):
        stem = options.results.stem + ("" if options.dataset == DEFAULT_DATASET else f"_{options.dataset}")
        with replacing(options.results.with_name(f"{stem}.md")) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        picture(found, options.results.with_name(f"{stem}.png"))


if __name__ == "__main__":
    main()
