# SPDX-License-Identifier: BSD-3-Clause
"""Words in shared memory: between processes, what they are refused for, and what signals do to a wait."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trulysparse import _kernels as k

ROUNDS = 2000
PING, PONG, PARCEL = 0, 16, 32  # on cache lines of their own
LONG = 60.0

# The other side of a game of ping-pong: a process that shares nothing with this one but the memory.
PARTNER = """
import sys
import numpy as np
from trulysparse import _kernels as k

rounds, spin, ping, pong, parcel = map(int, sys.argv[2:])
words = np.memmap(sys.argv[1], np.int32, "r+").view(np.ndarray)
for played in range(rounds):
    while k.load_word(words, ping) == played:
        k.wait_word(words, ping, played, 60.0, spin)
    words[parcel] += played
    k.add_word(words, pong, 1)
    k.wake_word(words, pong)
"""


@pytest.mark.parametrize("spin", [0, 20])
def test_ping_pong_between_processes_loses_no_wake(tmp_path: Path, spin: int) -> None:
    file = tmp_path / "words"
    file.write_bytes(bytes(4096))
    words = np.memmap(file, np.int32, "r+").view(np.ndarray)
    numbers = [str(n) for n in (ROUNDS, spin, PING, PONG, PARCEL)]
    partner = subprocess.Popen([sys.executable, "-c", PARTNER, str(file), *numbers])
    try:
        for played in range(ROUNDS):
            words[PARCEL] += 1
            k.store_word(words, PING, played + 1)
            k.wake_word(words, PING)
            deadline = time.monotonic() + LONG
            while k.load_word(words, PONG) == played:
                k.wait_word(words, PONG, played, LONG, spin)
                assert time.monotonic() < deadline, f"no answer in round {played}"
        assert partner.wait(LONG) == 0
        assert words[PARCEL] == ROUNDS + ROUNDS * (ROUNDS - 1) // 2
    finally:
        partner.kill()
        partner.wait()


def test_words_are_loaded_stored_and_added_to() -> None:
    words = np.array([1, 2, 3], np.int32)
    assert k.load_word(words, 1) == 2
    assert k.store_word(words, 1, -5) is None
    assert k.add_word(words, 1, 7) == 2
    assert k.add_word(words, 2, -4) == -1
    np.testing.assert_array_equal(words, [1, 2, -1])
    assert k.wake_word(words, 0) == 0
    words.flags.writeable = False
    assert k.load_word(words, 0) == 1
    assert k.wait_word(words, 0, 0, 0.0)


def test_wait_word_is_true_at_once_where_the_word_differs() -> None:
    words = np.array([1], np.int32)
    assert k.wait_word(words, 0, 0, math.inf)
    assert k.wait_word(words, 0, 0, 0)


@pytest.mark.parametrize("spin", [0, 50, 10**9])
def test_wait_word_is_false_when_the_time_is_out(spin: int) -> None:
    words = np.array([1], np.int32)
    start = time.monotonic()
    assert not k.wait_word(words, 0, 1, 0.02, spin)
    assert time.monotonic() - start > 0.019
    assert not k.wait_word(words, 0, 1, 0.0, spin)


def test_waiting_releases_the_gil() -> None:
    words = np.zeros(1, np.int32)
    results: list[bool] = []

    def wait() -> None:
        while not k.wait_word(words, 0, 0, LONG):
            pass
        results.append(True)

    waiter = threading.Thread(target=wait)
    waiter.start()
    k.add_word(words, 0, 1)
    k.wake_word(words, 0)
    waiter.join(LONG)
    assert results == [True]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_a_signal_ends_the_wait_and_its_handler_runs() -> None:
    words = np.zeros(1, np.int32)
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        # Again and again: one that comes before the wait has begun does not end it.
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert not k.wait_word(words, 0, 0, math.inf)
        assert seen
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _wait_until_interrupted(words)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait_until_interrupted(words: k.Indices) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    while True:
        k.wait_word(words, 0, 0, LONG)


def test_a_waiter_takes_no_processor_time() -> None:
    words = np.zeros(1, np.int32)
    before = time.thread_time()
    k.wait_word(words, 0, 0, 0.2)
    assert time.thread_time() - before < 0.1


CALLS: dict[str, Callable[..., object]] = {
    "load": lambda words, index=0: k.load_word(words, index),
    "store": lambda words, index=0: k.store_word(words, index, 1),
    "add": lambda words, index=0: k.add_word(words, index, 1),
    "wake": lambda words, index=0: k.wake_word(words, index),
    "wait": lambda words, index=0: k.wait_word(words, index, 1, 0.0),
}


@pytest.mark.parametrize("call", CALLS)
def test_words_must_be_a_contiguous_int32_array_and_the_index_in_range(call: str) -> None:
    for dtype in (np.uint32, np.int64, np.float32):
        with pytest.raises(TypeError, match="words must be an array of int32"):
            CALLS[call](np.zeros(4, dtype))
    with pytest.raises(TypeError, match="words must be a NumPy array of int32, got list"):
        CALLS[call]([0, 1])
    with pytest.raises(TypeError, match="C-contiguous"):
        CALLS[call](np.zeros(4, np.int32)[::2])
    with pytest.raises(ValueError, match="shape"):
        CALLS[call](np.zeros((2, 2), np.int32))
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"between 0 and 3.*got {index}"):
            CALLS[call](np.zeros(4, np.int32), index)
    with pytest.raises(IndexError, match="words is empty"):
        CALLS[call](np.zeros(0, np.int32))


@pytest.mark.parametrize("call", ["store", "add", "wake"])
def test_words_that_are_written_must_be_writable(call: str) -> None:
    words = np.zeros(4, np.int32)
    words.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        CALLS[call](words)


def test_wait_word_refuses_negative_times() -> None:
    words = np.zeros(1, np.int32)
    for seconds in (-1.0, math.nan):
        with pytest.raises(ValueError, match="timeout_seconds must be at least 0"):
            k.wait_word(words, 0, 0, seconds)
    with pytest.raises(ValueError, match="spin_microseconds must be at least 0"):
        k.wait_word(words, 0, 0, 1.0, -1)
