# SPDX-License-Identifier: BSD-3-Clause
"""`trulysparse scale` on networks small enough for a test: every phase happens, and figures are what they say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trulysparse as ts
from trulysparse.bench import scale
from trulysparse.bench.scale import (
    PAPER,
    ScaleSettings,
    format_sizes,
    parse_sizes,
    parse_spec,
    plan_scale,
    report,
    run_scale,
)
from trulysparse.cli import main
from trulysparse.engine import Engine

SIZES = (12, 300, 300, 2)
SMALL: dict[str, Any] = {"samples": 200, "test_samples": 50, "batch_size": 32, "steps": 3, "epsilon": 4, "threads": 2}


def small(**changes: Any) -> ScaleSettings:
    return ScaleSettings(SIZES, **(SMALL | changes))


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("784-10", (784, 10)),
        ("65536-5e6x10-2", (65536, *[5_000_000] * 10, 2)),
        ("65536-0.5Mx2-2", (65536, 500_000, 500_000, 2)),
        ("28-1kx3-2", (28, 1000, 1000, 1000, 2)),
        ("4 - 5 x 2 - 3", (4, 5, 5, 3)),
    ],
)
def test_sizes_are_read(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text) == sizes


@given(st.lists(st.integers(1, 2**31 - 1) | st.sampled_from([7, 8]), min_size=2, max_size=9))
def test_sizes_that_are_written_are_read_again(sizes: list[int]) -> None:
    assert parse_sizes(format_sizes(sizes)) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "784", "784-", "784-x3-2", "10-0-2", "10-1.5-2", "10-5x0-2", "10--2", "a-b"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ts.ConfigError, match=r"sizes .*784"):
        parse_sizes(text)


def test_specs_are_read() -> None:
    assert parse_spec("he_uniform") == {"name": "he_uniform"}
    assert parse_spec("set,drop_fraction=0.2, update_every=2,compat=none") == {
        "name": "set",
        "drop_fraction": 0.2,
        "update_every": 2,
        "compat": None,
    }
    with pytest.raises(ts.ConfigError, match="no setting"):
        parse_spec("he_uniform,fan_in")


def test_every_phase_happens_and_is_recorded() -> None:
    said: list[str] = []
    record = run_scale(small(), said.append)
    names = [phase["name"] for phase in record["phases"]]
    assert names == ["data", "initialisation", "steps", "evolution", "inference", "checkpoint", "resume"]
    assert all(phase["seconds"] > 0 for phase in record["phases"])
    assert all(phase["planned_bytes"] for phase in record["phases"][:-1])
    assert len(record["losses"]) == len(record["accuracies"]) == len(record["step_seconds"]) == 3
    assert all(0 <= accuracy <= 1 for accuracy in record["accuracies"])
    assert record["resumes_bit_for_bit"] and record["replaced"] > 0 and record["checkpoint_bytes"] > 0
    assert record["log_classes"] == math.log(2) and 0 < record["bias_only_loss"] <= math.log(2)
    assert record["minutes"]["epoch"] == pytest.approx(record["typical_step_seconds"] * 219 / 60)  # 7000 / 32
    assert record["paper_minutes"] is None
    json.dumps(record)
    assert sum(line.startswith("step ") for line in said) == 3
    text = report(record)
    assert "one evolution" in text and "bit for bit" in text and "predicted: 219 steps" in text
    assert "scaled to 3,000" in text and "paper" in text.splitlines()[text.count("\n", 0, text.index("minutes"))]


def test_the_run_is_the_same_for_any_number_of_threads() -> None:
    one, two = (run_scale(small(threads=threads)) for threads in (1, 2))
    assert one["losses"] == two["losses"]
    assert one["test_loss"] == two["test_loss"]


@pytest.mark.parametrize("more", [{}, {"lr_scale": "fan_in", "init": "he_uniform,fan_in=sparse", "epsilon": 80}])
def test_the_largest_gradient_of_the_first_layer_is_what_the_engine_computes(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    found: list[float] = []
    made = scale._ScaleRun._step

    def first_compute(self: Any, run: Any) -> float:
        if run.state.step == 0:
            engine, rows = run.engine, self._rows(run)
            engine.compute(run.samples.inputs, run.samples.targets, rows)
            found.append(float(np.abs(engine.gradient.weights[0]).max()))
        return made(self, run)

    monkeypatch.setattr(scale._ScaleRun, "_step", first_compute)
    record = run_scale(ScaleSettings((80, 300, 300, 2), **(SMALL | {"skip": ("checkpoint",)} | more)))
    assert record["first_layer_largest_gradient"] == pytest.approx(found[0], rel=1e-6)
    assert found[0] > 0


def test_a_resumed_run_that_goes_another_way_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    resume = ts.Trainer.resume

    def tampered(*arguments: Any, **settings: Any) -> ts.Trainer:
        trainer = resume(*arguments, **settings)
        trainer.net.layers[1].values[7] += 1e-3
        return trainer

    monkeypatch.setattr(ts.Trainer, "resume", tampered)
    with pytest.raises(ts.DataError, match="this is a bug"):
        run_scale(small())


def test_epochs_evolve_in_between() -> None:
    record = run_scale(small(epochs=3, skip=("evolution", "checkpoint")))
    assert len(record["losses"]) == 3 * (200 // 32)
    assert len(record["evolve_seconds"]) == 2


def test_epochs_are_those_of_a_trainer() -> None:
    settings = small(epochs=2, skip=("evolution", "inference", "checkpoint"))
    losses = run_scale(settings)["losses"]
    X, y = scale._samples(settings, 2)
    net = ts.SparseMLP(SIZES, epsilon=4, activation="all_relu", dropout=0.4, seed=0)
    trainer = ts.Trainer(
        net, optimizer=settings.make_optimizer(), topology=ts.SET(0.3), batch_size=32, seed=0, progress=False
    )
    history = trainer.fit(X[:200], y[:200], epochs=2)
    assert np.mean(losses[:6]) == pytest.approx(history.loss[0], rel=1e-12)
    assert np.mean(losses[6:]) == pytest.approx(history.loss[1], rel=1e-12)


@pytest.mark.parametrize("topology", ["static", "rigl,unit=epochs,update_every=1", "set,drop=magnitude"])
def test_other_rules_can_evolve(topology: str) -> None:
    record = run_scale(small(topology=topology, skip=("checkpoint",)))
    assert ("replaced" in record) == (topology != "static")


def test_phases_can_be_left_out() -> None:
    record = run_scale(small(skip=("evolution", "inference", "resume")))
    assert [phase["name"] for phase in record["phases"]] == ["data", "initialisation", "steps", "checkpoint"]
    assert record["minutes"]["inference"] is None and "inference" not in report(record).split("minutes")[1]
    with pytest.raises(ts.ConfigError, match="did you mean 'inference'"):
        small(skip=("inferenec",))


def test_data_go_to_a_file_and_come_from_it(tmp_path: Path) -> None:
    path = tmp_path / "some" / "data.npy"
    settings = small(data=path, skip=("checkpoint",))
    first, held = run_scale(settings), run_scale(small(skip=("checkpoint",)))
    written = path.stat().st_mtime_ns
    second = run_scale(settings)
    assert path.stat().st_mtime_ns == written
    assert first["losses"] == second["losses"] == held["losses"]
    assert plan_scale(settings).plan.rows[0].nbytes == 250 * 8  # labels alone
    with pytest.raises(ts.DataError, match="needed are 300 float32 samples of 12 features"):
        run_scale(small(data=path, samples=250))


def test_the_paper_figures_stand_beside_the_networks_of_its_table_4() -> None:
    settings = [ScaleSettings((65536, *row.hidden, 2), epsilon=row.epsilon) for row in PAPER]
    assert [one.paper for one in settings] == list(PAPER)
    assert ScaleSettings((65536, 500_000, 500_000, 2), epsilon=5).paper is None
    assert [sum(row.hidden) for row in PAPER] == [row.neurons for row in PAPER]
    record = run_scale(small())
    record["paper_minutes"] = {"initialisation": 9, "epoch": 52, "inference": 20, "evolution": 6}
    record["minutes"] = {"initialisation": 1.0, "epoch": 13.0, "inference": 2.0, "evolution": 0.5}
    line = next(line for line in report(record).splitlines() if line.startswith("epoch of 7,000"))
    assert line.split()[-3:] == ["13.00", "52", "4.0"]


def test_divergence_says_what_to_do() -> None:
    with pytest.raises(ts.DivergenceError, match="--lr-scale fan_in"):
        run_scale(small(lr=1e30, steps=6, skip=("checkpoint",)))


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ts.ConfigError, match="batch of 300"):
        small(batch_size=300)
    with pytest.raises(ts.ConfigError, match="steps"):
        small(steps=0)


def test_the_budget_decides_before_anything_is_allocated() -> None:
    enough = plan_scale(small()).plan.peak_bytes
    assert plan_scale(small(memory=enough)).plan.micro_batch is None
    with pytest.raises(ts.ConfigError, match="too small"):
        plan_scale(ScaleSettings((65536, *[5_000_000] * 10, 2), memory=4 * 2**30))
    assert plan_scale(ScaleSettings((65536, *[5_000_000] * 10, 2), memory=40 * 2**30)).plan.micro_batch == 32


METER = """
import numpy as np
from trulysparse.bench.phases import Meter
meter = Meter()
with meter.phase("one", 5):
    np.ones(40 << 20, np.uint8).sum()
    kept = np.ones(10 << 20, np.uint8)
phase = meter.phases[0]
assert (phase.name, phase.planned_bytes) == ("one", 5) and phase.seconds > 0 and kept.size
assert phase.held_bytes is None or phase.held_bytes > 9 << 20, phase
assert phase.peak_bytes is None or phase.peak_bytes > 38 << 20, phase
assert phase.held_bytes is None or not meter.by_phase or phase.held_bytes < 20 << 20, phase
with meter.phase("two"):
    pass
assert phase.peak_bytes is None or not meter.by_phase or meter.phases[1].peak_bytes < 20 << 20, meter.phases
"""


def test_a_meter_tells_peak_from_what_stays() -> None:
    # in a process of its own: what other tests leave behind may be given back at any time
    done = subprocess.run([sys.executable, "-c", METER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


LINE = ["scale", "12-300x2-2", "--epsilon", "4", "--samples", "200", "--test-samples", "50", "--batch-size", "32"]


def test_the_command_prints_and_appends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scale.jsonl"
    line = [*LINE, "--steps", "2", "--json", str(file), "--out", str(tmp_path / "run"), "--memory", "1GB"]
    assert main(line) == 0
    printed = capsys.readouterr()
    assert "initialisation, both indices" in printed.out and "step 2/2: loss" in printed.err
    assert "memory budget 953.7 MiB" in printed.err
    (record,) = map(json.loads, file.read_text().splitlines())
    assert record["network"] == "12-300x2-2" and record["cpu"] and record["date"]
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    assert ts.Trainer.resume(tmp_path / "run").state.step == 2


def test_the_command_can_be_quiet_and_can_only_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, "--steps", "1", "--quiet", "--skip", "checkpoint"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["scale", "65536-5e6x10-2", "--memory", "40GiB", "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "50,000,002 neurons" in printed and "peak, during" in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--memory", "20G"], "--memory"),
        (["--memory", "1kB"], "too small"),
        (["--activation-dtype", "float16"], "float16"),
        (["--storage", "slow"], "storage"),
        (["--skip", "data"], "cannot be skipped"),
        (["--init", "he_unifrom"], "did you mean 'he_uniform'"),
    ],
)
def test_mistakes_are_sentences(more: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, *more]) == 2
    assert words in capsys.readouterr().err


def test_engine_arrays_are_let_go_before_a_run_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    engines: list[weakref.ref[Engine]] = []
    built, resume = Engine.__init__, ts.Trainer.resume

    def remembered(self: Engine, *arguments: Any, **settings: Any) -> None:
        built(self, *arguments, **settings)
        engines.append(weakref.ref(self))

    def alone(*arguments: Any, **settings: Any) -> ts.Trainer:
        gc.collect()
        assert [engine() for engine in engines] == [None]
        return resume(*arguments, **settings)

    monkeypatch.setattr(Engine, "__init__", remembered)
    monkeypatch.setattr(ts.Trainer, "resume", alone)
    assert run_scale(small())["resumes_bit_for_bit"]
    assert len(engines) == 2
