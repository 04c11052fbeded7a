"""Tests of what the service manager is told. A service manager that does not listen causes no error."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from walsyncd.adapters.system.service_manager import ServiceManager


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(10)
        yield receiver


def test_lines_arrive_in_one_datagram(tmp_path: Path) -> None:
    """A path and an abstract address (``@``) both work."""
    for address, bound in ((str(tmp_path / "notify"),) * 2, (f"@walsyncd-{os.getpid()}", f"\0walsyncd-{os.getpid()}")):
        with listening(bound) as receiver:
            manager = ServiceManager({"NOTIFY_SOCKET": address})
            manager.tell("READY=1", "STATUS=3 databases, 0 behind")
            assert receiver.recv(4096) == b"READY=1\nSTATUS=3 databases, 0 behind"
            manager.extend(1.5)
            assert receiver.recv(4096) == b"EXTEND_TIMEOUT_USEC=1500000"
            manager.reloading()
            assert receiver.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_a_status_that_quotes_a_store_says_nothing_else(tmp_path: Path) -> None:
    """The store's text can't forge a line, is cut to what systemd accepts, and is sent whatever its letters are."""
    address = str(tmp_path / "notify")
    with listening(address) as receiver:
        manager = ServiceManager({"NOTIFY_SOCKET": address})
        manager.tell("READY=1", "STATUS=away: \nMAINPID=1\x1b[2J\udcff" + "中" * 10_000)
        first, status = receiver.recv(1 << 20).decode().split("\n")
        assert first == "READY=1"
        assert status.startswith(r"STATUS=away: \nMAINPID=1\x1b[2J\udcff中")
        assert len(status.encode()) < 4000


def test_nobody_to_tell_is_no_trouble(tmp_path: Path) -> None:
    """The environment may have no socket, one that does not exist, or one that nobody reads."""
    ServiceManager({}).tell("READY=1")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "absent")}).tell("READY=1")
    with listening(str(tmp_path / "gone")):
        pass
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell("READY=1")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_meant_for_this_process_or_not(environment: dict[str, str], expected: float | None) -> None:
    """By sd_watchdog_enabled(3) the interval counts only for the process for which it was set."""
    assert ServiceManager(environment).watchdog_s == expected
