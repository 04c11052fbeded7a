"""Tests of the template unit, which restores a missing database as root, in folders that are not root's, before its
application starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import APPLICATION, Machine

FOLDER = "/srv/data/app/new"
PATH = f"{FOLDER}/app.db"
NAME = PATH[1:]
CONFIGURATION = f'[storage]\nurl = "file:///srv/replica"\n[[database]]\npath = "{PATH}"\n'

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine with a user, a folder of that user's, and an application that needs the restore unit."""
    with Machine(tmp_path) as booted:
        booted.do("useradd", "application")
        booted.do("install", "-d", "-o", "application", "-g", "application", "/srv/data/app")
        booted.write("/etc/walsyncd/config.toml", CONFIGURATION)
        unit = instance(booted)
        booted.write("/usr/local/lib/application.py", APPLICATION)
        booted.write(
            "/etc/systemd/system/application.service",
            f"[Unit]\nRequires={unit}\nAfter={unit}\n[Service]\nType=oneshot\nUser=application\n"
            f"ExecStart=/usr/bin/python3 /usr/local/lib/application.py {PATH} 10 20\n",
        )
        booted.do("systemctl", "daemon-reload")
        yield booted


def instance(machine: Machine) -> str:
    return f"walsyncd-restore@{machine.do('systemd-escape', '--path', PATH).strip()}.service"


def owner(machine: Machine, path: str) -> str:
    return machine.do("stat", "-c", "%U:%G:%a", path).strip()


def test_first_deploy_then_a_lost_disk(machine: Machine) -> None:
    """Without a replica the application starts and makes its database in its own folder.

    After the loss the database is restored.
    """
    machine.do("systemctl", "start", "application")
    assert owner(machine, FOLDER) == "application:application:755"
    assert machine.numbers(PATH) == list(range(10, 20))
    machine.do("systemctl", "start", "walsyncd")
    machine.walsyncd("sync", NAME)
    machine.do("systemctl", "stop", "walsyncd", instance(machine))
    machine.do("rm", "-r", FOLDER)
    machine.do("systemctl", "start", instance(machine))
    assert owner(machine, FOLDER) == "application:application:755"
    assert owner(machine, PATH).startswith("application:application:6")
    assert machine.numbers(PATH) == list(range(10, 20))
    machine.do("systemctl", "stop", instance(machine))
    machine.do("sh", "-c", f": > {PATH}; rm -f {PATH}-*")
    machine.do("systemctl", "start", instance(machine))
    assert machine.numbers(PATH) == list(range(10, 20))


def test_links_of_the_tenant_lead_nowhere(machine: Machine) -> None:
    """The unit fails with the reason, and no file of root's is created or changed."""
    machine.do("systemctl", "start", "application", "walsyncd")
    machine.walsyncd("sync", NAME)
    machine.do("systemctl", "stop", "walsyncd", instance(machine))
    machine.do("rm", "-r", FOLDER)
    machine.do("install", "-d", "/etc/important")
    for link, goal in ((FOLDER, "/etc/important"), (PATH, "/etc/important/app.db")):
        machine.do("rm", "-rf", FOLDER)
        if link == PATH:
            machine.do("install", "-d", "-o", "application", FOLDER)
        machine.do("runuser", "-u", "application", "--", "ln", "-s", goal, link)
        assert machine.run("systemctl", "start", instance(machine)).returncode != 0
        assert "symbolic link" in machine.do("journalctl", "-u", instance(machine), "-n", "5", "--no-pager")
        machine.do("systemctl", "reset-failed", instance(machine))
        assert machine.do("ls", "-A", "/etc/important") == ""


def test_unit_can_write_into_its_folder_only(machine: Machine) -> None:
    """Another command that is confined like the restore is refused everywhere else."""
    script = (
        "import os, sys; sys.path[:0] = ['/usr/lib/walsyncd/source', '/usr/lib/walsyncd/libraries']\n"
        "from walsyncd.adapters.system.confinement import confine_writes\n"
        "assert confine_writes([os.open('/srv/data/app', os.O_DIRECTORY)])\n"
        "open('/srv/data/app/inside', 'w').close()\n"
        "for path in ('/srv/data/outside', '/etc/outside', '/var/lib/outside', '/root/outside', '/tmp/outside'):\n"
        "    try: open(path, 'w').close()\n"
        "    except OSError: continue\n"
        "    sys.exit(f'wrote {path}')\n"
    )
    machine.write("/usr/local/lib/writes.py", script)
    unit = instance(machine)
    machine.do("install", "-d", f"/etc/systemd/system/{unit}.d")
    machine.write(
        f"/etc/systemd/system/{unit}.d/test.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -IS /usr/local/lib/writes.py\n",
    )
    machine.do("systemctl", "daemon-reload")
    started = machine.run("systemctl", "start", unit)
    assert started.returncode == 0, machine.do("journalctl", "-u", unit, "--no-pager")
    assert machine.do("stat", "-c", "%U", "/srv/data/app/inside").strip() == "root"
