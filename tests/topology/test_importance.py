# SPDX-License-Identifier: BSD-3-Clause
"""Importance pruning during training and after it (spec section 4, conformance 4)."""

from __future__ import annotations

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import TrainState, evolve_network
from trulysparse.errors import ConfigError
from trulysparse.topology import get_pruning


def _net() -> ts.SparseMLP:
    return ts.SparseMLP((50, 40, 30, 4), epsilon=5, init="normal", seed=1)


def test_events_of_the_paper_in_500_epochs() -> None:
    rule = ts.ImportancePruning()
    # After the last epoch, 499, no event is asked for.
    assert [epoch for epoch in range(499) if rule.due(epoch)] == list(range(210, 500, 10))


def test_the_threshold_is_the_percentile_over_all_neurons_dead_ones_included() -> None:
    net = _net()
    ts.ImportancePruning(10).prune(net)  # leaves dead neurons, which count as 0
    layer = net.layers[0]
    dense = np.abs(layer.weights.toarray().astype(np.float64))
    threshold, weak = ts.ImportancePruning(20).threshold(layer)
    strength = dense.sum(axis=0)
    assert (strength == 0).sum() >= 4
    assert threshold == pytest.approx(np.percentile(strength, 20), rel=1e-6)
    assert weak.sum() == (strength <= np.percentile(strength, 20) * (1 + 1e-6)).sum()


def test_weak_neurons_lose_all_incoming_connections_and_nothing_else_changes() -> None:
    net = _net()
    outgoing = net.layers[-1].weights.toarray()
    before = [layer.weights.toarray() for layer in net.layers]
    weak = [ts.ImportancePruning(20).threshold(layer)[1] for layer in net.layers[:-1]]
    biases = [layer.bias.copy() for layer in net.layers]
    reports = ts.ImportancePruning(20).prune(net)
    for i, marked in enumerate(weak):
        after = net.layers[i].weights.toarray()
        assert not after[:, marked].any()
        np.testing.assert_array_equal(after[:, ~marked], before[i][:, ~marked])
        assert reports[i].connections_after == net.layers[i].nnz < reports[i].connections_before
    np.testing.assert_array_equal(net.layers[-1].weights.toarray(), outgoing)
    for layer, bias in zip(net.layers, biases, strict=True):
        np.testing.assert_array_equal(layer.bias, bias)


def test_a_pruning_event_lowers_the_count_for_good_and_set_keeps_the_lower_one() -> None:
    net = _net()
    state = TrainState.fresh(net, ts.SGD())
    before = [layer.nnz for layer in net.layers]
    rule = ts.ImportancePruning(20)
    report = evolve_network(net, state, topology=ts.SET(0.3), pruning=rule, seed=0, threads=1)
    lower = [layer.nnz for layer in net.layers]
    assert lower[0] < before[0] and lower[1] < before[1] and lower[2] == before[2]
    for change in report.changes:
        assert change.pruned > 0 and change.grown == change.dropped
        assert change.after == lower[change.layer]
        assert state.weight_slots[change.layer]["velocity"].size == lower[change.layer]
    evolve_network(net, state, topology=ts.SET(0.3), pruning=None, seed=0, threads=1)
    assert [layer.nnz for layer in net.layers] == lower


def test_an_event_removes_nothing_when_more_neurons_are_dead_than_the_percentile() -> None:
    net = _net()
    ts.ImportancePruning(50).prune(net)
    before = [layer.nnz for layer in net.layers]
    reports = ts.ImportancePruning(20).prune(net)
    assert [report.threshold for report in reports] == [0.0, 0.0]
    assert [layer.nnz for layer in net.layers] == before


def test_counts_fall_only_at_events() -> None:
    X = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32)
    y = np.arange(64) % 4
    trainer = ts.Trainer(
        _net(),
        optimizer=ts.SGD(lr=0.01),
        topology=ts.SET(0.3),
        pruning=ts.ImportancePruning(20, start=2, period=2),
        batch_size=16,
        progress=False,
    )
    counts = trainer.fit(X, y, epochs=9).connections
    falls = [epoch for epoch in range(8) if counts[epoch + 1] < counts[epoch]]
    assert falls == [4, 6]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    "arguments", [{"percentile": 0}, {"percentile": 100}, {"start": -1}, {"period": 0}, {"period": 2.5}]
)
def test_arguments_out_of_range_are_errors(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="ImportancePruning"):
        ts.ImportancePruning(**arguments)


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'percentile'"):
        get_pruning({"percentil": 20})
