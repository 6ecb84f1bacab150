# SPDX-License-Identifier: BSD-3-Clause
"""Training without a parameter server: every rank trains, and all end with one network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

START = """
import hashlib, os, signal, sys, warnings
import numpy as np
import trulysparse as ts
import trulysparse.engine
from trulysparse import _kernels
from trulysparse.errors import DivergenceError, ParallelError, ParallelWarning
from trulysparse.parallel import WASSP, AllReduce, Decentralized, peers
from trulysparse.parallel.link import Link, Mean
from trulysparse.parallel.world import World, import_mpi
from trulysparse.trainer.signals import TrainingInterrupted

warnings.simplefilter("ignore", ParallelWarning)  # more ranks than cores
MPI = import_mpi()
everyone = MPI.COMM_WORLD
me = everyone.rank
rng = np.random.default_rng(0)
X = rng.normal(size=(532, 20)).astype(np.float32)
y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)
EPOCHS = 4

class Some:
    '''MPI for the first ranks only.'''
    def __init__(self, size):
        self.COMM_WORLD = everyone.Split(int(me >= size), me)
    def __getattr__(self, name):
        return getattr(MPI, name)

def on(size):
    '''Let the next run be one of the first ranks; return whether this is one of them.'''
    some = Some(size)
    World.open = classmethod(lambda cls, name, minimum: cls(some))
    return me < size

def trainer(parallel, *, activation=None, sizes=(20, 60, 40, 2), **settings):
    net = ts.SparseMLP(sizes, density=0.3, dropout=0.2, activation=activation or ts.AllReLU(0.6), seed=1)
    settings = {"topology": ts.SET(0.3), "optimizer": ts.SGD(lr=0.05, weight_decay=1e-4)} | settings
    return ts.Trainer(net, batch_size=32, threads=1, progress=False, seed=3, parallel=parallel, **settings)

def fit(some, epochs=EPOCHS):
    some.fit(X, y, epochs=epochs, validation=0.1)
    return some

def network(net):
    digest = hashlib.sha256()
    for layer in net.layers:
        trained = layer.activation_parameters.values()
        for array in (layer.pattern.row_ptr, layer.pattern.col_idx, layer.values, layer.bias, *trained):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]

def rows(some):
    columns = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "connections")
    return [tuple(row[column] for column in columns) for row in some.history.rows]

def of_ranks(size, value):
    '''Return what each of the first ranks says.'''
    return everyone.allgather(value)[:size]
"""

RULES = """
compaction = {"percentile": 30, "remove_outgoing": True, "compact": True}
cases = {
    "SET": {},
    "RigL": {"topology": ts.RigL(0.3, update_every=3)},
    "pruning": {"pruning": ts.ImportancePruning(start=1, period=1)},
    "compacted": {"pruning": ts.ImportancePruning(start=1, period=1, **compaction)},
    "DeepR": {"topology": ts.DeepR()},
    "Adam": {"optimizer": ts.Adam(lr=0.003)},
    "learned slopes": {"activation": ts.AllReLU("auto")},
    "PReLU, Nesterov": {"activation": ts.PReLU(), "optimizer": ts.SGD(lr=0.05, nesterov=True)},
    "clipped micro-batches": {"optimizer": ts.SGD(lr=0.05, clip_norm=1.0), "micro_batch": 16},
}
"""


def test_allreduce_gives_the_bits_of_wassp_with_as_many_workers(run_mpi: Any) -> None:
    program = """
compared = 0
for name, settings in cases.items():
    for workers in (2, 3) if name == "SET" else (3,):
        wassp = None
        if on(workers + 1):
            wassp = fit(trainer(WASSP(phase_two=0, warmup_epochs=3), **settings))
        together = None
        if on(workers):
            together = fit(trainer(AllReduce(warmup_epochs=3), **settings))
            assert together.parallel_report is None or together.parallel_report.lost_updates == 0
        marks = of_ranks(workers, together and network(together.net))
        assert len(set(marks)) == 1, (name, marks)
        if me == 0:
            assert marks[0] == network(wassp.net), name
            assert rows(together) == rows(wassp), name
            assert together.state.evolutions > 0
            sent = together.parallel_report
            assert sent.updates == sum(sent.updates_sent) and sent.refused == 0
            assert len(sent.rank_private_bytes) == workers
            both_ways = 2 * (workers - 1) / workers * sent.parameters_bytes
            # but for the ends of segments, which count in a network as small as this
            assert 0.9 * both_ways <= sent.bytes_sent_per_update <= 1.2 * both_ways, str(sent)
            compared += 1
        histories = of_ranks(workers, together and rows(together))
        assert histories == [histories[0]] * workers
if me == 0:
    print("compared", compared)
"""
    assert run_mpi(4, START + RULES + program).stdout.split() == ["compared", "10"]


@pytest.mark.parametrize("name", ["AllReduce", "Decentralized"])
def test_one_rank_equals_the_sequential_trainer(run_mpi: Any, name: str) -> None:
    program = f"""
on(1)
for case, settings in cases.items():
    alone, one = fit(trainer(None, **settings)), fit(trainer({name}(), **settings))
    assert network(alone.net) == network(one.net), case
    assert rows(alone) == rows(one), case
"""
    run_mpi(1, START + RULES + program)


def test_means_are_exact_and_the_same_on_all_ranks(run_mpi: Any) -> None:
    program = """
for size in (1, 2, 3, 4):
    if on(size):
        link = Link(World.open("allreduce", 1))
        for n in (1, 5, 16, 17, 48, 100, 1000, 70001):
            values = np.random.default_rng(n).normal(size=(size, n)).astype(np.float32)
            mean, flat = Mean(link, n, 1), _kernels.aligned_empty(n)
            assert [part.stop for part in mean.parts][-1] == n and mean.parts[0].start == 0
            for _ in range(2):
                flat[:] = values[me]
                mean.of(flat)
                wanted = np.zeros(n)
                for row in values:
                    wanted += row
                assert (flat == (wanted / size).astype(np.float32)).all()
            # the mean of equals is what they are
            flat[:] = values[0]
            mean.of(flat)
            assert (flat == values[0]).all()
        table = link.share([me, 2.5])
        assert table.tolist() == [[rank, 2.5] for rank in range(size)]
"""
    run_mpi(4, START + program)


def test_decentralized_ranks_have_one_topology_and_weights_of_their_own(run_mpi: Any) -> None:
    program = """
seen = dict.fromkeys(("patterns", "apart", "pairs", "groups"), 0)
evolve, average = peers.GossipPeer._evolve, peers.GossipPeer._average

def checked(self, progress, lr):
    assert self.engine.seed == 3  # the run's
    measured = evolve(self, progress, lr)
    seen["patterns"] += 1
    texts = self.world.share_json([network(self.engine.net), self.state.evolutions])
    if measured is None:
        assert texts == [texts[0]] * self.workers  # after an evolution all have one network
    return measured

def watched(self):
    before = self.world.share_json(network(self.engine.net))
    seen["apart"] += len(set(before)) > 1
    average(self)
    self.strategy.mean = network(self.engine.net)

gossip = peers.GossipPeer._gossip

def paired(self, number):
    gossip(self, number)
    texts = self.world.share_json(network(self.engine.net))
    for rank in range(self.workers):
        other = peers.partner(3, number, rank, self.workers)
        seen["pairs"] += other is not None
        assert other is None or texts[rank] == texts[other]  # both go on with the mean
    seen["groups"] += len(set(texts)) > 1

seeds = set()
train_batch = ts.engine.Engine.train_batch

def seeded(self, *args):
    seeds.add(self.seed)
    return train_batch(self, *args)

ts.engine.Engine.train_batch = seeded
peers.GossipPeer._evolve, peers.GossipPeer._average, peers.GossipPeer._gossip = checked, watched, paired
for name, settings in cases.items():
    for workers in (2, 3, 4) if name == "SET" else (3,):
        runs = []
        for _ in range(2):
            if on(workers):
                runs.append(fit(trainer(Decentralized(every=3), **settings)))
        marks = of_ranks(workers, [network(run.net) for run in runs])
        assert marks == [marks[0]] * workers, name
        assert len(set(marks[0])) == 1, (name, "two runs differ")
        if me == 0:
            assert rows(runs[0]) == rows(runs[1]), name
            report = runs[0].parallel_report
            assert report.lost_updates == 0 and report.updates > 0
            assert marks[0][0] == runs[0].parallel.mean  # nothing came after the last average
            # the last row speaks of the network that there is in the end
            samples = runs[0]._admit(X, y, 0.1)
            assert runs[0].validate(samples)["val_loss"] == runs[0].history.val_loss[-1]
            assert len(runs[0].history.rows) == EPOCHS
drawn = everyone.allgather(sorted(seeds))
assert [len(some) for some in drawn] == [1] * 4 and len({some[0] for some in drawn}) == 4, drawn  # dropout of one's own
if me == 0:
    print(*(seen[what] > 30 for what in ("patterns", "apart", "pairs", "groups")))
"""
    assert run_mpi(4, START + RULES + program).stdout.split() == ["True"] * 4


FAILURES = """
def failing(some, rank, step, error):
    '''Let a rank fail at the start of a step.'''
    engine, name = some._engine, "compute" if isinstance(some.parallel, AllReduce) else "train_batch"
    work, calls = getattr(engine, name), []
    def counted(*args, **kwargs):
        calls.append(1)
        if me == rank and len(calls) == step:
            raise error
        return work(*args, **kwargs)
    setattr(engine, name, counted)
    return some

def caught(function):
    try:
        function()
    except Exception as error:
        return type(error).__name__, str(error)
    return None
"""


def test_a_failing_rank_ends_the_run_for_all(run_mpi: Any) -> None:
    program = """
wide = (20, 800, 800, 2)  # so that messages wait for their receivers
for parallel in (AllReduce(), Decentralized(every=2)):
    for rank in range(3):
        for sizes in ((20, 60, 40, 2), wide):
            some = failing(trainer(parallel, sizes=sizes), rank, 4, RuntimeError("no more"))
            found = caught(lambda: some.fit(X, y, epochs=2))
            if me == rank:
                assert found == ("RuntimeError", "no more"), found
            else:
                assert found == ("ParallelError", f"rank {rank} failed: RuntimeError: no more"), found
    # rank 0 fails where the others wait for it only
    def fail(trainer, row):
        raise OSError("disk full")
    some = trainer(parallel, callbacks=[ts.LambdaCallback(on_epoch_end=fail)])
    found = caught(lambda: some.fit(X, y, epochs=2))
    assert found[0] == ("OSError" if me == 0 else "ParallelError") and "disk full" in found[1], found
    def fail(trainer, history):
        raise OSError("too late")
    some = trainer(parallel, callbacks=[ts.LambdaCallback(on_fit_end=fail)])
    found = caught(lambda: some.fit(X, y, epochs=2))
    assert found[0] == ("OSError" if me == 0 else "ParallelError") and "too late" in found[1], found

# what all ranks see in the same numbers, all ranks say
some = trainer(AllReduce(scale_lr=False), optimizer=ts.SGD(lr=1e30))
found = caught(lambda: fit(some))
assert found[0] == "DivergenceError" and "epoch 1" in found[1], found
some = trainer(Decentralized(), optimizer=ts.SGD(lr=1e30))
found = caught(lambda: fit(some))
assert found[0] in ("DivergenceError", "ParallelError") and "the loss became" in found[1], found

some = trainer(AllReduce())
if me == 2:
    apply = some._engine.apply
    def wrong(lr):
        apply(lr)
        some.net.layers[1].values[7] += np.float32(1e-3)
    some._engine.apply = wrong
found = caught(lambda: fit(some))
assert found[0] == "ParallelError" and "ranks 2 differ" in found[1] and "in layers 1;" in found[1], found
if me == 0:
    print("well")
"""
    assert run_mpi(3, START + FAILURES + program).stdout.split() == ["well"]


def test_a_signal_on_any_rank_ends_with_a_checkpoint_that_goes_on(run_mpi: Any, tmp_path: Path) -> None:
    program = f"""
folder = {str(tmp_path)!r}
def struck(some, rank, step):
    '''Let a signal come to a rank in a step.'''
    step_of = type(some._engine).compute if isinstance(some.parallel, AllReduce) else type(some._engine).train_batch
    calls = []
    def counted(*args, **kwargs):
        calls.append(1)
        if me == rank and len(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_of(some._engine, *args, **kwargs)
    setattr(some._engine, step_of.__name__, counted)
    return some

def stopped(some):
    try:
        fit(some)
    except TrainingInterrupted as interruption:
        assert interruption.signal == signal.SIGTERM
        return True
    return False

for parallel in (AllReduce(), Decentralized(every=1)):
    on(3)
    whole = fit(trainer(parallel))
    for number, (rank, step) in enumerate([(0, 7), (2, 3), (1, 10)]):
        path = f"{{folder}}/{{parallel.name}}{{number}}.safetensors"
        some = struck(trainer(parallel, checkpoint=path), rank, step)
        assert stopped(some)
        assert os.path.exists(path)
        assert len(set(of_ranks(3, (some.state.step, some.state.epoch, some.state.batch)))) == 1
        late = int(isinstance(parallel, Decentralized))  # its ranks hear of a round in the next
        assert some.state.step == step + late and some.state.epoch < EPOCHS
        if number == 0 and some.state.batch:
            go_on = ts.Trainer.resume(path, progress=False, threads=1, **({{}} if me == 0 else {{"outline": True}}))
            if on(2):
                try:
                    fit(go_on)
                except ParallelError as error:
                    assert "mpiexec -n 3" in str(error), error
                else:
                    raise AssertionError("it went on in the middle of an epoch with other ranks")
            on(3)
        go_on = ts.Trainer.resume(path, progress=False, threads=1, **({{}} if me == 0 else {{"outline": True}}))
        fit(go_on)
        marks = of_ranks(3, network(go_on.net))
        assert marks == [marks[0]] * 3
        assert [row["epoch"] for row in go_on.history.rows] == list(range(1, EPOCHS + 1))
        if isinstance(parallel, AllReduce):
            assert marks[0] == network(whole.net) and rows(go_on) == rows(whole)

    # at the end of an epoch another number of ranks may go on
    path = f"{{folder}}/{{parallel.name}}.safetensors"
    fit(trainer(parallel, checkpoint=path), epochs=2)
    go_on = ts.Trainer.resume(path, progress=False, threads=1)
    if on(2):
        fit(go_on, epochs=3)
        assert go_on.state.epoch == 3 and go_on.state.step == 3 * go_on.steps_per_epoch
    on(3)

    # without the broadcast rank 0 alone has the network
    alone = fit(trainer(type(parallel)(broadcast=False)))
    assert (alone.net.connections > 0) == (me == 0)
    given = fit(trainer(type(parallel)()))
    assert me > 0 or network(alone.net) == network(given.net)

    # a callback of rank 0 ends the run on all
    stop = ts.LambdaCallback(on_epoch_end=lambda trainer, row: row["epoch"] == 2 and trainer.stop("enough"))
    some = fit(trainer(parallel, callbacks=[stop]))
    marks = of_ranks(3, (network(some.net), len(some.history.rows)))
    assert marks == [marks[0]] * 3 and marks[0][1] == 2
if me == 0:
    print("well")
"""
    assert run_mpi(3, START + program).stdout.split() == ["well"]


def test_early_stopping_gives_its_best_network_to_all_ranks(run_mpi: Any) -> None:
    program = """
for parallel in (AllReduce(), Decentralized()):
    stopping = ts.EarlyStopping("val_loss", patience=1, min_delta=10.0)
    some = fit(trainer(parallel, callbacks=[stopping]))
    marks = of_ranks(2, network(some.net))
    assert marks[0] == marks[1] and len(some.history.rows) == 2
    if me == 0:
        validated = some.validate(some._admit(X, y, 0.1))
        assert validated["val_loss"] == some.history.val_loss[0]  # the first was the best
"""
    run_mpi(2, START + program)


def test_networks_learn(run_mpi: Any) -> None:
    program = """
easy = (X[:, 0] > 0).astype(int)
for parallel in (AllReduce(), Decentralized()):
    some = trainer(parallel)
    some.fit(X, easy, epochs=30, validation=0.2)
    assert some.history.val_accuracy[-1] > 0.8, some.history.val_accuracy
    assert some.history.loss[-1] < 0.7 * some.history.loss[0], some.history.loss
"""
    run_mpi(2, START + program)
