# SPDX-License-Identifier: BSD-3-Clause
"""Results that nobody had to train for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trulysparse.reproduce.cases import Case
from trulysparse.reproduce.datasets import fingerprint_of, locate, source
from trulysparse.reproduce.files import RESULT, Place


def result_of(case: Case, accuracy: Sequence[float] = (0.5, 0.75, 0.7), **changes: Any) -> dict[str, Any]:
    """Return a result as a run would write it; both halves of the test part are as accurate as the whole."""
    count = len(accuracy)
    curves: dict[str, list[Any]] = {
        key: [1.0] * count
        for key in (
            "train_loss", "train_accuracy", "test_loss", "train_seconds", "evaluate_seconds", "evolve_seconds",
        )
    }  # fmt: skip
    curves["epoch"] = list(range(1, count + 1))
    curves["connections"] = [100] * (count - 1) + [60]
    for key in ("test_accuracy", "first_half_accuracy", "second_half_accuracy"):
        curves[key] = list(accuracy)
    curves["gradient_flow"] = [0.1 * (epoch + 1) for epoch in range(count)]
    return {
        "case": case.to_json(),
        "data": {
            "n_train": source(case.dataset).paper_train or 1000,
            "n_test": 100,
            "n_features": 64,
            "n_classes": 10,
            "fingerprint": "absent",
        },
        "connections_start": 100,
        "connections_end": 60,
        "biases": 22,
        "epochs": count,
        "stop_reason": None,
        "diverged": None,
        "wall_minutes": 1.5,
        "cpu_minutes": 1.4,
        "peak_bytes": 5_000_000,
        "threads": 1,
        "jobs": 2,
        "other_cores_busy": 0.5,
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "commits": ["abc"],
        "intervals": [[0.0, 90.0]],
        "trulysparse": "0.1.0",
        "isa": "avx2",
        "cores": 2,
        "cpu": "a processor",
        "caches": "",
        "python": "3.11.0",
        "curves": curves,
    } | changes


def put_data(name: str, directory: Path, n_train: int | None = None) -> Path:
    """Write a data set of as many training samples as the paper has (or so many), and nothing in them."""
    rows = n_train or source(name).paper_train or 10
    X, y = np.zeros((rows, 1), np.uint8), np.zeros(rows, np.uint8)
    path = directory / f"{name}.npz"
    np.savez_compressed(path, X_train=X, y_train=y, X_test=X[:2], y_test=y[:2])
    return path


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that puts a result of a case where runs put theirs, under tmp_path/out."""

    def write(case: Case, *arguments: Any, **changes: Any) -> dict[str, Any]:
        result = result_of(case, *arguments, **changes)
        path = locate(case.dataset, (tmp_path,))
        if "data" not in changes and path is not None:
            result["data"]["fingerprint"] = fingerprint_of(case.dataset, path)
        directory = Place(tmp_path / "out", case).directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / RESULT).write_text(json.dumps(result), encoding="utf-8")
        return result

    return write
