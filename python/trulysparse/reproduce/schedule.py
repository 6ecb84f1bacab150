# SPDX-License-Identifier: BSD-3-Clause
"""Many cases, some at a time, each in a process of its own; what is stopped goes on the next time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from trulysparse import _kernels
from trulysparse.reproduce.cases import Case
from trulysparse.reproduce.datasets import Shape, fingerprint_of, locate, shape_of
from trulysparse.reproduce.files import LOG, Place, Progress, find_mpiexec
from trulysparse.reproduce.status import Running, StatusLine
from trulysparse.trainer.signals import StopSignals

__all__ = ["Outcome", "listing", "run_cases"]

_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 120.0
# what Open MPI wants before it starts more ranks than cores, or as root in a container; MPICH looks at none of them
_OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


@dataclass
class Outcome:
    """What became of the cases that were to run.

    Attributes
    ----------
    finished : int
        Results that are there now and were not before.
    failed : dict of str to str
        Why, by name of the case.
    elsewhere : list of str
        Cases that another process works on.
    signal : int or None
        What ended the runs early.
    """

    finished: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    signal: int | None = None


@dataclass
class _Job:
    case: Case
    place: Place
    data: Path | None
    work: float
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0

    def progress(self) -> Progress | None:
        """Return how far the process is that was started here."""
        return self.place.progress(self.started)


class _Signals(StopSignals):
    """SIGHUP too, which a closing terminal sends; but not where it is ignored, as under nohup."""

    def __enter__(self) -> Self:
        super().__enter__()
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._remember)
        return self


def run_cases(
    cases: Sequence[Case], out: Path, places: Sequence[Path], *, jobs: int | None = None, quiet: bool = False
) -> Outcome:
    """Run the cases that have no result yet.

    Parallel cases run alone, after the others. Ctrl-C, SIGTERM and SIGHUP come to the runs as SIGTERM, and they write
    checkpoints.

    Parameters
    ----------
    cases : sequence of Case
        Whose data is there.
    out : Path
        Directory of all cases.
    places : sequence of Path
        Where data sets are.
    jobs : int, optional
        How many run at once; default as many as there are cores. They share the cores.
    quiet : bool
        Say nothing while they run.
    """
    cores = _kernels.default_threads()
    jobs = cores if jobs is None else jobs
    waiting, outcome = [], Outcome()
    shapes: dict[str, Shape] = {}
    fingerprints: dict[str, str] = {}
    for case in sorted(cases, key=lambda c: c.strategy != "sequential"):
        place, data = Place(out, case), locate(case.dataset, places)
        if case.dataset not in shapes:
            shapes[case.dataset] = shape_of(case.dataset, data)
        if place.done:
            if case.dataset not in fingerprints:
                fingerprints[case.dataset] = fingerprint_of(case.dataset, data)
            if place.result()["data"]["fingerprint"] != fingerprints[case.dataset]:
                outcome.failed[case.name] = f"its result is of other data; remove {place.directory} to run it again"
            continue
        waiting.append(_Job(case, place, data, case.work(shapes[case.dataset])))
    jobs = max(1, min(jobs, sum(job.case.strategy == "sequential" for job in waiting)))
    total = len(cases)
    line = StatusLine(total, total - len(waiting), sum(job.work for job in waiting), quiet=quiet)
    running: list[_Job] = []
    with _Signals() as signals:
        try:
            while (waiting or running) and signals.received is None:
                while waiting and _may_start(waiting[0], running, jobs):
                    job = waiting.pop(0)
                    if job.place.done:  # by another command meanwhile
                        outcome.finished += 1
                        line.end(job.case.label, job.work, "done elsewhere", part=0.0)
                    elif job.place.taken:
                        outcome.elsewhere.append(job.case.name)
                        line.end(job.case.label, job.work, "another process works on it", part=0.0)
                    else:
                        _start(job, jobs, cores)
                        running.append(job)
                time.sleep(_POLL_SECONDS)
                for job in [job for job in running if job.process is not None and job.process.poll() is not None]:
                    running.remove(job)
                    _finish(job, outcome, line)
                line.show([Running(job.case.label, job.case.seed, job.work, job.progress()) for job in running])
        finally:
            outcome.signal = signals.received
            if running:
                line.say(f"stopping {len(running)} runs, which write their checkpoints")
            _stop(running)
            line.close()
    return outcome


def _may_start(job: _Job, running: Sequence[_Job], jobs: int) -> bool:
    alone = job.case.strategy != "sequential" or any(other.case.strategy != "sequential" for other in running)
    return len(running) < (1 if alone else jobs)


def _start(job: _Job, jobs: int, cores: int) -> None:
    """Start the process of a case."""
    file = job.place.prepare()
    sequential = job.case.strategy == "sequential"
    threads = max(1, cores // jobs) if sequential else 1
    facts = {"jobs": jobs if sequential else 1}
    program = [sys.executable, "-m", "trulysparse.reproduce.run", str(file), "--facts", json.dumps(facts)]
    program += ["--threads", str(threads)]
    if job.data is not None:
        program += ["--data", str(job.data.resolve())]
    environment: Mapping[str, str] = os.environ
    if not sequential:
        mpiexec = find_mpiexec()
        assert mpiexec is not None  # the tables leave such cases out
        program = [mpiexec, "-n", str(job.case.workers + 1), *program]
        environment = {**_OPEN_MPI, **os.environ}
    job.started = time.time()
    # appended, since another process may own it just now; the one that gets the lock empties it
    with (job.place.directory / LOG).open("ab") as log:
        # a session of its own: Ctrl-C comes to this process alone, which passes it on
        job.process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _finish(job: _Job, outcome: Outcome, line: StatusLine) -> None:
    """Note how a process ended."""
    assert job.process is not None
    name, code = job.case.name, job.process.returncode
    if job.place.done:
        outcome.finished += 1
        line.end(job.case.label, job.work, _in_short(job.place), seed=job.case.seed)
    elif code == 3:
        outcome.elsewhere.append(name)
        line.end(job.case.label, job.work, "another process works on it", seed=job.case.seed, part=0.0)
    else:
        text = (job.place.directory / LOG).read_text(encoding="utf-8", errors="replace").strip()
        why = text.splitlines()[-1] if text else f"it ended with code {code}"
        outcome.failed[name] = f"{why} (all of it: {job.place.directory / LOG})"
        done = Running(job.case.label, job.case.seed, job.work, job.progress()).part
        line.end(job.case.label, job.work, f"failed: {why}", seed=job.case.seed, part=done)


def _in_short(place: Place) -> str:
    result = place.result()
    if result["diverged"]:
        return "diverged"
    tested = [a for a in result["curves"]["test_accuracy"] if a is not None]
    best = f"best accuracy {100 * max(tested):.2f} %, " if tested else ""
    return f"{best}{result['connections_end']:,} connections, {result['wall_minutes']:.1f} min"


def _stop(running: Sequence[_Job]) -> None:
    """Have the processes write their checkpoints and end; those that do not are ended after two minutes."""
    for job in running:
        progress = job.progress()
        # under mpiexec the signal goes to a rank, which stops all of them in order; mpiexec would just kill them
        if job.process is not None and job.process.poll() is None:
            target = job.process.pid if progress is None or job.case.strategy == "sequential" else progress.process
            _send(target, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE_SECONDS
    for job in running:
        assert job.process is not None
        try:
            job.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:  # it ended by itself just now
        return


def listing(cases: Sequence[Case], out: Path) -> str:
    """Return a line for each case: its directory, and how far it is."""
    lines = []
    for case in cases:
        place = Place(out, case)
        progress = place.progress()
        if place.done:
            state = f"done: {_in_short(place)}"
        elif place.taken:
            state = "running" if progress is None else f"running: epoch {progress.epoch} of {progress.epochs}"
        elif place.begun:
            state = "begun" if progress is None else f"stopped after epoch {progress.epoch} of {progress.epochs}"
        else:
            state = "not begun"
        lines.append(f"{case.name}: {state}")
    return "\n".join(lines)
