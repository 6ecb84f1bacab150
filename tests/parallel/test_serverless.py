# SPDX-License-Identifier: BSD-3-Clause
"""What the ways without a parameter server say of themselves, and who exchanges with whom."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

import trulysparse as ts
from trulysparse.errors import ConfigError
from trulysparse.optim import Progress
from trulysparse.parallel import PARALLEL, WASSP, AllReduce, Decentralized, get_parallel
from trulysparse.parallel.budget import plan_budgets, plan_peer_budgets
from trulysparse.parallel.peers import partner


@pytest.mark.parametrize("size", range(1, 10))
def test_pairs_are_a_matching_that_all_ranks_know(size: int) -> None:
    for number in range(50):
        partners = [partner(7, number, rank, size) for rank in range(size)]
        assert partners.count(None) == size % 2
        assert all(other is None or (partners[other] == rank != other) for rank, other in enumerate(partners))


@pytest.mark.parametrize("size", [3, 6])
def test_everyone_meets_everyone_in_the_long_run(size: int) -> None:
    met = {(rank, partner(7, number, rank, size)) for number in range(200) for rank in range(size)}
    assert all(pair in met for pair in combinations(range(size), 2))
    other_seed = [partner(8, number, 0, size) for number in range(50)]
    assert other_seed != [partner(7, number, 0, size) for number in range(50)]


@pytest.mark.parametrize(
    ("config", "strategy"),
    [
        (
            {"name": "allreduce", "scale_lr": False, "warmup_epochs": 2, "broadcast": True},
            AllReduce(scale_lr=False, warmup_epochs=2),
        ),
        ({"name": "decentralized", "every": 5, "broadcast": False}, Decentralized(every=5, broadcast=False)),
    ],
)
def test_a_strategy_is_its_configuration(config: dict[str, Any], strategy: AllReduce | Decentralized) -> None:
    built = get_parallel(config)
    assert type(built) is type(strategy)
    assert built is not None
    assert built.to_config() == strategy.to_config() == config
    assert {"allreduce", "decentralized"} <= set(PARALLEL.names())
    assert (strategy.masters, strategy.minimum, strategy.workers(3), strategy.steps_per_epoch(11, 3)) == (0, 2, 3, 3)


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: AllReduce(scale_lr=1), "scale_lr of AllReduce must be true or false, got 1"),  # type: ignore[arg-type]
        (lambda: WASSP(scale_lr="no"), "scale_lr of WASSP"),  # type: ignore[arg-type]
        (lambda: AllReduce(warmup_epochs=-1), "warmup_epochs of AllReduce"),
        (lambda: Decentralized(every=0), "every of Decentralized"),
        (lambda: AllReduce(broadcast=1), "broadcast of AllReduce must be true or false, got 1"),  # type: ignore[arg-type]
        (lambda: Decentralized(broadcast=None), "broadcast of Decentralized"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(build: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        build()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_learning_rate_grows_as_that_of_wassp(workers: int) -> None:
    ours, theirs, optimizer = AllReduce(warmup_epochs=4), WASSP(warmup_epochs=4), ts.SGD(lr=0.1)
    for epoch in range(8):
        progress = Progress(10 * epoch, float(epoch), 10, 8)
        rate = ours.rate(optimizer, progress, workers, 0)
        assert rate == theirs.rate(optimizer, progress, workers, 0) == 0.1 * (1 + (workers - 1) * min(epoch, 4) / 4)
    assert AllReduce(scale_lr=False).rate_factor(7, workers) == Decentralized().rate_factor(7, workers) == 1.0


def test_rules_that_act_within_steps_are_refused() -> None:
    net = ts.SparseMLP((8, 16, 2), density=0.5, seed=1)
    for strategy in (AllReduce(), Decentralized()):
        with pytest.raises(ConfigError, match="TopKAST"):
            ts.Trainer(net, topology=ts.TopKAST(), parallel=strategy)
        # every rank compacts its network alike
        ts.Trainer(net, pruning=ts.ImportancePruning(remove_outgoing=True, compact=True), parallel=strategy)


def test_the_budget_counts_a_network_and_its_copies_for_each_rank() -> None:
    net = ts.SparseMLP((100, 200, 10), density=0.3, seed=1)
    (master_and_one,) = plan_budgets(net, ("velocity",), [0, 0], shared=True, local=True)
    first, second = plan_peer_budgets(net, ("velocity",), [0, 1, 1], copies=2)
    parameters = 4 * (net.connections + 210)
    assert second.most_bytes == 2 * first.most_bytes
    assert first.model_bytes == master_and_one.model_bytes
    assert 2 * parameters <= first.most_bytes - first.model_bytes < 2 * parameters + 1024
    assert "phase" not in str(first)
    assert "phase one" in str(master_and_one)
