"""Tests that no process has both a connection of SQLite's to a file and descriptors of its own on it.

SQLite's locks are POSIX locks, which belong to the process. Closing any descriptor of the file drops them (fcntl(2)),
and another process then takes a file for unused that is in use. So only few modules use SQLite, each on files that
nothing else in its process opens.
"""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "walsyncd"

# The modules that use SQLite, and why nothing else in their process opens the same file.
USERS = {
    "adapters/files/integrity.py": "a finished file that nobody writes to, opened immutable: SQLite takes no lock",
    "adapters/journal": "the journal is the daemon's own, and only the journal opens it",
    "demo/page_comparison.py": "two copies that it has made, after their bytes were written and closed",
    "demo/writer.py": "the application, in a process of its own",
}

# The modules that read or write the databases of others, and so must run without a connection.
WITHOUT_SQLITE = (
    "walsyncd.cli.restore_follow",
    "walsyncd.engine.restore.read_replica",
    "walsyncd.engine.restore.restorer",
    "walsyncd.adapters.files.replica_file",
    "walsyncd.adapters.files.source",
    "walsyncd.adapters.files.target",
)


def test_only_these_modules_use_sqlite() -> None:
    """A new module gives its reason here."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_text()))
        names = {name.name for node in tree if isinstance(node, ast.Import) for name in node.names}
        if "sqlite3" in names:
            found.add(file.relative_to(PACKAGE).as_posix())
    assert {name for name in found if not name.startswith(tuple(USERS))} == set()
    assert all(any(name.startswith(user) for name in found) for user in USERS)


def test_databases_of_others_are_read_and_written_without_sqlite() -> None:
    """The modules that open them do not import sqlite3, so they can't have a connection."""
    script = f"import sys, {', '.join(WITHOUT_SQLITE)}\nprint('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
