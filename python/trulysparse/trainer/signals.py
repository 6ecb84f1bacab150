# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C and SIGTERM end a run after the step under way, so that nothing is half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class TrainingInterrupted(KeyboardInterrupt):
    """A run ended early because of a signal; whatever was configured has been saved.

    Attributes
    ----------
    signal : int
        Number of the signal (SIGINT or SIGTERM).
    checkpoint : str or None
        Where to resume from.
    """

    def __init__(self, number: int, checkpoint: str | None) -> None:
        saved = (
            f"the checkpoint {checkpoint} continues it"
            if checkpoint
            else "nothing was saved, because no checkpoint path was given"
        )
        super().__init__(f"training was stopped by {signal.Signals(number).name}; {saved}")
        self.signal = number
        self.checkpoint = checkpoint


class StopSignals:
    """Context manager that remembers SIGINT and SIGTERM instead of dying of them; a second one acts at once.

    Outside the main thread signals cannot be handled, and the manager does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself returned
        self._before.clear()
