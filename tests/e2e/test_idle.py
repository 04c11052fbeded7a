"""Tests that an idle database costs nothing: no request, no CPU, no wake-up."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.proxy import run_proxy
from tests.e2e.workload import create
from tests.stores import Store

DATABASES = 100
SETTLE_SECONDS = 12  # seconds: longer than anything is looked at again after the last event
WATCHED_SECONDS = 30
WINDOWS_MAX = 3  # a look that a busy machine has delayed may come in one span; a daemon that polls works in each
CPU_SECONDS_MAX = 0.1
SWITCHES_MAX = 100  # a single thread that polls once a second would take a third of it
# A mount anywhere, as other tests make it, causes the daemon to check the folders that it watches.
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private") if os.geteuid() == 0 else ()


def cpu_seconds(pid: int) -> float:
    """Return what a process has used so far: fields 14 and 15 of /proc/PID/stat, utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    """Return how often the threads of a process went to sleep so far."""
    tables = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", table, re.MULTILINE)[0]) for table in tables)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_idle_databases_cost_nothing(tmp_path: Path, seaweedfs: Store) -> None:
    """Half a minute without a commit is half a minute without a request, and without work.

    Every other database has a rollback journal.
    """
    files = [create(tmp_path / f"data/{number}/app.db") for number in range(DATABASES)]
    for file in files[::2]:
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA journal_mode = DELETE").fetchall() == [("delete",)]
    with run_proxy(seaweedfs) as proxy:
        storage = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        # The daemon asks once a minute whether the storage still accepts it. That request belongs to no database.
        off = {"probe_interval": "off"}
        databases = [tmp_path / "data/*/app.db"]
        with Daemon(tmp_path, databases, storage=storage, settings=off, prefix=OWN_MOUNTS) as daemon:
            assert len(daemon.start().sync()) == len(files)
            wait_until(
                lambda: all(daemon.status(name)["state"] == "following" for name in _names(files[:3])), "follows"
            )
            pid = daemon.pid

            def used_in(seconds: float) -> tuple[float, ...]:
                """Return requests, CPU and switches in a span. To see that nothing happens takes time."""
                before = len(proxy.requests), cpu_seconds(pid), switches(pid)
                time.sleep(seconds)
                after = len(proxy.requests), cpu_seconds(pid), switches(pid)
                return tuple(now - then for now, then in zip(after, before, strict=True))

            # On a busy machine the last page map is made late.
            wait_until(lambda: used_in(SETTLE_SECONDS)[2] <= SWITCHES_MAX, "all is done", seconds_max=60)
            windows: list[tuple[float, ...]] = []
            while len(windows) < WINDOWS_MAX and not (windows and _is_quiet(*windows[-1])):
                windows.append(used_in(WATCHED_SECONDS))
    assert _is_quiet(*windows[-1]), windows


def _is_quiet(requests: float, cpu: float, woken: float) -> bool:
    return requests == 0 and cpu <= CPU_SECONDS_MAX and woken <= SWITCHES_MAX


def _names(files: list[Path]) -> list[str]:
    return [str(file).lstrip("/") for file in files]
