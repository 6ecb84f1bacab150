# SPDX-License-Identifier: BSD-3-Clause
"""DSR: the threshold adapts, the total stays, no just-dropped cell comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.errors import ConfigError, DivergenceError
from trulysparse.topology import Signals


def _net(seed: int = 0, density: float = 0.2) -> ts.SparseMLP:
    return ts.SparseMLP((20, 15, 10, 4), density=density, seed=seed)


@given(seed=st.integers(0, 100), level=st.floats(1e-4, 10), density=st.floats(0.05, 1))
@pytest.mark.filterwarnings("ignore::trulysparse.errors.DensityWarning")
def test_the_total_stays_and_what_was_dropped_is_below_the_threshold(seed: int, level: float, density: float) -> None:
    net = _net(seed, density)
    total, came, went = net.connections, 0, 0
    room = sum(layer.n_in * layer.n_out - layer.nnz for layer in net.layers)
    for layer, delta in ts.DSR(threshold=level).plan(net.layers, Signals(seed, 0, 1)):
        if delta is None:
            continue
        assert (np.abs(layer.values[~delta.mask]) < level).all()
        assert delta.mask.any()
        assert (np.abs(layer.values[delta.mask]) < level).sum() <= 1  # one connection stays whatever it is
        assert (delta.values == 0).all()
        if room >= total:
            assert not np.isin(delta.grown, layer.pattern.cells()).any()
        came, went = came + delta.grown.size, went + (~delta.mask).sum()
    assert came == went
    assert net.connections == total


@pytest.mark.parametrize(("count", "factor"), [(1, 0.5), (10**6, 2.0)])
def test_the_threshold_halves_after_too_many_and_doubles_after_too_few(count: int, factor: float) -> None:
    net, signals = _net(), Signals(0, 0, 1)
    list(ts.DSR(prune_count=count, threshold=0.1).plan(net.layers, signals))
    assert signals.state.numbers["threshold"] == 0.1 * factor


def test_the_threshold_stays_near_the_wanted_number() -> None:
    net, signals = _net(), Signals(0, 0, 1)
    below = sum(int((np.abs(layer.values) < np.float32(0.1)).sum()) for layer in net.layers)
    assert below > 0
    list(ts.DSR(prune_count=below, threshold=0.1).plan(net.layers, signals))
    assert signals.state.numbers["threshold"] == 0.1


def test_nan_and_bad_settings_are_errors() -> None:
    net = _net()
    net.layers[1].values[0] = np.nan
    with pytest.raises(DivergenceError, match="layer 1"):
        list(ts.DSR().plan(net.layers, Signals(0, 0, 1)))
    for bad in ({"drop_fraction": 0}, {"prune_count": 0}, {"threshold": 0}, {"update_every": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            ts.DSR(**bad)
