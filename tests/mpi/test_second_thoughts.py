# SPDX-License-Identifier: BSD-3-Clause
"""What users do around a parallel run: stop early, fit again, keep what a callback sees, resume with other workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mpi.conftest import RunMpi

pytestmark = pytest.mark.mpi

COMMON = """
import faulthandler; faulthandler.dump_traceback_later(40, exit=True)
import hashlib, pathlib, shutil, sys, warnings
import numpy as np
import trulysparse as ts
from trulysparse.parallel.world import import_mpi
warnings.simplefilter("ignore", ts.ParallelWarning)  # more ranks than cores

comm = import_mpi().COMM_WORLD
rank = comm.Get_rank()
rng = np.random.default_rng(0)
X = rng.normal(size=(330, 12)).astype(np.float32)
y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)

def digest(net):
    arrays = [a for layer in net.layers for a in (layer.values, layer.bias, layer.pattern.col_idx)]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()

def trainer(parallel, **more):
    net = ts.SparseMLP((12, 40, 30, 2), density=0.3, dropout=0.2, activation=ts.AllReLU(0.6), seed=1)
    more = {"optimizer": ts.SGD(lr=0.02, momentum=0.9), "topology": ts.SET(0.3), "seed": 3, "batch_size": 32,
            "threads": 1, "progress": False} | more
    return ts.Trainer(net, parallel=parallel, **more)

def everywhere(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except Exception as error:
        return comm.allgather(f"{type(error).__name__}: {error}")
    return comm.allgather("nothing")
"""


def test_early_stopping_keeps_the_average_or_a_network_of_phase_one(run_mpi: RunMpi) -> None:
    program = """
class Look(ts.Callback):
    def __init__(self):
        self.seen = {}
    def on_epoch_end(self, trainer, row):
        self.seen[row["epoch"]] = digest(trainer.net)
for transport in ("shared", "messages"):
    look, stop = Look(), ts.EarlyStopping("val_loss", patience=50, restore_best=True)
    run = trainer(ts.WASSP(phase_two=0.5, transport=transport), callbacks=[stop, look])
    run.fit(X, y, epochs=8, validation=0.2)
    if rank == 0:
        assert len(set(list(look.seen.values())[3:7])) == 1  # phase two: the network here stands still,
        assert stop.best_epoch in (1, 2, 3, 4, 8)            # so none of its epochs is the best
        assert digest(run.net) == look.seen[stop.best_epoch]
    class Enough(ts.Callback):
        def on_epoch_end(self, trainer, row):
            if row["epoch"] == 6:
                trainer.stop("enough")
    run = trainer(ts.WASSP(phase_two=0.5, transport=transport), callbacks=[Enough()])
    run.fit(X, y, epochs=30, validation=0.2)
    assert len(run.history) <= 8 if rank == 0 else True, len(run.history)
    assert len(set(comm.allgather(digest(run.net)))) == 1
"""
    run_mpi(3, COMMON + program)


def test_a_second_fit_goes_on_as_a_resumed_run_does(run_mpi: RunMpi, tmp_path: Path) -> None:
    program = f"""
place = {str(tmp_path)!r} + "/run"
for transport in ("shared", "messages"):
    run = trainer(ts.WASSP(phase_two=0.5, transport=transport), checkpoint=place)
    run.fit(X, y, epochs=4)
    if rank == 0:
        shutil.copy(place + "/checkpoint.safetensors", place + "_copy.safetensors")
    comm.Barrier()
    run.fit(X, y, epochs=10)
    again = ts.Trainer.resume(place + "_copy.safetensors", progress=False, threads=1, outline=rank > 0)
    again.fit(X, y, epochs=10)
    assert digest(again.net) == digest(run.net)
    if rank == 0:
        assert again.history.loss == run.history.loss
        assert not list(pathlib.Path(place).glob("*worker*"))
"""
    run_mpi(3, COMMON + program)


def test_what_fails_or_is_refused_at_the_start_is_so_on_all_ranks(run_mpi: RunMpi) -> None:
    program = """
class Breaks(ts.Callback):
    def on_fit_start(self, trainer):
        raise ValueError("no luck")
class Replaces(ts.Callback):
    def __init__(self, snapshot):
        self.snapshot = snapshot
    def on_epoch_end(self, trainer, row):
        trainer.restore(self.snapshot)
from trulysparse.engine import snapshot_network
for transport in ("shared", "messages"):
    said = everywhere(trainer(ts.WASAP(transport=transport), callbacks=[Breaks()]).fit, X, y, epochs=2)
    assert said[0] == "ValueError: no luck" and all("rank 0: ValueError: no luck" in text for text in said[1:]), said
    run = trainer(ts.WASAP(transport=transport))
    run.callbacks = [Replaces(snapshot_network(run.net))]
    said = everywhere(run.fit, X, y, epochs=2)
    assert all("cannot be replaced while other processes train it" in text for text in said), said
"""
    run_mpi(3, COMMON + program)


def test_patterns_that_a_callback_keeps_stay_as_they_were(run_mpi: RunMpi) -> None:
    program = """
class Keeps(ts.Callback):
    def __init__(self):
        self.kept = []
    def on_epoch_end(self, trainer, row):
        for layer in trainer.net.layers:
            self.kept.append((layer.pattern, layer.pattern.row_ptr.copy(), layer.pattern.col_idx.copy()))
keeps = Keeps()
run = trainer(ts.WASAP(transport="shared"), callbacks=[keeps])
run.fit(X, y, epochs=6)
if rank == 0:
    assert len(keeps.kept) == 18
    for pattern, row_ptr, col_idx in keeps.kept:
        assert np.array_equal(pattern.row_ptr, row_ptr) and np.array_equal(pattern.col_idx, col_idx)
    assert len({col_idx.tobytes() for _, _, col_idx in keeps.kept[::3]}) > 3
"""
    run_mpi(3, COMMON + program)


def test_wassp_goes_on_with_other_workers_between_epochs_only(run_mpi: RunMpi, tmp_path: Path) -> None:
    program = f"""
class Save(ts.Callback):
    def on_step_end(self, trainer, step):
        if step == 13:  # 5 steps an epoch with two workers
            trainer.save_checkpoint({str(tmp_path)!r} + "/within.safetensors")
    def on_epoch_end(self, trainer, row):
        if row["epoch"] == 2:
            trainer.save_checkpoint({str(tmp_path)!r} + "/between.safetensors")
run = trainer(ts.WASSP(phase_two=0), callbacks=[Save()])
run.fit(X, y, epochs=4)
"""
    run_mpi(3, COMMON + program)
    program = f"""
def resumed(name):
    return ts.Trainer.resume({str(tmp_path)!r} + "/" + name, progress=False, threads=1, outline=rank > 0)
said = everywhere(resumed("within.safetensors").fit, X, y, epochs=4)
assert all("within an epoch of 2 workers" in text and "mpiexec -n 3" in text for text in said), said
run = resumed("between.safetensors")
run.fit(X, y, epochs=4)
if rank == 0:
    assert run.history.epoch == [1, 2, 3, 4] and run.state.step == 4 * (10 // 3), run.state
    assert run.state.evolutions == 3
"""
    run_mpi(4, COMMON + program)
