"""Tests of wal_restart: the WAL began again, and either nothing was missed or it is a gap with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert
from walsyncd.core.limits import Limits


def fill(app: SqliteProcess, commits: int, *, start: int = 1000) -> None:
    """Commit ``commits`` transactions of one frame each."""
    app.execute(*(insert(start + number) for number in range(commits)))


def test_a_restart_with_nothing_missed(app: SqliteProcess, follow: Following) -> None:
    """The follower had caught up before the restart, so nothing is recovered, and following continues."""
    follow.look()
    app.execute(CHECKPOINT, insert(1))
    assert not follow.look().gap
    assert follow.cursor.frames == 1
    follow.proves(app)


def test_commits_before_a_restart_are_recovered(app: SqliteProcess, follow: Following) -> None:
    """Two commits came before the restart and are still after the new incarnation.

    They are counted, found and taken.
    """
    fill(app, 10)
    follow.look()
    fill(app, 2, start=5000)
    app.execute(CHECKPOINT, insert(1))
    assert not follow.look().gap
    assert follow.recovered() == [2]
    follow.proves(app)


def test_overwritten_commits_are_a_gap_with_numbers(app: SqliteProcess, follow: Following) -> None:
    """Two of three commits before the restart were overwritten before they were read."""
    follow.look()
    frame = follow.cursor.frames
    fill(app, 3)
    app.execute(CHECKPOINT)
    fill(app, frame + 2, start=5000)
    assert follow.gap() == f"3 transactions after frame {frame} of the WAL were overwritten before they were read"


def test_old_frames_behind_the_new_ones_that_nothing_counts(app: SqliteProcess, follow: Following) -> None:
    """A transaction was rolled back after its frames were written, and new frames have passed ours.

    No chain shows any more that nothing of it was committed.
    """
    follow.look()
    frame = follow.cursor.frames
    spilled = ("INSERT INTO t VALUES (randomblob(20000))" for _ in range(5))
    app.execute("PRAGMA cache_size=1", "BEGIN", *spilled, "ROLLBACK", CHECKPOINT)
    fill(app, frame + 2, start=5000)
    assert follow.gap() == f"frames of the old incarnation follow frame {frame} though no commit is missing"


def test_a_truncated_wal_with_nothing_missed(app: SqliteProcess, follow: Following) -> None:
    """TRUNCATE and then a commit of the same process are each looked at, or both at once."""
    follow.look()
    app.execute(TRUNCATE)
    assert not follow.look().gap
    assert follow.cursor.header is None
    app.execute(insert(1))
    assert not follow.look().gap
    app.execute(TRUNCATE, insert(2))
    follow.sees_all(app)


def test_a_truncated_wal_that_another_process_goes_on_with(tmp_path: Path) -> None:
    """The other process draws both salts again, but the count proves the restart."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, SqliteProcess(path) as other, Following(path, tmp_path / "f").begin() as follow:
        other.execute("SELECT * FROM t")
        follow.look()
        app.execute(TRUNCATE)
        assert not follow.look().gap
        announced = follow.cursor.salts
        other.execute(insert(1))
        assert not follow.look().gap
        assert follow.cursor.salts[0] != announced[0]
        follow.proves(app)


def test_a_commit_before_a_truncation_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """The commit is in the database file, but no frame of it is left."""
    follow.look()
    app.execute(insert(1), TRUNCATE)
    assert follow.gap().startswith("1 transactions after frame")


def test_several_restarts_between_two_looks_are_a_gap(app: SqliteProcess, follow: Following) -> None:
    """The commits of the incarnation in between are gone, and they were counted."""
    follow.look()
    app.execute(CHECKPOINT, insert(1), CHECKPOINT, insert(2))
    follow.finds_gap("1 transactions after frame")


def test_automatic_checkpoints(app: SqliteProcess, follow: Following) -> None:
    """The WAL restarts about every ten pages. With a look after each commit, all restarts are proven by count."""
    app.execute("PRAGMA wal_autocheckpoint=10")
    salts = set()
    for value in range(60):
        app.execute(insert(value))
        assert not follow.look().gap
        salts.add(follow.cursor.salts)
    assert len(salts) > 3
    follow.proves(app)


def test_automatic_checkpoints_looked_at_rarely(app: SqliteProcess, follow: Following) -> None:
    """With a look at every third commit, the tails are recovered after the new frames."""
    app.execute("PRAGMA wal_autocheckpoint=20")
    for value in range(90):
        app.execute(insert(value))
        if value % 3 == 0:
            assert not follow.look().gap
    follow.look()
    assert any(step.recovered for step in follow.steps)
    follow.proves(app)


def test_the_mark_moves_with_recovered_commits(app: SqliteProcess, follow: Following) -> None:
    """After a recovery the next restart counts from the recovered commits, and not from before them."""
    for drain in range(4):
        fill(app, 10, start=drain * 100)
        assert not follow.look().gap
        fill(app, 2, start=drain * 100 + 50)
        app.execute(CHECKPOINT, insert(drain))
        assert not follow.look().gap
    assert follow.recovered() == [2, 2, 2, 2]
    assert [step.proven_by for step in follow.steps if step.proven_by] == ["count"] * 4
    follow.proves(app)


def test_a_rebuilt_wal_index_is_not_counted_by(app: SqliteProcess, follow: Following) -> None:
    """The writer is killed and the next opener rebuilds the -shm with iChange 0.

    Only what remains could prove the restart.
    """
    fill(app, 5)
    follow.look()
    assert follow.tracked.evidence.mark is not None
    app.kill()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(1), CHECKPOINT)
        fill(other, 3, start=2000)
        follow.finds_gap("where the old one ended can't be seen")


def test_a_rebuild_that_was_looked_at_is_counted_from(app: SqliteProcess, follow: Following) -> None:
    """A look in the same incarnation adopts the new iChange."""
    fill(app, 5)
    follow.look()
    app.kill()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(1))
        assert not follow.look().gap
        assert not follow.look().gap
        assert follow.tracked.evidence.mark is not None
        assert follow.tracked.evidence.mark.ichange < 3
        other.execute(CHECKPOINT, insert(2))
        follow.sees_all(other)


def test_a_restart_in_an_unwatched_folder_is_not_counted(app: SqliteProcess, follow: Following) -> None:
    """If no events come from a folder, their absence proves nothing."""
    follow.look()
    follow.tracked.wal_pairs.watched = False
    app.execute(CHECKPOINT, insert(1))
    assert follow.gap()


def test_too_large_a_tail_is_a_gap(tmp_path: Path) -> None:
    """The tail would have to be held in memory until it is proven."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=Limits(tail_bytes_max=0)).begin() as follow:
        fill(app, 10)
        follow.look()
        app.execute(insert(1), CHECKPOINT, insert(2))
        follow.finds_gap("were left when it restarted")


def grown_twice(app: SqliteProcess) -> None:
    """Make an old incarnation of 30 frames, then one that ends before it. What is after that shows its end."""
    fill(app, 30)
    app.execute(CHECKPOINT)
    fill(app, 8, start=2000)


@pytest.fixture
def away(app: SqliteProcess, tmp_path: Path) -> Iterator[Following]:
    """Return a follower that has looked at a WAL that was ``grown_twice``, and has been away since."""
    grown_twice(app)
    with Following(tmp_path / "app.db", tmp_path / "f").begin() as follow:
        follow.look()
        follow.die()
        yield follow


def test_one_restart_while_the_daemon_was_away(app: SqliteProcess, away: Following) -> None:
    """The tail is proven by what remains after it."""
    fill(app, 3, start=3000)
    app.execute(CHECKPOINT, insert(1))
    assert not away.restart().look().gap
    assert away.recovered() == [3]
    assert [step.proven_by for step in away.steps if step.proven_by] == ["remains"]
    away.proves(app)


def test_one_restart_with_nothing_missed_while_the_daemon_was_away(app: SqliteProcess, away: Following) -> None:
    """There is no tail, because the frame after the cursor is of a third incarnation."""
    app.execute(CHECKPOINT, insert(1))
    assert not away.restart().look().gap
    away.proves(app)


def test_two_restarts_while_the_daemon_was_away(app: SqliteProcess, away: Following) -> None:
    """Salt 1 increased by two, which is a gap, whatever remains."""
    app.execute(CHECKPOINT, insert(1), CHECKPOINT, insert(2))
    assert "more than once" in away.restart().gap()


def test_one_restart_whose_frames_passed_ours(app: SqliteProcess, away: Following) -> None:
    """The frames after our last frame are overwritten."""
    app.execute(CHECKPOINT)
    fill(app, 12, start=4000)
    assert "passed frame" in away.restart().gap()


def test_one_restart_with_the_old_end_at_the_end_of_the_file(app: SqliteProcess, follow: Following) -> None:
    """At the end of the file nothing shows that the old incarnation ended there, too."""
    fill(app, 10)
    follow.look()
    follow.die()
    app.execute(CHECKPOINT, insert(1))
    assert "where the old one ended can't be seen" in follow.restart().gap()


def test_one_restart_across_a_reboot(app: SqliteProcess, away: Following) -> None:
    """What remains of the old incarnation proves nothing if blocks may have been lost."""
    away.reboot()
    app.execute(CHECKPOINT, insert(1))
    assert away.restart().gap() == "the WAL restarted across a reboot"


def test_a_tail_that_is_not_in_the_database_is_a_gap(tmp_path: Path) -> None:
    """A commit that failed leaves frames, and its pages never reach the database."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f") as follow:
        grown_twice(app)
        app.execute("CREATE TABLE u (x)", "INSERT INTO u VALUES (1)")
        follow.begin()
        follow.look()
        follow.die()
        app.execute("UPDATE u SET x = 2", CHECKPOINT, insert(1))
        page = app.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'u'")[0][0]
        content = bytearray(path.read_bytes())
        content[page * 4096 - 1] ^= 1
        path.write_bytes(content)
        assert f"page {page} of the old WAL" in follow.restart().gap()
