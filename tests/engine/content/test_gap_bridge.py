"""Tests of walsyncd.engine.content.gap_bridge: whatever happens around a gap, the restored file is the live one."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.gaps import Gaps, happens
from tests.fakes import Deaths, Killed
from walsyncd.adapters.journal.journal import Journal, SpoolWriter
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.content import bridge_scan, bridge_wait


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gaps]:
    with closing(Gaps(tmp_path, page_size=4096, auto_vacuum=0)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(300)))
        gaps.settle()
        yield gaps


def missed(gaps: Gaps, *statements: str) -> None:
    """Make commits that the daemon does not see: it is away, and the WAL restarts twice."""
    gaps.die()
    gaps.sql(*statements, "PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.sql("UPDATE t SET y = y WHERE x = 1", "PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.open()


def test_a_gap_costs_the_pages_that_changed(gaps: Gaps) -> None:
    """The generation continues. The bridge is one transaction, the first of an epoch."""
    missed(gaps, "UPDATE t SET y = randomblob(900) WHERE x IN (3, 150)")
    gaps.settle()
    gaps.check()
    assert (gaps.generations, gaps.bridges) == (1, 1)
    assert len(gaps.wals[2]) < 40 * 4096
    gaps.sql("INSERT INTO t (y) VALUES (1)")
    gaps.settle()
    gaps.check()


def dying(deaths: Deaths, patch: pytest.MonkeyPatch) -> None:
    """Return points of death before and after each write of the spool and of the journal."""

    def watched(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **named: object) -> object:
            deaths.point()
            result = call(*arguments, **named)
            deaths.point()
            return result

        return wrapped

    for owner, name in (
        (SpoolWriter, "write"),
        (SpoolWriter, "finish"),
        (Journal, "advance"),
        (Journal, "gap_found"),
        (Journal, "stored"),
        (Journal, "page_maps_made"),
        (Journal, "redo_forgotten"),
    ):
        patch.setattr(owner, name, watched(getattr(owner, name)))


# A process that is killed closes its files. One that only pretends to be dead does not.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whenever_it_dies_the_gap_is_bridged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon dies at each write in turn, until it succeeds. Each time the next daemon continues."""
    deaths = Deaths(0)
    with closing(Gaps(tmp_path, page_size=1024, auto_vacuum=1)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(120)))
        gaps.settle()
        gaps.limit(memory_bytes_max=0)  # a file in the spool
        dying(deaths, monkeypatch)
        for at in range(1, 200):
            missed(gaps, f"UPDATE t SET y = randomblob(900) WHERE x % 7 = {at % 7}", "INSERT INTO t (y) VALUES (2)")
            deaths.passed, deaths.at = 0, at
            try:
                gaps.settle()
            except Killed:
                gaps.die()
                deaths.is_dead, deaths.at = False, 0
                gaps.open()
                gaps.settle()
            else:
                assert at > 10
                break
            gaps.check()
        gaps.check()
        assert gaps.generations == 1


@pytest.mark.parametrize("seed", range(16))
def test_the_daemon_dies_and_looks_late(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applications, kills, and gaps inside bridges come at random.

    After each round the restored file is the live one.
    """
    chance = random.Random(seed)
    page_size, auto_vacuum = chance.choice([512, 1024, 4096, 8192, 65536]), chance.randint(0, 2)
    with closing(Gaps(tmp_path, page_size=page_size, auto_vacuum=auto_vacuum)) as gaps:
        for _ in range(5):
            happens(gaps, chance)
        gaps.settle()
        for _ in range(4):
            for _ in range(chance.randint(1, 25)):
                for _ in range(chance.choice([0, 1, 1, 2, 6])):
                    happens(gaps, chance)
                match chance.choice(["look", "look", "scan", "scan", "store", "die", "write"]):
                    case "look":
                        gaps.look()
                    case "scan":
                        gaps.scan()
                    case "store":
                        gaps.store(chance.randint(1, 3))
                    case "write":
                        gaps.maps.write(gaps.row_id)
                    case _:
                        gaps.die()
                        if chance.random() < 0.5:
                            happens(gaps, chance)
                        gaps.open()
            gaps.settle()
            gaps.check()


def test_another_page_size_is_not_bridged(gaps: Gaps) -> None:
    """The new file is closed, so only its page 1 shows its page size."""
    gaps.die()
    gaps.app.close()
    gaps.path.unlink()
    gaps.make(page_size=8192, auto_vacuum=0)
    gaps.app.close()
    gaps.open()
    gaps.settle(mapped=False)
    assert (gaps.generations, gaps.bridges) == (2, 0)


def test_a_file_that_is_gone_is_waited_for(gaps: Gaps) -> None:
    """The file that takes its place is compared with what was shipped.

    The first such file is the same, and the second is another one.
    """
    gaps.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    gaps.settle()
    gaps.app.close()
    gaps.settle()
    other = gaps.folder / "other.db"
    shutil.copyfile(gaps.path, other)
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("UPDATE t SET y = 'changed' WHERE x = 200")
    position = gaps.tracked.state
    assert position is not None
    for content in (gaps.path.read_bytes(), other.read_bytes()):
        changed = content == other.read_bytes()
        gaps.path.unlink()
        for _ in range(3):
            gaps.look()
            gaps.scan()
        assert gaps.tracked.report.state is DatabaseState.MISSING
        gaps.path.write_bytes(content)
        gaps.settle()
        assert (gaps.generations, gaps.bridges) == (1, int(changed))
        assert gaps.tracked.state is not None
        assert (gaps.tracked.state.stream == position.stream) is not changed
    gaps.app = SqliteProcess(gaps.path)
    gaps.check()


def test_somebody_who_asks_ends_the_back_off(gaps: Gaps) -> None:
    """Gaps inside the bridge made it wait for a quiet time. ``sync`` need not wait, because it is quiet now."""
    gaps.limit(bridge_retry_s_max=3600.0)
    lost = Gap.of(GapKind.OVERWRITTEN, "commits are lost")
    for _ in range(1 + bridge_wait.VOIDED_MAX):
        gaps.follower.leave(gaps.tracked, lost)
    for _ in range(20):
        gaps.look()
        gaps.scan()
    assert gaps.bridges == 0
    assert gaps.tracked.state is None
    gaps.settle()  # ``sync`` asks
    assert gaps.bridges == 1
    gaps.check()


def test_what_fails_again_and_again_is_tried_less_and_less(gaps: Gaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the file can't be read."""
    gaps.limit(bridge_retry_s=0.001, bridge_retry_s_max=0.005)
    monkeypatch.setattr(bridge_scan, "open_file", lambda _path: None)
    gaps.follower.leave(gaps.tracked, Gap.of(GapKind.OVERWRITTEN, "commits are lost"))
    with capture_logs() as logs:
        for _ in range(200):
            gaps.look()
            gaps.scan()
            if len([line for line in logs if line["event"] == "bridge_failed"]) == 5:
                break
            time.sleep(0.001)
    waits = [line["next_try_in_s"] for line in logs if line["event"] == "bridge_failed"]
    assert waits == [0.001, 0.002, 0.004, 0.005, 0.005]


@pytest.mark.parametrize("steps", [0, 5, 9, 13])
def test_a_write_past_sqlite_while_a_gap_is_bridged(gaps: Gaps, steps: int) -> None:
    """The write is not lost, whenever it comes, and however few looks there were before it."""
    gaps.sql("DROP INDEX i")  # so that only the rows are changed
    gaps.settle()
    with gaps.path.open("r+b", buffering=0) as file:  # the connection stays open, so that no close of it is seen
        missed(gaps, "UPDATE t SET y = randomblob(900) WHERE x IN (3, 150)")
        for step in range(steps):
            gaps.look() if step % 2 else gaps.scan()
        file.seek(20 * 4096 + 4000)
        file.write(b"written past SQLite")
        gaps.settle()
        gaps.check()
