# SPDX-License-Identifier: BSD-3-Clause
"""Importance pruning combines with every rule, whatever its options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.errors import ConfigError
from trulysparse.topology import TOPOLOGIES, get_topology

SETTINGS: dict[str, dict[str, Any]] = {
    "rigl": {"update_every": 5},
    "snfs": {"update_every": 5, "unit": "steps"},
    "gmp": {"final_density": 0.2, "update_every": 5},
    "granet": {"final_density": 0.2, "update_every": 5},
    "snip": {"density": 0.2},
    "dsr": {"update_every": 5, "drop_fraction": 0.1, "threshold": 0.05},
    "mest": {"update_every": 1, "soft": True},
    "top_kast": {"refresh_every": 5},
}
OPTIONS = ({}, {"remove_outgoing": True}, {"compact": True}, {"regrow_into_pruned": False})


def _run(name: str, options: dict[str, Any]) -> tuple[ts.SparseMLP, ts.Trainer]:
    digits = ts.load_digits()
    density = 1.0 if name in ("gmp", "granet", "snip") else 0.3
    net = ts.SparseMLP((64, 40, 30, 10), density=density, seed=1)
    trainer = ts.Trainer(
        net,
        topology=get_topology({"name": name, **SETTINGS.get(name, {})}),
        pruning=ts.ImportancePruning(15, start=0, period=1, **options),
        batch_size=64,
        progress=False,
        threads=1,
    )
    trainer.fit(digits.X_train, digits.y_train, epochs=4)
    return net, trainer


def test_every_rule_of_the_library_is_tried() -> None:
    own = {name for name in TOPOLOGIES.names() if TOPOLOGIES.find(name).__module__.startswith("trulysparse.")}
    assert own == {"static", "set", "deep_r", *SETTINGS}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options), "plain"))
@pytest.mark.parametrize("name", sorted({"static", "set", "deep_r", *SETTINGS}))
def test_importance_pruning_combines_with_every_rule(name: str, options: dict[str, Any]) -> None:
    if name == "top_kast" and options:
        with pytest.raises(ConfigError, match=r"(?i)top-?kast"):
            _run(name, options)
        return
    net, trainer = _run(name, options)
    assert all(np.isfinite(row["loss"]) for row in trainer.history.rows if row["loss"] is not None)
    for layer in net.layers:
        cells = layer.pattern.cells()
        assert (np.diff(cells.astype(np.int64)) > 0).all()
        for slots in trainer.state.weight_slots[layer.index].values():
            assert slots.size == layer.nnz
    connections = [row["connections"] for row in trainer.history.rows]
    assert connections == sorted(connections, key=lambda n: -(n or 0)), "what pruning takes must not come back"
    if "compact" in options:
        assert net.sizes[1] < 40 and net.sizes[2] < 30
    else:
        assert net.sizes == (64, 40, 30, 10)
    if "regrow_into_pruned" in options:
        for layer in net.layers[:-1]:
            closed = trainer.state.pruned[layer.index]
            assert closed.any()
            assert (layer.pattern.in_degree()[closed] == 0).all()
