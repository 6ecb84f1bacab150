# SPDX-License-Identifier: BSD-3-Clause
"""trulysparse under mpiexec: ranks start, talk, and train the same network from the same seed."""

from __future__ import annotations

from typing import Any

import pytest

PROGRAM = """
import hashlib
import numpy as np
import trulysparse as ts
from mpi4py import MPI

rng = np.random.default_rng(0)
X = rng.normal(size=(96, 20)).astype(np.float32)
y = rng.integers(0, 3, 96)
net = ts.SparseMLP((20, 40, 3), density=0.3, dropout=0.2, seed=1)
ts.Trainer(net, batch_size=32, threads=1, progress=False).fit(X, y, epochs=3)
digest = hashlib.sha256(b"".join(layer.values.tobytes() for layer in net.layers)).hexdigest()
digests = MPI.COMM_WORLD.allgather(digest)
assert len(set(digests)) == 1, digests
if MPI.COMM_WORLD.rank == 0:
    print("ranks", MPI.COMM_WORLD.size)
"""


@pytest.mark.mpi
def test_ranks_train_the_same_network_from_the_same_seed(run_mpi: Any) -> None:
    assert run_mpi(2, PROGRAM, timeout=120).stdout.split() == ["ranks", "2"]
