# SPDX-License-Identifier: BSD-3-Clause
"""What a person watching a run sees: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from trulysparse.trainer.callbacks import Callback
from trulysparse.trainer.history import Row

if TYPE_CHECKING:
    from trulysparse.trainer.history import History
    from trulysparse.trainer.trainer import Trainer


def format_seconds(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_row(row: Row, epochs: int, samples_per_second: float | None, seconds_left: float | None) -> str:
    """Return an epoch's row as one line of text.

    Parameters
    ----------
    row : dict
        Row of the history; what was not measured is left out.
    epochs : int
        Epochs of the run.
    samples_per_second, seconds_left : float or None
        Training speed and estimated time to the end; None leaves them out.
    """
    width = len(str(epochs))
    parts = [f"epoch {row['epoch']:>{width}}/{epochs}"]
    shown = [("loss", "loss"), ("accuracy", "acc"), ("val_accuracy", "val_acc")]
    if row.get("val_accuracy") is None:
        shown[2] = ("val_loss", "val_loss")
    parts += [f"{label} {row[key]:.4f}" for key, label in shown if row.get(key) is not None]
    parts.append(f"connections {row['connections']:,}")
    if samples_per_second is not None:
        parts.append(f"{_two_digits(samples_per_second):,} samples/s")
    if seconds_left is not None:
        parts.append(f"left {format_seconds(seconds_left)}")
    return "  ".join(parts)


def _two_digits(value: float) -> int:
    """Round to two significant digits: speeds are not known better."""
    return int(float(f"{value:.1e}"))


def _knows_its_size(stream: TextIO) -> bool:
    """Whether a terminal reports a size; tqdm prints nothing on one that claims no columns or lines."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return False
    return size.columns > 0 and size.lines > 1


class ProgressReporter(Callback):
    """Report a run on standard error.

    On a terminal: one line, brought up to date a few times a second. Elsewhere: a line an epoch, but no more
    than one every `interval` seconds besides the first and the last.

    Parameters
    ----------
    quiet : bool
        Say nothing.
    stream : file, optional
        Where to write; default ``sys.stderr`` as it is when the run starts.
    interval : float
        Least seconds between two plain lines.
    clock : callable
        Returns seconds; for tests.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        interval: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quiet = quiet
        self.interval = interval
        self._stream, self._clock = stream, clock
        self._out: TextIO = sys.stderr
        self._bar: Any = None
        self._started = 0.0
        self._epochs_done = 0
        self._last_line: float | None = None
        self._pending: str | None = None

    @property
    def wants_steps(self) -> bool:
        """Only a live line moves within an epoch; asked before the run starts, so quiet decides."""
        return not self.quiet

    def on_fit_start(self, trainer: Trainer) -> None:
        """Begin the line."""
        if self.quiet:
            return
        self._out = sys.stderr if self._stream is None else self._stream
        self._started, self._epochs_done = self._clock(), 0
        self._last_line = self._pending = None
        if not self._out.isatty():
            return
        from tqdm import tqdm

        done, sized = len(trainer.history), _knows_its_size(self._out)
        self._bar = tqdm(
            total=(trainer.epochs or 0) * trainer.steps_per_epoch,
            initial=done * trainer.steps_per_epoch,
            bar_format="{desc}  |{bar:16}|",
            ncols=None if sized else 120,
            nrows=None if sized else 24,
            dynamic_ncols=sized,
            mininterval=0.2,
            file=self._out,
        )
        self._bar.set_description_str(f"epoch {done + 1}/{trainer.epochs}")

    def on_step_end(self, trainer: Trainer, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(1)

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Show the epoch."""
        if self.quiet:
            return
        now, epochs = self._clock(), trainer.epochs or 0
        self._epochs_done += 1
        left = (now - self._started) / self._epochs_done * (epochs - len(trainer.history))
        seconds = row["train_seconds"] or 0.0
        speed = trainer.samples_per_epoch / seconds if seconds > 0 else None
        line = format_row(row, epochs, speed, left)
        if self._bar is not None:
            self._bar.set_description_str(line, refresh=False)
            self._bar.n = len(trainer.history) * trainer.steps_per_epoch
            if self._last_line is None or now - self._last_line >= 0.2:
                self._last_line = now
                self._bar.refresh()
            return
        self._pending = line
        if self._last_line is None or now - self._last_line >= self.interval:
            self._last_line = now
            self._print(line)

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """End the line; say why a run stopped early."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None
        elif self._pending is not None:
            self._print(self._pending)
        if trainer.stop_reason:
            self._print(f"stopped: {trainer.stop_reason}")

    def _print(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
        self._pending = None
