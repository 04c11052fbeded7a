"""Tests that a process ends although its main thread never handles a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from walsyncd.engine.threads.stop_limit import StopLimit

# The main thread waits in C for a pipe that nobody writes to. It restarts the read after each signal (PEP 475).
STUCK = """
import os, signal, sys
from walsyncd.engine.threads.stop_limit import StopLimit
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
with StopLimit({signal.SIGTERM}, lambda: float(sys.argv[1]), exit_code=75):
    print("ready", flush=True)
    os.read(os.pipe()[0], 1)
"""


def test_a_stop_that_hangs_is_ended() -> None:
    """The process prints a message, and has the given exit code.

    A signal that does not request a stop begins nothing.
    """
    command = [sys.executable, "-c", STUCK, "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 75
            assert "stop_abandoned" in process.stdout.read()
        finally:
            process.kill()


def test_a_stop_in_time_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process continues, and signals are handled as before."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))
    try:
        limit = StopLimit({signal.SIGUSR1}, lambda: 600.0, exit_code=75)
        with limit:
            signal.raise_signal(signal.SIGUSR1)
        assert not limit._thread.is_alive()
        signal.raise_signal(signal.SIGUSR1)
        while len(handled) < 2:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == []
    assert signal.set_wakeup_fd(-1) == -1
