# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trulysparse.errors import ConfigError, DataError
from trulysparse.parallel.report import ParallelReport, Phase, Tally

NAMES: dict[str, Any] = {"strategy": "wasap", "transport": "shared", "library": "MPICH 4", "nodes": 1}


def _tally() -> Tally:
    """Two workers; five gradients applied in one phase, one refused, then a local phase."""
    tally = Tally(2)
    tally.topology(1000, 400)
    for worker, staleness in ((0, 0), (1, 1), (0, 1), (1, 1)):
        tally.applied(worker, staleness, 1010, 1020, 0.5, 0.25)
    tally.applied(0, 3, 1010, 1020, 0.5, 0.25, filtered=True)
    tally.refused(1, 1010, 1020, 0.5, 0.25)
    tally.master(apply_seconds=0.125)
    tally.master(apply_seconds=0.125, evolve_seconds=0.5, evaluate_seconds=0.75, idle_seconds=1.0)
    tally.phase("asynchronous", 2.0, 600)
    tally.worked(1, 4.0, 1.0)
    tally.phase("local", 3.0, 300)
    tally.memory(1, 0, 100, 70)
    tally.memory(0, 0, 200, 80)
    tally.memory(2, 1, 300, 90)
    return tally


def _report(**changes: Any) -> ParallelReport:
    return _tally().report(**(NAMES | {"updates_sent": [3, 3]} | changes))


def _facts(report: ParallelReport) -> dict[str, str]:
    return {
        name.strip(): text
        for name, text in (re.split(r"(?<=\S)  +", li, maxsplit=1) for li in str(report).splitlines())
    }


def test_everything_that_is_counted_is_reported() -> None:
    assert _report() == ParallelReport(
        **NAMES,
        workers=2,
        updates=5,
        updates_sent=[3, 3],
        updates_applied=[3, 2],
        refused=1,
        filtered=1,
        samples=900,
        phases=[Phase("asynchronous", 2.0, 600), Phase("local", 3.0, 300)],
        compute_seconds=[1.5, 5.5],
        idle_seconds=[0.75, 1.75],
        updates_per_second=[1.5, 1.0],
        apply_seconds=0.25,
        evolve_seconds=0.5,
        evaluate_seconds=0.75,
        master_idle_seconds=1.0,
        staleness={0: 1, 1: 3, 3: 1},
        bytes_sent_per_update=1010.0,
        bytes_received_per_update=1020.0,
        parameters_bytes=1000,
        topology_bytes=400,
        rank_nodes=[0, 0, 1],
        rank_private_bytes=[200, 100, 300],
        rank_shared_bytes=[80, 70, 90],
        node_bytes=[380, 390],
    )


def test_shared_memory_counts_once_a_node() -> None:
    tally = Tally(3)
    for rank in range(4):
        tally.memory(rank, 0, 10, 1000 - rank)
    assert tally.report(**NAMES).node_bytes == [4 * 10 + 1000]


def test_lost_updates_are_those_sent_and_neither_applied_nor_refused() -> None:
    assert _report().lost_updates == 0
    assert _report(updates_sent=[5, 3]).lost_updates == 2
    assert "(2 LOST)" in str(_report(updates_sent=[5, 3])) and "LOST" not in str(_report())


def test_a_worker_that_ended_before_it_could_tell_leaves_the_lost_updates_unknown() -> None:
    report = _report(updates_sent=[3, None])
    assert report.lost_updates is None
    assert "1 worker ended before saying" in str(report) and "LOST" not in str(report)
    assert _report(updates_sent=None).updates_sent == [None, None]


def test_updates_per_second_leave_out_phases_without_updates() -> None:
    tally = Tally(1)
    for _ in range(3):
        tally.applied(0, 0, 1, 1, 0.1, 0.1)
        tally.phase("asynchronous", 1.0, 10)
    tally.phase("local", 100.0, 10)
    tally.applied(0, 0, 1, 1, 0.1, 0.1)
    tally.phase("asynchronous", 1.0, 10)
    report = tally.report(**NAMES)
    assert report.updates_per_second == [1.0]
    assert report.phases == [Phase("asynchronous", 4.0, 40), Phase("local", 100.0, 10)]
    assert report.phases[0].samples_per_second == 10.0


def test_parameters_are_the_mean_over_updates_when_pruning_changes_them() -> None:
    tally = Tally(1)
    tally.topology(1000, 10)
    for _ in range(3):
        tally.applied(0, 0, 1000, 1000, 0.1, 0.1)
    tally.topology(600, 20)
    tally.applied(0, 0, 600, 600, 0.1, 0.1)
    report = tally.report(**NAMES)
    assert report.parameters_bytes == report.bytes_sent_per_update == 900
    assert report.topology_bytes == 30


def test_a_report_survives_its_json_file(tmp_path: Path) -> None:
    report, target = _report(updates_sent=[3, None]), tmp_path / "new" / "report.json"
    report.to_json(target)
    values = json.loads(target.read_text())
    assert ParallelReport.from_dict(values) == report == ParallelReport.from_dict(report.to_dict())
    assert values["staleness"] == {"0": 1, "1": 3, "3": 1}
    assert values["phases"][0] == {"name": "asynchronous", "seconds": 2.0, "samples": 600, "samples_per_second": 300.0}
    assert list(target.parent.iterdir()) == [target]


def test_to_dict_gives_copies() -> None:
    report = _report()
    report.to_dict()["updates_applied"].append(7)
    report.to_dict()["staleness"]["9"] = 9
    assert report == _report()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workers": ...}, "workers is missing"),
        ({"colour": 1}, "'colour' is unknown"),
        ({"phases": [{"name": "a"}]}, "phases or staleness"),
        ({"phases": 3}, "phases or staleness"),
        ({"staleness": {"a": 1}}, "phases or staleness"),
        ({"staleness": [1]}, "phases or staleness"),
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any], words: str) -> None:
    values = {key: value for key, value in (_report().to_dict() | change).items() if value is not ...}
    with pytest.raises(DataError, match=words):
        ParallelReport.from_dict(values)


def test_numbers_from_records_become_plain_ones(tmp_path: Path) -> None:
    record = np.zeros((), dtype=[("w", "i4"), ("s", "i8"), ("b", "i8"), ("c", "f4"), ("f", "?")])[()]
    record["c"], record["b"] = 0.001, 7
    tally = Tally(1)
    tally.worked(0, np.float32(2**24))
    for _ in range(1000):
        tally.applied(record["w"], record["s"], record["b"], record["b"], record["c"], record["c"], record["f"])
    tally.master(record["c"], record["c"], record["c"], record["c"])
    tally.topology(record["b"], record["b"])
    tally.phase("a", record["c"], record["b"])
    tally.memory(record["w"], record["w"], record["b"], record["b"])
    report = tally.report(**NAMES, updates_sent=[np.int64(1000)])
    # a sum in float32 would have stayed at 2^24
    assert report.compute_seconds == [pytest.approx(2**24 + 1, abs=1e-3)]
    report.to_json(tmp_path / "r.json")
    assert ParallelReport.from_dict(json.loads((tmp_path / "r.json").read_text())) == report


def test_updates_sent_is_one_number_a_worker() -> None:
    with pytest.raises(ConfigError, match="each of 2 workers, got 3"):
        _report(updates_sent=[1, 2, 3])


def test_the_text_is_one_aligned_line_a_fact_in_units() -> None:
    facts = _facts(_report())
    assert facts["strategy"] == "wasap, 2 workers on 1 node"
    assert facts["updates"] == "5 applied of 6 sent"
    assert facts["phase asynchronous"] == "2.00 s, 600 samples, 300 samples/s"
    assert facts["worker 1"] == "2 updates, 1.00 updates/s, computing 5.50 s, waiting 1.75 s (24 %)"
    assert facts["master"] == "applying 0.250 s, evolving 0.500 s, evaluating 0.750 s, waiting 1.00 s"
    assert facts["worker sends"] == "1.01 kB an update, 1.01 x the parameters"
    assert facts["memory of rank 2"] == "300 B private, 90.0 B shared, on node 1"
    assert facts["memory of node 0"] == "380 B, what is shared counted once"
    lines = str(_report()).splitlines()
    column = lines[0].index("wasap")
    assert all(line[column - 2 : column] == "  " for line in lines)
    assert all(line[column] != " " for line in lines if "#" not in line and not line.strip().startswith("2 "))


def test_the_histogram_is_a_bar_for_each_staleness() -> None:
    lines = [line for line in str(_report()).splitlines() if re.match(r" +\d", line)]
    assert [(line.split()[0], line.count("#")) for line in lines] == [("0", 14), ("1", 40), ("2", 0), ("3", 14)]
    assert "3 (60 %)" in lines[1]


def test_a_wide_histogram_has_few_bars_that_add_up() -> None:
    tally = Tally(1)
    for staleness in range(1000):
        tally.applied(0, staleness, 1, 1, 0.1, 0.1)
    lines = [line for line in str(tally.report(**NAMES)).splitlines() if re.match(r" +\d+-\d+ ", line)]
    assert len(lines) == 16
    assert lines[0].split()[0] == "0-62" and lines[-1].split()[0] == "945-1007"
    assert sum(int(re.findall(r"([\d,]+) \(", line)[0]) for line in lines) == 1000


def test_many_workers_are_summed_up() -> None:
    tally = Tally(1000)
    for worker in range(1000):
        tally.applied(worker, 0, 1, 1, 1.0 + worker, 1.0)
        tally.memory(worker, worker // 4, 100 + worker, 50)
    text = str(tally.report(**NAMES))
    assert len(text.splitlines()) < 30
    assert _facts(tally.report(**NAMES))["computing a worker"] == "1.00 s least, 500 s median, 1,000 s most"


def test_a_run_without_a_master_or_any_update_has_a_text_too() -> None:
    facts = _facts(Tally(2).report(**NAMES))
    assert facts["updates"] == "0 applied" and facts["worker sends"] == "0 B an update"
    assert "master" not in facts and "staleness" not in facts
