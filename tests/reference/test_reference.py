# SPDX-License-Identifier: BSD-3-Clause
"""The reference is checked by itself: against finite differences, stated counts and published vectors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import numpy_reference as ref
from . import philox

ACTIVATIONS = {
    "linear": ("linear", 0.0),
    "relu": ("rectifier", 0.0),
    "leaky_relu": ("rectifier", 0.01),
    "all_relu": None,
    "sigmoid": ("sigmoid", 0.0),
    "tanh": ("tanh", 0.0),
}


def _layers(
    sizes: tuple[int, ...], activation: str, seed: int = 0, dtype: Any = np.float64, density: float = 0.5
) -> list[ref.Layer]:
    rng = np.random.default_rng(seed)
    layers = []
    for number, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        mask = rng.random((n_in, n_out)) < density
        weights = np.where(mask, rng.normal(size=(n_in, n_out)), 0).astype(dtype)
        kind = ACTIVATIONS[activation] or ("rectifier", ref.all_relu_slope(0.6, number + 1))
        last = number == len(sizes) - 2
        layers.append(ref.Layer(weights, mask, rng.normal(size=n_out).astype(dtype), ("linear", 0.0) if last else kind))
    return layers


def _problem(loss: str, samples: int = 7, features: int = 6) -> tuple[NDArray[Any], NDArray[Any], int]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(samples, features))
    if loss == "cross_entropy":
        return X, rng.integers(0, 3, samples), 3
    if loss == "binary_cross_entropy":
        return X, rng.integers(0, 2, (samples, 2)), 2
    return X, rng.normal(size=(samples, 2)), 2


class _Draws:
    """Draws of NumPy's own generator."""

    def __init__(self, seed: int = 0, rate: float = 0.3) -> None:
        self.seed, self.rate = seed, rate

    def order(self, n: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(n)

    def kept(self, layer: int, step: int, batch: int, neurons: int) -> NDArray[np.bool_]:
        return np.random.default_rng([self.seed, 1, layer, step]).random((batch, neurons)) >= self.rate

    def cells(self, layer: int, evolution: int, survivors: NDArray[np.bool_], count: int) -> NDArray[np.uint64]:
        rng = np.random.default_rng([self.seed, 2, layer, evolution])
        return np.sort(rng.choice(np.flatnonzero(~survivors.reshape(-1)), count, replace=False)).astype(np.uint64)

    def values(self, layer: int, evolution: int, cells: NDArray[np.uint64]) -> NDArray[Any]:
        return 0.3 * np.random.default_rng([self.seed, 3, layer, evolution]).normal(size=cells.size)


@pytest.mark.parametrize("with_dropout", [False, True])
@pytest.mark.parametrize("loss", list(ref.LOSSES))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_gradients_equal_finite_differences(activation: str, loss: str, with_dropout: bool) -> None:
    X, y, outputs = _problem(loss)
    layers = _layers((6, 8, 7, 5, outputs), activation)
    rng = np.random.default_rng(2)
    dropout = [
        ref.Dropout(rng.random((len(X), n)) < 0.7, ref.dropout_scale(19661)) if with_dropout else None
        for n in (8, 7, 5)
    ]
    _, _, analytic = ref.gradients(layers, X, y, loss, dropout)

    def value() -> float:
        return ref.gradients(layers, X, y, loss, dropout)[0] / len(X)

    h = 1e-6
    tolerance = 1e-9 * max(1.0, value())  # of the difference of two rounded losses
    checked = 0
    for layer, (dw, db) in zip(layers, analytic, strict=True):
        assert np.all(dw[~layer.mask] == 0)
        spots = [(layer.weights, dw, cell) for cell in np.argwhere(layer.mask)]
        spots += [(layer.bias, db, cell) for cell in np.argwhere(np.ones_like(db))]
        for array, gradient, cell in spots:
            place = tuple(cell)
            before = array[place]
            array[place] = before + h
            above = value()
            array[place] = before - h
            below = value()
            array[place] = before
            assert (above - below) / (2 * h) == pytest.approx(gradient[place], rel=1e-5, abs=tolerance)
            checked += 1
    assert checked > 80


def test_all_relu_alternates_and_starts_negative() -> None:
    assert [ref.all_relu_slope(0.6, hidden) for hidden in (1, 2, 3)] == [-0.6, 0.6, -0.6]
    z = np.array([-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(ref.activate(("rectifier", -0.6), z), [1.2, 0.0, 0.0, 3.0])
    np.testing.assert_array_equal(ref.derivative(("rectifier", -0.6), z), [-0.6, 1.0, 1.0, 1.0])


def test_losses_against_hand_computed_values() -> None:
    z = np.log(np.array([[1.0, 2.0, 5.0], [2.0, 2.0, 4.0]]))
    loss, correct, delta = ref.cross_entropy(z, np.array([2, 0]))
    assert loss == pytest.approx(-np.log(5 / 8) - np.log(1 / 4))
    assert correct == 1
    np.testing.assert_allclose(delta, [[1 / 8, 1 / 4, -3 / 8], [-3 / 4, 1 / 4, 1 / 2]])
    z = np.log(np.array([[3.0, 1 / 3]]))
    loss, correct, delta = ref.binary_cross_entropy(z, np.array([[1, 1]]))
    assert loss == pytest.approx((-np.log(3 / 4) - np.log(1 / 4)) / 2)
    assert correct == 0
    np.testing.assert_allclose(delta, [[-1 / 8, -3 / 8]])
    loss, correct, delta = ref.mse(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]]))
    assert (loss, correct) == (2.5, 0)
    np.testing.assert_allclose(delta, [[1.0, -2.0]])


def test_losses_survive_large_outputs() -> None:
    z = np.array([[1000.0, -1000.0]])
    assert ref.cross_entropy(z, np.array([1]))[0] == 2000.0
    assert ref.binary_cross_entropy(z[:, 1:], np.array([1]))[0] == 1000.0


@pytest.mark.parametrize(
    ("optimizer", "first", "second"),
    [
        (ref.SGD(0.5), 0.9, 0.75),
        (ref.SGD(0.5, nesterov=True), 0.85, 0.675),
        (ref.SGD(0.5, 0.1), 0.8, 0.57),
        (ref.SGD(0.5, 0.1, "l2"), 0.89, 0.7261),
        (ref.Adam(eps=0.0), 0.9, 0.8),
        (ref.Adam(eps=0.0, decay=0.5), 0.85, 0.7075),
        (ref.Adam(eps=0.0, decay=0.5, decoupled=False), 0.9, 0.8),
    ],
)
def test_optimizers_against_hand_computed_steps(optimizer: ref.Optimizer, first: float, second: float) -> None:
    w, g = np.array([1.0]), np.array([1.0])
    slots = {name: np.zeros(1) for name in optimizer.slots}
    w = optimizer.update(w, g, slots, 0.1, 1)
    assert w[0] == pytest.approx(first, rel=1e-12)
    # A constant gradient moves Adam by lr at every step; its coupled decay changes it by very little.
    tolerance = 1e-2 if optimizer == ref.Adam(eps=0.0, decay=0.5, decoupled=False) else 1e-12
    assert optimizer.update(w, g, slots, 0.1, 2)[0] == pytest.approx(second, rel=tolerance)


def test_set_takes_each_sign_by_itself_and_every_zero() -> None:
    values = np.array([0.3, -0.1, 0.0, 0.1, -0.5, 0.2, -0.2, 0.4, -0.3, -0.4])
    keep = ref.set_survivors(values, 0.5)
    # 4 positive: the 2 smallest go; 5 negative: round(2.5) = 3 nearest zero go.
    np.testing.assert_array_equal(values[keep], [0.3, -0.5, 0.4, -0.4])
    assert np.count_nonzero(ref.set_survivors(values, 0.0)) == 9
    assert not ref.set_survivors(values, 1.0).any()
    np.testing.assert_array_equal(ref.set_survivors(np.array([0.1, 0.1, 0.1]), 1 / 3), [False, True, True])
    with pytest.raises(ValueError, match="NaN"):
        ref.set_survivors(np.array([1.0, np.nan]), 0.1)


def _half_and_half(n: int) -> NDArray[np.float64]:
    """Half of each sign, the weight nearest zero a negative one."""
    values = np.concatenate([-np.arange(1, n // 2 + 1), np.arange(1, n - n // 2 + 1) + 0.5])
    return np.random.default_rng(0).permutation(values).astype(np.float64)


@pytest.mark.parametrize(("n", "fraction", "removed"), [(1000, 0.3, 302), (10, 0.3, 5), (10, 0.0, 2), (1000, 0.0, 2)])
def test_wasap_cut_offs_remove_the_stated_counts(n: int, fraction: float, removed: int) -> None:
    assert np.count_nonzero(~ref.wasap_survivors(_half_and_half(n), fraction)) == removed


@pytest.mark.parametrize("values", [[0.5], [-0.5], [0.5, 0.7], [-0.5, -0.7], [-0.5, 0.5], [0.1, -0.9]])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_wasap_cut_offs_take_one_or_two_weights_whole(values: list[float], fraction: float) -> None:
    assert not ref.wasap_survivors(np.array(values), fraction).any()


@pytest.mark.parametrize("positive", [0, 3, 40, 97, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.9])
def test_wasap_cut_offs_keep_the_counts_of_their_formula(positive: int, fraction: float) -> None:
    rng = np.random.default_rng(positive)
    values = np.concatenate([rng.random(positive) + 0.01, -rng.random(100 - positive) - 0.01])
    ascending = np.sort(values)
    p = int(np.argmin(np.abs(ascending)))
    keep = ref.wasap_survivors(values, fraction)
    assert np.count_nonzero(values[keep] < 0) == min(int((1 - fraction) * p), 100 - positive)
    high = min(99, int(p + 1 + fraction * (99 - p)))
    assert np.count_nonzero(values[keep] > 0) == 99 - high


def test_wasap_cut_offs_of_nothing() -> None:
    with pytest.raises(ValueError, match="no weights"):
        ref.wasap_survivors(np.empty(0), 0.3)


def test_pruning_counts_neurons_without_connections() -> None:
    layer = _layers((5, 4, 2), "relu", density=1.0)[0]
    layer.weights[:] = np.array([1.0, 2.0, 3.0, 4.0])
    layer.mask[:, 0] = False
    layer.weights[:, 0] = 0
    layer.weight_slots = {"velocity": np.ones_like(layer.weights)}
    # Importances 0, 10, 15, 20: the 40th percentile lies at 11, so that 0 and 10 are weak.
    assert ref.prune_neurons(layer, 40.0) == 5
    assert layer.mask.sum(axis=0).tolist() == [0, 0, 5, 5]
    assert layer.weight_slots["velocity"].sum(axis=0).tolist() == [5.0, 0.0, 5.0, 5.0]
    # Half of the neurons have importance 0 now, so that the threshold is 0 and nothing more goes.
    assert ref.prune_neurons(layer, 20.0) == 0


@pytest.mark.parametrize("compat", [None, "wasap"])
def test_evolution_keeps_the_count_and_resets_grown_cells(compat: str | None) -> None:
    layer = _layers((30, 20, 2), "relu")[0]
    layer.weight_slots = {"velocity": np.where(layer.mask, 1.0, 0.0)}
    before, weights = layer.mask.copy(), layer.weights.copy()
    ref.evolve_set(layer, 0, 0, 0.3, _Draws(), compat)
    assert layer.connections == np.count_nonzero(before)
    survived = layer.weight_slots["velocity"] == 1
    np.testing.assert_array_equal(layer.weights[survived], weights[survived])
    grown = layer.mask & ~survived
    assert np.count_nonzero(grown) == np.count_nonzero(before & ~survived) > 50
    assert np.all(layer.weight_slots["velocity"][grown] == 0)


def _run(**options: Any) -> tuple[list[ref.Layer], list[dict[str, float]]]:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 205)
    X = rng.normal(size=(3, 10))[y] * 2 + rng.normal(size=(205, 10))
    dtype = options.pop("dtype", np.float64)
    layers = _layers((10, 20, 15, 3), "all_relu", dtype=dtype)
    for layer in layers:
        layer.weights *= dtype(0.3)
    defaults: dict[str, Any] = {"epochs": 6, "batch_size": 20, "lr": 0.01, "optimizer": ref.SGD(0.9, 2e-4)}
    defaults |= {"draws": _Draws(), "dropout_thresholds": (19661, 19661), "set_fraction": 0.3}
    return layers, ref.train(layers, X.astype(dtype), y, **(defaults | options))


def test_a_run_learns_and_keeps_its_connections() -> None:
    layers, rows = _run()
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.1
    assert len({row["connections"] for row in rows}) == 1
    for layer in layers:
        assert np.all(layer.weights[~layer.mask] == 0)


def test_output_matrix_evolves_only_when_asked() -> None:
    before = _layers((10, 20, 15, 3), "all_relu")[-1].mask
    np.testing.assert_array_equal(_run()[0][-1].mask, before)
    assert not np.array_equal(_run(evolve_output=True)[0][-1].mask, before)


def test_pruning_happens_between_epochs_and_is_permanent() -> None:
    _, rows = _run(pruning=ref.Pruning(20.0, start=0, period=2), epochs=6)
    counts = [row["connections"] for row in rows]
    # After epochs 2 and 4 (from 0), so that epochs 3 and 5 are smaller than the one before.
    assert counts[0] == counts[1] == counts[2] > counts[3] == counts[4] > counts[5]


def test_float32_follows_float64() -> None:
    (double, rows), (single, rows32) = _run(epochs=2), _run(epochs=2, dtype=np.float32)
    for a, b in zip(double, single, strict=True):
        assert b.weights.dtype == b.bias.dtype == np.float32
        assert all(slot.dtype == np.float32 for slot in b.weight_slots.values())
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-5)
    assert rows[-1]["loss"] == pytest.approx(rows32[-1]["loss"], abs=1e-5)


@pytest.mark.parametrize("optimizer", [ref.SGD(0.9, 1e-3, "l2", nesterov=True), ref.Adam(decay=1e-2)])
def test_float32_stays_float32(optimizer: ref.Optimizer) -> None:
    layers, _ = _run(optimizer=optimizer, dtype=np.float32, lr=lambda step: 0.01 / (1 + step))
    for layer in layers:
        assert {a.dtype for a in (layer.weights, layer.bias, *layer.weight_slots.values())} == {np.dtype(np.float32)}


def test_learning_rate_may_follow_the_step() -> None:
    seen: list[int] = []
    _run(epochs=2, lr=lambda step: seen.append(step) or 0.01)
    assert seen == list(range(20))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    assert tuple(int(w) for w in philox.philox4x32(counter, key)) == words


def test_draw_packs_seed_index_step_purpose_and_layer() -> None:
    seed, index = 0x0123456789ABCDEF, 0xFEDCBA9876543210
    expected = philox.philox4x32((0x76543210, 0xFEDCBA98, 77, 6 << 24 | 5), (0x89ABCDEF, 0x01234567))
    np.testing.assert_array_equal(philox.draw(seed, "shuffle", 5, 77, index), expected)
    np.testing.assert_array_equal(philox.draw(seed, "shuffle", 5, 77, [3, index])[1], expected)


def test_bounded_takes_the_high_part_and_rejects_once() -> None:
    words = np.array([1, 0x80000000, 1, 0xC0000000], dtype=np.uint32)
    assert philox.bounded(words, 10) == 5
    # 2^64 mod 3 = 1: only the low part 0 is one too many, which the first half 0 gives.
    assert philox.bounded(np.array([0, 0, 0, 0xC0000000], dtype=np.uint32), 3) == 2


def test_shuffle_is_a_permutation() -> None:
    out = philox.shuffle(1000, seed=3, step=2)
    np.testing.assert_array_equal(np.sort(out), np.arange(1000))
    assert not np.array_equal(out, philox.shuffle(1000, seed=3, step=3))
    assert abs(np.corrcoef(out, np.arange(1000))[0, 1]) < 0.1
    assert philox.shuffle(0, seed=0).size == 0


def test_dropout_draws_follow_their_definition() -> None:
    draws = philox.dropout_draws(5, 20, seed=9, layer=2, step=4)
    for sample, neuron in ((0, 0), (1, 0), (7, 4), (8, 3), (19, 2)):
        word = int(philox.draw(9, "dropout", 2, 4, neuron << 32 | sample // 8)[sample % 8 // 2])
        assert draws[sample, neuron] == (word >> 16 if sample % 2 else word & 0xFFFF)
    kept = philox.dropout_kept(300, 300, 19661, seed=9, layer=2, step=4)
    assert kept.mean() == pytest.approx(0.7, abs=0.01)


def test_values_have_their_distribution() -> None:
    cells = np.arange(20000, dtype=np.uint64) * np.uint64(2**33 + 1)
    where = {"seed": 1, "purpose": "weights", "layer": 0, "step": 0}
    uniform, normal = philox.uniform_values(cells, 0.5, **where), philox.normal_values(cells, 0.5, **where)
    assert uniform.dtype == np.float32
    assert np.abs(uniform).max() == pytest.approx(0.5, abs=1e-3)
    assert (uniform.mean(), uniform.var()) == pytest.approx((0.0, 1 / 12), abs=5e-3)
    assert (normal.mean(), normal.std()) == pytest.approx((0.0, 0.5), abs=1e-2)
    assert np.mean(np.abs(normal) < 0.5) == pytest.approx(0.6827, abs=1e-2)
