"""Tests of walsyncd.adapters.system.io_priority: the idle class, for the calling thread alone."""

from __future__ import annotations

import ctypes
import platform
import threading

import pytest

from walsyncd.adapters.system.io_priority import lower_io_priority

IOPRIO_GET = {"x86_64": 252, "aarch64": 31}


def current_class() -> int:
    return int(ctypes.CDLL(None).syscall(IOPRIO_GET[platform.machine()], 1, 0)) >> 13


@pytest.mark.skipif(platform.machine() not in IOPRIO_GET, reason="the number of the system call is not known")
def test_the_thread_that_asks_is_idle() -> None:
    """Only the calling thread gets the idle class."""
    seen: list[int] = []

    def ask() -> None:
        assert lower_io_priority()
        seen.append(current_class())

    before = current_class()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [3]
    assert current_class() == before


def test_an_unknown_machine_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the idle class everything works, only with more disturbance of others."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert not lower_io_priority()
