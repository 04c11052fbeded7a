"""What tests of rollback mode share: an application in another process, and restores that are compared."""

from __future__ import annotations

from pathlib import Path

from tests.engine.running import Place
from walsyncd.adapters.files.rollback_files import WriterLocks, writer_locks
from walsyncd.adapters.files.source import open_file
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.restore.plan import Head, Target
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore

TABLE = ("CREATE TABLE t (x INTEGER PRIMARY KEY, y)",)


def filled(rows: int, size: int = 3000) -> str:
    """Return a transaction that inserts so many rows of so many bytes."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    return f"{numbers} INSERT INTO t (y) SELECT randomblob({size}) FROM n"


def restored(place: Place, target: Target = Head()) -> bytes:  # noqa: B008  a frozen value
    """Return the replica of ``app``, restored to its head or to another target."""
    path: Path = place.folder / "restored.db"
    path.unlink(missing_ok=True)
    replica = Replica(DirectoryStorage(place.replica), "app")
    restore(replica, find_plan(replica, target), path)
    return path.read_bytes()


def objects(place: Place, pattern: str = "*") -> list[str]:
    """Return the stored objects of ``app`` whose name fits."""
    return sorted(path.name for path in (place.replica / "app").rglob(pattern) if path.is_file())


class Locks:
    """The locks of writers on a database, which are the only looks that a proof by journals takes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def locks(self) -> WriterLocks:
        file = open_file(self._path)
        assert file is not None
        with file:
            return writer_locks(file)
