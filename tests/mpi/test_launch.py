# SPDX-License-Identifier: BSD-3-Clause
"""trulysparse under mpiexec: ranks start, talk, and train the same network from the same seed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

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
def test_ranks_train_the_same_network_from_the_same_seed() -> None:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("no mpiexec or no mpi4py; the test extra brings both")
    result = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["ranks", "2"]
