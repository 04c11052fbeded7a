"""A database that is followed, mapped and bridged step by step, beside an application in a process of its own.

Nothing runs by itself: the test says when the follower looks, when the scans' thread reads a block, and when an object
is stored. So anything can be done between two of these, and repeated from one seed.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess
from tests.engine.following import spec_of
from tests.engine.running import change
from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.source import boot_id
from walsyncd.adapters.journal.journal import Journal, ObjectKind
from walsyncd.core.content.page_entry import differs, entries_of_pages
from walsyncd.core.limits import Limits
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.content.page_content import PageContent
from walsyncd.engine.content.scan_queue import BLOCK_BYTES
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.rollback.rollback_mode import RollbackMode

ROUNDS_MAX = 4000
LIMITS = Limits(bridge_retry_s=0.0, bridge_retry_s_max=0.0, map_retry_s=0.0, bridge_bytes_min=1 << 40)
"""With these limits nothing waits for the clock, and no bridge is too large."""


class Gaps:
    """The database, its application, its replica (``base`` and ``wals``), and the daemon's parts."""

    block_bytes = BLOCK_BYTES

    def __init__(self, folder: Path, *, page_size: int, auto_vacuum: int, limits: Limits = LIMITS) -> None:
        self.folder = folder
        self.limits = replace(limits)
        self.path = folder / "app.db"
        self.journal = Journal.open(folder / "state")
        self.row_id = self.journal.database("app", str(self.path)).id
        self.generations = 0
        self.bridges = 0
        self.base = b""
        self.wals: dict[int, bytes] = {}
        self._generation = ""
        self.make(page_size=page_size, auto_vacuum=auto_vacuum)
        self.open()

    def make(self, *, page_size: int, auto_vacuum: int) -> None:
        """Make a new database, with an application that has it open."""
        self.app = SqliteProcess(self.path)
        self.app.execute(
            f"PRAGMA page_size = {page_size}",
            f"PRAGMA auto_vacuum = {auto_vacuum}",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE t (x INTEGER PRIMARY KEY, y)",
            "CREATE INDEX i ON t (y)",
        )

    def open(self) -> None:
        """Start the daemon's parts, with nothing but what is on disk."""
        self.watcher = InotifyReader()
        self.watch = EventPump(self.watcher, lambda _databases: None, lambda: None)
        self.environment = environment = Environment(self.journal, self.watch.drain, boot_id(), limits=self.limits)
        self.schedule = Schedule()
        content = PageContent(self.journal, environment, self.schedule, lambda: self.follower)
        self.queue, self.maps, self.base_maps = content.queue, content.maps, content.base_maps
        self.follower = Follower(
            self.journal,
            environment,
            self.schedule,
            offer=lambda _rows: None,
            leaves_at_once=lambda _row_id: False,
            base_due=lambda _tracked: None,
            is_spool_full=lambda: False,
            begin_bridge=RollbackMode(self.journal, environment, self.schedule, content).begin_bridge,
        )
        self.maker = MapMaker(
            self.journal,
            self.maps,
            self.queue,
            self.follower.request,
            boot_id=boot_id(),
            base_maps=self.base_maps,
            retry_s=self.limits.map_retry_s,
            block_bytes=self.block_bytes,
        )
        self.tracked = FollowedDatabase(spec_of(self.path), self.row_id, WalPairs(self.path))
        self.watch.add(self.tracked)
        self.tracked.wal_pairs.look_around()
        self.follower.resume(self.tracked)
        self.maker.due(self.tracked)

    def limit(self, **changed: float) -> None:
        """Have other limits from now on."""
        change(self.limits, **changed)

    def die(self) -> None:
        """End the daemon, with all that it did not write."""
        for scan in self.queue._scans.values():
            scan.steps.close()
        self.queue.stop()
        self.tracked.drop_bridge()
        self.tracked.drop_pending()
        self.tracked.wal_pairs.clear()
        self.watcher.close()
        self.journal.sweep()

    def look(self) -> None:
        """Do one round of the follower."""
        self.follower.round([self.tracked])
        generation = self.tracked.generation
        if generation is not None and generation != self._generation:
            self._begin(generation)

    def _begin(self, generation: str) -> None:
        """Take a base in the simplest way: it is read in one go, after the generation began."""
        self._generation = generation
        self.generations += 1
        self.base, self.wals = self.path.read_bytes(), {}
        with self.journal._transaction() as connection:
            connection.execute("UPDATE database SET base_key = ?", (f"{generation}/base/x",))
        self.maker.due(self.tracked)

    def scan(self) -> bool:
        """Scan one block, or do the scan's next step. Return False if there is none."""
        scans = sorted(self.queue._scans.values(), key=lambda scan: scan.rank)
        if not scans:
            return False
        if next(scans[0].steps, None) is None:
            del self.queue._scans[scans[0].number]
        return True

    def store(self, count: int = 1 << 30) -> None:
        """Make some of what is spooled visible."""
        for row in self.journal.pending(self.row_id)[:count]:
            assert row.kind is ObjectKind.SEGMENT
            content = b"".join(x for x in decode_body([self.journal.body(row)]) if isinstance(x, bytes))
            if row.generation == self._generation:
                self.wals[row.epoch] = self.wals.get(row.epoch, b"") + content
            self.bridges += ".bridge." in row.key
            self.journal.stored(row.id, now_ms=1, tokens=1.0)

    def has_map(self) -> bool:
        return self.journal.page_map(self.row_id) is not None

    def settle(self, *, mapped: bool = True) -> None:
        """Continue until everything is followed, bridged and stored, and there is a map if one is wanted."""
        for _ in range(ROUNDS_MAX):
            self.look()
            moved = self.scan()
            self.store()
            position = self.tracked.state
            self.follower.request(self.tracked, lambda _tracked: None)
            self.look()
            done = self.tracked.bridge is None and self.tracked.state is not None and self.tracked.state == position
            if done and not moved and not self.tracked.mailbox.asked() and (self.has_map() or not mapped):
                return
            if mapped and not moved and not self.has_map():
                self.maker.due(self.tracked)
            if self.tracked.generation is None:
                time.sleep(0.01)  # the next one begins by the clock
        raise AssertionError(f"not settled: {self.tracked.report}")

    def sql(self, *statements: str) -> None:
        """Run the application's statements. SQLite may refuse any of them."""
        try:
            self.app.execute(*statements)
        except SqliteError:
            self.app.execute("SELECT 1")

    def reopen(self, *, kill: bool) -> None:
        if kill:
            self.app.kill()
        else:
            self.app.close()
        self.app = SqliteProcess(self.path)
        self.app.execute("PRAGMA synchronous = OFF", "SELECT count(*) FROM t")

    def live(self) -> bytes:
        """Return the database as SQLite sees it, in one file."""
        copy = self.folder / "live.db"
        shutil.copyfile(self.path, copy)
        wal = Path(f"{self.path}-wal")
        if wal.exists():
            shutil.copyfile(wal, f"{copy}-wal")
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA user_version").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return copy.read_bytes()

    def restored(self) -> bytes:
        """Return what SQLite makes of the base and the stored WALs, as the README's script does it."""
        path = self.folder / "restored.db"
        path.write_bytes(self.base)
        for _, wal in sorted(self.wals.items()):
            Path(f"{path}-wal").write_bytes(wal)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA user_version")
            assert not Path(f"{path}-wal").exists()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return path.read_bytes()

    def check(self) -> None:
        """Assert that the restored file is the live one, byte for byte."""
        live, restored = self.live(), self.restored()
        size = int.from_bytes(live[16:18], "big") or 65536
        size = 65536 if size == 1 else size
        other = [
            at // size + 1
            for at in range(0, max(len(live), len(restored)), size)
            if live[at : at + size] != restored[at : at + size]
        ]
        assert not other, f"pages {other[:20]} of {len(live) // size} differ, {len(restored) // size} restored"

    def has_right_map(self) -> bool:
        """Return whether the map has the entries of the restored file, page for page."""
        content = self.restored()
        page_map = self.maps.open(self.row_id)
        assert page_map is not None
        with page_map:
            size = page_map.page_size
            entries = page_map.entries(1, len(content) // size + 5)
        assert not entries[len(content) // size :].any()
        return not differs(entries[: len(content) // size], entries_of_pages(content, size)).any()

    def close(self) -> None:
        self.app.kill()
        self.die()
        self.journal.close()


def happens(gaps: Gaps, chance: random.Random) -> None:
    """Do something that an application does."""
    low = chance.randint(1, 400)
    usual = ["insert", "update", "checkpoint"]
    rare = ["delete", "blob", "vacuum", "incremental", "table", "reopen", "kill", "rollback"]
    match chance.choice([*usual, *usual, "checkpoint", *rare]):
        case "insert":
            rows = ", ".join(f"(randomblob({chance.randint(1, 900)}))" for _ in range(chance.randint(1, 30)))
            gaps.sql(f"INSERT INTO t (y) VALUES {rows}")
        case "update":
            gaps.sql(f"UPDATE t SET y = randomblob(300) WHERE x % 97 = {low % 97}")
        case "delete":
            gaps.sql(f"DELETE FROM t WHERE x BETWEEN {low} AND {low + chance.randint(0, 200)}")
        case "blob":
            gaps.sql(f"INSERT OR REPLACE INTO t VALUES ({low}, zeroblob({chance.randint(1, 200_000)}))")
        case "checkpoint":
            mode = chance.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
            gaps.sql(f"PRAGMA wal_checkpoint({mode})")
        case "vacuum":
            gaps.sql("VACUUM")
        case "incremental":
            gaps.sql("PRAGMA incremental_vacuum(20)")
        case "table":
            gaps.sql("DROP TABLE IF EXISTS u", "CREATE TABLE u AS SELECT * FROM t LIMIT 50")
        case "reopen" | "kill" as how:
            gaps.reopen(kill=how == "kill")
        case _:
            gaps.sql("BEGIN", "PRAGMA cache_size = 2", "DELETE FROM t WHERE x % 3 = 0", "ROLLBACK")
