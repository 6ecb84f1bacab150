# SPDX-License-Identifier: BSD-3-Clause
"""What layers keep for the forward pass costs memory or time, and changes no bit of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import Engine, evolve_network
from trulysparse.errors import ConfigError
from trulysparse.model import Inputs, inference
from trulysparse.topology import ImportancePruning

SIZES = (40, 300, 200, 5)
OTHERS = ("fast", "lean")


def _samples() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((96, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], 96)


def _net() -> ts.SparseMLP:
    return ts.SparseMLP(SIZES, epsilon=4, activation=ts.AllReLU(0.6), dropout=0.3, init="he_uniform", seed=3)


def _trained(storage: str, **settings: Any) -> tuple[ts.SparseMLP, list[float]]:
    net, (X, y) = _net(), _samples()
    trainer = ts.Trainer(net, batch_size=48, seed=1, storage=storage, progress=False, **settings)
    history = trainer.fit(X, y, epochs=4, validation=(X, y))
    return net, [*history.loss, *history.val_loss]


@pytest.mark.parametrize("storage", OTHERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"micro_batch": 16},
        {"micro_batch": 16, "optimizer": ts.Adam(lr=1e-3)},
        {"optimizer": ts.SGD(lr=0.05, clip_norm=1.0), "activation_dtype": "bfloat16"},
        {"topology": ts.RigL(update_every=2, end=1.0), "micro_batch": 16},
        {"pruning": ImportancePruning(start=1, period=1), "threads": 2},
        {"pruning": ImportancePruning(start=1, period=1, remove_outgoing=True, compact=True), "micro_batch": 16},
        {"topology": ts.TopKAST(0.4), "micro_batch": 16},
    ],
    ids=["whole", "parts", "adam", "clip", "rigl", "pruning", "compact", "top_kast"],
)
def test_every_storage_trains_to_the_same_bits(storage: str, settings: dict[str, Any]) -> None:
    expected, losses = _trained("balanced", **settings)
    net, found = _trained(storage, **settings)
    assert found == losses
    for layer, other in zip(net.layers, expected.layers, strict=True):
        assert layer.pattern == other.pattern
        assert layer.values.tobytes() == other.values.tobytes()
        assert layer.bias.tobytes() == other.bias.tobytes()


@pytest.mark.parametrize("storage", OTHERS)
def test_a_network_predicts_freezes_and_saves_whatever_it_keeps(storage: str, tmp_path: Any) -> None:
    net, X = _net(), _samples()[0]
    expected = net.decision(X)
    several = net.decision(X, batch_size=16)
    for layer in net.layers:
        layer.store(storage)
    assert net.decision(X).tobytes() == expected.tobytes()
    assert net.decision(X, batch_size=16).tobytes() == several.tobytes()
    frozen = net.freeze()
    for layer in net.layers:
        layer.values[...] *= 2
    assert net.decision(X).tobytes() != expected.tobytes()  # what is changed in place is seen at once
    assert frozen.decision(X).tobytes() == expected.tobytes()
    net.save(tmp_path / "net.safetensors")
    assert ts.load(tmp_path / "net.safetensors").decision(X).tobytes() == net.decision(X).tobytes()


@pytest.mark.parametrize(("storage", "second"), [("balanced", 8), ("fast", 8), ("lean", 0)])
def test_bytes_a_connection_are_as_documented(storage: str, second: int) -> None:
    net, (X, y) = _net(), _samples()
    engine = Engine(net, ts.SGD(lr=0.01, momentum=0.9), seed=0, threads=1, micro_batch=48, storage=storage)
    inputs, targets = Inputs(X, SIZES[0], None, "X"), net.loss.check_targets(y, SIZES[-1], "y")

    def check() -> None:
        for layer, slots in zip(net.layers, engine.state.weight_slots, strict=True):
            pointers = 4 * (layer.n_in + 1) + (4 * (layer.n_out + 1) if second else 0)
            assert layer.nbytes == (8 + second) * layer.nnz + pointers + 4 * layer.n_out
            assert sum(array.nbytes for array in slots.values()) == 4 * layer.nnz

    engine.train_batch(inputs, targets, np.arange(96), 0.01)
    check()
    evolve_network(net, engine.state, topology=ts.SET(0.3), pruning=None, seed=0, threads=1)
    engine.train_batch(inputs, targets, np.arange(96), 0.01)
    net.evaluate(X, y, batch_size=16)
    check()


def test_an_unknown_storage_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"storage must be one of balanced, fast, lean, got 'fats'.*fast"):
        ts.Trainer(_net(), storage="fats", progress=False)
    with pytest.raises(ConfigError, match="storage='lean' with parallel training"):
        ts.Trainer(_net(), storage="lean", parallel="wasap", progress=False)


def test_prediction_with_bfloat16_activations_rounds_and_no_more() -> None:
    net, (X, y) = _net(), _samples()
    exact, rounded = (net.decision(X, activation_dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert rounded.tobytes() != exact.tobytes()
    assert np.abs(rounded - exact).max() <= 2**-6 * np.abs(exact).max()
    frozen = net.freeze()
    assert frozen.decision(X, activation_dtype="bfloat16").tobytes() == rounded.tobytes()
    assert net.decision(X, activation_dtype="bfloat16", batch_size=17).tobytes() == rounded.tobytes()
    assert net.evaluate(X, y, activation_dtype="bfloat16").loss == pytest.approx(net.evaluate(X, y).loss, rel=0.02)
    with pytest.raises(ConfigError, match="activation_dtype must be one of float32, bfloat16, got 'float16'"):
        net.predict(X, activation_dtype="float16")
    trained = ts.SparseMLP(SIZES, epsilon=4, activation=ts.PReLU())
    with pytest.raises(ConfigError, match="trained activations predict in float32"):
        trained.score(X, y, activation_dtype="bfloat16")


@pytest.mark.parametrize("storage", ["balanced", *OTHERS])
def test_evaluation_gives_the_same_bits_in_batches_of_any_width(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, rng = _net(), np.random.default_rng(5)
    for layer in net.layers:
        layer.store(storage)
    X, y = rng.standard_normal((301, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], 301)
    expected = net.evaluate(X, y)
    for width in (16, 48, 64, 100, 128, 200, 301, 1000):
        assert net.evaluate(X, y, batch_size=width) == expected
    monkeypatch.setattr(inference, "ACTIVATION_BYTES", 1)  # as for networks too wide for the memory that is left
    monkeypatch.setattr(inference, "available_bytes", lambda: 8 * 4 * (300 + 200) * 80)
    assert inference.columns_at_once(net.sizes, 128, np.dtype(np.float32)) == 80
    assert net.evaluate(X, y) == expected
    assert net.freeze().evaluate(X, y) == expected


@pytest.mark.parametrize("storage", OTHERS)
def test_an_engine_that_only_looks_leaves_the_storage_as_it_is(storage: str) -> None:
    net, (X, y) = _net(), _samples()
    for layer in net.layers:
        layer.store(storage)
    ts.gradient_flow(net, X, y)
    assert [layer.storage for layer in net.layers] == [storage] * 3
    ImportancePruning().delta(net.layers[0])
    assert net.layers[0].nbytes <= (8 + 8 * (storage == "fast")) * net.layers[0].nnz + 12 * sum(
        net.layers[0].pattern.shape
    )


def test_a_lean_network_predicts_without_a_copy_of_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (X, _) = _net(), _samples()
    expected = net.decision(X, batch_size=16)
    for layer in net.layers:
        layer.store("lean")
    monkeypatch.setattr(type(net.layers[0]), "freeze", None)
    assert net.decision(X, batch_size=16).tobytes() == expected.tobytes()


def test_a_run_is_resumed_with_another_storage_and_the_same_bits(tmp_path: Any) -> None:
    X, y = _samples()
    settings: dict[str, Any] = {"batch_size": 48, "seed": 1, "progress": False, "micro_batch": 16}
    whole = ts.Trainer(_net(), **settings)
    history = whole.fit(X, y, epochs=4, validation=(X, y))
    ts.Trainer(_net(), checkpoint=tmp_path, storage="fast", **settings).fit(X, y, epochs=2, validation=(X, y))
    resumed = ts.Trainer.resume(tmp_path, storage="lean")
    assert resumed.storage == "lean"
    assert resumed.fit(X, y, epochs=4, validation=(X, y)).val_loss == history.val_loss
    assert all(layer.storage == "lean" for layer in resumed.net.layers)
    budgeted = ts.Trainer.resume(tmp_path, memory_budget="20MB")
    assert budgeted.memory_fit is not None
