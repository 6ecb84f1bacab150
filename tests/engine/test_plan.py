# SPDX-License-Identifier: BSD-3-Clause
"""The memory plan: exact where arrays are counted, within a tenth where the system counts, obeyed by a budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trulysparse as ts
from trulysparse.engine import (
    Engine,
    Fit,
    MemoryPlan,
    fit_to_budget,
    plan_memory,
    plan_network,
    plan_prediction,
    plan_table,
)
from trulysparse.model import Inputs
from trulysparse.model.layer import STORAGES
from trulysparse.model.memory import parse_bytes

SIZES, BATCH = (30, 400, 300, 5), 128
# rows that no array shows: vectors inside the core
UNSEEN = ("work plans",)


def net_for(activation: Any = "relu", dropout: float = 0.0, sizes: tuple[int, ...] = SIZES) -> ts.SparseMLP:
    return ts.SparseMLP(sizes, density=0.2, activation=activation, dropout=dropout, seed=1)


def stepped(net: ts.SparseMLP, optimizer: Any, **engine: Any) -> Engine:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((BATCH, net.sizes[0]), dtype=np.float32), rng.integers(0, net.sizes[-1], BATCH)
    made = Engine(net, optimizer, seed=0, threads=2, **engine)
    made.train_batch(Inputs(X, net.sizes[0]), net.loss.check_targets(y, net.sizes[-1], "y"), np.arange(BATCH), 0.01)
    return made


def arrays_of(thing: Any, seen: dict[int, int]) -> None:
    """Collect the bytes of all arrays that can be reached from an object of the library, each once."""
    if isinstance(thing, np.ndarray):
        seen[id(thing)] = thing.nbytes
    elif isinstance(thing, dict):
        for value in thing.values():
            arrays_of(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            arrays_of(value, seen)
    elif type(thing).__module__.startswith("trulysparse"):
        slots = [n for cls in type(thing).__mro__ for n in getattr(cls, "__slots__", ()) if hasattr(thing, n)]
        for name in [*slots, *getattr(thing, "__dict__", {})]:
            if not name.startswith("__"):
                arrays_of(getattr(thing, name), seen)


def counted(engine: Engine) -> int:
    seen: dict[int, int] = {}
    if engine.micro_batch is None:  # never written to, so that the system gives no page for it
        engine._activation_parts = []
        if not engine.optimizer.fused:
            engine._row_sums = np.empty(0, np.float32)
    arrays_of(engine, seen)
    return sum(seen.values())


def planned(plan: MemoryPlan) -> int:
    return plan.held_bytes - sum(row.nbytes for row in plan.rows if row.name in UNSEEN)


@pytest.mark.parametrize(
    ("optimizer", "micro_batch"),
    [
        (ts.SGD(), None),
        (ts.SGD(), 64),
        (ts.SGD(), 32),
        (ts.SGD(clip_norm=1.0), None),
        (ts.SGD(nesterov=True), 32),
        (ts.Adam(), None),
        (ts.Adam(), 16),
    ],
)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("activation_dtype", ["float32", "bfloat16"])
def test_the_plan_is_the_sum_of_what_the_engine_holds(
    optimizer: ts.Optimizer, micro_batch: int | None, activation_dtype: str, storage: str
) -> None:
    net = net_for(dropout=0.3)
    settings: dict[str, Any] = {
        "micro_batch": micro_batch,
        "activation_dtype": activation_dtype,
        "storage": storage,
    }
    engine = stepped(net, optimizer, **settings)
    assert planned(plan_network(net, optimizer=optimizer, batch_size=BATCH, **settings)) == counted(engine)


@pytest.mark.parametrize("activation", ["linear", "tanh", "prelu", "srelu", ts.AllReLU(0.6), ts.AllReLU("auto")])
@pytest.mark.parametrize("micro_batch", [None, 16])
def test_the_plan_counts_activations_with_and_without_signs_and_parameters(
    activation: Any, micro_batch: int | None
) -> None:
    net = net_for(activation)
    engine = stepped(net, ts.SGD(), micro_batch=micro_batch)
    assert planned(plan_network(net, micro_batch=micro_batch)) == counted(engine)


def test_the_plan_counts_slots_of_a_topology_rule() -> None:
    net, rule = net_for(), ts.SNFS()
    engine = stepped(net, ts.SGD(), topology=rule)
    if rule.slots:
        with_rule, without = (plan_network(net, topology=t).held_bytes for t in (rule, None))
        assert with_rule - without == 4 * len(rule.slots) * net.connections
    held = sum(a.nbytes for slots in engine.state.weight_slots for a in slots.values())
    assert held == 4 * (1 + len(rule.slots)) * net.connections


def test_samples_are_counted_with_their_labels() -> None:
    net = net_for()
    assert plan_network(net, samples=1000).held_bytes - plan_network(net).held_bytes == 1000 * (30 * 4 + 8)
    assert plan_network(net, samples=10, sample_bytes=30).rows[0].nbytes == 10 * 38


def test_modes_differ_by_what_a_second_index_holds() -> None:
    def rows(storage: str, **more: Any) -> dict[tuple[str, str], int]:
        plan = plan_memory((1000, 2000, 10), [50_000, 4_000], storage=storage, **more)
        return {(row.name, row.when): row.nbytes for row in plan.rows}

    plans = {mode: rows(mode) for mode in STORAGES}
    pointers = 4 * (2001 + 11)
    kept = [plan["connections by target", "always"] for plan in plans.values()]
    assert kept == [pointers + 8 * 54_000, pointers + 4 * 54_000, 0]
    copies = [plan.get(("weights by target", "training"), 0) for plan in plans.values()]
    assert copies == [0, 4 * 54_000, 0]
    assert rows("balanced", micro_batch=32)["weights by target", "training"] == 4 * 54_000
    assert plans["fast"]["sorting a layer's weights", "step"] == 4 * 2001 + 12 * 50_000
    assert plans["lean"]["a layer's second index", "step"] == 4 * 2001 + (8 + 12) * 50_000


def test_an_evaluation_is_counted_as_it_is_made() -> None:
    def peak(storage: str, evaluation: str) -> int:
        plan = plan_memory((1000, 2000, 10), [50_000, 4_000], storage=storage, evaluation=evaluation)
        assert plan.evaluation_batch == 128
        return plan.nbytes("evaluation")

    assert [peak(mode, "none") for mode in STORAGES] == [0, 0, 0]
    activations = peak("balanced", "layers")
    assert activations == 4 * 128 * (1000 + 2000 + 10)
    assert peak("balanced", "frozen") - activations == 4 * (54_000 + 2010)
    assert peak("fast", "frozen") - peak("fast", "layers") == 4 * 2010
    assert peak("lean", "layers") - activations == 4 * 2001 + 20 * 50_000
    assert peak("lean", "frozen") == peak("lean", "layers")  # each layer is sorted when it is its turn
    with pytest.raises(ts.ConfigError, match="evaluation must be one of"):
        peak("lean", "some")


def test_a_layer_of_two_to_the_31_connections_has_wide_positions() -> None:
    narrow, wide = (plan_memory((10**6, 10**6, 2), [count, 10.0]) for count in (2**31 - 1, 2**31))
    by_source, by_target = (wide.rows[i].nbytes - narrow.rows[i].nbytes for i in (1, 2))
    assert by_source == 4 + 4 * (10**6 + 1)
    assert by_target == 4 + 4 * (10**6 + 1) + 4 * 2**31 + 4


def test_the_peak_is_that_of_the_phase_that_takes_most() -> None:
    quiet = plan_network(net_for())
    evolving = plan_network(net_for(), topology=ts.SET(0.3))
    assert evolving.held_bytes == quiet.held_bytes
    assert evolving.phase_bytes("evolution") > evolving.held_bytes == quiet.phase_bytes("evolution")
    assert evolving.peak_bytes == max(map(evolving.phase_bytes, ("initialisation", "step", "evolution", "evaluation")))
    assert evolving.phase_bytes(evolving.peak_phase) == evolving.peak_bytes
    hungry = plan_network(net_for(), topology=ts.RigL())
    assert hungry.phase_bytes("evolution") > evolving.phase_bytes("evolution")


def test_a_plan_prints_as_a_table_and_goes_into_a_file() -> None:
    plan = plan_network(net_for(), topology=ts.SET(0.3))
    text = str(plan)
    for row in plan.rows:
        assert (row.name in text) == (row.nbytes > 0)
    assert "held between steps" in text and f"peak, during {plan.peak_phase}" in text
    back = json.loads(json.dumps(plan.as_dict()))
    assert sum(row["bytes"] for row in back["rows"] if row["when"] in ("always", "training")) == back["held_bytes"]


@pytest.mark.parametrize("activation", ["relu", "srelu"])
def test_prediction_takes_what_a_frozen_network_holds(activation: str) -> None:
    net = net_for(activation)
    seen: dict[int, int] = {}
    frozen = net.freeze()
    arrays_of(frozen, seen)
    rows = plan_prediction(net.sizes, [layer.nnz for layer in net.layers], activation=net.activation)
    assert sum(row.nbytes for row in rows if row.held) == sum(seen.values())


def test_plans_stand_side_by_side() -> None:
    plans = {mode: plan_network(net_for(), storage=mode, topology=ts.SET()) for mode in ("balanced", "lean")}
    header, *lines = plan_table(plans).splitlines()
    assert header.split() == ["balanced", "lean"]
    (by_target,) = (line for line in lines if "connections by target" in line)
    assert by_target.split()[-1] == "-" != by_target.split()[-2]
    assert lines[-1].split()[0] == "peak"


# ---- a budget ----

LARGE = ((65536, 5_000_000, 5_000_000, 2), [5_065_536.0, 10_000_000.0, 5_000_002.0])


def fit(budget: Any, **more: Any) -> Fit:
    return fit_to_budget(budget, *LARGE, topology=ts.SET(0.3), dropout=0.4, **more)


@pytest.mark.parametrize("gib", [1.7, 1.8, 2, 2.5, 3, 4, 6, 8, 16])
def test_what_a_budget_chooses_fits_it_and_says_so(gib: float) -> None:
    found = fit(int(gib * 2**30))
    assert found.plan.peak_bytes <= gib * 2**30
    assert found.plan == plan_memory(
        *LARGE,
        topology=ts.SET(0.3),
        dropout=0.4,
        micro_batch=found.plan.micro_batch,
        storage=found.plan.storage,
        activation_dtype=found.plan.activation_dtype,
        evaluation_batch=found.plan.evaluation_batch,
    )
    assert repr(found.plan.storage) in found.why and found.plan.activation_dtype in found.why


def test_a_budget_gives_up_speed_before_precision() -> None:
    chosen = [fit(int(gib * 2**30)).plan for gib in (16, 3, 2.3, 1.7)]
    settings = [(plan.activation_dtype, plan.storage, plan.micro_batch) for plan in chosen]
    assert settings[0] == ("float32", "balanced", 32)
    assert settings[-1][0] == "bfloat16"
    peaks = [plan.peak_bytes for plan in chosen]
    assert peaks == sorted(peaks, reverse=True)
    order = {"float32": 0, "bfloat16": 1}
    assert [order[s[0]] for s in settings] == sorted(order[s[0]] for s in settings)


def test_a_budget_evaluates_as_many_samples_at_a_time_as_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trulysparse.model.inference.available_bytes", lambda: 2**40)
    batches = [fit(int(gib * 2**30)).plan.evaluation_batch for gib in (16, 5, 3, 1.8)]
    assert batches[0] == 128 and batches == sorted(batches, reverse=True) and batches[-1] < 128
    whole, half = (fit("16GiB", activation_dtype="bfloat16", evaluate_in_float32=so).plan for so in (True, False))
    ends = 4 * 128 * (65536 + 2)
    assert 2 * (half.rows[-2].nbytes - ends) == whole.rows[-2].nbytes - ends == 4 * 128 * 10_000_000
    monkeypatch.setattr("trulysparse.model.inference.available_bytes", lambda: 0)  # 256 MiB it takes in any case
    assert fit("16GiB", activation_dtype="float32").plan.evaluation_batch == 16


def test_small_networks_keep_the_whole_batch() -> None:
    assert fit_to_budget("1GB", SIZES, [1000] * 3).plan.micro_batch is None


def test_what_is_set_by_hand_is_kept() -> None:
    plan = fit("20GiB", micro_batch=64, storage="fast", activation_dtype="bfloat16").plan
    assert (plan.micro_batch, plan.storage, plan.activation_dtype) == (64, "fast", "bfloat16")


def test_too_small_a_budget_is_an_error_with_the_arithmetic_and_with_what_would_fit() -> None:
    with pytest.raises(ts.ConfigError, match=r"1\.0 GiB is too small.*activations of a micro-batch.*what would fit is"):
        fit("1GiB")
    least = plan_memory(*LARGE, topology=ts.SET(0.3), dropout=0.4, storage="lean", micro_batch=16, evaluation_batch=16)
    with pytest.raises(ts.ConfigError, match=r"what would fit is activation_dtype='bfloat16'"):
        fit(least.peak_bytes - 1, activation_dtype="float32")
    with pytest.raises(ts.ConfigError, match="map them from a file"):
        fit("1GiB", samples=100_000)


def test_the_smaller_network_of_the_error_fits() -> None:
    with pytest.raises(ts.ConfigError, match=r"hidden layers of .*the widest ([0-9,]+)") as caught:
        fit("1GiB")
    widest = int(str(caught.value).split("the widest ")[1].split(")")[0].replace(",", ""))
    part = widest / LARGE[0][1]
    smaller = (LARGE[0][0], widest, widest, 2), [part * count for count in LARGE[1]]
    assert fit_to_budget("1GiB", *smaller, topology=ts.SET(0.3), dropout=0.4).plan.peak_bytes <= 2**30


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("20GiB", 20 * 2**30),
        ("8 GB", 8 * 10**9),
        ("1.5e9", 1_500_000_000),
        (" 512 MiB ", 2**29),
        ("1_000 kB", 10**6),
        (4096, 4096),
        (np.int64(7), 7),
    ],
)
def test_sizes_are_read(text: Any, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("wrong", ["", "GiB", "20 Gib", "20G", "-1GB", "0", "1e400GB", "nan", 0, -5, 2.5, None, True])
def test_what_is_no_size_is_refused(wrong: Any) -> None:
    with pytest.raises(ts.ConfigError, match="memory_budget"):
        parse_bytes(wrong)


def test_a_unit_that_could_mean_two_things_is_refused() -> None:
    with pytest.raises(ts.ConfigError, match=r"write GiB \(powers of 1024\) or GB"):
        parse_bytes("20G")


def test_unknown_settings_of_a_plan_are_refused() -> None:
    with pytest.raises(ts.ConfigError, match="did you mean 'lean'"):
        plan_memory(SIZES, [10] * 3, storage="laen")
    with pytest.raises(ts.ConfigError, match="activation_dtype"):
        plan_memory(SIZES, [10] * 3, activation_dtype="float16")
    with pytest.raises(ts.ConfigError, match="4 sizes need 3 numbers"):
        plan_memory(SIZES, [10] * 2)


# ---- against the system ----

MEASURE = """
import json, sys
import numpy as np
import trulysparse as ts
from trulysparse.engine import plan_network
from trulysparse.parallel.world import rank_memory

settings = json.loads(sys.argv[1])
sizes, samples = (2000, 1_500_000, 1_500_000, 2), 30_000

def train(sizes, count, epochs):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((count, sizes[0]), dtype=np.float32)
    y = rng.integers(0, 2, count)
    net = ts.SparseMLP(sizes, epsilon=3, seed=0, threads=2, dropout=0.4)
    trainer = ts.Trainer(net, topology=ts.SET(0.3), threads=2, progress=False, standardize=False, **settings)
    trainer.fit(X[:256], y[:256], epochs=epochs, validation=(X[256:512], y[256:512]))
    return plan_network(net, topology=trainer.topology, samples=count, evaluation="layers", **settings)

train((20, 30, 2), 512, 2)  # libraries are loaded, threads are started
before = rank_memory()
plan = train(sizes, samples, 2)
print(json.dumps([plan.peak_bytes, rank_memory()["peak"] - before["rss_anon"] - FILES, str(plan)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"micro_batch": 32},
        {"activation_dtype": "bfloat16"},
        {"storage": "fast", "micro_batch": 32},
        {"storage": "lean"},
        {"storage": "lean", "micro_batch": 16},
    ],
    ids=str,
)
def test_the_plan_agrees_with_the_measured_peak_within_a_tenth(settings: dict[str, Any]) -> None:
    status = "next(int(l.split()[1]) * 1024 for l in open('/proc/self/status') if l.startswith('RssFile'))"
    code = MEASURE.replace("FILES", status)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    planned_bytes, measured, text = json.loads(done.stdout.splitlines()[-1])
    assert measured > 10**9
    assert planned_bytes == pytest.approx(measured, rel=0.1), text


# ---- a trainer ----


def test_a_trainer_with_a_budget_trains_as_the_settings_it_chose(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((256, 30), dtype=np.float32), rng.integers(0, 5, 256)
    held = plan_network(net_for(sizes=(30, 4000, 3000, 5)), topology=ts.SET()).peak_bytes
    chosen = ts.Trainer(net_for(sizes=(30, 4000, 3000, 5)), memory_budget=held - 1, topology=ts.SET())
    assert chosen.memory_fit is not None
    assert chosen.micro_batch == chosen.memory_fit.plan.micro_batch == 64
    assert chosen.memory_fit.plan.peak_bytes < held
    chosen.fit(X, y, epochs=2)
    by_hand = ts.Trainer(net_for(sizes=(30, 4000, 3000, 5)), micro_batch=64, topology=ts.SET(), progress=False)
    by_hand.fit(X, y, epochs=2)
    for one, other in zip(chosen.net.layers, by_hand.net.layers, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    said = capsys.readouterr().err
    assert said.count("memory budget") == 1 and "64 samples at a time because the whole batch would take" in said


def test_a_budget_is_silent_without_progress_and_resumes_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((256, 30), dtype=np.float32), rng.integers(0, 5, 256)
    net = net_for(sizes=(30, 4000, 3000, 5))
    budget = plan_network(net, topology=ts.SET()).peak_bytes - 1
    trainer = ts.Trainer(net, memory_budget=budget, checkpoint=tmp_path, progress=False)
    trainer.fit(X, y, epochs=1)
    assert capsys.readouterr().err == ""
    assert ts.Trainer.resume(tmp_path).micro_batch == 64


def test_without_a_budget_nothing_changes() -> None:
    trainer = ts.Trainer(net_for())
    assert (trainer.memory_fit, trainer.micro_batch, trainer.activation_dtype) == (None, None, "float32")


def test_a_budget_chooses_bfloat16_only_where_it_may() -> None:
    net, rule = ts.SparseMLP((30, 4000, 3000, 2000, 5), density=0.002), ts.SET()
    plans = [plan_network(net, micro_batch=width, topology=rule, evaluation_batch=16) for width in (None, 64, 32, 16)]
    peaks = [plan.peak_bytes for plan in plans]
    settings: dict[str, Any] = {"topology": rule, "memory_budget": min(peaks) - 1, "storage": "balanced"}
    assert ts.Trainer(net, activation_dtype="auto", **settings).activation_dtype == "bfloat16"
    with pytest.raises(ts.ConfigError, match="what would fit is activation_dtype='bfloat16'"):
        ts.Trainer(net, **settings)
    del settings["storage"]
    lean = ts.Trainer(net, activation_dtype="auto", **settings)
    assert (lean.storage, lean.activation_dtype) != ("balanced", "float32")
    assert [layer.storage for layer in net.layers] == [lean.storage] * len(net.layers)


def test_auto_without_a_budget_is_refused() -> None:
    with pytest.raises(ts.ConfigError, match="leaves the choice to memory_budget"):
        ts.Trainer(net_for(), activation_dtype="auto")


def test_a_trainer_refuses_a_budget_that_cannot_be_kept() -> None:
    with pytest.raises(ts.ConfigError, match="too small"):
        ts.Trainer(net_for(), memory_budget="10kB")
    with pytest.raises(ts.ConfigError, match="one process"):
        ts.Trainer(net_for(), memory_budget="1GB", parallel="wasap")
