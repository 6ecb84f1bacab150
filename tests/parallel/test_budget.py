# SPDX-License-Identifier: BSD-3-Clause
"""What a run will take is counted right, and one that does not fit is refused with the arithmetic."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

import trulysparse as ts
from trulysparse.errors import ParallelError
from trulysparse.parallel import budget
from trulysparse.parallel.budget import check_budgets, plan_budgets


@pytest.fixture(scope="module")
def net() -> ts.SparseMLP:
    return ts.SparseMLP((1000, 2000, 2000, 10), density=0.05, seed=0)


def test_phase_one_of_four_workers_in_shared_memory_takes_less_than_twice_one_network(net: ts.SparseMLP) -> None:
    (node,) = plan_budgets(net, ("velocity",), [0] * 5, shared=True, local=True)
    connections = net.connections
    assert node.model_bytes == pytest.approx(20 * connections, rel=0.1)  # pointers and biases besides
    assert node.phase_one_bytes == pytest.approx(36 * connections, rel=0.1)
    assert node.phase_one_bytes <= 1.9 * node.model_bytes
    assert node.phase_two_bytes == 5 * node.model_bytes
    assert node.most_bytes == node.phase_one_bytes + node.phase_two_bytes


def test_messages_put_the_master_s_buffers_on_its_node_and_a_network_on_each_worker_s(net: ts.SparseMLP) -> None:
    master, other = plan_budgets(net, ("velocity",), [0, 0, 1, 1], shared=False, local=False)
    connections = net.connections
    assert other.phase_one_bytes == pytest.approx(2 * 20 * connections, rel=0.1)  # network 16, gradient 4
    assert master.phase_one_bytes == pytest.approx((20 + 20 + 3 * 8) * connections, rel=0.1)
    assert master.phase_two_bytes == other.phase_two_bytes == 0


class _OneRank:
    """A world of one rank."""

    rank, node_of = 0, (0,)

    def share_json(self, value: Any) -> list[Any]:
        return [value]

    def together(self, doing: str) -> Any:
        return nullcontext()


def test_a_run_that_does_not_fit_is_refused_before_it_begins(
    net: ts.SparseMLP, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = plan_budgets(net, ("velocity",), [0] * 3, shared=True, local=True)
    world: Any = _OneRank()
    monkeypatch.setattr(budget, "available_bytes", lambda: budgets[0].most_bytes)
    check_budgets(world, budgets)
    monkeypatch.setattr(budget, "available_bytes", lambda: budgets[0].most_bytes - 1)
    with pytest.raises(ParallelError, match=r"node 0 needs .* MB for models .* phase two .*use phase_two=0"):
        check_budgets(world, budgets)
    monkeypatch.setattr(budget, "available_bytes", lambda: None)  # the system does not say
    check_budgets(world, budgets)
