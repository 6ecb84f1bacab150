# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark measures what it says, refuses wrong results, and names who is missing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from trulysparse.bench import records, timing
from trulysparse.bench.cases import OPERATIONS, Problem, Shape, WrongResult, parse_shape
from trulysparse.bench.epochs import break_even_record, busy_core_record, check_loss, epoch_record, inference_record
from trulysparse.bench.kernels import KernelCase, checked, kernel_records
from trulysparse.bench.machine import Caches, Neighbours, provenance, read_caches, source_commit
from trulysparse.bench.networks import Data, Network, TrulySparseTrainer
from trulysparse.bench.picture import roofline_picture
from trulysparse.bench.report import kernel_header, line, table
from trulysparse.bench.rivals import OURS, RIVALS, Contestant, NotOffered, Rival, find_rivals
from trulysparse.bench.rivals.ours import TrulySparse
from trulysparse.bench.rivals.scipy_csr import SciPy
from trulysparse.bench.roofline import Roofline
from trulysparse.bench.suite import Plan, measure
from trulysparse.cli import main
from trulysparse.errors import ConfigError, DataError

SMALL = Shape(40, 30, 200)
NETWORK = Network("small", (20, 32, 24, 5), 512, 64)


def small_roofline() -> Roofline:
    return Roofline(Caches(1 << 14, 1 << 16, 1 << 18), seconds=1e-4, runs=1, memory_bytes=1 << 20)


def measured(rivals: dict[str, type[Contestant]], batch: int = 20) -> list[dict[str, object]]:
    return list(kernel_records([SMALL], lambda _: (batch,), (1, 2), rivals, small_roofline(), seconds=1e-4))


@pytest.mark.parametrize("batch", [1, 16, 20, 128])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_of_ours_passes_its_check(batch: int, operation: str) -> None:
    problem = Problem(SMALL, batch)
    checked(TrulySparse(problem, 2).operation(operation), operation, problem, OURS)


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("operation", ["forward", "dx", "dw", "backward", "update"])
def test_scipy_passes_the_same_checks(batch: int, operation: str) -> None:
    problem = Problem(SMALL, batch)
    checked(SciPy(problem, 1).operation(operation), operation, problem, "scipy")


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "scipy"])
def test_an_installed_rival_passes_the_same_checks(name: str) -> None:
    found, _ = find_rivals([name])
    if name not in found:
        pytest.skip(f"{name} is not installed")
    problem = Problem(SMALL, 32)
    contestant = found[name](problem, 1)
    for operation in OPERATIONS:
        try:
            made = contestant.operation(operation)
        except NotOffered:
            continue
        checked(made, operation, problem, name)


@pytest.mark.parametrize("operation", ["forward", "dx", "dw", "backward", "update"])
def test_one_wrong_number_is_an_error_that_names_who_and_what(operation: str) -> None:
    problem = Problem(SMALL, 20)
    good = TrulySparse(problem, 1).operation(operation)
    good.call()
    if operation == "update":
        good.call()
    result = good.read()
    last = result[1] if isinstance(result, tuple) else result
    last.flat[last.size // 2] += 1e-3
    part = "dw" if operation == "backward" else operation
    with pytest.raises(WrongResult, match=f"someone: {part} .* wrong in 1 of"):
        problem.check(operation, result, "someone")


def test_nan_and_a_wrong_shape_are_wrong() -> None:
    problem = Problem(SMALL, 20)
    with pytest.raises(WrongResult):
        problem.check("forward", np.full((30, 20), np.nan, np.float32), "someone")
    with pytest.raises(WrongResult, match="shape"):
        problem.check("forward", np.zeros((20, 30), np.float32), "someone")


def test_large_results_are_checked_on_a_sample() -> None:
    problem = Problem(Shape(3000, 3000, 400_000), 64)
    y = TrulySparse(problem, 2).forward()
    checked(y, "forward", problem, OURS)
    wrong = y.read().copy()
    wrong += 1.0
    with pytest.raises(WrongResult):
        problem.check("forward", wrong, "someone")


def test_a_wrong_contestant_stops_the_measurement() -> None:
    class Wrong(SciPy):
        def forward(self):  # type: ignore[no-untyped-def]
            operation = super().forward()
            return type(operation)(operation.call, lambda: 2 * operation.read())

    with pytest.raises(WrongResult, match="wrong: forward"):
        measured({"wrong": Wrong})


def test_an_evolution_that_loses_a_survivor_is_wrong() -> None:
    from trulysparse.bench.rivals.ours import check_evolution

    problem = Problem(SMALL, 16)
    contestant = TrulySparse(problem, 1)
    check = contestant.evolution()
    check.call()
    check.read()
    contestant.layer.values[:] = problem.values[::-1]
    with pytest.raises(WrongResult, match="lost or changed"):
        check_evolution(problem, contestant.layer, "someone")


def test_a_missing_rival_is_named_with_its_error_and_cure() -> None:
    def fail(rival: Rival) -> type[Contestant]:
        raise ImportError(f"no {rival.name} here")

    found, missing = find_rivals(["mkl", "scipy"], contestant=fail)
    assert not found
    assert [m.name for m in missing] == ["mkl", "scipy"]
    assert str(missing[0]) == "mkl: ImportError: no mkl here; install it with: pip install mkl sparse_dot_mkl"
    assert find_rivals(["none"]) == ({}, [])
    with pytest.raises(ConfigError, match="nobody"):
        find_rivals(["nobody"])


def test_what_a_rival_does_not_offer_is_in_the_record_with_the_reason() -> None:
    evolution = [r for r in measured({"scipy": SciPy}) if r["operation"] == "evolution"]
    assert evolution[0]["not_offered"] == {"scipy": "it has no evolution of topology"}


def test_kernel_records_hold_time_spread_flops_roof_and_rival() -> None:
    found = measured({"scipy": SciPy})
    assert [(r["threads"], r["operation"]) for r in found] == [(t, o) for t in (1, 2) for o in OPERATIONS]
    forward = found[0]
    ours = forward["timings"][OURS]  # type: ignore[index]
    low, high = ours["quartiles"]
    assert 0 < low <= ours["seconds"] <= high
    assert forward["flops"] == 2 * 200 * 20
    assert forward["best_rival"] == "scipy"
    assert forward["ratio"] == pytest.approx(forward["timings"]["scipy"]["seconds"] / ours["seconds"])  # type: ignore[index]
    assert forward["roof"]["fraction"] == pytest.approx(forward["gflops"] / forward["roof"]["gflops"])  # type: ignore[index]
    json.dumps(found)


def test_finished_cases_are_left_out() -> None:
    case = KernelCase(SMALL, 20, 1, "dx")
    plan = Plan(
        ("kernels",), (SMALL,), lambda _: (20,), (1,), operations=("dx", "dw"), seconds=1e-4,
        done=frozenset({records.identity(case.key())}),
    )  # fmt: skip
    assert [r["operation"] for r in measure(plan, {}, roofline=small_roofline())] == ["dw"]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("784x1000", Shape(784, 1000, 35680)),
        ("10x10", Shape(10, 10, 100)),
        ("4096x4096@5%", Shape(4096, 4096, 838861)),
        ("500000x500000@10M", Shape(500_000, 500_000, 10_000_000)),
    ],
)
def test_shapes_are_read_and_printed(text: str, shape: Shape) -> None:
    assert parse_shape(text) == shape
    if "@" in text:
        assert str(shape) == text


@pytest.mark.parametrize("text", ["784", "axb", "10x10@101%", "10x0", "10x10@", "10x10@0", "10x10@x%"])
def test_other_texts_are_no_shapes(text: str) -> None:
    if text == "10x10@":
        assert parse_shape(text).nnz == 100
        return
    with pytest.raises(ConfigError, match="is not a shape"):
        parse_shape(text)


def test_roofs_are_positive_and_wider_caches_are_not_asked_for_twice() -> None:
    roofline = small_roofline()
    for threads in (1, 2):
        machine = roofline.machine(threads)
        record = machine.record()
        assert record["threads"] == threads
        gbs = [machine.l1_gbs, machine.l2_gbs, machine.l3_gbs, machine.dram_gbs, *machine.random_rows_gbs.values()]
        assert min(machine.fma_gflops, *gbs) > 0
        assert roofline.machine(threads) is machine


def test_every_operation_but_an_evolution_has_a_roof() -> None:
    roofline = small_roofline()
    for batch in (1, 32):
        problem = Problem(SMALL, batch)
        for operation in OPERATIONS:
            roof = problem.roof(operation, roofline, 1)
            assert (roof is None) == (operation == "evolution")
            assert roof is None or roof.gflops > 0


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def call(name: str, seconds: float):  # type: ignore[no-untyped-def]
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    timings = timing.alternate({"a": call("a", 0.021), "b": call("b", 0.021)}, seconds=0.0, least=3, turn_seconds=0.001)
    assert order == ["a", "b"] * 4  # once to see how long they are, then three turns
    assert len(timings["a"].samples) == 3
    assert timings["a"].median >= 0.02


def test_timings_have_median_and_quartiles() -> None:
    t = timing.Timing((1.0, 2.0, 3.0, 4.0, 5.0), 7)
    assert (t.median, t.quartiles) == (3.0, (2.0, 4.0))
    assert t.scaled(2).median == 6.0
    assert timing.Timing((1.0,), 1).quartiles == (1.0, 1.0)


def test_an_epoch_is_extrapolated_from_steps_whose_loss_falls() -> None:
    data = Data(NETWORK)
    assert data.X.shape == (512, 20)
    assert data.X.dtype == np.uint8
    record = epoch_record(NETWORK, data, 1, (), seconds=0.02)
    assert record["timings"][OURS]["seconds"] > 0
    first, last = record["timings"][OURS]["loss"]
    assert last < first
    assert record["ratio"] is None
    assert "extrapolated" in line(record)


def test_a_network_that_does_not_learn_is_an_error() -> None:
    trainer = TrulySparseTrainer(NETWORK, Data(NETWORK), 1)
    trainer.losses = [1.0, 1.0, 1.0, 1.5]
    with pytest.raises(WrongResult, match="the loss went from"):
        check_loss(trainer)


def test_a_busy_core_is_measured_and_left_idle_afterwards() -> None:
    record = busy_core_record(NETWORK, Data(NETWORK), 2, rounds=2, turn=0.01)
    assert set(record["timings"]) == {"quiet", "busy"}
    assert "busy" in line(record)


def test_one_sample_agrees_with_scipy_and_is_timed() -> None:
    record = inference_record(0.001, network=NETWORK)
    assert record["ratio"] > 0
    assert "SciPy" in line(record)


def test_break_even_needs_pytorch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError):
            break_even_record((0.1,), 1, 0.001, size=64, batch=16)
        said: list[str] = []
        plan = Plan(("break-even",), (), lambda _: (), (1,))
        assert list(measure(plan, {}, said.append)) == []
        assert "PyTorch" in said[0]
    else:
        record = break_even_record((0.1,), 1, 0.001, size=64, batch=16)
        assert record["densities"][0]["ratio"] > 0


def test_json_lines_keep_the_last_of_each_case_and_survive_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.jsonl"
    for seconds in (1, 2):
        records.append(path, {"benchmark": "inference", "batch": 1, "s": seconds}, {"cpu": "x"})
    records.append(path, {"benchmark": "roofline", "threads": 1}, {})
    with path.open("a") as file:
        file.write('{"torn": ')
    assert [r.get("s") for r in records.read(path)] == [2, None]
    path.write_text("no\n{}\n")
    with pytest.raises(DataError, match="line 1"):
        records.read(path)


def test_provenance_names_machine_date_and_commit() -> None:
    facts = provenance("abc")
    assert facts["commit"] == "abc"
    assert {"date", "cpu", "caches", "isa", "trulysparse"} <= set(facts)
    assert min(vars(read_caches()).values()) > 0
    assert read_caches(Path("/nowhere")) == Caches()


def test_an_untracked_directory_has_no_commit(tmp_path: Path) -> None:
    assert source_commit(tmp_path) is None


def test_neighbours_are_counted_in_cores() -> None:
    neighbours = Neighbours()
    time.sleep(0.03)
    cores = neighbours.cores()
    assert cores is None or cores >= 0


def test_the_table_has_a_header_and_a_line_for_each_case() -> None:
    found = measured({"scipy": SciPy})
    lines = table(found).splitlines()
    assert lines[0] == kernel_header()
    assert len(lines) == 1 + len(found)
    assert "scipy" in lines[1]


def test_the_picture_is_drawn_from_records(tmp_path: Path) -> None:
    roofline = small_roofline()
    found = [roofline.machine(t).record() for t in (1, 2)]
    found += list(kernel_records([SMALL], lambda _: (32, 16), (1, 2), {"scipy": SciPy}, roofline, seconds=1e-4))
    path = roofline_picture(found, tmp_path / "r.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError):
        roofline_picture([], tmp_path / "none.png")


def test_the_command_measures_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.jsonl"
    arguments = ["bench", "--only", "kernels", "--shapes", "40x30@20%", "--threads", "1", "--batch", "16"]
    assert main([*arguments, "--rivals", "scipy", "--seconds", "0.0005", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "rivals: scipy" in out
    assert "forward" in out
    found = records.read(path)
    assert [r["operation"] for r in found] == list(OPERATIONS)
    assert {"cpu", "date", "commit", "foreign_cores"} <= set(found[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rivals", "nobody"], "not a rival"),
        (["--shapes", "big"], "not a shape"),
        (["--threads", "0"], "at least 1"),
        (["--network", "resnet"], "not a network"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
