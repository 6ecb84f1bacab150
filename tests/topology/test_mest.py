# SPDX-License-Identifier: BSD-3-Clause
"""MEST: never denser than the target, or softly so and at the target in the end."""

from __future__ import annotations

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.errors import ConfigError
from trulysparse.model.progress import Progress
from trulysparse.topology import Signals


def _seen(rule: ts.MEST, epochs: int = 8) -> tuple[list[int], list[list[int]]]:
    counts: list[list[int]] = []
    record = ts.LambdaCallback(on_step_end=lambda t, step: counts.append([layer.nnz for layer in t.net.layers]))
    net = ts.SparseMLP((20, 16, 12, 3), density=0.3, seed=0)
    before = [layer.nnz for layer in net.layers]
    X = np.random.default_rng(0).normal(size=(64, 20)).astype(np.float32)
    trainer = ts.Trainer(net, topology=rule, batch_size=16, seed=0, progress=False, callbacks=[record])
    trainer.fit(X, np.arange(64) % 3, epochs=epochs)
    return before, counts


def test_em_is_never_denser_than_its_target() -> None:
    before, counts = _seen(ts.MEST(0.3, update_every=1))
    assert all(count == before for count in counts)


def test_soft_is_denser_by_the_surplus_that_falls_at_each_milestone_and_ends_at_the_target() -> None:
    before, counts = _seen(ts.MEST(0.5, soft=True, update_every=3, milestones=(0.25, 0.8)))
    total = 4 * 8
    for step, count in enumerate(counts):
        part = 0.5 if step < 8 else 0.25 if step < np.ceil(0.8 * total) else 0.0
        assert count == [min(n + int(part * n), cells) for n, cells in zip(before, (320, 192, 36), strict=True)]
    assert counts[-1] == before


def test_the_score_is_magnitude_or_magnitude_and_gradient() -> None:
    net = ts.SparseMLP((20, 16, 3), density=0.5, seed=0)
    layer = net.layers[0]
    signals = Signals(0, 0, 1, progress=Progress(5, 0.5, 10, 10))
    delta = ts.MEST(0.3).evolve(layer, signals, 5)
    size = np.abs(layer.values)
    np.testing.assert_array_equal(
        np.flatnonzero(~delta.mask), np.sort(np.argsort(size, kind="stable")[: int(0.3 * layer.nnz)])
    )
    assert not ts.MEST().wants_gradient

    gradient = np.random.default_rng(0).normal(size=layer.nnz).astype(np.float32)

    class Known:
        def existing(self) -> np.ndarray:
            return gradient

    signals = Signals(0, 0, 1, progress=Progress(5, 0.5, 10, 10), gradients={0: Known()})
    rule = ts.MEST(0.3, gradient_weight=2.0)
    assert rule.wants_gradient
    scores = size + np.float32(2) * np.abs(gradient)
    gone = np.flatnonzero(~rule.evolve(layer, signals, 5).mask)
    np.testing.assert_array_equal(gone, np.sort(np.argsort(scores, kind="stable")[: int(0.3 * layer.nnz)]))


@pytest.mark.parametrize(
    "bad",
    [
        {"drop_fraction": 2},
        {"soft": 1},
        {"gradient_weight": -1},
        {"milestones": ()},
        {"milestones": (0.5, 0.4)},
        {"milestones": (1.0,), "soft": True},
    ],
)
def test_bad_settings_are_errors(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad)).rstrip("s")):
        ts.MEST(**bad)
