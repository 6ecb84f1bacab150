# SPDX-License-Identifier: BSD-3-Clause
"""A layer of more than 2^31 connections, its arrays in memory-mapped files. Slow, and takes 9 GB on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from trulysparse import _kernels
from trulysparse.model import Pattern

N = 46_400  # squared: 2,152,960,000
ROOM = 12 << 30


@pytest.mark.slow
def test_a_layer_of_more_than_2_31_connections_from_memory_mapped_files(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < ROOM:
        pytest.skip(f"needs {ROOM >> 30} GiB in {tmp_path}, {free >> 30} are free")
    nnz = N * N
    assert nnz > 2**31
    columns = np.memmap(tmp_path / "columns", np.int32, "w+", shape=(nnz,))
    block = np.tile(np.arange(N, dtype=np.int32), 100)
    for start in range(0, nnz, block.size):
        columns[start : start + block.size] = block
    columns.flush()
    col_idx = np.memmap(tmp_path / "columns", np.int32, "r", shape=(nnz,))
    row_ptr = np.arange(N + 1, dtype=np.int64) * N
    pattern = Pattern(N, N, row_ptr, col_idx)  # checked, and not copied
    assert np.shares_memory(pattern.col_idx, col_idx)
    assert pattern.nnz == nnz
    assert pattern.row_ptr.dtype == np.int64
    assert (pattern.in_degree() == N).all()

    weights = np.memmap(tmp_path / "weights", np.float32, "w+", shape=(nnz,))  # zeros, and holes on the disk
    weights[: N : N // 4] = 1.0
    weights[nnz - N :] = 0.5  # all beyond 2^31
    rng = np.random.default_rng(0)
    dy = _kernels.aligned_zeros((N, 16))
    dy[...] = rng.standard_normal(dy.shape, dtype=np.float32)
    x, dx = _kernels.aligned_zeros((N, 16)), _kernels.aligned_zeros((N, 16))
    bias = np.zeros(N, np.float32)
    view = _kernels.layer_view(N, N, pattern.row_ptr, pattern.col_idx, None, None, None, weights, bias, trusted=True)
    _kernels.backward(view, dy, x, dx, sink=_kernels.sink_none(), threads=2)
    assert dx[0] == pytest.approx(dy[:: N // 4].sum(axis=0, dtype=np.float64), rel=1e-4, abs=1e-4)
    assert dx[-1] == pytest.approx(0.5 * dy.sum(axis=0, dtype=np.float64), rel=1e-3, abs=1e-2)
    assert not dx[1:-1].any()
