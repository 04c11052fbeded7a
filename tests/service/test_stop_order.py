"""Tests that an application whose unit says so stops before walsyncd, as in walsyncd-operating(7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import PAGES, blocks
from tests.service.machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]

# This takes some time to stop, and commits at the end.
APPLICATION = """
import signal, sqlite3, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
connection = sqlite3.connect("/srv/data/app.db", isolation_level=None)
connection.execute("pragma journal_mode=wal")
connection.execute("create table if not exists t (x)")
connection.execute("insert into t values (1)")
while not stopped:
    time.sleep(0.05)
time.sleep(3)
connection.execute("insert into t values (777)")
"""

# A shutdown stops everything in one transaction. The start of this target does so too, and the machine stays up.
SHUTDOWN = "[Unit]\nDescription=as a shutdown\nDefaultDependencies=no\n"
STOPPED_BY_IT = "[Unit]\nConflicts=as-shutdown.target\nBefore=as-shutdown.target\n"


@pytest.mark.parametrize("is_ordered", [True, False])
def test_the_last_commit_of_an_application_is_shipped(tmp_path: Path, *, is_ordered: bool) -> None:
    """With the page's drop-in it is in the replica when both have stopped. Without the drop-in it may not be."""
    (drop_in,) = [block.text for block in blocks("ini", PAGES["operating"]) if "After=walsyncd.service" in block.text]
    with Machine(tmp_path) as machine:
        machine.configure("app")
        machine.write("/usr/local/lib/app.py", APPLICATION)
        machine.write(
            "/etc/systemd/system/app.service", "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/app.py\n"
        )
        machine.write("/etc/systemd/system/as-shutdown.target", SHUTDOWN)
        for unit in ("app", "walsyncd"):
            machine.do("install", "-d", f"/etc/systemd/system/{unit}.service.d")
            machine.write(f"/etc/systemd/system/{unit}.service.d/shutdown.conf", STOPPED_BY_IT)
        if is_ordered:
            machine.write("/etc/systemd/system/app.service.d/walsyncd.conf", drop_in)
        machine.do("systemctl", "daemon-reload")
        machine.do("systemctl", "start", "walsyncd", "app")
        machine.wait_until(lambda: machine.run("test", "-s", "/srv/data/app.db-wal").returncode == 0, "its commit")
        machine.walsyncd("sync")
        machine.do("systemctl", "start", "as-shutdown.target")
        assert machine.unit("ActiveState") == "inactive"
        restored = machine.restored("app")
        assert 1 in restored
        assert (777 in restored) == is_ordered
