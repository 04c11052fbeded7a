"""Tests of the whole proof: whatever applications do, what is stored is one of their commits, or a gap is reported.

Scripts are random, but the same for the same seed: commits, checkpoints of every kind, opening, closing, killing,
rolling back, and on our side looks, drains of the queue, restarts of the daemon and steps that a crash loses.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from walsyncd.core.limits import Limits
from walsyncd.engine.follow.look import take_step

SEEDS = range(24)
SPILL = ("PRAGMA cache_size=3", "BEGIN", "INSERT INTO u SELECT hex(randomblob(50000))")
ROWS = "SELECT * FROM t ORDER BY i"


class Script:
    """Applications on one database, and the follower beside them."""

    def __init__(self, path: Path, follow: Following, chance: random.Random) -> None:
        self.path = path
        self.follow = follow
        self.chance = chance
        self.apps: list[SqliteProcess] = []
        self.rows = 0
        self.commits = [0]
        """How many rows there were after each commit."""
        self.seen = 0
        """How many when a look last said that it had caught up."""
        self.gap = ""
        self.actions: list[tuple[int, Callable[[], object]]] = [
            (30, self.commit),
            (3, self.commit_often),
            (9, lambda: self.app().execute(f"PRAGMA wal_checkpoint({chance.choice(['PASSIVE', 'RESTART'])})")),
            (2, lambda: self.app().execute("PRAGMA wal_checkpoint(TRUNCATE)")),
            (2, lambda: self.app().execute(f"PRAGMA wal_autocheckpoint={chance.choice([1, 5, 20])}")),
            (2, lambda: self.app().execute(*SPILL, "ROLLBACK")),
            (4, self.open),
            (3, lambda: self.leave().close()),
            (2, self.kill),
            (30, self.look),
            (10, self.drain),
            (2, self.restart),
            (2, self.lose_a_step),
        ]

    def app(self) -> SqliteProcess:
        return self.chance.choice(self.apps) if self.apps else self.open()

    def open(self) -> SqliteProcess:
        self.apps.append(SqliteProcess(self.path))
        self.apps[-1].execute("SELECT * FROM t LIMIT 1")
        return self.apps[-1]

    def leave(self) -> SqliteProcess:
        app = self.app()
        self.apps.remove(app)
        return app

    def kill(self) -> None:
        app = self.leave()
        if self.chance.random() < 0.5:
            app.execute(*SPILL)
        app.kill()

    def commit(self) -> None:
        statements = ["BEGIN"]
        for _ in range(self.chance.choice([1, 1, 3])):
            self.rows += 1
            size = self.chance.choice([10, 500, 3000])
            statements.append(f"INSERT INTO t VALUES ({self.rows}, hex(randomblob({size})))")
            statements.append(f"UPDATE t SET x = x || 'x' WHERE i = {self.chance.randint(1, self.rows)}")
        self.app().execute(*statements, "COMMIT")
        self.commits.append(self.rows)

    def commit_often(self) -> None:
        for _ in range(20):
            self.commit()

    def drain(self) -> None:
        self.follow.watch.drain()

    def restart(self) -> None:
        self.follow.die()
        self.follow.restart()

    def lose_a_step(self) -> None:
        take_step(self.follow.tracked, self.follow.environment)
        self.follow.tracked.drop_pending()

    def look(self) -> None:
        gap = self.follow.look().gap
        self.gap = gap.reason if gap is not None else ""
        if not self.gap:
            self.seen = self.rows

    def run(self, length: int) -> None:
        weights = [weight for weight, _ in self.actions]
        for _ in range(length):
            ((_, action),) = self.chance.choices(self.actions, weights)
            action()
            if self.gap:
                return
        self.look()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_false_is_stored(tmp_path: Path, seed: int) -> None:
    """The stored WALs give some commit, none older than a look reported. Without a gap they give the last one."""
    chance = random.Random(seed)
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("PRAGMA journal_mode=WAL", "CREATE TABLE t (i INTEGER PRIMARY KEY, x)", "CREATE TABLE u (x)")
        with Following(
            path,
            tmp_path / "f",
            limits=Limits(batch_bytes=chance.choice([4120, 4 << 20]), epoch_bytes=chance.choice([20 * 4120, 64 << 20])),
        ).begin() as follow:
            follow.look()
            script = Script(path, follow, chance)
            script.apps.append(app)
            try:
                script.run(chance.randint(20, 60))
                found = follow.restored(ROWS)
                assert [row[0] for row in found] == list(range(1, len(found) + 1))
                assert len(found) in script.commits
                assert len(found) >= script.seen
                if not script.gap:
                    assert found == script.app().execute(ROWS)
            finally:
                for process in script.apps:
                    process.kill()
