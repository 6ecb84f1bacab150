# SPDX-License-Identifier: BSD-3-Clause
"""The memory of this process, and of no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trulysparse import _memory

BYTES = 400 << 20


def test_the_peak_is_not_what_the_starting_program_had() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux hands the figure on, and has /proc")
    child = "from trulysparse._memory import peak_bytes; print(peak_bytes())"
    parent = (
        "import os, sys; taken = bytearray(b'1') * int(sys.argv[1])\n"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[2]])"
    )
    command = [sys.executable, "-c", parent, str(BYTES), child]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 1 << 20 < int(told) < BYTES


def test_what_was_taken_is_in_now_and_stays_in_the_peak() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    before = _memory.process_memory()
    taken = np.ones(BYTES, np.uint8)
    assert _memory.process_memory()["now"] - before["now"] > 0.9 * taken.nbytes
    del taken
    after = _memory.process_memory()
    assert after["peak"] == _memory.peak_bytes() >= after["now"] and after["peak"] > 0.9 * BYTES


def test_without_proc_the_peak_is_that_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_STATUS", tmp_path / "absent")
    assert _memory.process_memory() == {} and _memory.peak_bytes() > 1 << 20
