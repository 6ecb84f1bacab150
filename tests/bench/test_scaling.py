# SPDX-License-Identifier: BSD-3-Clause
"""The scaling model keeps to what is known of closed queueing networks."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest

from trulysparse.bench.scaling import Cluster, Costs, predict, throughput
from trulysparse.errors import ConfigError

COSTS = Costs(
    compute_seconds=1e-3, service_seconds=8e-5, wake_seconds=5e-5, gradient_bytes=500_000, model_bytes=500_000
)


def test_one_worker_never_waits() -> None:
    assert throughput(1, 0.3, [0.1, 0.2], 0.4, 3) == pytest.approx([1.0])


def test_no_queue_is_linear() -> None:
    assert throughput(50, 0.5, []) == pytest.approx([k / 0.5 for k in range(1, 51)])


def test_a_saturated_queue_gives_one_update_a_service() -> None:
    rates = throughput(1000, 1.0, [0.01, 0.002])
    assert all(later >= rate * (1 - 1e-12) for rate, later in pairwise(rates))
    assert all(rate < 100 * (1 + 1e-12) for rate in rates)
    assert rates[-1] == pytest.approx(100, rel=1e-6)


def test_balanced_queues_are_known_exactly() -> None:
    rates = throughput(20, 0.0, [0.25, 0.25, 0.25])
    assert rates == pytest.approx([k / (0.25 * (k + 2)) for k in range(1, 21)])


def test_repairmen_are_known_exactly() -> None:
    """One queue and a think time: Erlang's formula."""
    think, service, workers = 1.0, 0.2, 12
    weights = [
        math.factorial(workers) / math.factorial(workers - n) * (service / think) ** n for n in range(workers + 1)
    ]
    assert throughput(workers, think, [service])[-1] == pytest.approx((1 - weights[0] / sum(weights)) / service)


@pytest.mark.parametrize("servers", [1, 2, 3, 8])
def test_several_servers_are_known_exactly(servers: int) -> None:
    """Workers that think and share cores: a birth and death process."""
    think, seconds, workers = 0.7, 0.4, 15
    weights = [1.0]
    for n in range(1, workers + 1):
        weights.append(weights[-1] * (workers - n + 1) / think * seconds / min(n, servers))
    busy = sum(min(n, servers) * weight for n, weight in enumerate(weights)) / sum(weights)
    assert throughput(workers, think, [], seconds, servers)[-1] == pytest.approx(busy / seconds, rel=1e-6)


def test_one_server_of_several_is_a_queue() -> None:
    assert throughput(30, 0.3, [0.1], 0.2, 1) == pytest.approx(throughput(30, 0.3, [0.1, 0.2]))


def test_enough_servers_never_make_wait() -> None:
    assert throughput(4, 0.1, [], 0.4, 4) == pytest.approx([2, 4, 6, 8])


@pytest.mark.parametrize(
    "arguments", [(0, 1.0, []), (1, -1.0, []), (1, 1.0, [-0.1]), (1, 0.0, []), (1, 1.0, [], 1.0, 0)]
)
def test_impossible_times_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError):
        throughput(*arguments)  # type: ignore[arg-type]


def test_the_master_is_the_limit_where_cores_are_many() -> None:
    found = predict(500, COSTS, Cluster(nodes=1, cores=1000))
    assert found.limit == "master"
    assert found.most == pytest.approx(12_500)
    assert found.saturation == pytest.approx(1.13e-3 / 8e-5)
    assert found.rates[0] == pytest.approx(1 / 1.13e-3)
    assert found.rates[-1] == pytest.approx(12_500, rel=1e-3)


def test_cores_are_the_limit_where_they_are_few() -> None:
    found = predict(8, COSTS, Cluster(nodes=1, cores=2))
    assert found.limit == "cores"
    assert found.rates[0] == pytest.approx(1 / 1.13e-3)
    assert found.rates[1] < 2 / 1.08e-3
    assert found.rates[-1] == pytest.approx(2 / 1.08e-3, rel=1e-2)


def test_a_slow_network_is_the_limit_over_several_nodes() -> None:
    found = predict(200, COSTS, Cluster(nodes=4, cores=64, bytes_per_second=1e9))
    assert found.limit == "network"
    assert found.most == pytest.approx(1e9 / (500_000 * 0.75))
    assert found.rates[-1] == pytest.approx(found.most, rel=1e-2)


def test_more_workers_never_mean_fewer_updates_with_a_core_each() -> None:
    rates = predict(100, COSTS, Cluster(nodes=8, cores=16)).rates
    assert all(later >= rate * (1 - 1e-12) for rate, later in pairwise(rates))
    assert all(rate <= k * rates[0] * (1 + 1e-12) for k, rate in enumerate(rates, start=1))


def test_workers_that_share_a_core_slow_each_other() -> None:
    crowded = dataclasses.replace(COSTS, crowding=0.1)
    found, free = (predict(20, costs, Cluster(nodes=1, cores=2)).rates for costs in (crowded, COSTS))
    assert found[:2] == pytest.approx(free[:2])
    assert found[3] == pytest.approx(2 / (1.1e-3 + 8e-5))
    assert found[7] == found[19] == found[3]
