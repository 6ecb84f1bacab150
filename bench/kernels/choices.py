# SPDX-License-Identifier: BSD-3-Clause
"""The measurements behind docs/design/kernels.md: what was chosen, against what else it could have been.

    python bench/kernels/choices.py                # about 4 minutes; bench/results/choices.jsonl
    python bench/kernels/choices.py --only order   # one choice

No rival is needed. The contestants of a line take turns in one process; the choice of huge pages, which is a
process's, is measured in two processes in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trulysparse import _kernels
from trulysparse.bench import records
from trulysparse.bench.cases import Problem, WrongResult, parse_shape
from trulysparse.bench.machine import Neighbours, provenance, source_commit
from trulysparse.bench.networks import NETWORKS
from trulysparse.bench.rivals.ours import TrulySparse
from trulysparse.bench.timing import alternate
from trulysparse.model import AllReLU, Given, SparseMLP

HERE = Path(__file__).resolve().parent
HUGE = "500000x500000@10M"
SHAPES = ("784x1000", "1000x1000", "3072x4000", "4096x4096@5%", HUGE)
LINEAR = ("linear", 0.0)
_THP_DISABLE = 41  # prctl's PR_SET_THP_DISABLE


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "choices.jsonl")
    parser.add_argument("--child", choices=("huge", "small"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_wide_layer(arguments.child)))
        return
    facts = provenance(source_commit(HERE.parents[1]))
    neighbours = Neighbours()
    for name in arguments.only:
        for record in CHOICES[name]():
            line = {"benchmark": f"choice-{name}", **record, "foreign_cores": neighbours.cores()}
            records.append(arguments.results, line, facts)
            print({key: value for key, value in line.items() if key != "benchmark"}, flush=True)


def order() -> Iterator[dict[str, Any]]:
    """Weights read through the permutation, or from a copy in target order, and what the copy costs."""
    for shape in SHAPES:
        pattern = None
        for batch in (128, 32, 16):
            problem = Problem(parse_shape(shape), batch, pattern=pattern)
            pattern = problem.pattern
            view = TrulySparse(problem, 1).layer.view
            y = _kernels.aligned_empty((problem.shape.n_out, problem.ld))
            copy = _kernels.aligned_empty(problem.shape.nnz)

            def forward(weights: Any, view: Any = view, problem: Problem = problem, y: Any = y) -> None:
                _kernels.forward(view, problem.x_padded, y, activation=LINEAR, by_target=weights, threads=1)

            _kernels.weights_by_target(view, copy, 1)
            for weights in (None, copy):
                forward(weights)
                problem.check("forward", y[:, :batch], "trulysparse")
            calls: Mapping[str, Callable[[], object]] = {
                "permutation": lambda f=forward: f(None),  # type: ignore[misc]
                "copy": lambda f=forward, c=copy: f(c),  # type: ignore[misc]
                "copying": lambda v=view, c=copy: _kernels.weights_by_target(v, c, 1),  # type: ignore[misc]
            }
            timings = alternate(calls, seconds=0.2)
            flops = problem.flops("forward")
            yield {
                "shape": shape,
                "batch": batch,
                "threads": 1,
                "gflops": {name: flops / timings[name].median / 1e9 for name in ("permutation", "copy")},
                "copying_seconds": timings["copying"].median,
                "forwards_to_pay": timings["copying"].median
                / max(1e-12, timings["permutation"].median - timings["copy"].median),
            }


def width() -> Iterator[dict[str, Any]]:
    """Samples taken at once: the same work in micro-batches of 16 to 128 columns."""
    for shape in SHAPES:
        for threads in (1, 2):
            speeds: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}
            pattern = None
            for batch in (128, 64, 32, 16):
                problem = Problem(parse_shape(shape), batch, pattern=pattern)
                pattern = problem.pattern
                ours = TrulySparse(problem, threads)
                for operation, speed in speeds.items():
                    timing = alternate({"": ours.operation(operation).call}, seconds=0.2, least=3)[""]
                    speed[str(batch)] = problem.flops(operation) / timing.median / 1e9
            yield {"shape": shape, "threads": threads, "gflops": speeds}


def ahead() -> Iterator[dict[str, Any]]:
    """Connections between asking for a random row and reading it: only the loads, of a matrix beyond all caches."""
    random = np.random.default_rng(0)
    for columns in (16, 32, 64, 128):
        rows = (256 << 20) // (4 * columns)
        matrix = _kernels.aligned_zeros((rows, columns))
        matrix += np.float32(1)  # touched: otherwise all pages are one page of zeros
        order = random.integers(0, rows, 200_000).astype(np.int32)
        if _kernels.probe_rows(matrix, order, 0, 1) != float(order.size * columns):
            raise WrongResult("the rows do not add up")
        calls: Mapping[str, Callable[[], object]] = {
            str(distance): lambda d=distance, m=matrix, o=order: _kernels.probe_rows(m, o, d, 1)  # type: ignore[misc]
            for distance in (0, 8, 16, 24, 32, 48, 64, 96, 128)
        }
        timings = alternate(calls, seconds=0.3)
        yield {"batch": columns, "threads": 1, "gbs_by_distance": {
            name: 4e-9 * order.size * columns / timing.median for name, timing in timings.items()
        }}  # fmt: skip


def _bfloat16(values: Any) -> Any:
    """Round float32 to the nearest bfloat16, ties to even, as uint16 in aligned memory."""
    bits = values.view(np.uint32)
    rounded = _kernels.aligned_empty(values.shape, np.uint16)
    rounded[...] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return rounded


def _widened(values: Any) -> Any:
    wide = _kernels.aligned_empty(values.shape)
    wide.view(np.uint32)[...] = values.astype(np.uint32) << 16
    return wide


def activations() -> Iterator[dict[str, Any]]:
    """Activations stored as float32 or as bfloat16; results must be equal but for the rounding at the end."""
    for shape in SHAPES:
        pattern = None
        for batch in (128, 64, 32, 16):
            problem = Problem(parse_shape(shape), batch, pattern=pattern)
            pattern = problem.pattern
            view = TrulySparse(problem, 1).layer.view
            x16, dy16 = _bfloat16(problem.x_padded), _bfloat16(problem.dy_padded)
            x32, dy32 = _widened(x16), _widened(dy16)
            y32, dx32 = _kernels.aligned_empty(dy32.shape), _kernels.aligned_empty(x32.shape)
            y16 = _kernels.aligned_empty(dy32.shape, np.uint16)
            dx16 = _kernels.aligned_empty(x32.shape, np.uint16)
            sink = _kernels.sink_store(_kernels.aligned_empty(problem.shape.nnz))

            def forward(x: Any, y: Any, threads: int, view: Any = view) -> None:
                _kernels.forward(view, x, y, activation=LINEAR, threads=threads)

            def backward(dy: Any, x: Any, dx: Any, threads: int, view: Any = view, sink: Any = sink) -> None:
                _kernels.backward(view, dy, x, dx, sink=sink, threads=threads)

            for threads in (1, 2):
                calls: dict[str, Callable[[], object]] = {
                    "forward float32": lambda f=forward, x=x32, y=y32, t=threads: f(x, y, t),  # type: ignore[misc]
                    "forward bfloat16": lambda f=forward, x=x16, y=y16, t=threads: f(x, y, t),  # type: ignore[misc]
                    "backward float32": lambda b=backward, dy=dy32, x=x32, dx=dx32, t=threads: b(dy, x, dx, t),  # type: ignore[misc]
                    "backward bfloat16": lambda b=backward, dy=dy16, x=x16, dx=dx16, t=threads: b(dy, x, dx, t),  # type: ignore[misc]
                }
                for call in calls.values():
                    call()
                if not np.array_equal(_bfloat16(y32), y16) or not np.array_equal(_bfloat16(dx32), dx16):
                    raise WrongResult("bfloat16 kernels differ from float32 by more than their rounding")
                timings = alternate(calls, seconds=0.15, least=3)
                yield {"shape": shape, "batch": batch, "threads": threads} | {
                    "gflops": {
                        name: problem.flops(name.split()[0]) / timing.median / 1e9 for name, timing in timings.items()
                    }
                }


def few() -> Iterator[dict[str, Any]]:
    """One sample after the other through a frozen network, or as a batch of 16 columns."""
    network = NETWORKS["fashion_mnist"]
    net = SparseMLP(network.sizes, density=Given(network.patterns), activation=AllReLU(0.6), seed=0, threads=1)
    layers = [layer.freeze(1) for layer in net.layers]
    single = _kernels.FrozenNetwork([layer.handle for layer in layers], None, None)
    buffers = [_kernels.aligned_zeros((n, 16)) for n in network.sizes]
    random = np.random.default_rng(3)

    def batch() -> None:
        for layer, x, y in zip(layers, buffers, buffers[1:], strict=False):
            layer.forward(x, y, 1)

    for samples in (1, 2, 3, 4):
        X = random.standard_normal((samples, network.sizes[0]), np.float32)
        out = np.empty((samples, network.sizes[-1]), np.float32)
        buffers[0][:, :samples] = X.T
        single.run(X, out, 1)
        batch()
        if not np.allclose(out, buffers[-1][:, :samples].T, rtol=1e-4, atol=1e-4):
            raise WrongResult("a sample alone and in a batch give different outputs")
        timings = alternate({"single": lambda X=X, out=out: single.run(X, out, 1), "batch": batch}, seconds=0.4)  # type: ignore[misc]
        yield {"network": network.name, "batch": samples, "threads": 1} | {
            "seconds": {name: timing.median for name, timing in timings.items()}
        }


def pages() -> Iterator[dict[str, Any]]:
    """A layer beyond all caches with and without huge pages."""
    samples: dict[str, list[dict[str, float]]] = {"huge": [], "small": []}
    for _ in range(3):
        for mode, some in samples.items():
            done = subprocess.run([sys.executable, __file__, "--child", mode], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr)
            some.append(json.loads(done.stdout))
    yield {"shape": HUGE, "threads": 1} | {
        "gflops": {
            mode: {key: statistics.median(one[key] for one in some) for key in some[0]}
            for mode, some in samples.items()
        }
    }


def _wide_layer(mode: str) -> dict[str, float]:
    if mode == "small":
        import ctypes

        if ctypes.CDLL(None).prctl(_THP_DISABLE, 1, 0, 0, 0):
            raise RuntimeError("this system does not let a process do without huge pages")
    speeds = {}
    pattern = None
    for batch in (128, 16):
        problem = Problem(parse_shape(HUGE), batch, pattern=pattern)
        pattern = problem.pattern
        ours = TrulySparse(problem, 1)
        for name in ("forward", "backward"):
            call = ours.operation(name).call
            call()
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            speeds[f"{name} {batch}"] = problem.flops(name) / statistics.median(seconds) / 1e9
    return speeds


CHOICES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "order": order,
    "width": width,
    "ahead": ahead,
    "activations": activations,
    "few": few,
    "pages": pages,
}


if __name__ == "__main__":
    main()
