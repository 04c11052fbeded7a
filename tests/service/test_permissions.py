"""Tests of the tighter set-up: no capability, and only what a group may read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.service.machine import APPLICATION, ROOT, Machine

DROP_IN = ROOT / "systemd/walsyncd.service.d/group-permissions.conf.example"

pytestmark = [pytest.mark.root, pytest.mark.slow]


def application(machine: Machine, path: str, first: int, end: int, *, umask: str = "0027") -> None:
    """Run an application as its unit would: as its own user, which gives its group the right to read."""
    insert = ["python3", "-c", APPLICATION, path, str(first), str(end)]
    machine.do("runuser", "-u", "application", "--", "sh", "-c", f'umask {umask}; exec "$@"', "sh", *insert)


def test_without_a_capability_the_group_decides(tmp_path: Path) -> None:
    """The drop-in's own recipe makes an application's database readable.

    One that the group can't read is not replicated.
    """
    with Machine(tmp_path) as machine:
        machine.do("groupadd", "app-data")
        machine.do("useradd", "application")
        machine.do("install", "-d", "-o", "application", "/var/lib/app")
        machine.do("sh", "-ec", "\n".join(re.findall(r"^#   (.*)$", DROP_IN.read_text(), re.MULTILINE)))
        machine.write(f"/etc/systemd/system/walsyncd.service.d/{DROP_IN.stem}", DROP_IN.read_text())
        machine.do("systemctl", "daemon-reload")
        machine.configure("/var/lib/app/app", "/var/lib/app/secret")
        application(machine, "/var/lib/app/app.db", 0, 10)
        application(machine, "/var/lib/app/secret.db", 0, 10, umask="0077")
        machine.do("systemctl", "start", "walsyncd")
        machine.walsyncd("sync", "app")
        application(machine, "/var/lib/app/app.db", 10, 20)
        machine.walsyncd("sync", "app")
        assert machine.restored("app") == list(range(20))

        denied = machine.status()["secret"]
        assert (denied["state"], denied["cause"]) == ("refused", "open /var/lib/app/secret.db: permission denied")
        capabilities = machine.do("grep", "Cap", f"/proc/{machine.unit('MainPID')}/status").split()
        assert set(capabilities[1::2]) == {f"{0:016x}"}
        machine.do("chmod", "g+r", "/var/lib/app/secret.db")
        machine.walsyncd("sync", "secret")
        assert machine.restored("secret") == list(range(10))
