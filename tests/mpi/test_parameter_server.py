# SPDX-License-Identifier: BSD-3-Clause
"""WASAP and WASSP under mpiexec: the promises of the parameter server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

START = """
import faulthandler; faulthandler.dump_traceback_later(50, exit=True)  # before the launch is given up
import hashlib, json, os, signal, sys, time
import numpy as np
import trulysparse as ts
from trulysparse.parallel import WASAP, WASSP
from trulysparse.parallel.world import import_mpi

comm = import_mpi().COMM_WORLD
rank, workers = comm.Get_rank(), comm.Get_size() - 1
rng = np.random.default_rng(0)
X = rng.normal(size=(330, 12)).astype(np.float32)
y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)

def network(activation=None, seed=1):
    return ts.SparseMLP((12, 40, 30, 2), density=0.3, dropout=0.2, activation=activation or ts.AllReLU(0.6), seed=seed)

def arrays(net, state=None, slots=()):
    found = {}
    for layer in net.layers:
        found |= {f"{layer.index} {name}": array for name, array in (
            ("col_idx", layer.pattern.col_idx), ("row_ptr", layer.pattern.row_ptr), ("values", layer.values),
            ("bias", layer.bias), *layer.activation_parameters.items())}
        for name in slots:
            found[f"{layer.index} {name}"] = state.weight_slots[layer.index][name]
            found[f"{layer.index} bias {name}"] = state.bias_slots[layer.index][name]
    return {name: array.tobytes() for name, array in found.items()}

def differences(left, right):
    assert left.keys() == right.keys()
    return [name for name in left if left[name] != right[name]]

def rows(history):
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in history.rows]

def trainer(net=None, *, parallel, **more):
    more = {"optimizer": ts.SGD(lr=0.05, momentum=0.9, weight_decay=1e-4), "topology": ts.SET(0.3), "seed": 3,
            "batch_size": 32, "threads": 1, "progress": False, **more}
    return ts.Trainer(net or network(), parallel=parallel, **more)

class Counts(ts.Callback):
    steps = evolutions = 0
    def on_step_end(self, trainer, step):
        self.steps += 1
    def on_evolution(self, trainer, report):
        self.evolutions += 1

def accounted(run):
    # every gradient that was sent was applied
    if rank == 0:
        report = run.parallel_report
        assert report.lost_updates == 0 and report.refused == 0, report
        assert report.updates_applied == report.updates_sent and report.updates == sum(report.updates_sent) > 0, report
"""


K1 = """
cases = {
    "set": {},
    "rigl": {"topology": ts.RigL(0.3, update_every=3)},
    "pruning": {"pruning": ts.ImportancePruning(start=1, period=2, regrow_into_pruned=False)},
    "adam": {"optimizer": ts.Adam(lr=0.01, weight_decay=1e-3)},
    "nesterov": {"optimizer": ts.SGD(lr=0.05, momentum=0.9, nesterov=True, clip_norm=0.5), "micro_batch": 16},
    "prelu": {"net": lambda: network(ts.PReLU())},
    "schedule": {"net": lambda: network(ts.SReLU()), "topology": ts.Static(), "standardize": False,
                 "optimizer": ts.SGD(lr=ts.Cosine(0.05), momentum=0.9)},
}
for phase_two in (0.0, 0.4):
    for case, options in cases.items():
        make = options.get("net", network)
        options = {k: v for k, v in options.items() if k != "net"}
        counts = [Counts(), Counts()]
        run = trainer(make(), parallel=STRATEGY(phase_two=phase_two, transport=TRANSPORT), callbacks=[counts[0]], **options)
        run.fit(X, y, epochs=5, validation=0.1)
        if phase_two == 0:
            accounted(run)
        if rank == 0:
            alone = trainer(make(), parallel=None, callbacks=[counts[1]], **options)
            alone.fit(X, y, epochs=5, validation=0.1)
            slots = alone.optimizer.slots if phase_two == 0 else ()
            left, right = arrays(run.net, run.state, slots), arrays(alone.net, alone.state, slots)
            assert differences(left, right) == [], (case, phase_two, differences(left, right))
            assert rows(run.history) == rows(alone.history), (case, phase_two, rows(run.history), rows(alone.history))
            counters = [{name: getattr(r.state, name) for name in ("step", "epoch", "evolutions")} for r in (run, alone)]
            assert counters[0] == counters[1], (case, phase_two, counters)
            if phase_two == 0:
                assert (counts[0].steps, counts[0].evolutions) == (counts[1].steps, counts[1].evolutions)
            assert alone.net.connections > 0 and differences(right, arrays(make(), alone.state, slots)) != []
if rank == 0:
    print("equal")
"""


@pytest.mark.parametrize("transport", ["shared", "messages"])
@pytest.mark.parametrize("strategy", ["WASAP", "WASSP"])
def test_k1_equals_sequential(run_mpi: Any, strategy: str, transport: str) -> None:
    program = START + f"STRATEGY, TRANSPORT = {strategy}, {transport!r}\n" + K1
    assert run_mpi(2, program, timeout=120).stdout == "equal\n"
