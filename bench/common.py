# SPDX-License-Identifier: BSD-3-Clause
"""What every benchmark writes beside its figures: which machine, when, which commit."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import trulysparse as ts
from trulysparse import _kernels

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Return machine, date, commit and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "trulysparse": ts.__version__,
        "isa": _kernels.isa(),
        "cores": _kernels.default_threads(),
        "cpu": _cpu(),
        "python": platform.python_version(),
    }


def append_result(file: str, record: dict[str, Any]) -> Path:
    """Append one JSON line to bench/results/`file`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / file
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    return path


def _commit() -> str:
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "../python", "../cpp"],
        cwd=here,
        capture_output=True,
        text=True,
    )
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _cpu() -> str:
    """Return the processor's name, and its family and model where the name says little (virtual machines)."""
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            facts[key.strip()] = value.strip()
    name = facts.get("model name", platform.processor() or platform.machine())
    return f"{name} family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
