# SPDX-License-Identifier: BSD-3-Clause
"""What lies in the directory of a case."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trulysparse._files import write_text
from trulysparse.errors import DataError
from trulysparse.reproduce.cases import Case

__all__ = [
    "CASE",
    "CHECKPOINT",
    "HISTORY",
    "LOG",
    "MODEL",
    "PROGRESS",
    "PRUNED",
    "RESULT",
    "Place",
    "Progress",
    "ProgressFile",
    "find_mpiexec",
    "held",
    "read_json",
]

CASE, RESULT, MODEL, HISTORY = "case.json", "result.json", "model.safetensors", "history.csv"
PRUNED = "pruned.json"
CHECKPOINT, PROGRESS, LOG, _LOCK = "checkpoint.safetensors", "progress.json", "log.txt", "lock"
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a case is.

    Attributes
    ----------
    epoch, epochs : int
        Done, and of the whole run.
    process : int
        That to send signals to.
    """

    epoch: int
    epochs: int
    process: int


class Place:
    """The directory of one case.

    Parameters
    ----------
    out : Path
        Directory of all cases.
    case : Case
    """

    def __init__(self, out: Path, case: Case) -> None:
        self.case = case
        self.directory = out / case.name

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return (self.directory / RESULT).is_file()

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.directory / CHECKPOINT).is_file()

    def result(self) -> dict[str, Any]:
        """Return the result."""
        return read_json(self.directory / RESULT)

    def progress(self, since: float = 0.0) -> Progress | None:
        """Return how far it is, None if nothing was written down from `since` on (seconds since 1970)."""
        try:
            if (self.directory / PROGRESS).stat().st_mtime < since:
                return None
            return Progress(**read_json(self.directory / PROGRESS))
        except (DataError, TypeError, FileNotFoundError):
            return None

    def prepare(self) -> Path:
        """Make the directory, write down the case, return its file."""
        file = self.directory / CASE
        if not file.is_file():
            write_text(file, json.dumps(self.case.to_json(), indent=1) + "\n")
        return file

    @property
    def taken(self) -> bool:
        """Whether some process works on it."""
        if not self.directory.is_dir():
            return False
        file = self.directory / _LOCK
        if not file.is_file():
            return False
        # a shared lock: other probes do not see it, and an owner that does tries again
        with file.open("r") as opened:
            return not _locked(opened, fcntl.LOCK_SH)


@contextmanager
def held(directory: Path) -> Iterator[bool]:
    """Keep a directory for this process; yields False if another one has it. It is free again however this one ends.

    It tries for a second, since `Place.taken` of another process may be looking just now.
    """
    with (directory / _LOCK).open("w") as file:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not (mine := _locked(file, fcntl.LOCK_EX)) and time.monotonic() < until:
            time.sleep(0.05)
        yield mine


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def find_mpiexec() -> str | None:
    """Return the mpiexec of this environment, else that of the system; None if something is missing."""
    if importlib.util.find_spec("mpi4py") is None:
        return None
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


class ProgressFile:
    """Writes down how far a case is, once a second at most."""

    def __init__(self, directory: Path, epochs: int, process: int) -> None:
        self._file, self._epochs, self._process = directory / PROGRESS, epochs, process
        self._last = 0.0

    def __call__(self, epoch: int) -> None:
        """Say that so many epochs are done."""
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            write_text(self._file, json.dumps({"epoch": epoch, "epochs": self._epochs, "process": self._process}))

    def remove(self) -> None:
        """Leave nothing behind."""
        self._file.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        If there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); remove it to make it anew") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, not a JSON object; remove it to make it anew")
    return found
