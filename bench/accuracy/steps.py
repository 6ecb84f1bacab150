# SPDX-License-Identifier: BSD-3-Clause
"""What a step of each method costs beside dense training, in turns in one process.

    python bench/accuracy/steps.py [--threads 1 2] [--rounds 9]

Two questions. How much of training time do RigL's updates take at interval 100, on the network of the paper for
Fashion-MNIST (784-1000-1000-1000-10, epsilon 20)? From which density on is a Top-KAST step, refreshes every 100 steps
included, faster than a dense step, of PyTorch where it is installed and of this library? Random data, batch 128; the
time of a step does not depend on what is learnt. Results are checked: connections stay what they were, and every loss
is a number. Appends to bench/results/steps.jsonl.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import grid
import numpy as np

import trulysparse as ts
from trulysparse.bench import records
from trulysparse.bench.machine import provenance, source_commit

RESULTS = grid.RESULTS / "steps.jsonl"
BATCH = 128
FASHION = (784, 1000, 1000, 1000, 10)
CIFAR = (3072, 512, 256, 10)
INTERVAL = 100


class Ours:
    """Trains on and on; a turn is `INTERVAL` steps, so that it holds one update."""

    def __init__(self, sizes: tuple[int, ...], density: Any, topology: ts.Topology, threads: int) -> None:
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((INTERVAL * BATCH, sizes[0]), dtype=np.float32)
        self.y = rng.integers(0, sizes[-1], INTERVAL * BATCH)
        self.net = ts.SparseMLP(sizes, density=density, seed=0, threads=threads)
        self.connections = self.net.connections
        self.trainer = ts.Trainer(
            self.net, optimizer=ts.SGD(lr=1e-3), topology=topology, threads=threads, progress=False, standardize=False
        )
        self.epochs = 0

    def turn(self) -> tuple[float, float]:
        """Return the seconds of a turn, and those of them that updates of the topology took."""
        self.epochs += 1
        evolved = self.trainer.state.evolutions
        self.trainer.fit(self.X, self.y, epochs=self.epochs)
        row = self.trainer.history.rows[-1]
        if self.epochs > 1 and self.trainer.topology.dynamic and self.trainer.state.evolutions != evolved + 1:
            raise RuntimeError(f"{self.trainer}: a turn without its one update: this is a bug")
        if self.net.connections != self.connections or not math.isfinite(row["loss"]):
            raise RuntimeError(f"{self.trainer}: connections or loss are not what they must be: this is a bug")
        return row["train_seconds"] + row["evolve_seconds"], row["evolve_seconds"]


class Torch:
    """The dense network in PyTorch, same sizes and batch."""

    def __init__(self, sizes: tuple[int, ...], threads: int) -> None:
        import torch

        self.torch = torch
        self.threads = threads
        torch.manual_seed(0)
        layers: list[Any] = []
        for n_in, n_out in pairwise(sizes[:-1]):
            layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-2], sizes[-1]))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.X = torch.randn(INTERVAL * BATCH, sizes[0])
        self.y = torch.randint(0, sizes[-1], (INTERVAL * BATCH,))

    def turn(self) -> tuple[float, float]:
        torch = self.torch
        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        for i in range(INTERVAL):
            rows = slice(i * BATCH, (i + 1) * BATCH)
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(self.X[rows]), self.y[rows])
            loss.backward()
            self.optimizer.step()
        seconds = time.perf_counter() - started
        if not math.isfinite(float(loss)):
            raise RuntimeError("the loss of PyTorch's network is not a number")
        return seconds, 0.0


def contenders(threads: int) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return what is measured side by side, group by group."""
    every = INTERVAL
    fashion = {
        "static": lambda: Ours(FASHION, ts.ErdosRenyi(20), ts.Static(), threads),
        "set": lambda: Ours(FASHION, ts.ErdosRenyi(20), ts.SET(0.3), threads),
        "rigl": lambda: Ours(FASHION, ts.ErdosRenyi(20), ts.RigL(0.3, update_every=every, schedule="constant",
                                                                 end=1.0), threads),
        "rigl sampled": lambda: Ours(FASHION, ts.ErdosRenyi(20), ts.RigL(0.3, update_every=every, schedule="constant",
                                                                         end=1.0, search="sampled"), threads),
    }  # fmt: skip
    cifar: dict[str, Callable[[], Any]] = {"dense": lambda: Ours(CIFAR, 1.0, ts.Static(), threads)}
    try:
        import torch  # noqa: F401

        cifar["dense, PyTorch"] = lambda: Torch(CIFAR, threads)
        fashion["dense, PyTorch"] = lambda: Torch(FASHION, threads)
    except ImportError:
        print("PyTorch is not installed: compared with this library's dense training only")
    for forward, backward in ((0.2, 0.2), (0.2, 0.4), (0.1, 0.2), (0.05, 0.2), (0.05, 0.1)):
        cifar[f"top_kast {1 - forward:.2f}/{1 - backward:.2f}"] = lambda f=forward, b=backward: Ours(
            CIFAR, ts.Uniform(f), ts.TopKAST(backward_density=b, refresh_every=every), threads
        )
    return {"784-1000-1000-1000-10": fashion, "3072-512-256-10": cifar}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=9)
    arguments = options.parse_args()
    facts = provenance(source_commit(Path(__file__).parent))
    for threads in arguments.threads:
        for network, group in contenders(threads).items():
            runners = {name: make() for name, make in group.items()}
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
            for runner in runners.values():
                runner.turn()
            for _ in range(arguments.rounds):
                for name, runner in runners.items():
                    times[name].append(runner.turn())
            for name, turns in times.items():
                steps = [seconds / INTERVAL for seconds, _ in turns]
                share = statistics.median(evolving / seconds for seconds, evolving in turns)
                record = {
                    "benchmark": "steps",
                    "network": network,
                    "method": name,
                    "threads": threads,
                    "batch": BATCH,
                    "step_seconds_median": statistics.median(steps),
                    "step_seconds_quartiles": statistics.quantiles(steps, n=4),
                    "update_share_median": share,
                    "rounds": arguments.rounds,
                }
                records.append(RESULTS, record, facts)
                print(
                    f"{network}, {threads} thread(s), {name}: {1e3 * record['step_seconds_median']:.2f} ms a step, "
                    f"{100 * share:.1f} % of it updates",
                    flush=True,
                )


if __name__ == "__main__":
    main()
