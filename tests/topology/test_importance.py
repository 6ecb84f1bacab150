# SPDX-License-Identifier: BSD-3-Clause
"""Importance pruning during training and after it (spec section 4, conformance 4)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse import _kernels
from trulysparse.engine import TrainState, evolve_network
from trulysparse.errors import ConfigError, PatternError
from trulysparse.topology import get_pruning


def _net() -> ts.SparseMLP:
    return ts.SparseMLP((50, 40, 30, 4), epsilon=5, init="normal", seed=1)


def _biased(seed: int = 1, activation: Any = "relu") -> ts.SparseMLP:
    net = ts.SparseMLP((50, 40, 30, 20, 4), epsilon=5, init="normal", activation=activation, seed=seed)
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        layer.bias[...] = rng.normal(size=layer.n_out)
    return net


def _samples(n: int = 33) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(n, 50)).astype(np.float32)


def _filled(net: ts.SparseMLP, seed: int = 0) -> TrainState:
    """Return a state whose slots hold numbers to follow."""
    state = TrainState.fresh(net, ts.Adam())
    rng = np.random.default_rng(seed)
    for slots in (*state.weight_slots, *state.bias_slots):
        for array in slots.values():
            array[...] = rng.normal(size=array.size)
    return state


def _bits(net: ts.SparseMLP, state: TrainState) -> list[bytes]:
    own = [array for layer in net.layers for array in (layer.pattern.cells(), layer.values, layer.bias)]
    slots = [array for each in (*state.weight_slots, *state.bias_slots) for array in each.values()]
    return [array.tobytes() for array in (*own, *slots, *state.pruned.values())]


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


ACTIVATIONS = (
    "linear",
    "relu",
    "leaky_relu",
    {"name": "all_relu", "alpha": 0.6},
    "sigmoid",
    "tanh",
    "prelu",
    "srelu",
    {"name": "prelu", "shared": True},
    {"name": "all_relu", "alpha": "auto"},
)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_folded_constants_leave_predictions_equal_up_to_rounding(activation: Any) -> None:
    plain, folded = _biased(activation=activation), _biased(activation=activation)
    ts.ImportancePruning(30).prune(plain)
    reports = ts.ImportancePruning(30, remove_outgoing=True).prune(folded)
    dead = [layer.pattern.in_degree() == 0 for layer in plain.layers[:-1]]
    for i, without in enumerate(dead):
        before, after = plain.layers[i + 1], folded.layers[i + 1]
        assert before.pattern.out_degree()[without].any() and not after.pattern.out_degree()[without].any()
        kept = ~np.repeat(without, before.pattern.out_degree())
        np.testing.assert_array_equal(after.values, before.values[kept])
        assert reports[i].connections_after == folded.layers[i].nnz
    assert folded.connections < plain.connections and folded.sizes == plain.sizes
    x = _samples()
    np.testing.assert_allclose(folded.decision(x), plain.decision(x), rtol=1e-5, atol=1e-5)
    if activation == "relu":  # not because nothing was folded
        for layer, same in zip(folded.layers, plain.layers, strict=True):
            layer.bias[...] = same.bias
        assert np.abs(folded.decision(x) - plain.decision(x)).max() > 0.1


def test_folding_goes_on_through_neurons_that_lose_their_last_input() -> None:
    # 0 -> 0 -> 0 -> 0 is a chain whose first neuron is dead, so that every one of it is a constant
    masks = [np.zeros(shape, np.bool_) for shape in ((3, 2), (2, 2), (2, 2), (2, 2))]
    masks[0][:, 1] = True
    for mask in masks[1:]:
        mask[0, 0] = mask[1, 1] = True
    net = ts.SparseMLP((3, 2, 2, 2, 2), density=ts.Given(masks), activation="tanh", init="normal", seed=4)
    for layer in net.layers:
        layer.bias[...] = [0.7, -0.3]
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    expected = net.decision(x)
    removed = net.compact()
    assert net.sizes == (3, 1, 1, 1, 2) and [list(some) for some in removed.neurons] == [[0], [0], [0]]
    assert removed.connections == 3 and net.connections == 6
    np.testing.assert_allclose(net.decision(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_compaction_leaves_predictions_equal_and_drops_neurons_for_real(activation: str, tmp_path: Path) -> None:
    plain, small = _biased(activation=activation), _biased(activation=activation)
    ts.ImportancePruning(30, remove_outgoing=True).prune(plain)
    reports = ts.ImportancePruning(30, compact=True).prune(small)
    for i, report in enumerate(reports):
        alone = (plain.layers[i].pattern.in_degree() == 0) & (plain.layers[i + 1].pattern.out_degree() == 0)
        assert report.neurons_removed == alone.sum() > 0
        assert small.layers[i].n_out == plain.layers[i].n_out - alone.sum() == small.layers[i + 1].n_in
        assert small.layers[i].bias.size == small.layers[i].n_out
    assert [layer.nnz for layer in small.layers] == [layer.nnz for layer in plain.layers]
    assert sum(layer.pattern.nbytes for layer in small.layers) < sum(layer.pattern.nbytes for layer in plain.layers)
    assert small.sizes[0] == 50 and small.sizes[-1] == 4
    x = _samples()
    np.testing.assert_allclose(small.decision(x), plain.decision(x), rtol=1e-5, atol=1e-5)
    small.save(tmp_path / "small.safetensors")
    again = ts.load(tmp_path / "small.safetensors")
    assert again.sizes == small.sizes
    np.testing.assert_array_equal(again.decision(x), small.decision(x))
    np.testing.assert_allclose(small.freeze().decision(x), small.decision(x), rtol=1e-5, atol=1e-5)


def test_compacting_a_finished_network_says_what_it_removed_and_keeps_what_it_predicts() -> None:
    net = _biased()
    ts.ImportancePruning(40).prune(net)
    mute = net.layers[1].pattern.sources() < 5  # five neurons of the first hidden layer lead nowhere
    pattern, (values,) = net.layers[1].pattern.keep(~mute, [net.layers[1].values])
    net.layers[1].replace(pattern, values)
    dead = np.flatnonzero(net.layers[0].pattern.in_degree() == 0)
    x, sizes, connections = _samples(), net.sizes, net.connections
    expected = net.decision(x)
    removed = net.compact()
    np.testing.assert_array_equal(removed.neurons[0], np.union1d(dead, np.arange(5)))
    assert [n - gone.size for n, gone in zip(sizes[1:-1], removed.neurons, strict=True)] == list(net.sizes[1:-1])
    assert removed.connections == connections - net.connections > 0
    assert (net.sizes[0], net.sizes[-1]) == (50, 4)
    np.testing.assert_allclose(net.decision(x), expected, rtol=1e-5, atol=1e-5)
    assert net.compact().connections == 0


def test_the_last_neuron_of_a_layer_is_never_dropped() -> None:
    masks = [np.zeros((6, 5), np.bool_), np.ones((5, 4), np.bool_), np.ones((4, 2), np.bool_)]
    net = ts.SparseMLP((6, 5, 4, 2), density=ts.Given(masks), activation="sigmoid", seed=2)
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    expected = net.decision(x)
    net.compact()
    assert net.sizes == (6, 1, 1, 2) and net.connections == 0
    np.testing.assert_allclose(net.decision(x), expected, rtol=1e-5, atol=1e-6)
    alone = ts.SparseMLP((6, 3), density=0.2, seed=1)
    assert alone.compact().neurons == () and alone.sizes == (6, 3)


def test_percentiles_count_removed_neurons_as_dead_and_slots_follow() -> None:
    wide, small = _biased(), _biased()
    states = _filled(wide), _filled(small)
    kept = [np.arange(n, dtype=np.int32) for n in wide.sizes]
    for percentile in (20.0, 30.0, 55.0):
        before = small.sizes
        _event(wide, states[0], ts.ImportancePruning(percentile, remove_outgoing=True))
        report = _event(small, states[1], ts.ImportancePruning(percentile, compact=True))
        for i, (layer, following) in enumerate(itertools.pairwise(wide.layers)):
            alone = (layer.pattern.in_degree() == 0) & (following.pattern.out_degree() == 0)
            kept[i + 1] = np.flatnonzero(~alone).astype(np.int32)
        assert small.sizes == tuple(some.size for some in kept)
        gone = {change.layer: change.neurons_removed for change in report.changes}
        assert [gone.get(i, 0) for i in range(3)] == [
            a - b for a, b in zip(before[1:-1], small.sizes[1:-1], strict=True)
        ]
    assert states[1].removed == [a - b for a, b in zip(wide.sizes[1:-1], small.sizes[1:-1], strict=True)]
    for i, (layer, other) in enumerate(zip(wide.layers, small.layers, strict=True)):
        arrays = [layer.values, *states[0].weight_slots[i].values()]
        pattern, chosen = layer.pattern.select(kept[i], kept[i + 1], arrays)
        assert pattern == other.pattern
        for a, b in zip(chosen, [other.values, *states[1].weight_slots[i].values()], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(layer.bias[kept[i + 1]], other.bias)
        for name, array in states[0].bias_slots[i].items():
            np.testing.assert_array_equal(array[kept[i + 1]], states[1].bias_slots[i][name])


def _event(net: ts.SparseMLP, state: TrainState, pruning: ts.ImportancePruning, **more: Any) -> Any:
    arguments = {"topology": None, "seed": 3, "threads": 1}
    return evolve_network(net, state, pruning=pruning, **(arguments | more))


def test_reports_say_which_neurons_and_connections_went() -> None:
    net = _biased()
    state = _filled(net)
    before, had = [layer.nnz for layer in net.layers], [layer.pattern.in_degree() > 0 for layer in net.layers]
    report = _event(net, state, ts.ImportancePruning(30, compact=True), topology=ts.SET(0.3))
    assert [change.layer for change in report.changes] == [0, 1, 2, 3]
    for change in report.changes:
        assert change.before == before[change.layer] and change.after == net.layers[change.layer].nnz
        assert (change.folded > 0) == (change.layer > 0)
        assert (change.neurons_pruned > 0) == (change.neurons_removed > 0) == (change.layer < 3)
        assert change.neurons_pruned <= had[change.layer].sum()
        assert change.dropped == change.grown


class _Greedy(ts.Topology):
    """Drops the smallest tenth, grows where the gradient is largest."""

    name = "greedy"
    wants_gradient = True

    def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta:
        order = np.argsort(np.abs(layer.values), kind="stable")
        mask = np.ones(layer.nnz, np.bool_)
        mask[order[: layer.nnz // 3]] = False
        cells, _ = signals.gradient(layer).top_missing(layer.nnz // 3, mask)
        return ts.TopologyDelta(mask, cells)


RULES = {"set": lambda: ts.SET(0.4), "rigl": lambda: ts.RigL(0.4, update_every=2, end=1.0), "own": _Greedy}
SAMPLED = {"sampled": lambda: ts.RigL(0.4, update_every=2, end=1.0, search="sampled")}


def _train(net: ts.SparseMLP, rule: ts.Topology, pruning: ts.ImportancePruning, epochs: int = 8, **more: Any) -> Any:
    x = _samples(64)
    trainer = ts.Trainer(
        net, topology=rule, pruning=pruning, batch_size=32, seed=3, progress=False, optimizer=ts.SGD(lr=0.02), **more
    )
    trainer.fit(x, np.arange(64) % 4, epochs=epochs)
    return trainer


@pytest.mark.parametrize("rule", RULES | SAMPLED)
def test_closed_neurons_never_get_inputs_again(rule: str) -> None:
    make = (RULES | SAMPLED)[rule]
    seen: dict[int, np.ndarray] = {}

    def watch(trainer: ts.Trainer, report: Any) -> None:
        for layer, closed in trainer.state.pruned.items():
            assert not trainer.net.layers[layer].pattern.in_degree()[closed].any()
            if layer in seen:
                assert not (seen[layer] & ~closed).any()  # closed stays closed
            seen[layer] = closed.copy()

    pruning = ts.ImportancePruning(30, start=0, period=2, regrow_into_pruned=False)
    trainer = _train(_biased(), make(), pruning, callbacks=ts.LambdaCallback(on_evolution=watch))
    assert sorted(seen) == [0, 1, 2] and all(closed.sum() > 5 for closed in seen.values())
    assert trainer.state.evolutions > 6

    pruned = ts.ImportancePruning(30, start=0, period=2)
    regrown = []

    def count(trainer: ts.Trainer, report: Any) -> None:
        regrown.append(min((layer.pattern.in_degree() == 0).sum() for layer in trainer.net.layers[:-1]))

    other = _train(_biased(), make(), pruned, callbacks=ts.LambdaCallback(on_evolution=count))
    assert not other.state.pruned and min(regrown) < 5  # the rule grows into them unless it is told not to


def test_a_rule_that_grows_into_closed_neurons_is_told_so() -> None:
    class Blind(ts.Topology):
        name = "blind"

        def evolve(self, layer: ts.SparseLayer, signals: ts.Signals, step: int) -> ts.TopologyDelta:
            cells = np.setdiff1d(np.arange(layer.n_in * layer.n_out, dtype=np.uint64), layer.pattern.cells())
            return ts.TopologyDelta(None, cells)

    net = _biased()
    with pytest.raises(PatternError, match="Blind grew connections of layer 0 into neurons that pruning closed"):
        _event(net, _filled(net), ts.ImportancePruning(30, regrow_into_pruned=False), topology=Blind())


def test_where_all_neurons_are_closed_nothing_grows() -> None:
    net = _biased()
    state = _filled(net)
    state.pruned = {0: np.ones(40, np.bool_)}
    before = net.layers[0].nnz
    evolve_network(net, state, topology=ts.SET(0.3), pruning=None, seed=0, threads=1)
    assert 0 < net.layers[0].nnz < before


def test_a_rule_that_remembers_arrays_must_say_how_they_follow_a_compaction() -> None:
    class Remembers(ts.SET):
        """Keeps the smallest bias of every hidden neuron."""

        name = "remembers"

        def neurons_removed(self, state: ts.RuleState, kept: Any) -> None:
            for i, stay in enumerate(kept):
                state.tensors[f"seen.{i}"] = state.tensors[f"seen.{i}"][stay]

    net = _biased()
    state = _filled(net)
    for i, n in enumerate(net.sizes[1:-1]):
        state.rule.tensors[f"seen.{i}"] = np.arange(n)
    with pytest.raises(ConfigError, match=r"SET remembers arrays \(seen.0, seen.1, seen.2\).*neurons_removed"):
        _event(_biased(), state, ts.ImportancePruning(30, compact=True), topology=ts.SET())
    net, tensors = _biased(), state.rule.tensors
    state = _filled(net)
    state.rule.tensors = tensors
    _event(net, state, ts.ImportancePruning(30, compact=True), rule=Remembers())  # not due, and follows all the same
    assert [state.rule.tensors[f"seen.{i}"].size for i in range(3)] == list(net.sizes[1:-1])


@pytest.mark.parametrize(
    "options", [{"remove_outgoing": True}, {"compact": True}, {"regrow_into_pruned": False}], ids=str
)
def test_options_give_the_same_bits_on_1_2_and_7_threads(options: dict[str, bool]) -> None:
    runs = []
    for threads in (1, 2, 7):
        net = ts.SparseMLP((300, 400, 300, 5), epsilon=20, activation="tanh", seed=1)
        for layer in net.layers:
            layer.bias[...] = np.linspace(-1, 1, layer.n_out)
        state = _filled(net)
        for _ in range(2):
            _event(net, state, ts.ImportancePruning(40, **options), topology=ts.SET(0.3), threads=threads)
        runs.append(_bits(net, state))
    assert runs[0] == runs[1] == runs[2]


def test_every_instruction_set_folds_exactly(each_isa: str) -> None:
    plain, folded = _biased(activation="sigmoid"), _biased(activation="sigmoid")
    ts.ImportancePruning(30).prune(plain)
    ts.ImportancePruning(30, compact=True).prune(folded)
    assert _kernels.isa() == each_isa
    np.testing.assert_allclose(folded.decision(_samples()), plain.decision(_samples()), rtol=1e-5, atol=1e-5)


def test_options_survive_a_round_trip_through_their_configuration() -> None:
    for flags in itertools.product((False, True), repeat=3):
        names = ("remove_outgoing", "compact", "regrow_into_pruned")
        rule = ts.ImportancePruning(15.0, start=3, period=2, **dict(zip(names, flags, strict=True)))
        again = get_pruning(rule.to_config())
        assert again is not None and repr(again) == repr(rule) and again.to_config() == rule.to_config()
        assert again.remove_outgoing == (flags[0] or flags[1])  # compact implies it
        assert (again.compact, again.regrow_into_pruned) == flags[1:]
    with pytest.raises(ConfigError, match="ImportancePruning's compact must be True or False, got 1"):
        ts.ImportancePruning(compact=1)  # type: ignore[arg-type]
