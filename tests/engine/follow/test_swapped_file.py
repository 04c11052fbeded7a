"""Tests of the file itself: replaced, moved, truncated, copied over, reached by links, and its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import insert
from tests.engine.keeping import Keeping

SIDES = ("-wal", "-shm")


def another(path: Path, *, rows: int = 50) -> Path:
    """Return a sound database elsewhere, in WAL mode and closed."""
    with SqliteProcess(path) as app:
        app.execute("PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", *(insert(-value) for value in range(rows)))
        app.close()
    return path


def drop_sides(path: Path) -> None:
    for suffix in SIDES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def renamed_over(path: Path, other: Path) -> None:
    drop_sides(path)
    other.rename(path)


def copied_over(path: Path, other: Path) -> None:
    drop_sides(path)
    shutil.copyfile(other, path)


def created_anew(path: Path, other: Path) -> None:
    drop_sides(path)
    path.unlink()
    shutil.copyfile(other, path)


def truncated_and_filled(path: Path, other: Path) -> None:
    drop_sides(path)
    path.write_bytes(b"")
    path.write_bytes(other.read_bytes())


SWAPS = [renamed_over, copied_over, created_anew, truncated_and_filled]


@pytest.mark.parametrize("state", ["closed", "killed", "open"])
@pytest.mark.parametrize("daemon", ["up", "away"])
@pytest.mark.parametrize("swap", SWAPS)
def test_another_database_in_its_place(
    tmp_path: Path, swap: Callable[[Path, Path], None], daemon: str, state: str
) -> None:
    """A generation never continues across the swap, whoever notices the swap.

    The old generation keeps every position.
    """
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1), insert(2))
        if state == "closed":
            app.close()
            assert not keeping.keep_up()
        elif state == "killed":
            app.kill()
        if daemon == "away":
            keeping.stop()
        swap(path, another(tmp_path / "other.db"))
        keeping.note(foreign=True)
        if daemon == "away":
            keeping.start()
        with SqliteProcess(path) as other:
            gap = keeping.keep_up()
            assert gap
            assert not keeping.watch_over(other, "SELECT 1 FROM t", insert(3), insert(4))
            held = keeping.tracked.wal_pairs.current
            assert held is not None
            assert held.wal.still_named()


def test_moved_away_and_back(tmp_path: Path) -> None:
    """The database is missing, then a new generation begins, because the file's history meanwhile is unknown."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1))
        app.close()
        assert not keeping.keep_up()
        path.rename(tmp_path / "away.db")
        assert keeping.keep_up() == "the database was deleted or moved away"
        assert not keeping.keep_up()
        (tmp_path / "away.db").rename(path)
        with SqliteProcess(path) as other:
            keeping.keep_up()
            assert not keeping.watch_over(other, "SELECT * FROM t", insert(2))


@pytest.mark.parametrize("back", ["the same", "another"])
def test_its_folder_is_renamed(tmp_path: Path, back: str) -> None:
    """The database is gone with it. What takes its place is looked at, and the old descriptors are closed."""
    folder, away = tmp_path / "data", tmp_path / "away"
    folder.mkdir()
    path = folder / "app.db"
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1))
        app.close()
        assert not keeping.keep_up()
        folder.rename(away)
        assert keeping.keep_up() == f"{path} does not exist"
        assert keeping.tracked.wal_pairs.current is None
        if back == "the same":
            away.rename(folder)
        else:
            folder.mkdir()
            another(path)
            keeping.note(foreign=True)
        with SqliteProcess(path) as other:
            keeping.keep_up()
            assert not keeping.watch_over(other, "SELECT 1 FROM t", insert(2), insert(3))


def test_reached_by_a_link(tmp_path: Path) -> None:
    """SQLite's files are beside the file to which the link leads, and that file is followed."""
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real/app.db", tmp_path / "link.db"
    link.symlink_to(path)
    with wal_database(link) as app, Keeping(link.resolve(), tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1), "PRAGMA wal_checkpoint", insert(2))
        assert not link.with_name("link.db-wal").exists()


@pytest.mark.parametrize("daemon", ["up", "away"])
def test_a_wal_of_a_different_database(tmp_path: Path, daemon: str) -> None:
    """SQLite treats the WAL as the database's own. The resulting database is what is stored, to the byte."""
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    with SqliteProcess(other) as stranger:
        stranger.execute("PRAGMA journal_mode=WAL", "CREATE TABLE t (y)", *(insert(-value) for value in range(9)))
        stranger.kill()
    with wal_database(path) as app, Keeping(path, tmp_path / "f") as keeping:
        keeping.note()
        assert not keeping.watch_over(app, insert(1))
        app.close()
        assert not keeping.keep_up()
        if daemon == "away":
            keeping.stop()
        wal = Path(f"{other}-wal").read_bytes()
        for length in range(32 + 4120, len(wal) + 1, 4120):
            Path(f"{path}-wal").write_bytes(wal[:length])
            keeping.note()
        if daemon == "away":
            keeping.start()
        keeping.keep_up()
        with SqliteProcess(path) as reader:
            reader.execute("SELECT 1 FROM t")
            keeping.keep_up()
            assert not keeping.watch_over(reader, insert(2))
