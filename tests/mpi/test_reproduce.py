# SPDX-License-Identifier: BSD-3-Clause
"""Table 3's runs, each under an mpiexec that `trulysparse reproduce` starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trulysparse as ts
from trulysparse.reproduce import schedule
from trulysparse.reproduce.cases import Case, make_case
from trulysparse.reproduce.files import CHECKPOINT, MODEL, RESULT, Place, find_mpiexec, held
from trulysparse.reproduce.schedule import run_cases
from trulysparse.reproduce.summary import accuracy_of

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def _mpi() -> None:
    if find_mpiexec() is None:
        pytest.skip("no mpiexec or no mpi4py; the test extra brings both")


@pytest.mark.parametrize("strategy", ["wasap", "wassp"])
def test_a_parallel_case_is_judged_where_there_is_one_network(tmp_path: Path, strategy: str) -> None:
    case = make_case("digits", strategy=strategy, pruning=True, epochs=10)
    outcome = run_cases([case], tmp_path, (), quiet=True)
    assert outcome.failed == {} and outcome.finished == 1
    place = Place(tmp_path, case)
    result = place.result()
    curves = result["curves"]
    assert curves["epoch"] == list(range(1, 11)) and result["parallel"]["workers"] == 2
    assert result["cpu_minutes"] is result["other_cores_busy"] is None and result["jobs"] == 1  # not of one rank
    # phase two are the last three epochs; after the last the workers' networks are one again
    judged = [value is not None for value in curves["first_half_accuracy"]]
    assert judged == [True] * 7 + [False] * 2 + [True]
    assert [value is not None for value in curves["gradient_flow"]] == judged
    data, net = ts.load_digits(), ts.load(place.directory / MODEL)
    accuracy = accuracy_of(curves)
    assert accuracy is not None
    assert accuracy.last == pytest.approx(net.score(data.X_test, data.y_test), abs=1e-9)
    assert accuracy.best_epoch in (*range(1, 8), 10)
    assert result["connections_end"] == net.connections < result["connections_start"]
    assert not list(place.directory.glob("checkpoint*"))


def _wait_for_epochs(place: Place, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while (progress := place.progress()) is None or progress.epoch == 0:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)


def test_a_stopped_parallel_case_goes_on(tmp_path: Path) -> None:
    epochs = 400  # progress is written once a second: a fast machine does 60 in less
    case: Case = make_case("digits", strategy="wassp", epochs=epochs)
    place = Place(tmp_path, case)
    program = (
        "import sys; from pathlib import Path; from trulysparse.reproduce.cases import make_case\n"
        "from trulysparse.reproduce.schedule import run_cases\n"
        f"case = make_case('digits', strategy='wassp', epochs={epochs})\n"
        "outcome = run_cases([case], Path(sys.argv[1]), (), quiet=True)\n"
        "sys.exit(99 if outcome.signal else 0)"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, text=True)
    try:
        _wait_for_epochs(place, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 99
    finally:
        process.kill()
    assert (place.directory / CHECKPOINT).is_file() and not place.done and not place.taken
    assert run_cases([case], tmp_path, (), quiet=True).finished == 1
    assert place.result()["curves"]["epoch"] == list(range(1, epochs + 1))
    assert not list(place.directory.glob("checkpoint*"))


def test_a_parallel_case_that_is_done_or_of_another_process_ends_all_ranks(tmp_path: Path) -> None:
    place = Place(tmp_path, make_case("digits", strategy="wassp", epochs=1))
    place.prepare()
    job = schedule._Job(place.case, place, None, 1.0)

    def ends() -> None:
        schedule._start(job, 1, 1)
        assert job.process is not None
        try:
            job.process.wait(60)
        finally:
            schedule._stop([job])

    with held(place.directory):
        ends()
    assert not place.done
    (place.directory / RESULT).write_text("{}", encoding="utf-8")
    ends()
    assert place.result() == {}
