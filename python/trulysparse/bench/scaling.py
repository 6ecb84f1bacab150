# SPDX-License-Identifier: BSD-3-Clause
"""How many updates a second a parameter server makes, from what one update takes: a closed queueing network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trulysparse.errors import ConfigError

__all__ = ["Cluster", "Costs", "Prediction", "predict", "throughput"]


def throughput(
    workers: int, think_seconds: float, queue_seconds: Sequence[float], shared_seconds: float = 0.0, servers: int = 1
) -> list[float]:
    """Return the updates a second of 1, 2, ... `workers` workers: mean value analysis.

    A worker's update waits in turn at each queue that has one server, at one place that has several (the cores of a
    node), and spends some time that nobody else lengthens. Exact where times are exponential, or servers are shared by
    all that are there (Reiser and Lavenberg 1980); a good estimate otherwise.

    Parameters
    ----------
    workers : int
    think_seconds : float
        Of an update, spent where nobody waits for anybody.
    queue_seconds : sequence of float
        Of an update at each queue.
    shared_seconds : float
        Of an update at the place with several servers.
    servers : int
        How many.
    """
    if workers < 1 or servers < 1 or min([think_seconds, shared_seconds, *queue_seconds]) < 0:
        raise ConfigError(
            f"throughput needs workers and servers of at least 1 and no negative times, got {workers} workers, "
            f"{servers} servers, {think_seconds}, {list(queue_seconds)} and {shared_seconds} s"
        )
    lengths, length = [0.0] * len(queue_seconds), 0.0
    chances = [1.0] + [0.0] * (servers - 1)  # of 0, 1, ... being at the shared place
    rates = []
    for count in range(1, workers + 1):
        stays = [seconds * (1 + waiting) for seconds, waiting in zip(queue_seconds, lengths, strict=True)]
        free = sum((servers - 1 - j) * chance for j, chance in enumerate(chances[: servers - 1]))
        stay = shared_seconds / servers * (1 + length + free)
        total = think_seconds + sum(stays) + stay
        if total <= 0:
            raise ConfigError("an update that takes no time has no rate; give one of its times")
        rate = count / total
        lengths, length = [rate * s for s in stays], rate * stay
        now = [0.0] + [shared_seconds * rate / j * chances[j - 1] for j in range(1, servers)]
        busy = shared_seconds * rate + sum((servers - j) * chance for j, chance in enumerate(now))
        now[0] = max(0.0, 1 - busy / servers)
        chances = now
        rates.append(rate)
    return rates


@dataclass(frozen=True)
class Costs:
    """What one update takes, in seconds and bytes.

    Attributes
    ----------
    compute_seconds : float
        Of a worker's core: the gradient, and telling the master.
    service_seconds : float
        Of the master: hearing of it, applying it, answering.
    wake_seconds : float
        Until the ones who sleep have woken up, both ways.
    gradient_bytes, model_bytes : int
        What travels to the master and back where they share no memory.
    crowding : float
        By what part of itself `compute_seconds` grows where workers share a core and take each other's caches; in
        part, where only some do.
    """

    compute_seconds: float
    service_seconds: float
    wake_seconds: float
    gradient_bytes: int = 0
    model_bytes: int = 0
    crowding: float = 0.0

    def crowded_seconds(self, workers_per_core: float) -> float:
        """Return what a gradient takes of a core that so many workers share."""
        return self.compute_seconds * (1 + self.crowding * min(max(0.0, workers_per_core - 1), 1.0))


@dataclass(frozen=True)
class Cluster:
    """Machines that are alike.

    Attributes
    ----------
    nodes : int
    cores : int
        Of a node.
    bytes_per_second : float
        Of a node's network, each way.
    latency_seconds : float
        Of a message.
    """

    nodes: int = 1
    cores: int = 1
    bytes_per_second: float = 12.5e9
    latency_seconds: float = 2e-6


@dataclass(frozen=True)
class Prediction:
    """What comes out.

    Attributes
    ----------
    rates : list of float
        Updates a second with 1, 2, ... workers.
    most : float
        What no number of workers exceeds.
    limit : str
        Why: "master", "network" or "cores".
    saturation : float
        Workers at which the master or the network would be busy all the time if nobody waited.
    """

    rates: list[float]
    most: float
    limit: str
    saturation: float


def predict(workers: int, costs: Costs, cluster: Cluster) -> Prediction:
    """Predict the updates a second of 1 to `workers` workers of one thread, spread evenly over a cluster.

    The master is on the first node. Where there is a core for every process, only the master and its network make
    workers wait: what those of other nodes send and get passes through it, one way a queue each. Where there is not,
    all that processes do is done by the cores together.
    """
    if cluster.nodes < 1 or cluster.cores < 1 or cluster.bytes_per_second <= 0:
        raise ConfigError(f"a cluster has nodes, cores and a network, got {cluster}")
    service = costs.service_seconds
    remote = 1 - 1 / cluster.nodes  # of the workers
    network = [remote * n / cluster.bytes_per_second for n in (costs.gradient_bytes, costs.model_bytes)]
    think = costs.wake_seconds + 2 * remote * cluster.latency_seconds
    limits = {"master": 1 / service if service else float("inf")}
    if max(network) > 0:
        limits["network"] = 1 / max(network)
    cores = cluster.nodes * cluster.cores
    # the master takes its time from the cores: an update costs them both
    limits["cores"] = cores / (costs.compute_seconds + service)
    limit = min(limits, key=lambda name: limits[name])
    alone = think + costs.compute_seconds + service + sum(network)
    rates: list[float] = []
    if workers <= cores - 1:  # every process has a core
        rates = throughput(workers, think + costs.compute_seconds, [service, *network])
    else:
        free = throughput(workers, think + costs.compute_seconds, [service, *network])
        crowded = throughput(workers, think, network, costs.compute_seconds + service, cores)
        for k in range(1, workers + 1):
            most = min(limits["master"], cores / (costs.crowded_seconds(k / cores) + service))
            rates.append(free[k - 1] if k <= cores - 1 else min(crowded[k - 1], most))
    queued = max(service, *network)
    return Prediction(rates, limits[limit], limit, alone / queued if queued else float("inf"))
