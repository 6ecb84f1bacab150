# SPDX-License-Identifier: BSD-3-Clause
"""The code in README and guides runs as written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trulysparse as ts

ROOT = Path(__file__).parents[2]


def _blocks(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)


def test_python_guide_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = ts.load_digits()
    names: dict[str, object] = {"X": digits.X_train, "y": digits.y_train}
    for block in _blocks("docs/guides/python.md"):
        exec(re.sub(r"epochs=\d+", "epochs=2", block), names)
    trainer = names["trainer"]
    assert isinstance(trainer, ts.Trainer)
    before = trainer.net.connections
    with pytest.warns(ts.ScheduleWarning, match="start=200"):  # the pruning that the guide shows comes later
        trainer.fit(digits.X_train, digits.y_train, epochs=3)
    assert trainer.net.connections == before
    assert trainer.state.evolutions == 2


def test_readme_example_runs_as_written(
    shared_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = _blocks("README.md")
    example = example.replace('"fashion_mnist")', f'"fashion_mnist", data={str(shared_data("fashion_mnist.npz"))!r})')
    names: dict[str, object] = {}
    exec(example.replace("epochs=40", "epochs=1"), names)
    net = names["net"]
    assert isinstance(net, ts.SparseMLP)
    assert net.layers[0].weights.shape == (784, 1000)
    assert not net.layers[0].weights.data.flags.writeable
    assert np.isfinite(net.layers[0].values).all()


def test_image_augmentation_of_the_data_guide_runs_as_written() -> None:
    (block,) = (block for block in _blocks("docs/guides/data.md") if "ImageAugmentation" in block)
    X = np.random.default_rng(0).integers(0, 256, (40, 3072), dtype=np.uint8)
    names: dict[str, object] = {"ts": ts, "X": X, "net": ts.SparseMLP((3072, 20, 10), density=0.1)}
    exec(block, names)
    trainer, changed = names["trainer"], names["changed"]
    assert isinstance(trainer, ts.Trainer) and isinstance(changed, np.ndarray)
    assert changed.shape == (16, 3072) and changed.dtype == np.float32
    assert not np.array_equal(changed, X[:16])
    trainer.batch_size = 20
    assert len(trainer.fit(X, np.arange(40) % 10, epochs=1)) == 1


def test_own_rule_guide_runs_as_written() -> None:
    digits = ts.load_digits()
    names: dict[str, object] = {"X": digits.X_train, "y": digits.y_train}
    for block in _blocks("docs/guides/own_rule.md"):
        exec(block, names)
    net, trainer = names["net"], names["trainer"]
    assert isinstance(net, ts.SparseMLP) and isinstance(trainer, ts.Trainer)
    assert net.connections == ts.SparseMLP((64, 128, 128, 10), density=0.1).connections
    assert trainer.state.evolutions == 2
    assert ts.topology.get_topology("forget_and_look").name == "forget_and_look"


def test_instruments_guide_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    digits = ts.load_digits()
    names: dict[str, object] = {"X": digits.X_train, "y": digits.y_train}
    for block in _blocks("docs/guides/instruments.md"):
        exec(re.sub(r"epochs=\d+", "epochs=3", block), names)
    monitor = names["monitor"]
    assert isinstance(monitor, ts.Monitor)
    assert monitor.exploration()[-1] > monitor.rows[-1]["density"]
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"monitor.csv", "inputs.png", "curves.png", "speed.png"}


def test_parallel_guide_explains_every_error_of_the_launch() -> None:
    guide = (ROOT / "docs/guides/parallel.md").read_text(encoding="utf-8")
    source = (ROOT / "python/trulysparse/parallel/world.py").read_text(encoding="utf-8")
    said = re.sub(r'"\s*\n\s*f?"', "", source)  # strings that go on in the next line
    explained = (
        "needs mpi4py, which cannot be imported",
        "finds no MPI library",
        "this mpiexec belongs to another MPI library",
        "and this one is alone",
        "all ranks need the same",
        "every rank is bound to one core",
        "the memory that ranks share needs",
        "failed while ",
    )
    for text in explained:
        assert text in guide and text in said, text


def test_guide_to_extreme_scale_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    (block,) = _blocks("docs/guides/extreme_scale.md")
    exec(block, names)
    said = capsys.readouterr().out
    assert said.startswith("memory budget 38.1 MiB") and "peak, during" in said


def test_the_plans_of_the_guide_to_extreme_scale_are_those_of_the_library() -> None:
    from trulysparse.bench.scale import parse_sizes
    from trulysparse.engine import plan_memory

    columns = [("balanced", 32, "float32"), ("fast", 32, "bfloat16"), ("lean", 16, "bfloat16")]
    text = (ROOT / "docs/guides/extreme_scale.md").read_text(encoding="utf-8")
    text = text[: text.index("## Measured")]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 65536-")]
    assert len(rows) == 6
    for name, neurons, connections, *planned in rows:
        sizes = parse_sizes(name)
        expected = ts.ErdosRenyi(1).expected_connections(sizes)
        assert (neurons, connections) == (f"{sum(sizes[1:]):,}", f"{sum(expected):,.0f}")
        for (storage, width, dtype), cell in zip(columns, planned, strict=True):
            plan = plan_memory(
                sizes,
                expected,
                storage=storage,
                micro_batch=width,
                activation_dtype=dtype,
                topology=ts.SET(0.3),
                dropout=0.4,
                activation="all_relu",
                evaluation="none",
            )
            number, unit = cell.split()
            scale = 2 ** (10 * ["KiB", "MiB", "GiB", "TiB"].index(unit) + 10)
            assert float(number) == pytest.approx(plan.peak_bytes / scale, abs=0.05)


def test_artificial_data_of_the_guide_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in _blocks("docs/guides/data.md") if "artificial_classification" in block)
    names: dict[str, object] = {"ts": ts}
    exec(example.replace("10_000", "100").replace("7000", "70").replace("4096", "400"), names)
    data, X_test = names["data"], names["X_test"]
    assert isinstance(data, ts.Dataset) and isinstance(X_test, np.ndarray)
    assert isinstance(data.X_test, np.ndarray)
    np.testing.assert_array_equal(data.X_test, X_test)
    assert (tmp_path / "X.npy").is_file()


def test_the_guide_to_the_tables_names_all_tables_options_and_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from trulysparse.cli import main
    from trulysparse.reproduce.catalog import TABLES

    guide = (ROOT / "docs/guides/reproduce.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE) == list(TABLES)
    for table in TABLES.values():
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{table.name}`"))
        assert "as table2" in row or row.endswith(f"| {', '.join(table.datasets)} |")
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help", "--quiet"}
    assert options and all(f"`{option}" in guide or f" {option}" in guide for option in options)
    for column in ("best %", "selected %", "last %", "start → end", "min", "peak MB", "seeds"):
        assert f"\n| {column} | " in guide


def test_recipes_guide_runs_as_written() -> None:
    rng = np.random.default_rng(0)
    names: dict[str, object] = {"X": rng.integers(0, 256, (200, 784), dtype=np.uint8), "y": np.arange(200) % 10}
    (block,) = _blocks("docs/guides/recipes.md")
    exec(block.replace("epochs=recipe.epochs", "epochs=1"), names)
    history = names["history"]
    assert isinstance(history, ts.History) and np.isfinite(history.val_loss).all()
