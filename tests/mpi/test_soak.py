# SPDX-License-Identifier: BSD-3-Clause
"""A short soak, and a killed worker: the long ones are a command of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.slow]

SOAK = Path(__file__).parents[2] / "bench" / "scaling" / "soak.py"


def test_random_runs_end_well_and_a_killed_run_is_resumed(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    file = tmp_path / "soak.jsonl"
    command = [sys.executable, str(SOAK), "--runs", "10", "--kills", "1", "--seed", "5", "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["soak"]["runs"] == 10 and found["soak"]["updates"] > 0
    assert found["soak"]["lost_updates"] == found["soak"]["failed"] == 0
    assert found["kills"]["finished"] == found["kills"]["kills"] == 1
    assert found["soak"]["left_in_shm"] == found["kills"]["left_in_shm"] == []
