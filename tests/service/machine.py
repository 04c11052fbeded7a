"""A machine on which walsyncd runs as its unit says: real systemd, this checkout, throw-away state.

The package and what it needs come from this interpreter's folders, read by the system's Python, which must be of the
same version: a service's sandbox hides the folders that a virtual environment may lie in. For another release
(``BOX_ROOT``) ``BOX_LIBRARIES`` names a folder of what its Python needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy
import pytest

from tests.e2e.daemon import wait_until
from tests.systemd_box import Box, skip_unless_possible

ROOT = Path(__file__).parents[2]
CONFIG = "/etc/walsyncd/config.toml"
DROP_IN = "/etc/systemd/system/walsyncd.service.d/test.conf"

LAUNCHER = """#!/bin/sh
exec /usr/bin/python3 -IS -c '
import sys
sys.path[:0] = ["/usr/lib/walsyncd/source", "/usr/lib/walsyncd/libraries"]
sys.argv[0] = "walsyncd"
from walsyncd.cli import main
sys.exit(main())' "$@"
"""

# An application that creates a table, and inserts a number for each line that it is given.
APPLICATION = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma journal_mode=wal")
connection.execute("create table if not exists t (x)")
for x in range(int(sys.argv[2]), int(sys.argv[3])):
    connection.execute("insert into t values (?)", (x,))
"""


NUMBERS = """
import sqlite3, sys
print(*[x for (x,) in sqlite3.connect(sys.argv[1]).execute("select x from t order by x")])
"""


def _libraries() -> Path:
    """Return what walsyncd needs, for the Python in the box: a folder that was made for it, else this environment's
    own.
    """
    made = os.environ.get("BOX_LIBRARIES")
    if made is not None:
        return Path(made)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    system = subprocess.run(["/usr/bin/python3", "-c", tell], capture_output=True, text=True, check=False)
    if system.stdout.strip() != version:
        pytest.skip(f"the system's Python is not {version}")
    return Path(numpy.__file__).parents[1]  # its parent is this environment's site-packages


class Machine(Box):
    """The machine. ``data`` is ``/srv/data`` inside, and survives the box."""

    def __init__(self, folder: Path) -> None:
        skip_unless_possible()
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        binds = {
            self.data: "/srv/data",
            ROOT / "walsyncd": "/usr/lib/walsyncd/source/walsyncd",
            _libraries(): "/usr/lib/walsyncd/libraries",
        }
        super().__init__(folder, binds)

    def __enter__(self) -> Self:
        super().__enter__()
        self.write("/usr/local/bin/walsyncd", LAUNCHER)
        self.do("chmod", "0755", "/usr/local/bin/walsyncd")
        for source, target in (
            ("packaging/walsyncd.sysusers", "/usr/lib/sysusers.d/walsyncd.conf"),
            ("systemd/walsyncd.service", "/etc/systemd/system/walsyncd.service"),
            ("systemd/walsyncd-restore@.service", "/etc/systemd/system/walsyncd-restore@.service"),
        ):
            self.write(target, (ROOT / source).read_text())
        self.do("systemd-sysusers")
        self.do("install", "-d", "-g", "walsyncd", "/etc/walsyncd", "/etc/systemd/system/walsyncd.service.d")
        self.do("install", "-d", "-o", "walsyncd", "/srv/replica")
        self.settle("[Service]\n")
        return self

    def settle(self, drop_in: str) -> None:
        """Activate a drop-in, which also has what every test needs: a replica in a folder, and short waits."""
        self.write(DROP_IN, drop_in + "ReadWritePaths=/srv/replica\nRestartSec=100ms\n")
        self.do("systemctl", "daemon-reload")

    def configure(self, *databases: str, storage: str = 'url = "file:///srv/replica"', daemon: str = "") -> None:
        """Write the configuration. Each database is a name in ``/srv/data``, or a path."""
        paths = [Path("/srv/data", database).with_suffix(".db") for database in databases]
        entries = [f'[[database]]\nname = "{path.stem}"\npath = "{path}"\n' for path in paths]
        head = f'[storage]\n{storage}\n[daemon]\n{daemon}\n[defaults]\nupload_interval = "50ms"\n'
        self.write(CONFIG, head + "".join(entries))
        self.do("chgrp", "walsyncd", CONFIG)
        self.do("chmod", "0640", CONFIG)

    def insert(self, name: str, first: int, end: int) -> None:
        """Insert these numbers as an application. A missing table is made."""
        self.do("python3", "-c", APPLICATION, f"/srv/data/{name}.db", str(first), str(end))

    def unit(self, what: str) -> str:
        """Return a property of the service."""
        return self.do("systemctl", "show", "--value", "--property", what, "walsyncd").strip()

    def walsyncd(self, *arguments: str) -> str:
        """Return the output of a command that must succeed."""
        return self.do("walsyncd", *arguments)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of each database, by name."""
        return {row["name"]: row for row in json.loads(self.walsyncd("status", "--json"))["databases"]}

    def restored(self, name: str) -> list[int]:
        """Return the numbers in the restored head."""
        out = f"/srv/restored-{os.urandom(4).hex()}.db"
        self.walsyncd("restore", name, "-o", out)
        return self.numbers(out)

    def numbers(self, path: str) -> list[int]:
        """Return what the application inserted into the database at this path."""
        return [int(x) for x in self.do("python3", "-c", NUMBERS, path).split()]

    def is_active(self) -> bool:
        """Return whether the service is up and ready."""
        return self.unit("ActiveState") == "active"

    def events(self, **fields: str) -> list[dict[str, Any]]:
        """Return the service's entries in the journal that have these fields, oldest first."""
        matches = [f"{name}={value}" for name, value in fields.items()]
        lines = self.do("journalctl", "-o", "json", "--unit", "walsyncd", *matches)
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def wait_until(self, condition: Any, what: str) -> None:
        """Wait until something is so. On failure the journal is printed."""
        try:
            wait_until(condition, what)
        except AssertionError:
            print(self.run("journalctl", "--unit", "walsyncd", "--no-pager", "-n", "60").stdout)
            print(self.run("systemctl", "status", "walsyncd").stdout)
            raise
