# SPDX-License-Identifier: BSD-3-Clause
"""Whole training epochs, against rivals and with a busy core; break-even with dense PyTorch; single samples."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trulysparse import _kernels
from trulysparse.bench.cases import LR, MOMENTUM, Problem, Shape, WrongResult
from trulysparse.bench.kernels import checked
from trulysparse.bench.networks import NETWORKS, Data, Network, TorchTrainer, TrulySparseTrainer, make_trainers
from trulysparse.bench.rivals import OURS
from trulysparse.bench.rivals.base import NotOffered
from trulysparse.bench.rivals.ours import TrulySparse
from trulysparse.bench.timing import Timing, alternate, thread_limit
from trulysparse.model import AllReLU, Given, SparseMLP

__all__ = ["break_even_record", "busy_core_record", "check_loss", "epoch_record", "inference_record"]

_LEAST_STEPS, _MOST_STEPS = 12, 150
_TURN_SECONDS = 0.05
_SPIN = "import os, sys\nprint(flush=True)\nwhile os.getppid() == int(sys.argv[1]): pass"


def epoch_record(network: Network, data: Data, threads: int, rivals: Sequence[str], seconds: float) -> dict[str, Any]:
    """Time training steps of all contestants in turn, and say how long an epoch of them is.

    Parameters
    ----------
    network : Network
    data : Data
    threads : int
    rivals : sequence of str
        Those that train networks take part.
    seconds : float
        Time for each contestant.

    Returns
    -------
    dict
        One JSON line.

    Raises
    ------
    WrongResult
        A contestant whose loss does not fall.
    """
    with thread_limit(threads):
        trainers = make_trainers(network, data, threads, rivals)
        for trainer in trainers.values():
            for _ in range(2):
                trainer.step()
        steps = alternate(
            {name: trainer.step for name, trainer in trainers.items()},
            seconds=seconds,
            least=_LEAST_STEPS,
            most=10_000,
            turn_seconds=_TURN_SECONDS,
        )
        for trainer in trainers.values():
            # the loss of a few steps is mostly chance, and slow contestants made few
            while len(trainer.losses) < _LEAST_STEPS or (not _fell(trainer) and len(trainer.losses) < _MOST_STEPS):
                trainer.step()
            check_loss(trainer)
        ours = trainers[OURS]
        assert isinstance(ours, TrulySparseTrainer)
        evolutions = _evolution_seconds(ours)
    epochs = {name: timing.scaled(network.steps) for name, timing in steps.items()}
    return {
        "benchmark": "epoch",
        "network": network.name,
        "sizes": list(network.sizes),
        "samples": network.samples,
        "batch": network.batch,
        "threads": threads,
        "extrapolated": f"median training step times {network.steps}",
        "timings": {
            name: {**epochs[name].record(), "steps": len(trainer.losses), "loss": _ends(trainer.losses)}
            for name, trainer in trainers.items()
        },
        "evolution_steps": evolutions / steps[OURS].median,
        **_against({name: timing.median for name, timing in epochs.items()}),
    }


def _evolution_seconds(trainer: TrulySparseTrainer) -> float:
    """Return what an evolution takes, with training between two of them as there is in a run."""
    seconds = []
    for _ in range(9):
        for _ in range(20):
            trainer.step()
        seconds.append(trainer.evolve().seconds)
    return statistics.median(seconds)


def _against(seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return how many times longer the fastest sparse rival and dense PyTorch take."""
    ours = seconds[OURS]
    sparse = {n: s for n, s in seconds.items() if n != OURS and not n.startswith("torch-dense") and n != "torch-masked"}
    best = min(sparse, key=lambda name: sparse[name]) if sparse else None
    dense = seconds.get("torch-dense")
    return {
        "best_rival": best,
        "ratio": None if best is None else sparse[best] / ours,
        "ratio_dense": None if dense is None else dense / ours,
    }


def _ends(losses: Sequence[float]) -> list[float]:
    some = max(1, min(5, len(losses) // 4))
    return [statistics.mean(losses[:some]), statistics.mean(losses[-some:])]


def _fell(trainer: TrulySparseTrainer | TorchTrainer) -> bool:
    first, last = _ends(trainer.losses)
    return last < first


def check_loss(trainer: TrulySparseTrainer | TorchTrainer) -> None:
    """Raise WrongResult unless the loss fell: a step that does not learn is no training step."""
    if not _fell(trainer):
        first, last = _ends(trainer.losses)
        raise WrongResult(
            f"{trainer.name}: the loss went from {first:.4g} to {last:.4g} in {len(trainer.losses)} steps"
        )


@contextmanager
def _spinner(core: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that keeps one core busy; stopped and continued by signals."""
    process = subprocess.Popen([sys.executable, "-c", _SPIN, str(os.getpid())], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it runs
        os.sched_setaffinity(process.pid, {core})
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def busy_core_record(
    network: Network, data: Data, threads: int, *, rounds: int = 8, turn: float = 0.3
) -> dict[str, Any]:
    """Time training steps in turns, quiet and with another process busy on one of the cores.

    Returns
    -------
    dict
        One JSON line; `ratio` is what the busy core costs.
    """
    trainer = TrulySparseTrainer(network, data, threads)
    trainer.step()
    started = time.perf_counter()
    for _ in range(10):
        trainer.step()
    steps = max(10, int(turn * 10 / (time.perf_counter() - started)))
    samples: dict[str, list[float]] = {"quiet": [], "busy": []}
    with _spinner(min(os.sched_getaffinity(0))) as process:
        for _ in range(rounds):
            for mode, what in (("quiet", signal.SIGSTOP), ("busy", signal.SIGCONT)):
                process.send_signal(what)
                time.sleep(0.02)
                for _ in range(3):
                    trainer.step()
                started = time.perf_counter()
                for _ in range(steps):
                    trainer.step()
                samples[mode].append((time.perf_counter() - started) / steps)
    check_loss(trainer)
    timings = {mode: Timing(tuple(times), steps).scaled(network.steps) for mode, times in samples.items()}
    return {
        "benchmark": "busy_core",
        "network": network.name,
        "threads": threads,
        "extrapolated": f"training step times {network.steps}",
        "timings": {mode: timing.record() for mode, timing in timings.items()},
        "ratio": timings["busy"].median / timings["quiet"].median,
    }


def break_even_record(
    densities: Sequence[float], threads: int, seconds: float, *, size: int = 4096, batch: int = 128
) -> dict[str, Any]:
    """Time a layer's training step (forward, dx, dw, update) at some densities, and PyTorch's dense one beside each.

    Returns
    -------
    dict
        One JSON line; `break_even` is the highest density at which trulysparse was faster.

    Raises
    ------
    ImportError
        Without PyTorch.
    """
    lines: list[dict[str, Any]] = []
    with thread_limit(threads):
        for density in densities:
            problem = Problem(Shape(size, size, round(density * size * size)), batch)
            calls = {OURS: _sparse_step(problem, threads), "torch-dense": _dense_step(problem)}
            timings = alternate(calls, seconds=seconds, least=3)
            ratio = timings["torch-dense"].median / timings[OURS].median
            record = {name: timing.record() for name, timing in timings.items()}
            lines.append({"density": density, "timings": record, "ratio": ratio})
    faster = [line["density"] for line in lines if line["ratio"] > 1]
    return {
        "benchmark": "break_even",
        "shape": f"{size}x{size}",
        "batch": batch,
        "threads": threads,
        "densities": lines,
        "break_even": max(faster, default=None),
    }


def _sparse_step(problem: Problem, threads: int) -> Any:
    contestant = TrulySparse(problem, threads)
    forward = checked(contestant.forward(), "forward", problem, OURS)
    checked(contestant.backward(), "backward", problem, OURS)
    dx = _kernels.aligned_empty((problem.shape.n_in, problem.ld))
    velocity = _kernels.aligned_zeros(problem.shape.nnz)
    sink = _kernels.sink_sgd(velocity, LR * 1e-3, MOMENTUM, 0.0, "l2", False)  # a rate that leaves the weights finite
    view = contestant.layer.view

    def step() -> None:
        forward.call()
        _kernels.backward(view, problem.dy_padded, problem.x_padded, dx, sink=sink, threads=threads)

    step()
    return step


def _dense_step(problem: Problem) -> Any:
    import torch

    weights = torch.from_numpy(problem.matrix.toarray())
    transposed_x = torch.from_numpy(problem.x.T.copy())
    dy = torch.from_numpy(problem.dy.T.copy())
    parameter = torch.nn.Parameter(weights)
    parameter.grad = torch.empty_like(weights)
    optimizer = torch.optim.SGD([parameter], lr=LR * 1e-3, momentum=MOMENTUM, fused=True)
    y, dx = torch.empty(problem.batch, problem.shape.n_out), torch.empty(problem.batch, problem.shape.n_in)

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def step() -> None:
        torch.mm(transposed_x, parameter, out=y)
        torch.mm(dy, parameter.t(), out=dx)
        torch.mm(transposed_x.t(), dy, out=parameter.grad)
        optimizer.step()

    with torch.no_grad():
        torch.mm(transposed_x, parameter, out=y)
    problem.check("forward", y.numpy().T, "torch-dense")
    step()
    problem.check("dx", dx.numpy().T, "torch-dense")
    problem.check(
        "dw", parameter.grad.numpy()[problem.pattern.sources(), problem.pattern.col_idx], "torch-dense"
    )  # fmt: skip
    return step


def inference_record(seconds: float, *, network: Network = NETWORKS["fashion_mnist"]) -> dict[str, Any]:
    """Time a frozen network on one sample and one thread, against SciPy CSR with its matrices by target.

    Returns
    -------
    dict
        One JSON line.

    Raises
    ------
    WrongResult
        If the two disagree.
    """
    net = SparseMLP(network.sizes, density=Given(network.patterns), activation=AllReLU(0.6), seed=0, threads=1)
    random = np.random.default_rng(3)
    sample = random.standard_normal((1, network.sizes[0])).astype(np.float32)
    layers = [(layer.weights.T.tocsr(), layer.bias, layer.activation) for layer in net.layers]

    def scipy_csr() -> Any:
        x: Any = sample[0]
        for matrix, bias, (kind, slope) in layers:
            x = np.asarray(matrix @ x + bias, np.float32)
            if kind == "rectifier":
                np.multiply(x, np.where(x > 0, np.float32(1), np.float32(slope)), out=x)
        return x

    frozen = net.freeze()

    def ours() -> Any:
        return frozen.decision(sample)[0]

    def not_frozen() -> Any:
        return net.decision(sample)[0]

    with thread_limit(1):
        expected, got = scipy_csr(), ours()
        if not np.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max())):
            raise WrongResult(f"{OURS}: a sample gives {got} instead of {expected}")
        calls = {OURS: ours, "trulysparse-not-frozen": not_frozen, "scipy": scipy_csr}
        timings = alternate(calls, seconds=seconds, least=20)
    return {
        "benchmark": "inference",
        "network": network.name,
        "batch": 1,
        "threads": 1,
        "timings": {name: timing.record() for name, timing in timings.items()},
        "ratio": timings["scipy"].median / timings[OURS].median,
    }


__all__ += ["NotOffered"]
