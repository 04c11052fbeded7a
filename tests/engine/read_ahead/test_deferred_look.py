"""Tests of deferred looks: what is committed meanwhile is read, and the look judges it.

In some cases a deferred look is due at once.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, RESTART, TRUNCATE, Following, insert
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.read_ahead import deferred_look, read_ahead
from walsyncd.engine.read_ahead.deferred_look import DeferredLook
from walsyncd.engine.read_ahead.read_ahead import ReadAhead


def put_off(follow: Following, *, until_s: float = 3600.0, limits: Limits = DEFAULT_LIMITS) -> DeferredLook:
    """Defer the next look, after one that has caught up."""
    follow.look()
    tracked, wal_pair = follow.tracked, follow.tracked.wal_pairs.current
    assert wal_pair is not None
    tracked.drop_reading()
    clock = follow.environment.monotonic_ms
    look = DeferredLook(wal_pair, follow.cursor, clock, time.monotonic() + until_s, limits)
    tracked.deferred, tracked.reading = look, look.reading
    return look


@pytest.mark.parametrize("checkpoint", [RESTART, TRUNCATE, CHECKPOINT])
def test_what_was_read_is_not_missed(app: SqliteProcess, follow: Following, checkpoint: str) -> None:
    """SQLite overwrites a commit, or cuts it off, before any look has seen it."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    for number in range(3, 6):
        app.execute(insert(number))
        look.read()
        assert not look.is_due
        assert not look.pause_s
    app.execute(checkpoint, *(insert(10 + number) for number in range(5)))
    follow.sees_all(app)
    assert look.reading.is_over
    assert follow.tracked.deferred is None


def test_what_was_not_read_is_missed(app: SqliteProcess, follow: Following) -> None:
    """Without reading ahead the test above finds a gap, so it can fail."""
    app.execute(insert(1), insert(2))
    put_off(follow)
    app.execute(insert(3), TRUNCATE, *(insert(10 + number) for number in range(5)))
    assert follow.look().gap is not None


@pytest.mark.parametrize("seed", range(6))
def test_any_interleaving_leaves_no_gap(tmp_path: Path, seed: int) -> None:
    """Commits are read at their events. Looks, restarts, kills of the daemon and other connections come at any time."""
    drawn, path = random.Random(seed), tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        app.execute(insert(1), insert(2))
        look = put_off(follow)
        for number in range(60):
            app.execute(*(insert(100 * number + each) for each in range(drawn.randint(1, 3))))
            look.read()
            match drawn.randrange(8):
                case 0 | 1:
                    app.execute(drawn.choice((CHECKPOINT, RESTART, TRUNCATE)))
                    look.read()
                case 2 | 3:
                    look = put_off(follow)
                case 4:
                    follow.look()  # the look is not deferred any longer
                case 5 if not look.is_due:  # otherwise the WAL has restarted, and what was only read is lost
                    follow.die()
                    follow.restart()
                    look = put_off(follow)
                case _:
                    pass
            if look.is_due or look.reading.is_over:
                look = put_off(follow)
            assert not any(step.gap for step in follow.steps), follow.steps[-1]
        follow.sees_all(app)


def test_a_restart_makes_the_look_due(app: SqliteProcess, follow: Following) -> None:
    """The new incarnation overwrites what the old one still holds."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    app.execute(insert(3), CHECKPOINT, insert(4))
    look.read()
    assert look.is_due
    follow.sees_all(app)


def test_what_is_due_is_read_on(app: SqliteProcess, follow: Following) -> None:
    """Other events may come before the follower takes it, after a restart that left no frame."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    app.execute(insert(3))
    look.read()
    app.execute(TRUNCATE)
    for _ in range(3):
        look.read()
        assert look.is_due
    app.execute(insert(4))
    look.read()
    assert look.is_due
    follow.sees_all(app)


def test_a_fast_writer_makes_it_due_and_no_look_is_put_off_soon(app: SqliteProcess, follow: Following) -> None:
    """Such a writer needs the thread that reads ahead, and the next looks begin a reading by that thread."""
    app.execute(insert(1), insert(2))
    look, dues = put_off(follow, limits=Limits(fast_frames=2, ahead_frames_per_s=0)), []
    for number in (3, 4):
        app.execute(insert(number))
        look.read()
        dues.append(look.is_due)
    assert dues == [False, True]
    follow.sees_all(app)
    assert follow.tracked.hastens_until_s > time.monotonic()
    assert not follow.tracked.was_deferred


def test_much_to_hold_makes_it_due(app: SqliteProcess, follow: Following) -> None:
    """Half of a database's share of memory makes the look due. More than the share is left to the look at the file."""
    app.execute(insert(1), insert(2))
    share = [3 * 4200]
    look = put_off(follow)
    look._share = lambda: share[0]
    app.execute(insert(3))
    look.read()
    assert look.is_due
    assert look.reading.size
    look = put_off(follow)
    look._share = lambda: 100
    app.execute(insert(4))
    look.read()
    assert look.is_due
    assert not look.reading.size
    follow.sees_all(app)


def test_its_time_makes_it_due(app: SqliteProcess, follow: Following) -> None:
    """After that time an event makes the database due as if nothing had been deferred."""
    app.execute(insert(1), insert(2))
    look = put_off(follow, until_s=0.0)
    app.execute(insert(3))
    look.read()
    assert look.is_due
    follow.sees_all(app)


def test_a_wal_that_nobody_uses_makes_it_due(app: SqliteProcess, follow: Following) -> None:
    """For such a WAL the follower's own rules apply."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    app.execute(insert(3))
    app.kill()
    look.read()
    assert look.is_due


def test_a_commit_that_is_not_published_is_read_soon(
    app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event came with the frames, and no other comes. The pauses double, and then the follower looks."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    look.read()
    assert look.pause_s == 0
    monkeypatch.setattr(look.reading, "is_moving", lambda: True)
    app.execute(insert(3))
    pauses = []
    while not look.is_due:
        look.read()
        pauses.append(look.pause_s)
    assert pauses[:3] == [0.001, 0.002, 0.004]
    assert max(pauses) == deferred_look.PUBLISHED_S_MAX
    follow.sees_all(app)


def test_frames_that_are_written_are_seen_before_they_are_published(app: SqliteProcess, follow: Following) -> None:
    """For example, they belong to a transaction that has outgrown its cache."""
    app.execute(insert(1), insert(2))
    look = put_off(follow)
    assert not look.reading.is_moving()
    app.execute("PRAGMA cache_size = 1", "BEGIN", "CREATE TABLE u (v)", *(f"CREATE TABLE u{n} (v)" for n in range(9)))
    assert look.reading.is_moving()
    look.read()
    assert look.pause_s
    app.execute("COMMIT")
    look.read()
    assert not look.pause_s
    assert look.reading.size
    follow.sees_all(app)


def test_idle_databases_leave_their_places_to_others(app: SqliteProcess, follow: Following) -> None:
    """A reading that expired without having read anything is of no use.

    One that has read something waits for its look.
    """
    app.execute(insert(1))
    follow.look()
    wal_pair, clock = follow.tracked.wal_pairs.current, follow.environment.monotonic_ms
    assert wal_pair is not None
    ahead = ReadAhead()

    def defer(until_s: float) -> DeferredLook | None:
        ahead._expiry_s = 0.0  # each is looked at each time
        return ahead.defer(wal_pair, follow.cursor, clock, time.monotonic() + until_s)

    looks = [defer(3600.0) for _ in range(read_ahead.DEFERRED_MAX)]
    assert defer(3600.0) is None
    assert ahead._share() < deferred_look.DEFERRED_BYTES_MAX
    app.execute(insert(2))
    for look in looks:
        assert look is not None
        if look is looks[0]:
            look.read()
        look.until_s = 0.0
    another = defer(3600.0)
    assert another is not None
    assert len(ahead._deferred) == 2
    assert ahead._share() == deferred_look.DEFERRED_BYTES_MAX
    for look in looks:
        assert look is not None
        look.reading.drop()
