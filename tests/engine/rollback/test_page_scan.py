"""Tests of one scan: what it takes, and what voids it. ``rolling`` tests those that go on beside transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following
from tests.engine.rollback.rollback_replicas import TABLE, filled
from tests.engine.running import wait_for
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.core.content.bridge_passes import PageList
from walsyncd.core.stored.segment import decode_body
from walsyncd.engine.content.base_entries import BaseEntries
from walsyncd.engine.content.bridge_body import BridgeBody
from walsyncd.engine.rollback.committed_moment import FileLooks, Hindrance, MomentStart, end_moment
from walsyncd.engine.rollback.page_scan import PageScan, ScanOrder, ScanResult
from walsyncd.engine.rollback.pages_to_read import AllPages, PagesToRead

SIZE = 4096
NOTHING = PageList(np.empty(0, np.uint32), 1 << 32)


class Listed(AllPages):
    """Pages of which only the listed ones are read."""

    def __init__(self, *numbers: int, complete: bool = True, is_found_soon: bool = True) -> None:
        self._numbers, self._complete, self._is_found_soon = np.array(numbers, np.uint32), complete, is_found_soon
        self.asked = 0

    def is_found_soon(self, _start: MomentStart) -> bool:
        return self._is_found_soon

    def at_moment(self, _looks: FileLooks, _start: MomentStart) -> PageList:
        self.asked += 1
        return PageList(self._numbers, 1 << 32)

    def are_complete(self) -> bool:
        return self._complete


class Scanned:
    """A database whose content at the beginning is known, and scans of it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.follow = Following(path, folder).begin()
        self.known = BaseEntries(PageMapWriter(folder / "maps" / "1.map", SIZE), SIZE)
        self.base = path.read_bytes()
        self.known.took(0, self.base)
        self.bodies = 0

    def steps(
        self, pages: PagesToRead, *, is_current: Callable[[], bool] = lambda: True, is_body_late: bool = False
    ) -> tuple[Iterator[object], Future[ScanResult]]:
        tracked, environment = self.follow.tracked, self.follow.environment

        late = [is_body_late]

        def body(_size: int) -> BridgeBody | None:
            if late and late.pop():
                return None
            self.bodies += 1
            return BridgeBody(environment.journal, self.known, self.follow.state.stream, (1, 2), body_bytes_max=1 << 24)

        order = ScanOrder(tracked, self.follow.state.stream, SIZE, pages, body, is_current, lambda: None)
        answer = Future[ScanResult]()
        return PageScan(environment, order, answer, lambda: None).steps(), answer

    def scan(self, pages: PagesToRead | None = None) -> ScanResult:
        steps, answer = self.steps(pages or AllPages())
        for _ in steps:
            pass
        return answer.result(0)

    def applied(self, found: ScanResult) -> bytes:
        """Return the known content with the transaction that was found, as SQLite would apply it."""
        assert found.new is not None
        assert isinstance(found.new.body, bytes)
        wal = b"".join(part for part in decode_body([found.new.body]) if isinstance(part, bytes))[32:]
        content, frame = bytearray(self.base), SIZE + 24
        for at in range(0, len(wal), frame):
            number, size = (int.from_bytes(wal[at + k : at + k + 4], "big") for k in (0, 4))
            content.extend(bytes(max(0, number * SIZE - len(content))))
            content[(number - 1) * SIZE : number * SIZE] = wal[at + 24 : at + frame]
            if size:
                del content[size * SIZE :]
        return bytes(content)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SqliteProcess]:
    with SqliteProcess(tmp_path / "app.db") as process:
        process.execute(*TABLE, filled(300))
        yield process


@pytest.fixture
def scanned(app: SqliteProcess, tmp_path: Path) -> Iterator[Scanned]:
    found = Scanned(tmp_path / "app.db", tmp_path / "f")
    with found.follow:
        yield found


def test_nothing_changed(scanned: Scanned) -> None:
    """The scan finds no transaction, and the content is known to be as it was."""
    found = scanned.scan()
    assert (found.hindrance, found.new) == (None, None)
    assert found.committed is not None


def test_what_differs_is_taken(scanned: Scanned, app: SqliteProcess) -> None:
    """The transaction leads from the known content to the file's."""
    app.execute("UPDATE t SET y = randomblob(3000) WHERE x % 50 = 3", "DELETE FROM t WHERE x > 200", "VACUUM")
    found = scanned.scan()
    assert found.hindrance is None
    assert scanned.applied(found) == scanned.path.read_bytes()


def test_a_scan_that_reads_little_is_over_in_its_first_step(scanned: Scanned, app: SqliteProcess) -> None:
    """The thread that ordered the scan takes that step. A scan that reads more takes turns with others."""
    app.execute("PRAGMA user_version = 7")
    steps, answer = scanned.steps(Listed(1, 2, 4, 9))
    assert list(steps) == []
    assert answer.result(0).new is not None
    steps, answer = scanned.steps(AllPages())
    assert next(steps, None) is not None
    assert not answer.done()
    assert list(steps)
    assert answer.result(0).hindrance is None


@pytest.mark.parametrize("what", ["body", "pages"])
def test_what_only_the_scan_thread_may_do_is_left_to_it(scanned: Scanned, what: str) -> None:
    """Only that thread opens a map that has many rows, and finds pages in large journals."""
    pages = Listed(1, is_found_soon=what == "body")
    steps, answer = scanned.steps(pages, is_body_late=what == "body")
    assert next(steps, None) is not None
    assert scanned.bodies == (what == "pages")
    assert pages.asked == 0
    assert list(steps) == []
    assert scanned.bodies == pages.asked == 1
    assert answer.result(0).hindrance is None


def test_page_1_is_always_read(scanned: Scanned, app: SqliteProcess) -> None:
    """Every commit that changes anything writes page 1."""
    app.execute("PRAGMA user_version = 7")
    found = scanned.scan(Listed())
    assert found.hindrance is None
    assert scanned.applied(found) == scanned.path.read_bytes()


def test_a_list_that_turns_out_to_be_incomplete_is_not_believed(scanned: Scanned) -> None:
    """It is unknown which other pages may have changed."""
    assert scanned.scan(Listed(1, complete=False)).hindrance is Hindrance.UNPROVEN


def test_a_write_while_it_is_read_voids_it(scanned: Scanned, app: SqliteProcess) -> None:
    """Even a write that leaves counter, size and locks as they were voids the scan."""
    for statements in (
        ("UPDATE t SET y = 1 WHERE x = 1",),
        ("PRAGMA cache_size=3", "BEGIN", "DELETE FROM t", "ROLLBACK"),
    ):
        steps, answer = scanned.steps(AllPages())
        next(steps)
        app.execute(*statements)
        for _ in steps:
            pass
        assert answer.result(0).hindrance is Hindrance.WRITTEN


def test_a_result_that_nobody_waits_for_is_void(scanned: Scanned) -> None:
    """For example, a generation has ended meanwhile."""
    steps, answer = scanned.steps(AllPages(), is_current=lambda: False)
    for _ in steps:
        pass
    assert answer.result(0).new is None
    assert answer.result(0).hindrance is not None


def test_a_file_that_is_shorter_than_it_says_is_not_shipped(scanned: Scanned) -> None:
    """Pages are missing in the file, so nobody knows their content."""
    with scanned.path.open("r+b") as file:
        file.truncate(8 * SIZE)
    assert scanned.scan().hindrance is Hindrance.SHORT


def test_the_state_of_the_file_is_that_of_the_moment(
    scanned: Scanned, app: SqliteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit after the last look would be taken for known if the file's times were asked after it."""
    times = scanned.path.stat()

    def end_before_a_commit(looks: FileLooks, start: MomentStart, page_1: bytes) -> Hindrance | None:
        found = end_moment(looks, start, page_1)
        app.execute("UPDATE t SET y = 1 WHERE x = 5")
        return found

    monkeypatch.setattr("walsyncd.engine.rollback.page_scan.end_moment", end_before_a_commit)
    wait_for(lambda: time.time() > times.st_ctime + 2.1)
    found = scanned.scan()
    assert found.hindrance is None
    assert found.facts is not None
    assert (found.facts.mtime_ns, found.facts.ctime_ns) == (times.st_mtime_ns, times.st_ctime_ns)
