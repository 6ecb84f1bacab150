# SPDX-License-Identifier: BSD-3-Clause
from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import termios
from typing import Any

import pytest

from trulysparse.trainer.history import History, Row
from trulysparse.trainer.progress import ProgressReporter, format_row, format_seconds


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class _Run:
    """What the reporter asks of a trainer; an epoch of four steps takes `seconds`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.history = History()
        self.steps_per_epoch = 4
        self.samples_per_epoch = 4 * 32
        self.stop_reason: str | None = None

    def go(self, reporter: ProgressReporter, clock: _Clock, seconds: float, epochs: int | None = None) -> None:
        trainer: Any = self
        reporter.on_fit_start(trainer)
        for _ in range(epochs or self.epochs):
            for step in range(self.steps_per_epoch):
                reporter.on_step_end(trainer, step)
            clock.now += seconds
            row = _row(len(self.history) + 1)
            self.history.append(row)
            reporter.on_epoch_end(trainer, row)
        reporter.on_fit_end(trainer, self.history)


def _row(epoch: int, **values: Any) -> Row:
    row: Row = {"epoch": epoch, "loss": 0.43123, "accuracy": 0.84551, "val_loss": 0.5, "val_accuracy": 0.8502}
    row |= {"connections": 125683, "train_seconds": 0.004, "eval_seconds": 0.0, "evolve_seconds": 0.0}
    return row | values


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (252, "4:12"), (3723, "1:02:03"), (-1, "0:00")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            _row(12),
            "epoch  12/500  loss 0.4312  acc 0.8455  val_acc 0.8502  connections 125,683  31,000 samples/s  left 4:12",
        ),
        (
            _row(500, val_accuracy=None, val_loss=None),
            "epoch 500/500  loss 0.4312  acc 0.8455  connections 125,683  31,000 samples/s  left 4:12",
        ),
        (
            _row(1, accuracy=None, val_accuracy=None),
            "epoch   1/500  loss 0.4312  val_loss 0.5000  connections 125,683  31,000 samples/s  left 4:12",
        ),
    ],
)
def test_line_of_an_epoch(row: Row, text: str) -> None:
    assert format_row(row, 500, 31249.0, 252.0) == text


def test_unknown_speed_is_left_out() -> None:
    assert format_row(_row(3), 9, None, None).endswith("connections 125,683")


def test_plain_lines_one_an_epoch_when_epochs_are_slow() -> None:
    out, clock = io.StringIO(), _Clock()
    _Run(3).go(ProgressReporter(stream=out, clock=clock), clock, seconds=5.0)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert [line.split("  ")[-1] for line in lines] == ["left 0:10", "left 0:05", "left 0:00"]
    assert "32,000 samples/s" in lines[0]


def test_plain_lines_are_thinned_when_epochs_are_fast() -> None:
    out, clock = io.StringIO(), _Clock()
    _Run(100).go(ProgressReporter(stream=out, clock=clock, interval=2.0), clock, seconds=0.1)
    numbers = [int(line.split("/")[0].split()[1]) for line in out.getvalue().splitlines()]
    assert (numbers[0], numbers[-1]) == (1, 100)
    assert len(numbers) == len(set(numbers))
    assert 5 <= len(numbers) <= 7


def test_last_line_is_not_printed_twice() -> None:
    out, clock = io.StringIO(), _Clock()
    _Run(1).go(ProgressReporter(stream=out, clock=clock), clock, seconds=0.1)
    assert len(out.getvalue().splitlines()) == 1


def test_a_second_run_starts_afresh() -> None:
    out, clock = io.StringIO(), _Clock()
    reporter = ProgressReporter(stream=out, clock=clock)
    for _ in range(2):
        _Run(1).go(reporter, clock, seconds=0.1)
    assert len(out.getvalue().splitlines()) == 2


def test_time_left_counts_only_epochs_of_this_session() -> None:
    out, clock, run = io.StringIO(), _Clock(), _Run(10)
    for epoch in range(1, 8):
        run.history.append(_row(epoch))
    run.go(ProgressReporter(stream=out, clock=clock), clock, seconds=60.0, epochs=1)
    assert out.getvalue().startswith("epoch  8/10")
    assert out.getvalue().rstrip().endswith("left 2:00")


def test_reason_of_an_early_stop_is_said() -> None:
    out, clock, run = io.StringIO(), _Clock(), _Run(5)
    run.stop_reason = "val_loss has not improved"
    run.go(ProgressReporter(stream=out, clock=clock), clock, seconds=0.1, epochs=2)
    assert out.getvalue().splitlines()[-1] == "stopped: val_loss has not improved"


@pytest.mark.parametrize("stream", [_Terminal(), io.StringIO()])
def test_quiet_says_nothing(stream: io.StringIO) -> None:
    reporter, clock, run = ProgressReporter(stream=stream, quiet=True), _Clock(), _Run(2)
    run.stop_reason = "enough"
    run.go(reporter, clock, seconds=9.0)
    assert stream.getvalue() == ""
    assert not reporter.wants_steps


def test_standard_error_is_looked_up_when_the_run_starts(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    _Run(1).go(ProgressReporter(clock=clock), clock, seconds=1.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("epoch 1/1")


def test_terminal_gets_one_line_that_is_rewritten() -> None:
    out, clock = _Terminal(), _Clock()
    _Run(3).go(ProgressReporter(stream=out, clock=clock), clock, seconds=1.0)
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.startswith("\r")
    last = text.rstrip("\n").split("\r")[-1]
    assert last.startswith("epoch 3/3  loss 0.4312  acc 0.8455")


def _read_all(terminal: int) -> str:
    """Read what was written to a pseudo-terminal: a read returns at most a part of it."""
    text = b""
    while select.select([terminal], [], [], 0.2)[0]:
        text += os.read(terminal, 100_000)
    return text.decode()


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (150, 0), (60, 24), (160, 50)])
def test_real_terminals_of_any_size_get_the_line(columns: int, rows: int) -> None:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(side, "w", encoding="utf-8") as out:
        clock = _Clock()
        _Run(2).go(ProgressReporter(stream=out, clock=clock), clock, seconds=1.0)
        out.flush()
        text = _read_all(main)
    os.close(main)
    lines = text.replace("\x1b[A", "").rstrip().split("\r")
    assert any(line.startswith("epoch 2/2  loss 0.4312") for line in lines)
    assert max(map(len, lines)) <= (columns or 120)


def test_terminal_on_a_resumed_run_starts_where_it_stands() -> None:
    out, clock, run = _Terminal(), _Clock(), _Run(10)
    for epoch in range(1, 8):
        run.history.append(_row(epoch))
    run.go(ProgressReporter(stream=out, clock=clock), clock, seconds=1.0, epochs=1)
    assert "epoch 8/10" in out.getvalue().split("\r")[2]
