# SPDX-License-Identifier: BSD-3-Clause
"""What is seen while many cases run."""

from __future__ import annotations

import io

from trulysparse.reproduce.files import Progress
from trulysparse.reproduce.status import Running, StatusLine


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _running(epoch: int, work: float = 10.0) -> Running:
    return Running("madelon-relu", 1, work, Progress(epoch, 100, 1))


def test_plain_lines_tell_what_is_done_what_runs_and_what_is_left() -> None:
    clock, out = Clock(), io.StringIO()
    line = StatusLine(5, 2, 30.0, stream=out, clock=clock)
    line.show([_running(0)])
    clock.now = 61.0
    line.show([_running(50)])  # 5 of 30 in 61 s: 25 are left
    clock.now = 62.0
    line.show([_running(60)])  # too early for another line
    line.end("madelon-relu", 10.0, "best accuracy 70.00 %", seed=1)
    clock.now = 122.0
    line.show([Running("madelon-all_relu0.5", 0, 10.0, None)])  # 10 of 30 in 122 s
    line.close()
    assert out.getvalue().splitlines() == [
        "2 of 5 results are there already",
        "2/5 done; madelon-relu seed 1: 0/100",
        "2/5 done; madelon-relu seed 1: 50/100; about 5:05 left",
        "[3/5] madelon-relu seed 1: best accuracy 70.00 %",
        "3/5 done; madelon-all_relu0.5 seed 0: starting; about 4:04 left",
    ]


def test_a_run_that_goes_on_counts_what_is_new() -> None:
    clock, out = Clock(), io.StringIO()
    line = StatusLine(1, 0, 10.0, stream=out, clock=clock)
    line.show([_running(50)])  # from the checkpoint
    clock.now = 60.0
    line.show([_running(75)])  # a quarter in 60 s, a quarter is left
    assert out.getvalue().splitlines()[-1].endswith("75/100; about 1:00 left")


def test_a_terminal_has_one_line_that_changes() -> None:
    clock, out = Clock(), Terminal()
    line = StatusLine(1, 0, 10.0, stream=out, clock=clock)
    for epoch in range(3):
        line.show([_running(epoch)])
        clock.now += 1.0
    assert out.getvalue().count("\n") == 0 and out.getvalue().count("\r\x1b[K") == 3
    line.end("madelon-relu", 10.0, "done", seed=1)
    line.close()
    assert out.getvalue().endswith("\r\x1b[K[1/1] madelon-relu seed 1: done\n")


def test_a_run_that_fails_at_once_says_nothing_of_the_speed() -> None:
    clock, out = Clock(), io.StringIO()
    line = StatusLine(3, 0, 30.0, stream=out, clock=clock)
    line.show([_running(0)])
    clock.now = 1.0
    line.end("madelon-relu", 10.0, "failed", seed=1, part=0.0)
    clock.now = 61.0
    line.show([_running(0)])
    clock.now = 121.0
    line.show([_running(50)])  # 5 in 121 s, 15 are left
    assert out.getvalue().splitlines()[-1].endswith("50/100; about 6:03 left")


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    line = StatusLine(2, 1, 10.0, quiet=True, stream=out)
    line.show([_running(1)])
    line.end("madelon-relu", 10.0, "done", seed=1)
    line.close()
    assert out.getvalue() == ""
