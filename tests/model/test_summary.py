# SPDX-License-Identifier: BSD-3-Clause
import re

import numpy as np
import pytest

from trulysparse.model import AllReLU, Given, SparseMLP, Summary
from trulysparse.model.summary import format_bytes


@pytest.fixture
def summary():
    first = np.zeros((1000, 50), dtype=bool)
    first[:, 0] = True
    return SparseMLP(
        (1000, 50, 4), density=Given([first, np.ones((50, 4), dtype=bool)]), activation=AllReLU(0.5)
    ).summary()


def test_rows_and_totals(summary):
    assert isinstance(summary, Summary)
    assert [row.connections for row in summary.rows] == [1000, 200]
    assert [row.density for row in summary.rows] == [0.02, 1]
    assert summary.connections == 1200
    assert summary.cells == 50_200
    assert summary.density == pytest.approx(1200 / 50_200)
    assert summary.biases == 54


def test_bytes_are_those_of_the_arrays():
    net = SparseMLP((300, 200, 10), epsilon=2)
    for layer, row in zip(net.layers, net.summary().rows, strict=True):
        p = layer.pattern
        assert row.weights_bytes == layer.values.nbytes
        assert row.index_bytes == p.row_ptr.nbytes + p.col_idx.nbytes
        assert row.second_index_bytes == sum(a.nbytes for a in p.transposed)
        assert row.bias_bytes == layer.bias.nbytes


def test_text(summary):
    lines = str(summary).splitlines()
    assert lines[0] == "SparseMLP 1000-50-4, loss cross_entropy"
    assert {len(lines[i]) for i in (1, 3, 6)} == {max(len(line) for line in lines[:8])}
    cells = [re.split("  +", lines[i].strip()) for i in (2, 4, 5, 7)]
    assert cells == [
        ["layer", "shape", "activation", "connections", "density", "weights", "index", "2nd index", "bias"],
        ["0", "1000 x 50", "rectifier -0.5", "1,000", "2 %", "3.9 KiB", "7.8 KiB", "8.0 KiB", "200 B"],
        ["1", "50 x 4", "linear", "200", "100 %", "800 B", "1004 B", "1.6 KiB", "16 B"],
        ["total", "1,200", "2.39 %", "4.7 KiB", "8.8 KiB", "9.6 KiB", "216 B"],
    ]
    assert lines[8].startswith("97.6% of the 50,200 weights of the dense network do not exist; ")


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (5 * 2**50, "5120.0 TiB")],
)
def test_format_bytes(n, text):
    assert format_bytes(n) == text
