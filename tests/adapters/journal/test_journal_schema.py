"""Tests of the journal's connection: durable, migrated, with clear errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from walsyncd.adapters.journal import journal_schema
from walsyncd.adapters.journal.journal_schema import MIGRATIONS, Connection, connect
from walsyncd.adapters.journal.read_only import connect_read_only
from walsyncd.core.follow.gap import GapKind
from walsyncd.errors import CorruptStateError, TransientError, UsageError


def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """The journal uses WAL mode with synchronous=FULL, and enforces foreign keys."""
    with closing(connect(tmp_path / "j.db")) as connection:
        settings = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


def note_and_fail(ledger: Connection) -> None:
    with ledger._transaction() as connection:
        connection.execute("INSERT INTO fact VALUES ('a', '1')")
        raise ZeroDivisionError


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    """After an exception nothing of the transaction is left, and the next one works."""
    with Connection(connect(tmp_path / "j.db"), tmp_path / "j.db") as ledger:
        with pytest.raises(ZeroDivisionError):
            note_and_fail(ledger)
        with ledger._transaction() as connection:
            connection.execute("INSERT INTO fact VALUES ('b', '2')")
        assert ledger._rows("SELECT * FROM fact") == [("b", "2")]


def test_a_journal_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each migration is applied once, in its own transaction."""
    connect(tmp_path / "j.db").close()
    monkeypatch.setattr(journal_schema, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE fact ADD COLUMN extra;"))
    for _ in range(2):
        with closing(connect(tmp_path / "j.db")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
            assert connection.execute("SELECT extra FROM fact").fetchall() == []


def test_generations_that_ended_before_get_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration derives each reason's kind from its words. After that nothing reads the words."""
    reasons = {
        "3 transactions after epoch 7 frame 512 were overwritten before they were read": "overwritten",
        "a WAL was deleted and the next one created before it could be opened": "overwritten",
        "the first WAL that was seen after a time without one had restarted already": "overwritten",
        "the WAL was emptied behind frame 5 while nobody was seen to use it": "uncertain",
        "page 7 of the old WAL's last transactions is not in the database: a commit failed": "uncertain",
        "the WAL restarted, its commits can't be counted, and where the old one ended can't be seen": "uncertain",
        "another file was put in the database's place": "replaced",
        "the storage changed from s3://a to s3://b": "storage",
        "the spool reached its limit of 4GiB; 4GiB that waited for storage were dropped": "spool",
        "the disk under the state directory is full; 12MiB that waited for storage were dropped": "spool",
        "owner.json is gone, not the run that this journal wrote last": "owner",
        "what its bases need would expire: the WAL has not restarted for long": "renewed",
        "a rehearsed restore failed: 1 page differs": "damaged",
        "something that nobody has thought of": "other",
    }
    with monkeypatch.context() as before:
        before.setattr(journal_schema, "MIGRATIONS", MIGRATIONS[:5])
        with closing(connect(tmp_path / "j.db")) as connection:
            connection.execute("INSERT INTO database (id, name, path) VALUES (1, 'app', '/srv/app.db')")
            for number, reason in enumerate(["", *reasons]):
                values = (f"g{number}", 1 if reason else None, reason)
                sql = "INSERT INTO generation VALUES (1, ?, NULL, 'test', 0, ?, ?)"
                connection.execute(sql, values)
    with closing(connect(tmp_path / "j.db")) as connection:
        found = dict(connection.execute("SELECT reason_ended, kind_ended FROM generation").fetchall())
    assert found == {"": "", **reasons}
    assert {GapKind(kind) for kind in reasons.values()} <= set(GapKind)


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """The journal is not touched, and the error says what to do."""
    with closing(connect(tmp_path / "j.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    for opened in (connect, connect_read_only):
        with pytest.raises(UsageError, match="99"):
            opened(tmp_path / "j.db")


@pytest.mark.parametrize("content", [b"not a database at all " * 100, b"\0" * 8192])
def test_a_broken_journal_says_the_way_out(tmp_path: Path, content: bytes) -> None:
    """The error says that the journal can be moved away, and that every database then begins a new generation."""
    path = tmp_path / "j.db"
    path.write_bytes(content)
    with pytest.raises(CorruptStateError, match="new generation"):
        connect(path)


def test_damage_found_later_is_corruption_too(tmp_path: Path) -> None:
    """Damage is not reported as a bug, and the daemon is told, whatever the caller does with the error."""
    path = tmp_path / "j.db"
    with closing(connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = connection.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage").fetchall()
    data = bytearray(path.read_bytes())
    for page in (root - 1 for (root,) in roots):
        data[page * size : page * size + 100] = b"\xff" * 100
    path.write_bytes(data)
    found: list[CorruptStateError] = []
    with Connection(connect(path), path) as ledger:
        ledger.on_corrupt = found.append
        with pytest.raises(CorruptStateError, match="move") as raised:
            ledger._rows("SELECT * FROM fact, database, object")
    assert found == [raised.value]


def test_a_full_disk_is_transient(tmp_path: Path) -> None:
    """The statement is rolled back, and the same statement works later."""
    with Connection(connect(tmp_path / "j.db"), tmp_path / "j.db") as ledger:
        ledger._rows("PRAGMA max_page_count = 1")
        with pytest.raises(TransientError, match="full"), ledger._transaction() as connection:
            connection.execute("INSERT INTO fact VALUES ('a', ?)", ("x" * 100_000,))
        ledger._rows("PRAGMA max_page_count = 10000")
        assert ledger._rows("SELECT * FROM fact") == []


def test_our_own_mistakes_go_through(tmp_path: Path) -> None:
    """A wrong statement is a bug, and is not translated."""
    with Connection(connect(tmp_path / "j.db"), tmp_path / "j.db") as ledger, pytest.raises(sqlite3.OperationalError):
        ledger._rows("SELECT * FROM nowhere")


def test_a_query_waits_for_no_transaction(tmp_path: Path) -> None:
    """A query has its own connection, and sees what is committed while another thread's fsync is under way."""
    path = tmp_path / "j.db"
    with Connection(connect(path), path) as ledger:
        ledger.read_separately()
        with ledger._transaction() as connection:
            connection.execute("INSERT INTO fact VALUES ('a', '1')")
            assert ledger._rows("SELECT * FROM fact") == []
        assert ledger._rows("SELECT * FROM fact") == [("a", "1")]
        with pytest.raises(TransientError, match="readonly"):
            ledger._rows("DELETE FROM fact")
    assert not path.with_name("j.db-wal").exists()


def test_the_one_storage_of_before_is_the_place_of_every_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal from that time had one storage for all. Of a database that joins later nothing is known yet."""
    path = tmp_path / "journal.db"
    with monkeypatch.context() as before:
        before.setattr(journal_schema, "MIGRATIONS", MIGRATIONS[: MIGRATIONS.index(journal_schema._PLACES)])
        with closing(connect(path)) as connection:
            connection.execute("INSERT INTO database (name, path) VALUES ('app', '/srv/app.db')")
            connection.execute("INSERT INTO fact (name, value) VALUES ('storage_url', 's3://bucket')")
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO database (name, path) VALUES ('new', '/srv/new.db')")
        rows = connection.execute("SELECT name, place FROM database ORDER BY id").fetchall()
    assert rows == [("app", "s3://bucket"), ("new", None)]
