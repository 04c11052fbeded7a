import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.demo.page_comparison import compare, settled_copy


def _database(path: Path, *, counter: int = 3, page_size: int = 4096) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE counter (value INTEGER)")
    connection.execute("CREATE TABLE note (body BLOB)")
    connection.execute("INSERT INTO counter VALUES (?)", [counter])
    connection.executemany("INSERT INTO note VALUES (?)", [[bytes([byte]) * 3000] for byte in range(20)])
    return connection


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_two_copies_of_one_database_are_equal(tmp_path: Path, page_size: int) -> None:
    """This holds for any page size. The text says how much was compared."""
    with closing(_database(tmp_path / "app.db", page_size=page_size)):
        expected = settled_copy(tmp_path / "app.db", tmp_path / "expected.db")
        restored = settled_copy(tmp_path / "app.db", tmp_path / "restored.db")
    found = compare("restored", restored, expected, 3)
    assert found.is_equal
    pages = restored.stat().st_size // page_size
    assert str(found) == f"restored: {pages} pages equal, commit 3, integrity ok"


def test_a_settled_copy_holds_what_is_only_in_the_wal_and_touches_nothing(tmp_path: Path) -> None:
    """The original is read, not opened, so its files stay as they are, byte for byte."""
    with closing(_database(tmp_path / "app.db")):
        before = [(path.name, path.read_bytes()) for path in sorted(tmp_path.glob("app.db*"))]
        copy = settled_copy(tmp_path / "app.db", tmp_path / "copy.db")
        assert [(path.name, path.read_bytes()) for path in sorted(tmp_path.glob("app.db*"))] == before
    assert not (tmp_path / "copy.db-wal").exists()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT value FROM counter").fetchone() == (3,)


def test_pages_that_differ_are_named(tmp_path: Path) -> None:
    """They are counted from 1. A page that one of the files lacks differs, too, and only the first few are shown."""
    with closing(_database(tmp_path / "app.db")):
        expected = settled_copy(tmp_path / "app.db", tmp_path / "expected.db")
    content = bytearray(expected.read_bytes())
    content[5 * 4096 - 1] ^= 1
    content += bytes(4096)
    (tmp_path / "restored.db").write_bytes(content)
    pages = len(content) // 4096
    found = compare("restored", tmp_path / "restored.db", expected, 3)
    assert found.pages_differing == (5, pages)
    assert f"2 of {pages} pages differ (5, {pages})" in str(found)
    expected.write_bytes(b"")
    assert "(1, 2, 3, 4, 5, …)" in str(compare("restored", tmp_path / "restored.db", expected, 3))


def test_another_commit_is_a_difference(tmp_path: Path) -> None:
    """It is a difference even if a comparison with an equally wrong copy finds none, page for page."""
    with closing(_database(tmp_path / "app.db", counter=2)):
        expected = settled_copy(tmp_path / "app.db", tmp_path / "expected.db")
        restored = settled_copy(tmp_path / "app.db", tmp_path / "restored.db")
    found = compare("restored", restored, expected, 3)
    assert not found.is_equal
    assert str(found) == "restored: it is commit 2, not 3"


def test_what_sqlite_refuses_is_a_difference(tmp_path: Path) -> None:
    """A file that is no database has no counter, and the reason is given."""
    for name in ("expected.db", "restored.db"):
        (tmp_path / name).write_bytes(b"no database" * 100)
    found = compare("restored", tmp_path / "restored.db", tmp_path / "expected.db", 3)
    assert (found.pages_differing, found.counter) == ((), -1)
    assert "integrity: file is not a database" in str(found)
