"""Tests that the daemon continues in the same generation without a base, however it is restarted beside a
busy writer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service.machine import Machine
from tests.service.writer import writing

pytestmark = [pytest.mark.root, pytest.mark.slow]

# The rows are so many that what is written in a second is a small part of them.
FILL = """
import sqlite3
connection = sqlite3.connect("/srv/data/app.db")
connection.execute("pragma journal_mode=wal")
connection.execute("create table filling (y)")
connection.executemany("insert into filling values (randomblob(900))", [()] * 10000)
connection.commit()
"""
COUNT = """
import sqlite3
print(*sqlite3.connect("/srv/data/app.db").execute("select coalesce(max(rowid), 0) from t").fetchone())
"""
MANY = 1500  # commits after which the WAL has been restarted at least once


def generations(machine: Machine) -> list[dict[str, Any]]:
    """Return the generations of the replica, with their bases."""
    (database,) = json.loads(machine.walsyncd("ls", "app", "--json"))["databases"]
    return list(database["generations"])


def committed(machine: Machine) -> int:
    """Return how many numbers the writer has committed."""
    return int(machine.do("python3", "-c", COUNT))


def has_map(machine: Machine) -> bool:
    """Return whether a map exists with which the file can be compared."""
    told = machine.run("walsyncd", "scrub", "app", "--json").stdout
    return bool(told) and not json.loads(told)["databases"][0]["skipped"]


def test_a_restart_costs_no_base(tmp_path: Path) -> None:
    """It is stopped for a while, killed, and restarted as a package's upgrade does, while commits continue."""
    with Machine(tmp_path) as machine:
        machine.configure("app")
        machine.do("python3", "-c", FILL)
        machine.do("systemctl", "start", "walsyncd")
        machine.walsyncd("sync")
        machine.wait_until(lambda: has_map(machine), "a page map")
        bases = [each["bases"] for each in generations(machine)]
        with writing(machine, "/srv/data/app.db", pause_s=0.001) as writer:
            for restart in (
                [["systemctl", "stop", "walsyncd"], ["systemctl", "start", "walsyncd"]],
                [["systemctl", "kill", "--signal=KILL", "walsyncd"]],
                [["systemctl", "restart", "walsyncd"]],
            ):
                machine.walsyncd("sync")
                for command in restart:
                    machine.do(*command)
                    at = committed(machine)
                    machine.wait_until(lambda at=at: committed(machine) > at + MANY, "many commits")
                machine.wait_until(machine.is_active, "the service")
                machine.walsyncd("sync")
            count = writer.stop()
        machine.walsyncd("sync")
        assert [each["bases"] for each in generations(machine)] == bases
        assert machine.restored("app") == list(range(count))
