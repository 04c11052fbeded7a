"""Tests of what is visible from outside, and how it changes with the settings."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, opening, running
from tests.stores import free_ports
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.errors import UsageError


def free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            return b"walsyncd_build_info" in answer.read()
    except urllib.error.URLError:
        return False


def test_metrics_move_with_the_settings(tmp_path: Path) -> None:
    """A new address closes the first one, and the same address stays open. Without an address nothing is open.

    The beat writes the file.
    """
    place = Place(tmp_path)
    first, second, file = free_address(), free_address(), tmp_path / "walsyncd.prom"
    with running(place.settings()) as daemon:
        observe, settings = daemon._observability, place.settings().daemon
        observe.settle(replace(settings, metrics_listen=first))
        assert answers(first)
        assert observe.due_s() is None, "without a file nothing wakes up for it"
        observe.settle(replace(settings, metrics_listen=first, metrics_textfile=file))
        assert answers(first)
        observe.beat()
        assert "walsyncd_build_info" in file.read_text()
        observe.settle(replace(settings, metrics_listen=second))
        assert (answers(first), answers(second)) == (False, True)
        observe.settle(settings)
        assert not answers(second)


def test_an_upload_without_an_end_is_reported(tmp_path: Path) -> None:
    """A folder on a file system that does not answer gives no error. The status says how long the upload has lasted."""
    place, now_s, begun, answered = Place(tmp_path), [0.0], threading.Event(), threading.Event()
    stalls = StallDetector(lambda: now_s[0])

    def upload() -> None:
        with stalls.work():
            begun.set()
            answered.wait()

    daemon = Daemon(place.settings(), opening(None), stalls=stalls)
    daemon.start()
    thread = threading.Thread(target=upload, name="upload 1")
    thread.start()
    begun.wait()
    try:
        assert daemon._observability.remarks() == ""
        now_s[0] = 95.0
        assert daemon._observability.remarks() == "an upload has had no answer for 95 s, and no error"
    finally:
        answered.set()
        thread.join()
    assert daemon._observability.remarks() == ""
    daemon.stop(10.0)


def test_a_file_that_cant_be_written_is_said_once(tmp_path: Path) -> None:
    """Replication continues without the file."""
    place = Place(tmp_path)
    with capture_logs() as logs, running(place.settings()) as daemon:
        daemon._observability.settle(
            replace(place.settings().daemon, metrics_textfile=tmp_path / "absent" / "walsyncd.prom")
        )
        daemon._observability.beat()
        daemon._observability.beat()
    assert [line["event"] for line in logs].count("metrics_not_written") == 1


def test_a_port_that_is_taken_keeps_nobody_from_replicating(tmp_path: Path) -> None:
    """At the start such a port is reported, and a reload tries again. A reload that asks for such a port is refused."""
    place = Place(tmp_path)
    with socket.socket() as taken:
        (port,) = free_ports(1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        address = f"127.0.0.1:{port}"
        settings = place.settings("app")
        settings = replace(settings, daemon=replace(settings.daemon, metrics_listen=address))
        with wal_database(place.database()), capture_logs() as logs, running(settings) as daemon:
            place.sync()
            with pytest.raises(UsageError, match=f"listen for metrics on {address}"):
                daemon._observability.settle(settings.daemon)
            taken.close()
            daemon._observability.settle(settings.daemon)
            assert answers(address)
    assert [line["event"] for line in logs].count("metrics_not_served") == 1
