# SPDX-License-Identifier: BSD-3-Clause
"""What a user chooses between, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.parallel import PARALLEL, WASAP, WASSP, get_parallel
from trulysparse.parallel.batches import shard
from trulysparse.parallel.worker import worker_seed

NET = ts.SparseMLP((8, 12, 3), density=0.5, seed=0)
CHANGED = [
    WASAP(
        phase_two=0.5,
        hot_start=2.0,
        hot_start_epochs=3,
        transport="messages",
        local_topology=False,
        staleness_aware=True,
        broadcast=False,
    ),
    WASSP(
        phase_two=0.0,
        scale_lr=False,
        warmup_epochs=0,
        transport="shared",
        local_topology=False,
        broadcast=False,
    ),
]


@pytest.mark.parametrize(("name", "kind"), [("wasap", WASAP), ("wassp", WASSP)])
def test_strategies_have_names(name: str, kind: type[Any]) -> None:
    assert PARALLEL.get(name).name == kind.name == name
    assert isinstance(get_parallel(name), kind)
    assert get_parallel(None) is None


@pytest.mark.parametrize("strategy", [WASAP(), WASSP(), *CHANGED])
def test_strategies_come_back_from_their_config(strategy: Any) -> None:
    config = strategy.to_config()
    again = get_parallel(config)
    assert type(again) is type(strategy)
    assert again is not None and again.to_config() == config
    assert vars(again) == vars(strategy)


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="wasap"):
        get_parallel("wasp")


@pytest.mark.parametrize("kind", [WASAP, WASSP])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"phase_two": -0.1}, "phase_two"),
        ({"phase_two": 1.1}, "phase_two"),
        ({"phase_two": "all"}, "phase_two"),
        ({"transport": "smoke"}, "transport .* auto, shared, messages, got 'smoke'"),
        ({"local_topology": "yes"}, "local_topology .* true or false, got 'yes'"),
    ],
)
def test_arguments_out_of_range_are_refused(kind: type[Any], arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (WASAP, {"hot_start": 0.0}),
        (WASAP, {"hot_start_epochs": -1}),
        (WASAP, {"staleness_aware": 1}),
        (WASAP, {"broadcast": "no"}),
        (WASSP, {"warmup_epochs": 2.5}),
        (WASSP, {"scale_lr": "no"}),
        (WASSP, {"broadcast": 0}),
    ],
)
def test_arguments_of_one_strategy_are_checked(kind: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        kind(**arguments)


@pytest.mark.parametrize("topology", [ts.SNFS(), ts.TopKAST()])
def test_rules_that_look_at_every_step_are_refused(topology: ts.Topology) -> None:
    with pytest.raises(ConfigError, match="parallel training does not do"):
        ts.Trainer(NET, topology=topology, parallel=WASAP(), progress=False)


def test_compaction_is_refused_where_networks_are_averaged() -> None:
    pruning = ts.ImportancePruning(start=0, period=1, compact=True)
    with pytest.raises(ConfigError, match="compact=False, or phase_two=0"):
        WASAP(phase_two=0.3).check(NET, ts.SET(), pruning)
    WASAP(phase_two=0).check(NET, ts.SET(), pruning)
    WASSP(phase_two=0.3).check(NET, ts.SET(), ts.ImportancePruning(start=0, period=1))


def test_more_workers_than_batches_are_refused() -> None:
    WASAP().check_run(3, 3, 10)
    with pytest.raises(ConfigError, match=r"3 whole batches for 4 workers.*mpiexec -n 4"):
        WASAP().check_run(3, 4, 10)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_rate_of_wassp_grows_to_k_times_in_five_epochs(workers: int) -> None:
    strategy = WASSP()
    for epoch in range(5):
        assert strategy.rate_factor(epoch, workers) == pytest.approx(1 + (workers - 1) * epoch / 5)
    assert {strategy.rate_factor(epoch, workers) for epoch in range(5, 60)} == {workers}
    assert WASSP(scale_lr=False).rate_factor(9, workers) == 1
    assert WASSP(warmup_epochs=0).rate_factor(0, workers) == workers


def test_the_rate_of_wasap_starts_hot_and_knows_staleness() -> None:
    optimizer = ts.SGD(lr=0.5)

    def rate(strategy: WASAP, epoch: int, staleness: int = 0, workers: int = 4) -> float:
        return strategy.rate(optimizer, Progress(epoch * 10, float(epoch), 10, 20), workers, staleness)

    assert [rate(WASAP(), epoch, 7) for epoch in (0, 4, 5)] == [0.5] * 3
    hot = WASAP(hot_start=2.0)
    assert [rate(hot, epoch) for epoch in (0, 4, 5)] == [1.0, 1.0, 0.5]
    assert [rate(hot, epoch, workers=1) for epoch in (0, 4, 5)] == [0.5] * 3  # nothing is asynchronous
    assert [rate(WASAP(staleness_aware=True), 5, staleness) for staleness in (0, 1, 2, 4)] == [0.5, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("phase_two", "epochs", "first"),
    [(0.3, 10, 7), (0.3, 60, 42), (0.0, 7, 7), (1.0, 7, 0), (0.5, 3, 2), (0.3, 1, 1), (0.3, 0, 0)],
)
def test_phase_two_takes_its_part_of_the_epochs(phase_two: float, epochs: int, first: int) -> None:
    assert WASAP(phase_two=phase_two).first_local_epoch(epochs) == first


def test_a_step_of_wassp_takes_a_batch_of_every_worker() -> None:
    assert WASAP().steps_per_epoch(11, 3) == 11
    assert WASSP().steps_per_epoch(11, 3) == 3


def test_workers_share_the_cores_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "default_threads", lambda: 8)
    world: Any = SimpleNamespace(node_size=5, node_of=[0, 0, 0, 0, 0], rank=3)
    assert WASAP().threads(world, None) == 2  # the master does not train
    assert WASAP().threads(world, 3) == 3
    away: Any = SimpleNamespace(node_size=5, node_of=[0, 1, 1, 1, 1, 1], rank=3)
    assert WASAP().threads(away, None) == 1


def test_worker_streams_are_their_own() -> None:
    seeds = [worker_seed(3, k) for k in range(1000)]
    assert seeds[0] == 3
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert not set(seeds[1:]) & {worker_seed(4, k) for k in range(1000)}


@pytest.mark.parametrize(("batches", "workers"), [(10, 3), (9, 3), (4, 4)])
def test_shards_of_phase_two_are_equal(batches: int, workers: int) -> None:
    per_epoch = batches // workers
    assert {len(shard(per_epoch * workers, k, workers)) for k in range(workers)} == {per_epoch}
