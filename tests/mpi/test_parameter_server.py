# SPDX-License-Identifier: BSD-3-Clause
"""WASAP and WASSP under mpiexec: the promises of the parameter server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

START = """
import faulthandler; faulthandler.dump_traceback_later(40, exit=True)  # before the launch is given up
import hashlib, json, os, signal, sys, time, warnings
import numpy as np
import trulysparse as ts
from trulysparse.errors import ParallelWarning
from trulysparse.parallel import WASAP, WASSP
from trulysparse.parallel.world import import_mpi

warnings.simplefilter("ignore", ParallelWarning)  # more ranks than cores, on purpose
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
    "fan-in": {"optimizer": ts.SGD(lr=0.02, momentum=0.9, weight_decay=1e-4, lr_scale="fan_in"),
               "topology": ts.SET(0.3, grown_scale="match")},
    "adam": {"optimizer": ts.Adam(lr=0.01, weight_decay=1e-3)},
    "nesterov": {"optimizer": ts.SGD(lr=0.05, momentum=0.9, nesterov=True, clip_norm=0.5), "micro_batch": 16},
    "prelu": {"net": lambda: network(ts.PReLU())},
    "augment": {"augment": ts.ImageAugmentation((3, 2, 2), rotation=30), "topology": ts.RigL(0.3, update_every=3),
                "standardize": "global", "optimizer": ts.SGD(lr=0.05, momentum=0.9, clip_norm=0.5), "micro_batch": 16},
    "learned slopes": {"net": lambda: network(ts.AllReLU("auto"))},
    "schedule": {"net": lambda: network(ts.SReLU()), "topology": ts.Static(), "standardize": False,
                 "optimizer": ts.SGD(lr=ts.Cosine(0.05), momentum=0.9)},
}
for phase_two in (0.0, 0.4):
    for case, options in cases.items():
        make = options.get("net", network)
        options = {k: v for k, v in options.items() if k != "net"}
        counts = [Counts(), Counts()]
        strategy = STRATEGY(phase_two=phase_two, transport=TRANSPORT)
        run = trainer(make(), parallel=strategy, callbacks=[counts[0]], **options)
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
            names = ("step", "epoch", "evolutions")
            counters = [{name: getattr(r.state, name) for name in names} for r in (run, alone)]
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


WASSP_TRANSPORTS = """
cases = {
    "set": {"topology": ts.SET(0.3, update_every=2, unit="steps")},
    "rigl, pruning": {"topology": ts.RigL(0.3, update_every=3),
                      "pruning": ts.ImportancePruning(start=1, period=2, regrow_into_pruned=False)},
    "srelu, adam": {"net": lambda: network(ts.SReLU()), "optimizer": ts.Adam(lr=0.01)},
}
for phase_two in (0.0, 0.4):
    for case, options in cases.items():
        make = options.get("net", network)
        options = {k: v for k, v in options.items() if k != "net"}
        found = []
        for transport in ("shared", "messages", "shared"):
            counts = Counts()
            strategy = WASSP(phase_two=phase_two, transport=transport)
            run = trainer(make(), parallel=strategy, callbacks=[counts], **options)
            run.fit(X, y, epochs=6, validation=0.1)
            found.append((arrays(run.net), rows(run.history)))
            if phase_two == 0:
                accounted(run)
            nets = comm.allgather(found[-1])
            assert all(differences(nets[0][0], other[0]) == [] for other in nets), (case, transport)
            assert all(nets[0][1] == other[1] for other in nets), (case, transport)
            assert rank or counts.evolutions >= 3 - bool(phase_two), (case, counts.evolutions)
        for other, again in found[1:]:
            assert differences(found[0][0], other) == [], (case, phase_two)
            assert found[0][1] == again, (case, phase_two)
if rank == 0:
    print("equal")
"""


@pytest.mark.parametrize("ranks", [3, 4])
def test_transports_give_equal_bits_in_wassp(run_mpi: Any, ranks: int) -> None:
    assert run_mpi(ranks, START + WASSP_TRANSPORTS).stdout == "equal\n"


UPDATES = """
class Slow(ts.Callback):
    def on_step_end(self, trainer, step):
        time.sleep(0.002)
for transport in ("shared", "messages"):
    for strategy in (WASAP, WASSP):
        counts = Counts()
        more = {"staleness_aware": True} if strategy is WASAP else {}
        run = trainer(parallel=strategy(phase_two=0, transport=transport, **more), callbacks=[counts, Slow()],
                      topology=ts.SET(0.3, update_every=2, unit="steps"))
        run.fit(X, y, epochs=4)
        accounted(run)
        if rank == 0:
            report, batches = run.parallel_report, 330 // 32
            steps = 4 * (batches if strategy is WASAP else batches // workers)
            assert counts.steps == run.state.step == steps
            assert report.updates == steps * (1 if strategy is WASAP else workers), report
            assert sum(report.staleness.values()) == report.updates
            if strategy is WASSP:
                assert report.mean_staleness == 0
if rank == 0:
    print("counted")
"""


@pytest.mark.parametrize("ranks", [3, 5])
def test_updates_sent_are_updates_applied(run_mpi: Any, ranks: int) -> None:
    assert run_mpi(ranks, START + UPDATES).stdout == "counted\n"


RETAIN = """
from trulysparse.topology import TopologyDelta, register_topology
from trulysparse.parallel.messages import MessageServer

@register_topology("churn")
class Churn(ts.Topology):
    # drops every third connection, and grows as many elsewhere, with weight 0
    def due(self, progress):
        return progress.step > 0 and progress.step % 2 == 0
    def evolve(self, layer, signals, step):
        mask = np.arange(layer.nnz) % 3 != step // 2 % 3
        grown = signals.draw_missing(layer, layer.pattern, int((~mask).sum()))
        return TopologyDelta(mask, grown, np.zeros(len(grown), np.float32))

carried_all = []
gradient = MessageServer.gradient
def checked(self, slot):
    version, sent = self._versions[slot], self._gradients[slot].copy()
    old, layout = self._patterns[version], self._layouts[version]
    parameters, carried = gradient(self, slot)
    carried_all.append(carried)
    assert carried == (version != self.version)
    for layer, now, weights in zip(run.net.layers, parameters.weights, layout.parameters(sent).weights):
        expected = old[layer.index].to_scipy(weights).toarray().astype(np.float64)
        for between in range(version + 1, self.version + 1):
            expected *= self._patterns[between][layer.index].to_dense()
        assert np.array_equal(layer.pattern.to_scipy(now).toarray(), expected)
        assert now.size == layer.nnz
        alive = layer.pattern.to_dense()
        assert not expected[~alive].any()
    for now, then in zip(parameters.biases, layout.parameters(sent).biases):
        assert np.array_equal(now, then)
    return parameters, carried
MessageServer.gradient = checked

class Late(ts.Callback):
    def on_step_end(self, trainer, step):
        time.sleep(0.003)  # so that gradients wait for the master, and evolutions overtake them

for activation in (ts.ReLU(), ts.SReLU()):
    run = trainer(network(activation), parallel=WASAP(phase_two=0, transport="messages"), topology=Churn(),
                  callbacks=[Late()])
    run.fit(X, y, epochs=4)
    accounted(run)
    if rank == 0:
        assert sum(carried_all) == run.parallel_report.filtered > 5, (sum(carried_all), run.parallel_report)
        carried_all.clear()
if rank == 0:
    print("never")
"""


def test_retain_valid_updates_never_resurrects(run_mpi: Any) -> None:
    assert run_mpi(5, START + RETAIN).stdout == "never\n"


SWELL = """
from trulysparse.topology import TopologyDelta, register_topology

@register_topology("swell")
class Swell(ts.Topology):
    # the network outgrows its memory again and again, and shrinks in between
    def due(self, progress):
        return progress.step > 0 and progress.step % 4 == 0
    def evolve(self, layer, signals, step):
        if step % 8 == 0:
            return TopologyDelta(np.arange(layer.nnz) % 5 != 0)
        return TopologyDelta(None, signals.draw_missing(layer, layer.pattern, min(signals.room(layer), layer.nnz // 3)))
"""

REMAP = """
from trulysparse.parallel.shared import SharedServer
opened = []
open_model = SharedServer.open_model
def counting(self, net, state):
    opened.append(net.connections)
    open_model(self, net, state)
SharedServer.open_model = counting

for strategy in (WASAP, WASSP):
    for phase_two in (0.0, 0.4):
        found = []
        for transport in ("shared", "messages"):
            options = {"topology": Swell(), "optimizer": ts.SGD(lr=0.01, momentum=0.9)}
            run = trainer(network(ts.PReLU()), parallel=strategy(phase_two=phase_two, transport=transport), **options)
            run.fit(X, y, epochs=5, validation=0.1)
            if phase_two == 0:
                accounted(run)
            found.append(arrays(run.net))
            assert all(differences(found[-1], other) == [] for other in comm.allgather(found[-1]))
        if strategy is WASSP or workers == 1:
            assert differences(*found) == []
        if rank == 0 and workers == 1:
            alone = trainer(network(ts.PReLU()), parallel=None, **options)
            alone.fit(X, y, epochs=5, validation=0.1)
            assert differences(found[0], arrays(alone.net)) == []
if rank == 0:
    assert len(opened) > 4 + 4, opened
    print("moved")
"""


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_network_that_outgrows_its_memory_moves(run_mpi: Any, ranks: int) -> None:
    assert run_mpi(ranks, START + SWELL + REMAP).stdout == "moved\n"


GONE = """
from trulysparse.errors import ParallelError
from trulysparse.parallel import shared
from trulysparse.parallel.board import ModelStore
from trulysparse.parallel.shared import _Window

def held():
    # all arrays that a rank's run could still read
    engine = run._engine
    slots = [engine.state.weight_slots, engine.state.bias_slots]
    for own in engine.state.activation_slots:
        slots.append(own.values())
    yield from (array for each in slots for named in each for array in named.values())
    for layer in run.net.layers:
        pattern = layer.pattern
        yield from (pattern.row_ptr, pattern.col_idx, *pattern.transposed, layer.values, layer.bias)
        yield from layer.activation_parameters.values()
    yield engine.gradient.flat
    if engine.flat is not None:
        yield from (engine.flat.values, *engine.flat.slots.values())

freed = 0
free = _Window.free
def nothing_left(self):
    global freed
    freed += 1
    assert not any(np.may_share_memory(array, self.memory) for array in held()), rank
    free(self)
_Window.free = nothing_left

fails_at, calls = 0, {}
def at_times(name, do):
    # fails at one of the first moves
    def wrapper(*arguments):
        calls[name] = calls.get(name, 0) + 1
        if fails_at == (name, calls[name]):
            raise MemoryError("no room")
        return do(*arguments)
    return wrapper
shared.check_shm = at_times("check", shared.check_shm)
ModelStore.take_in = at_times("take", ModelStore.take_in)

for strategy in (WASAP, WASSP):
    for phase_two in (0.0, 0.4):
        for fails_at in (None, ("check", 2), ("take", 2), ("take", 5)):
            calls.clear()
            run = trainer(network(ts.PReLU()), parallel=strategy(phase_two=phase_two, transport="shared"),
                          topology=Swell(), optimizer=ts.SGD(lr=0.01, momentum=0.9))
            try:
                run.fit(X, y, epochs=5, validation=0.1)
            except (MemoryError, ParallelError) as error:
                assert fails_at and "no room" in str(error), (fails_at, error)
            else:
                assert not fails_at
            assert run.net.predict(X[:3]).shape == (3,)
            assert np.isfinite(run.net.layers[0].values).all()
assert freed > 8 * 4, freed
if rank == 0:
    print("gone")
"""


@pytest.mark.parametrize("ranks", [2, 4])
def test_nothing_points_at_memory_that_is_gone(run_mpi: Any, ranks: int) -> None:
    assert run_mpi(ranks, START + SWELL + GONE).stdout == "gone\n"


COMPACTED = """
class Stop(ts.Callback):
    # ends the run in the middle of an epoch, when neurons have been taken out
    def on_evolution(self, trainer, report):
        if trainer.net.sizes != sizes:
            trainer.stop("enough")

pruning = ts.ImportancePruning(30, start=1, period=1, remove_outgoing=True, compact=True)
sizes = network().sizes
cases = [(WASAP(phase_two=0, transport=transport), (ts.EarlyStopping(mode="max", patience=2),))
         for transport in ("shared", "messages")]
cases += [(WASSP(phase_two=0, transport=transport), (Stop(),)) for transport in ("shared", "messages")]
cases += [(ts.parallel.AllReduce(), (ts.EarlyStopping(mode="max", patience=2),))]
for strategy, callbacks in cases:
    run = trainer(parallel=strategy, pruning=pruning, callbacks=callbacks)
    run.fit(X, y, epochs=8, validation=0.1)
    mine = arrays(run.net)
    assert all(differences(mine, other) == [] for other in comm.allgather(mine)), strategy
    assert comm.allgather(run.net.sizes) == [run.net.sizes] * (workers + 1)
    assert np.array_equal(*[comm.bcast(run.net.predict(X), root=k) for k in (0, workers)])
if rank == 0:
    print("all")
"""


def test_a_network_of_fewer_neurons_is_everywhere(run_mpi: Any) -> None:
    assert run_mpi(3, START + COMPACTED).stdout == "all\n"


EVERYWHERE = """
for transport in ("shared", "messages"):
    for strategy in (WASAP, WASSP):
        for phase_two in (0.0, 0.5, 1.0):
            for broadcast in (True, False):
                counts = Counts()
                run = trainer(network(ts.PReLU()), callbacks=[counts],
                              parallel=strategy(phase_two=phase_two, transport=transport, broadcast=broadcast))
                history = run.fit(X, y, epochs=2, validation=0.1)
                case = (transport, strategy, phase_two, broadcast)
                nets, histories = comm.allgather(arrays(run.net)), comm.allgather(history.rows)
                proba = comm.allgather(run.net.predict_proba(X[:20]).tobytes())
                assert run.finished and not rank or rank, case
                for k in range(1, workers + 1):
                    if broadcast:
                        assert differences(nets[0], nets[k]) == [] and proba[0] == proba[k], case
                        assert histories[0] == histories[k] and len(histories[k]) == 2, case
                    else:
                        assert differences(nets[0], nets[k]) != [], case
                if not broadcast and rank:
                    assert run.net.connections == 0, case
                assert (run.parallel_report is None) == bool(rank)
                if rank == 0 and phase_two == 1.0:
                    assert counts.steps == 0 and run.state.step == run.steps_per_epoch * 2, (case, run.state)
                if broadcast:  # every rank has it, so every rank can go on
                    run.fit(X, y, epochs=3, validation=0.1)
                    assert len(run.history.rows) == 3
if rank == 0:
    print("everywhere")
"""


def test_network_is_everywhere(run_mpi: Any) -> None:
    assert run_mpi(3, START + EVERYWHERE).stdout == "everywhere\n"


def test_memory_mapped_data(run_mpi: Any, tmp_path: Path) -> None:
    program = f"""
path = {str(tmp_path / "X.npy")!r}
if rank == 0:
    np.save(path, X)
comm.Barrier()
mapped = np.load(path, mmap_mode="r")
found = []
for data in (X, mapped):
    run = trainer(parallel=WASSP(phase_two=0.5))
    run.fit(data, y, epochs=2, validation=0.2)
    found.append((arrays(run.net), rows(run.history)))
assert isinstance(mapped, np.memmap) and found[0] == found[1]
if rank == 0:
    print("mapped")
"""
    assert run_mpi(3, START + program).stdout == "mapped\n"


# A run that is stopped by SIGTERM on some rank at some step, and resumed in the same processes.
RESUME = """
from trulysparse.parallel.worker import Worker
from trulysparse.engine import Run

class Stop(ts.Callback):
    def __init__(self, at, phase):
        self.at, self.phase = at, phase
    def on_step_end(self, trainer, step):
        if self.phase == 1 and step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
    def on_epoch_end(self, trainer, row):
        if self.phase == 2 and row["epoch"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

compute, train_batch = Worker._compute, ts.engine.Engine.train_batch

def stopped(make, path, where, at, phase, epochs=6):
    # SIGTERM on rank `where`, at its step `at` of the phase
    made = {"count": 0}
    def strike():
        made["count"] += 1
        if made["count"] == at and rank == where:
            os.kill(os.getpid(), signal.SIGTERM)
    def computing(self, order):
        if phase == 1:
            strike()
        compute(self, order)
    def training(self, *arguments):
        result = train_batch(self, *arguments)
        if phase == 2 and rank:
            strike()
        return result
    Worker._compute, ts.engine.Engine.train_batch = computing, training
    first = make(checkpoint=path, callbacks=[Stop(at, phase)] if rank == where == 0 else [])
    try:
        first.fit(X, y, epochs=epochs, validation=0.1)
    except ts.TrainingInterrupted as error:
        assert error.signal == signal.SIGTERM
    else:
        raise AssertionError("the run was not stopped")
    finally:
        Worker._compute, ts.engine.Engine.train_batch = compute, train_batch
    done = comm.bcast((first.state.step, first.state.epoch, first.notes.get("phase")) if rank == 0 else None)
    again = ts.Trainer.resume(path, threads=1, progress=False, checkpoint=path)
    assert comm.allgather(again.state.step) == [done[0]] * (workers + 1)
    again.fit(X, y, validation=0.1)
    return again, done

def left_over(path):
    return sorted(file for file in os.listdir(os.path.dirname(path)) if "worker" in file)
"""


def _resume(cases: str) -> str:
    return START + RESUME + cases


def test_resume_phase_one(run_mpi: Any, tmp_path: Path) -> None:
    program = f"""
path = {str(tmp_path)!r} + "/checkpoint.safetensors"
for transport in ("shared", "messages"):
    for strategy, where, at in ((WASSP, 0, 7), (WASSP, 1, 6), (WASAP, 0, 5), (WASAP, 2, 2), (WASSP, 2, 9)):
        make = lambda **more: trainer(parallel=strategy(phase_two=0.3, transport=transport), **more)
        run, (step, epoch, phase) = stopped(make, path, where, at, 1)
        case = (transport, strategy, where, at, step, epoch)
        assert phase == 1 and 0 < step < 40, case
        assert len(run.history.rows) == 6 and [row["epoch"] for row in run.history.rows] == [1, 2, 3, 4, 5, 6], case
        assert run.state.step == 6 * run.steps_per_epoch, (case, run.state.step, run.steps_per_epoch)
        if strategy is WASSP:
            whole = make()
            whole.fit(X, y, epochs=6, validation=0.1)
            assert differences(arrays(whole.net), arrays(run.net)) == [], case
            assert rows(whole.history) == rows(run.history), case
        assert left_over(path) == [], case
if rank == 0:
    print("resumed")
"""
    assert run_mpi(3, _resume(program)).stdout == "resumed\n"


def test_resume_phase_one_of_one_worker(run_mpi: Any, tmp_path: Path) -> None:
    program = f"""
path = {str(tmp_path)!r} + "/checkpoint.safetensors"
for transport in ("shared", "messages"):
    for strategy in (WASSP, WASAP):
        for where, at in ((0, 5), (1, 14), (0, 9), (1, 9), (1, 10)):
            parallel = strategy(phase_two=0.3, transport=transport)
            make = lambda **more: trainer(network(ts.PReLU()), parallel=parallel, **more)
            run, done = stopped(make, path, where, at, 1)
            if rank == 0:
                alone = trainer(network(ts.PReLU()), parallel=None)
                alone.fit(X, y, epochs=6, validation=0.1)
                assert differences(arrays(alone.net), arrays(run.net)) == [], (transport, strategy, where, at, done)
                assert rows(alone.history) == rows(run.history), (transport, strategy, where, at, done)
if rank == 0:
    print("resumed")
"""
    assert run_mpi(2, _resume(program)).stdout == "resumed\n"


@pytest.mark.parametrize("ranks", [2, 3])
def test_resume_phase_two(run_mpi: Any, tmp_path: Path, ranks: int) -> None:
    program = f"""
path = {str(tmp_path)!r} + "/checkpoint.safetensors"
for transport in ("shared", "messages"):
    for where, at in ((1, 1), (1, 7), (workers, 12), (0, 4)):  # of the master: after an epoch
        for strategy in (WASSP, WASAP) if workers == 1 else (WASSP,):
            make = lambda **more: trainer(parallel=strategy(phase_two=0.6, transport=transport), **more)
            run, (step, epoch, phase) = stopped(make, path, where, at, 2)
            case = (transport, strategy, where, at, step, epoch)
            assert phase == 2, case
            whole = make()
            whole.fit(X, y, epochs=6, validation=0.1)
            assert differences(arrays(whole.net), arrays(run.net)) == [], case
            assert rows(whole.history) == rows(run.history), (case, rows(whole.history), rows(run.history))
            assert left_over(path) == [], (case, left_over(path))
if rank == 0:
    print("resumed")
"""
    assert run_mpi(ranks, _resume(program)).stdout == "resumed\n"


# What fails on one rank ends the run on all, in the same processes again and again: each time all can go on.
FAILS = """
from trulysparse.parallel.worker import Worker
from trulysparse.engine import Engine

compute, train_batch = Worker._compute, Engine.train_batch
wide = lambda: ts.SparseMLP((12, 1000, 300, 2), density=0.5, seed=1)  # gradients that MPI does not buffer

def failure(make, *, on, at, phase, error=ValueError("no luck")):
    made = {"count": 0}
    def strike():
        made["count"] += 1
        if made["count"] == at and rank == on:
            raise type(error)(*error.args)
    class Fail(ts.Callback):
        def on_step_end(self, trainer, step):
            strike()
        def on_epoch_end(self, trainer, row):
            if phase == 2 and row["epoch"] == at:
                raise type(error)(*error.args)
    def computing(self, order):
        if phase == 1:
            strike()
        compute(self, order)
    def training(self, *arguments):
        if phase == 2:
            strike()
        return train_batch(self, *arguments)
    Worker._compute, Engine.train_batch = computing, training
    run = make(callbacks=[Fail()] if on == rank == 0 else [])
    try:
        # workers share phase one as they come: so long that each gets to its gradient on a busy machine
        run.fit(X, y, epochs=6 if phase == 2 else 400, validation=0.1)
    except Exception as raised:
        said = f"{type(raised).__name__}: {raised}"
    else:
        said = "nothing"
    finally:
        Worker._compute, Engine.train_batch = compute, train_batch
    return comm.allgather(said)
"""


def test_a_failing_worker_ends_the_run(run_mpi: Any) -> None:
    program = """
for transport in ("shared", "messages"):
    for strategy in (WASAP, WASSP):
        for phase, at, net in ((1, 1, network), (1, 6, wide), (2, 1, wide), (2, 5, network)):
            make = lambda **more: trainer(net(), parallel=strategy(phase_two=0.5, transport=transport), **more)
            said = failure(make, on=2, at=at, phase=phase)
            case = (transport, strategy, phase, at, said)
            assert said[2] == "ValueError: no luck", case
            assert said[0] == "ParallelError: rank 2 failed: ValueError: no luck", case
            for k in {1, workers}:
                if k != 2:
                    assert said[k].startswith("ParallelError: "), case
                    assert "rank 2 failed: ValueError: no luck" in said[k], case
            run = make()
            run.fit(X, y, epochs=2)
            assert comm.allgather(run.net.connections) == [run.net.connections] * (workers + 1)
if rank == 0:
    print("ended")
"""
    assert run_mpi(4, START + FAILS + program).stdout == "ended\n"


def test_a_failing_master_ends_the_run(run_mpi: Any) -> None:
    program = """
for transport in ("shared", "messages"):
    for strategy in (WASAP, WASSP):
        for phase, at, net in ((1, 1, network), (1, 6, wide), (2, 3, wide), (2, 5, network)):
            make = lambda **more: trainer(net(), parallel=strategy(phase_two=0.5, transport=transport), **more)
            said = failure(make, on=0, at=at, phase=phase)
            case = (transport, strategy, phase, at, said)
            assert said[0] == "ValueError: no luck", case
            for told in said[1:]:
                assert told.startswith("ParallelError: the master failed: ") and "no luck" in told, case
            make().fit(X, y, epochs=2)
if rank == 0:
    print("ended")
"""
    assert run_mpi(3, START + FAILS + program).stdout == "ended\n"


def test_divergence_ends_the_run(run_mpi: Any) -> None:
    program = """
for transport in ("shared", "messages"):
    for strategy in (WASAP, WASSP):
        for phase_two in (0.0, 1.0):
            run = trainer(parallel=strategy(phase_two=phase_two, transport=transport), optimizer=ts.SGD(lr=1e30))
            try:
                with np.errstate(all="ignore"):
                    run.fit(X, y, epochs=3)
                said = "nothing"
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            said = comm.allgather(said)
            case = (transport, strategy, phase_two, said)
            assert all("the loss became" in told and "lower the learning rate" in told for told in said), case
            diverged = [told.startswith("DivergenceError") for told in said]
            assert diverged[0] if phase_two == 0 else any(diverged), case
if rank == 0:
    print("ended")
"""
    assert run_mpi(3, START + program).stdout == "ended\n"


def test_other_data_on_a_rank_is_refused(run_mpi: Any) -> None:
    program = """
def refused(make, data, targets, epochs=2, **more):
    try:
        make().fit(data, targets, epochs=epochs, **more)
    except Exception as error:
        return comm.allgather(f"{type(error).__name__}: {error}")
    raise AssertionError("it ran")

for transport in ("shared", "messages"):
    make = lambda **more: trainer(parallel=WASAP(transport=transport), **more)
    other = X + (rank == 1)
    said = refused(make, other, y)
    assert said[1].startswith("ConfigError: rank 1 was given other data than rank 0"), said
    assert all("rank 1" in told and "other data" in told for told in said), said
    said = refused(make, X[: len(X) - 5 * (rank == 2)], y[: len(X) - 5 * (rank == 2)])
    assert all("other data" in told for told in said), said
    said = refused(make, X, y, epochs=2 + (rank == 1))
    assert all("other epochs" in told for told in said), said
    said = refused(lambda: make(seed=rank == 1 and 4 or 3), X, y)
    assert all("other settings" in told for told in said), said
    bad = X.copy()
    if rank == 2:
        bad[3, 3] = np.nan
    said = refused(make, bad, y)
    assert all("rank 2" in told for told in said[:2]), said
    said = refused(make, X[:64], y[:64])  # two batches for three workers
    assert all("2 whole batches for 3 workers" in told and "mpiexec -n 3" in told for told in said), said
    make().fit(X, y, epochs=2)
if rank == 0:
    print("refused")
"""
    assert run_mpi(4, START + program).stdout == "refused\n"
