# SPDX-License-Identifier: BSD-3-Clause
"""Programs under mpiexec."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

# what Open MPI wants before it starts more ranks than cores, or as root in a container; MPICH looks at none of them
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


class RunMpi(Protocol):
    """The type of the fixture `run_mpi`."""

    def __call__(
        self, ranks: int, program: str, *, env: Mapping[str, str] | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]: ...


def _run_mpi(
    ranks: int, program: str, *, env: Mapping[str, str] | None = None, timeout: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("no mpiexec or no mpi4py; the test extra brings both")
    # with -m mpi4py an exception on one rank ends all of them
    command = [mpiexec, "-n", str(ranks), sys.executable, "-W", "error", "-m", "mpi4py", "-c", program]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **OPEN_MPI, **(env or {})},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # mpiexec takes its ranks along, if it is asked
            try:
                out, err = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            pytest.fail(f"{ranks} ranks were not done after {timeout} s\n{out}\n{err}")
    result = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        assert result.returncode == 0, f"{out}\n{err}"
    return result


@pytest.fixture
def run_mpi() -> RunMpi:
    """Return a function that runs a program (source text) on so many ranks; it fails when they are not done in time."""
    return _run_mpi
