"""Applications that run for one piece of SQL each, and what the kernel says about the locks that we hold
beside them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from walsyncd.adapters.files.source import Role, side_path

ROWS = "SELECT x FROM t ORDER BY rowid"
NOTHING = (False, False)
BOTH = (True, True)


def locks_of(path: Path) -> tuple[bool, bool]:
    """Return whether the kernel has an OFD lock on the DMS byte, and one on the SHARED bytes of the database."""
    kept = {(128, 128): side_path(path, Role.SHM), (0x40000002, 0x400001FF): path}
    lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    ours = {
        (int(line[5].split(":")[-1]), int(line[6]), int(line[7])) for line in lines if line[1:4:2] == ["OFDLCK", "READ"]
    }
    found = [file.exists() and (file.stat().st_ino, *span) in ours for span, file in kept.items()]
    return found[0], found[1]


def run_sql(path: Path | str, *statements: str, timeout_s: float = 0.0) -> str:
    """Return what an application with its own connection prints: the rows of the last statement, or the error."""
    script = (
        "import sqlite3, sys\n"
        "try:\n"
        "    connection = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None, uri=True)\n"
        "    for sql in sys.argv[3:]:\n"
        "        rows = connection.execute(sql).fetchall()\n"
        "    connection.close()\n"
        "    print([row[0] for row in rows])\n"
        "except sqlite3.Error as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(timeout_s), *statements],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
