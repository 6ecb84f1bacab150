# SPDX-License-Identifier: BSD-3-Clause
"""Would full layers gain from a dense GEMM?  The sparse kernels against SciPy's sgemm, called from the same threads.

    python bench/dense/run.py [--only layers steps break_even bits] [--threads 1 2] [--batches 128 32] [--seconds 0.3]

`layers`: the passes of some full layers. `steps`: all passes of fully dense networks. `break_even`: a layer at several
densities against a dense copy of it.
`bits`: whether a result depends on the number of threads, ours or OpenBLAS's. Each of them with *blocks* (calls of at
most 64^3 multiply-adds, which OpenBLAS does not share among threads) and with *large* calls (which it does, unless the
whole process is limited to one thread; here it is). What follows a sum (bias, activation, dropout) is left out on the
dense side. Appends to bench/results/dense_layers.jsonl; docs/design/dense-layers.md says what follows.

Each setting runs in a child process: OPENBLAS_CORETYPE=SKYLAKEX makes OpenBLAS use AVX-512 where it does not know the
processor, TRULYSPARSE_ISA=avx2 makes the sparse kernels do without. Needs g++, in a checkout.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trulysparse import _kernels
from trulysparse.bench import records
from trulysparse.bench.machine import Neighbours, provenance, source_commit
from trulysparse.bench.roofline import Roofline
from trulysparse.bench.timing import alternate

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "dense_layers.jsonl"
NETWORKS = {
    "784-1000-1000-1000-10": (784, 1000, 1000, 1000, 10),
    "3072-4000-1000-4000-10": (3072, 4000, 1000, 4000, 10),
}
DENSITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SETTINGS = (("avx512", ""), ("avx512", "SKYLAKEX"), ("avx2", "HASWELL"))  # our instruction set, OpenBLAS's kernels


def main() -> None:
    """Compile, then run every setting in a child process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("layers", "steps", "break_even", "bits")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 32], help="multiples of 16")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contestant in each case")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as directory:
        library = compile_blocks(Path(directory))
        for isa, core in SETTINGS:
            if isa not in _kernels.available_isas():
                continue
            for part in arguments.only:
                if part == "bits" and isa == "avx2":
                    continue  # only OpenBLAS computes there
                for blas_threads in ("1", "2", "4") if part == "bits" else ("1",):
                    chosen = {"TRULYSPARSE_ISA": isa, "OPENBLAS_NUM_THREADS": blas_threads}
                    chosen |= {"OPENBLAS_CORETYPE": core} if core else {}
                    command = [sys.executable, __file__, *sys.argv[1:], "--only", part, "--child", str(library)]
                    subprocess.run(command, env=os.environ | chosen, check=True)


def compile_blocks(directory: Path) -> Path:
    """Return the shared library of blocks.cpp and the pool."""
    library = directory / "blocks.so"
    sources = [Path(__file__).with_name("blocks.cpp"), ROOT / "cpp/src/parallel.cpp"]
    flags = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", f"-I{ROOT / 'cpp/include'}"]
    subprocess.run(["g++", *flags, *sources, "-o", library], check=True)
    return library


def child(arguments: argparse.Namespace) -> None:
    """Measure one part in one setting."""
    blas = Blas(arguments.child)
    facts = {**provenance(source_commit(ROOT)), "blas": blas.name, "blas_threads": os.environ["OPENBLAS_NUM_THREADS"]}
    measured = {"layers": layers, "steps": steps, "break_even": break_even, "bits": bits}[arguments.only[0]]
    neighbours = Neighbours()
    for record in measured(blas, arguments):
        record["foreign_cores"] = neighbours.cores()
        records.append(RESULTS, record, facts)
        print(facts["isa"], blas.name, *(f"{key}={value}" for key, value in record.items()), flush=True)


class Blas:
    """The compiled blocks with SciPy's sgemm in them."""

    def __init__(self, library: str) -> None:
        from scipy.linalg import cython_blas
        from threadpoolctl import threadpool_info

        api = ctypes.pythonapi
        api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
        api.PyCapsule_GetPointer.restype = ctypes.c_void_p
        api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        capsule = cython_blas.__pyx_capi__["sgemm"]
        self.library = ctypes.CDLL(library)
        self.library.set_sgemm(ctypes.c_void_p(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))))
        blas = [
            info for info in threadpool_info() if info["user_api"] == "blas" and "numpy.libs" not in info["filepath"]
        ]
        self.name = " ".join(f"{info['internal_api']} {info['version']} {info['architecture']}" for info in blas)

    def call(self, name: str, *arguments: Any) -> Callable[[], object]:
        """Return a call of one of the functions."""
        function = getattr(self.library, name)
        converted = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        return lambda: function(*converted)


class Layer:
    """A layer with everything its passes need, and the passes."""

    def __init__(self, n_in: int, n_out: int, ld: int, density: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        mask = np.ones((n_in, n_out), bool) if density == 1 else rng.random((n_in, n_out)) < density
        self.shape = (n_in, n_out, ld)
        self.row_ptr = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
        self.col_idx = np.nonzero(mask)[1].astype(np.int32)
        self.w, self.bias = random(rng, self.col_idx.size), _kernels.aligned_zeros(n_out)
        self.x, self.dy = random(rng, (n_in, ld)), random(rng, (n_out, ld))
        self.y, self.dx = _kernels.aligned_zeros((n_out, ld)), _kernels.aligned_zeros((n_in, ld))
        self.dw = _kernels.aligned_zeros(self.w.size)
        pattern = (n_in, n_out, self.row_ptr, self.col_idx)
        self.view = _kernels.layer_view(*pattern, *_kernels.transpose(*pattern), self.w, self.bias)

    def sparse(self, threads: int, with_dx: bool = True) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return the forward and the backward pass of the sparse kernels."""
        sink, dx, line = _kernels.sink_store(self.dw), self.dx if with_dx else None, ("linear", 0.0)
        return (
            lambda: _kernels.forward(self.view, self.x, self.y, activation=line, threads=threads),
            lambda: _kernels.backward(self.view, self.dy, self.x, dx, sink=sink, threads=threads),
        )

    def dense(
        self, blas: Blas, threads: int, large: bool, with_dx: bool = True, w: Any = None, dw: Any = None
    ) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return the same through sgemm; `w` and `dw` are (n_in, n_out) where the layer is not full."""
        w, dw = self.w if w is None else w, self.dw if dw is None else dw
        ld = self.shape[2]
        rows, depth = (256, 1 << 30) if large else (64 * 128 // ld, 32)
        gradient_rows, columns = (128, 1024) if large else (64 * 128 // ld, 32)
        forward = blas.call("forward", w, self.x, self.y, *self.shape, rows, depth, threads)
        delta = blas.call("input_delta", w, self.dy, self.dx, *self.shape, rows, depth, threads)
        gradient = blas.call("gradient", self.x, self.dy, dw, *self.shape, gradient_rows, columns, threads)
        return forward, (lambda: (gradient(), delta())) if with_dx else gradient


def random(rng: np.random.Generator, shape: Any) -> Any:
    """Return aligned normal values."""
    array = _kernels.aligned_zeros(shape)
    array[:] = rng.standard_normal(shape)
    return array


def layers(blas: Blas, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """GFLOP/s of the passes of full layers, and of multiply-adds in registers."""
    for n_in, n_out in ((1000, 10), (1000, 1000), (3072, 4000)):
        for batch in arguments.batches:
            for threads in arguments.threads:
                both = passes(blas, n_in, n_out, batch, threads, True, arguments.seconds)
                flops = 2e-9 * n_in * n_out * batch
                yield {
                    "benchmark": "dense_layers",
                    "shape": f"{n_in}x{n_out}",
                    "batch": batch,
                    "threads": threads,
                    "forward_gflops": {way: round(flops / seconds, 1) for way, seconds in both[0].items()},
                    "backward_gflops": {way: round(2 * flops / seconds, 1) for way, seconds in both[1].items()},
                    "peak_gflops": round(Roofline().fma_gflops(threads), 1),
                }


def steps(blas: Blas, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds of all passes of a step: sparse, in blocks, large, and the faster of sparse and blocks in every pass."""
    for batch in arguments.batches:
        for threads in arguments.threads:
            known: dict[tuple[int, int, bool], tuple[dict[str, float], dict[str, float]]] = {}
            for name, sizes in NETWORKS.items():
                total = dict.fromkeys(("sparse", "blocks", "large", "best"), 0.0)
                forward_only = dict.fromkeys(("sparse", "blocks", "large"), 0.0)
                for index, pair in enumerate(itertools.pairwise(sizes)):
                    key = (*pair, index > 0)
                    if key not in known:
                        known[key] = passes(blas, *pair, batch, threads, index > 0, arguments.seconds)
                    for number, seconds in enumerate(known[key]):
                        for way, value in seconds.items():
                            total[way] += value
                            forward_only[way] += value if number == 0 else 0.0
                        total["best"] += min(seconds["sparse"], seconds["blocks"])
                yield {
                    "benchmark": "dense_steps",
                    "network": name,
                    "batch": batch,
                    "threads": threads,
                    "milliseconds": {way: round(1e3 * value, 3) for way, value in total.items()},
                    "forward_milliseconds": {way: round(1e3 * value, 3) for way, value in forward_only.items()},
                    "gain": {way: round(total["sparse"] / total[way], 2) for way in ("blocks", "large", "best")},
                }


def passes(
    blas: Blas, n_in: int, n_out: int, ld: int, threads: int, with_dx: bool, seconds: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of the forward and the backward pass of a full layer, in every way, results checked."""
    layer = Layer(n_in, n_out, ld)
    ways = {
        "sparse": layer.sparse(threads, with_dx),
        "blocks": layer.dense(blas, threads, False, with_dx),
        "large": layer.dense(blas, threads, True, with_dx),
    }
    found = []
    for number, results in enumerate(((layer.y,), (layer.dw, layer.dx))):
        right = []
        for calls in ways.values():
            calls[number]()
            right.append([result.copy() for result in results])
        for other in right[1:]:
            for a, b in zip(right[0], other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.sqrt(max(n_in, n_out)))
        timings = alternate({way: calls[number] for way, calls in ways.items()}, seconds=seconds)
        found.append({way: timing.median for way, timing in timings.items()})
    return found[0], found[1]


def break_even(blas: Blas, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time of both sparse passes of a layer as a part of those of a dense copy, and the same for keeping the copy."""
    for n in (1000, 4096):
        for batch in arguments.batches:
            for density in DENSITIES:
                layer = Layer(n, n, batch, density)
                w, dw = _kernels.aligned_zeros(n * n), _kernels.aligned_zeros(n * n)
                sides = layer.sparse(1), layer.dense(blas, 1, False, w=w, dw=dw)
                index = (layer.row_ptr, layer.col_idx)
                copies = [
                    blas.call("copy", *index, values, matrix, n, n, out, 1)
                    for values, matrix, out in ((layer.w, w, 0), (layer.dw, dw, 1))
                ]
                calls = {
                    name: lambda both=both: [call() for call in both]
                    for name, both in (("copy", copies), ("sparse", sides[0]), ("dense", sides[1]))
                }
                for call in calls.values():
                    call()
                t = {name: timing.median for name, timing in alternate(calls, seconds=arguments.seconds).items()}
                yield {
                    "benchmark": "dense_break_even",
                    "shape": f"{n}x{n}@{density:.0%}",
                    "batch": batch,
                    "threads": 1,
                    "sparse_of_dense": round(t["sparse"] / t["dense"], 2),
                    "copy_of_dense": round(t["copy"] / t["dense"], 2),
                }


def bits(blas: Blas, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Digests of the results on 1, 2 and 7 threads: one digest means the same bits."""
    for n_in, n_out, ld in ((784, 1000, 128), (1001, 777, 48), (513, 100, 16)):
        layer = Layer(n_in, n_out, ld)
        for large in (False, True):
            digests = set()
            for threads in (1, 2, 7):
                for call in layer.dense(blas, threads, large):
                    call()
                results = b"".join(array.tobytes() for array in (layer.y, layer.dx, layer.dw))
                digests.add(hashlib.sha256(results).hexdigest()[:12])
            yield {
                "benchmark": "dense_bits",
                "shape": f"{n_in}x{n_out}",
                "batch": ld,
                "operation": "large" if large else "blocks",
                "digests": sorted(digests),
            }


if __name__ == "__main__":
    main()
