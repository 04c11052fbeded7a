"""Tests that work for one database never touches all: requests to the journal grow with their number, not with its
square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, serving, wait_for
from walsyncd.adapters.journal.journal_schema import Connection, Record
from walsyncd.cli import main

FEW = 8
FACTOR_MAX = 2.5  # for twice as many databases; a square would give 4


class Asked:
    """Counts what the journal was asked and how many rows it returned."""

    queries = 0
    rows = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Count while the block runs."""
    asked, ask = Asked(), Connection._rows

    def count(self: Connection, sql: str, values: Sequence[object] = ()) -> list[Record]:
        records = ask(self, sql, values)
        asked.queries += 1
        asked.rows += len(records)
        return records

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "_rows", count)
        yield asked


def hosts(folder: Path, count: int) -> Place:
    """Return a place with ``count`` databases, which an application has filled and closed, and a configuration for
    them.
    """
    place = Place(folder)
    for number in range(count):
        wal_database(place.database(f"app-{number}")).close()
    lines = [
        f'[storage]\nurl = "{place.replica.as_uri()}"\n[daemon]\nstate_dir = "{place.state}"\n',
        *(f'[[database]]\nname = "app-{n}"\npath = "{place.database(f"app-{n}")}"\n' for n in range(count)),
    ]
    (folder / "config.toml").write_text("".join(lines))
    return place


def first_bases(place: Place, count: int) -> None:
    """Start the daemon, and wait until every database has its first base and its page map."""
    names = [f"app-{number}" for number in range(count)]
    with running(place.settings(*names)):
        wait_for(lambda: all([*(place.replica / name).glob("*/base/*.json.zst")] for name in names))
        wait_for(lambda: len([*(place.state / "maps").glob("*.map")]) == count)


def command(*words: str) -> Callable[[Place, int], None]:
    """Run a command of the command line over all databases."""

    def run(place: Place, _count: int) -> None:
        assert main([*words, "--config", str(place.folder / "config.toml")]) == 0

    return run


def restore_all(place: Place, count: int) -> None:
    """Restore every database from the storage."""
    command("restore", "--all", "-o", str(place.folder / "out"))(place, count)
    assert len([*(place.folder / "out").glob("app-*")]) == count


def second_start(place: Place, count: int) -> None:
    """Start the daemon again, sync every database, and reload its configuration."""
    names = [f"app-{number}" for number in range(count)]
    with serving(place.settings(*names)):
        wait_for(lambda: len(place.ask(op="sync", names=[]).get("databases", ())) == count)
        assert place.ask(op="reload")["changed"] == []


@pytest.mark.parametrize(
    ("work", "needs_replicas"),
    [
        (first_bases, False),
        (command("status"), True),
        (command("status", "--json"), True),
        (command("prune", "--dry-run"), True),
        (command("ls"), True),
        (command("check"), True),
        (restore_all, True),
        (second_start, True),
    ],
    ids=[
        "first bases",
        "status",
        "status --json",
        "prune --dry-run",
        "ls",
        "check",
        "restore --all",
        "another start and a reload",
    ],
)
def test_the_journal_is_asked_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, work: Callable[[Place, int], None], needs_replicas: bool
) -> None:
    """For twice as many databases there are about twice as many queries and rows."""
    seen: list[tuple[int, int]] = []
    for count in (FEW, 2 * FEW):
        place = hosts(tmp_path / str(count), count)
        if needs_replicas:
            first_bases(place, count)
        with counting(monkeypatch) as asked:
            work(place, count)
        seen.append((asked.queries, asked.rows))
    (queries, rows), (queries_twice, rows_twice) = seen
    assert queries_twice <= FACTOR_MAX * max(queries, FEW)
    assert rows_twice <= FACTOR_MAX * max(rows, FEW)
