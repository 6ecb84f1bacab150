# SPDX-License-Identifier: BSD-3-Clause
"""What SNFS, DSR, DeepR and MEST all promise: counts, order, resume, threads, configuration, learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.topology import get_topology

RULES: dict[str, dict[str, Any]] = {
    "snfs": {"name": "snfs"},
    "snfs_fixed": {"name": "snfs", "redistribute": False, "update_every": 3, "unit": "steps"},
    "dsr": {"name": "dsr", "drop_fraction": 0.1, "threshold": 0.05, "update_every": 3},
    "deep_r": {"name": "deep_r", "l1": 1e-2, "noise": 0.1},
    "mest": {"name": "mest", "update_every": 1},
    "mest_gradient": {"name": "mest", "update_every": 2, "gradient_weight": 0.5},
    "mest_soft": {"name": "mest", "update_every": 1, "soft": True},
}
FIXED = ("snfs_fixed", "deep_r", "mest", "mest_gradient")


def _data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(256, 30)).astype(np.float32)
    return X, (X[:, :5].sum(1) > 0).astype(np.int64)


def _trainer(rule: str, **more: Any) -> ts.Trainer:
    net = ts.SparseMLP((30, 40, 25, 2), density=0.2, seed=1)
    more = {"optimizer": ts.SGD(lr=0.05, momentum=0.9), "topology": RULES[rule], "batch_size": 32, "seed": 3} | more
    return ts.Trainer(net, progress=False, **more)


def _bits(trainer: ts.Trainer) -> list[bytes]:
    found = []
    for layer, slots in zip(trainer.net.layers, trainer.state.weight_slots, strict=True):
        found += [layer.pattern.cells().tobytes(), layer.values.tobytes()]
        found += [slots[name].tobytes() for name in sorted(slots)]
    found += [trainer.state.rule.tensors[name].tobytes() for name in sorted(trainer.state.rule.tensors)]
    return found


@pytest.mark.parametrize("rule", RULES)
def test_connections_are_what_they_were_and_none_is_there_twice(rule: str) -> None:
    trainer = _trainer(rule)
    before = [layer.nnz for layer in trainer.net.layers]
    cells = [layer.pattern.cells() for layer in trainer.net.layers]
    trainer.fit(*_data(), epochs=6)
    after = [layer.nnz for layer in trainer.net.layers]
    assert sum(after) == sum(before)
    if rule in FIXED:
        assert after == before
    for layer in trainer.net.layers:
        found = layer.pattern.cells()
        assert (np.diff(found.astype(np.int64)) > 0).all()
    now = [layer.pattern.cells() for layer in trainer.net.layers]
    assert any(not np.array_equal(a, b) for a, b in zip(cells, now, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_is_bit_for_bit_the_one_never_interrupted(rule: str, tmp_path: Path) -> None:
    whole = _trainer(rule)
    whole.fit(*_data(), epochs=5)

    class Stop(ts.Callback):
        def on_step_end(self, trainer: ts.Trainer, step: int) -> None:
            if step == 20:  # in the middle of an epoch of 8 steps
                trainer.save_checkpoint(tmp_path / "c.safetensors")

    _trainer(rule, callbacks=[Stop()]).fit(*_data(), epochs=5)
    resumed = ts.Trainer.resume(tmp_path / "c.safetensors")
    assert resumed.state.step == 20
    resumed.fit(*_data())
    assert _bits(resumed) == _bits(whole)
    assert resumed.state.rule.numbers == whole.state.rule.numbers


@pytest.mark.parametrize("rule", RULES)
def test_any_number_of_threads_gives_the_same_bits(rule: str) -> None:
    results = []
    for threads in (1, 2, 7):
        trainer = _trainer(rule, threads=threads)
        trainer.fit(*_data(), epochs=3)
        results.append(_bits(trainer))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rule", RULES)
def test_the_loss_falls(rule: str, optimizer: str) -> None:
    chosen = ts.SGD(lr=0.05, momentum=0.9) if optimizer == "sgd" else ts.Adam(lr=0.01)
    history = _trainer(rule, optimizer=chosen).fit(*_data(), epochs=10)
    assert history.rows[-1]["loss"] < 0.7 * history.rows[0]["loss"]


@pytest.mark.parametrize("rule", RULES)
def test_a_configuration_makes_the_same_rule_again(rule: str) -> None:
    made = get_topology(RULES[rule])
    assert get_topology(made.to_config()).to_config() == made.to_config()
    assert made.to_config().items() >= RULES[rule].items()
