"""Tests of walsyncd.file_calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from walsyncd.errors import UnresponsiveError
from walsyncd.file_calls import FILE_CALLS, FileCall, RevocableLock, ThreadAbandonedError, covers, database_of

PATH = Path("/mnt/far/app.db")


class Hanging:
    """A thread whose call on a file hangs until ``end``. ``ended_by`` is the exception with which it ended."""

    def __init__(self, path: Path = PATH, lock: RevocableLock | None = None) -> None:
        self.ended_by: BaseException | None = None
        self._lock = lock or RevocableLock()
        self._begun, self._released = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(path,), daemon=True)
        self._thread.start()
        assert self._begun.wait(60)

    @property
    def call(self) -> FileCall:
        return next(call for call, thread in FILE_CALLS.lasting.items() if thread == self._thread.ident)

    def end(self) -> None:
        self._released.set()
        self._thread.join(60)

    def _run(self, path: Path) -> None:
        try:
            with self._lock, FileCall(path, "read"):
                self._begun.set()
                self._released.wait(60)
        except BaseException as error:  # noqa: BLE001
            self.ended_by = error
            FILE_CALLS.ended(threading.get_ident())


@pytest.fixture(autouse=True)
def _answering() -> Iterator[None]:
    yield
    assert FILE_CALLS.silent == {}
    assert FILE_CALLS.abandoned == set()
    FILE_CALLS.take_answered()


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_a_call_is_registered_while_it_lasts() -> None:
    with FileCall(PATH, "open") as call:
        assert FILE_CALLS.lasting[call] == threading.get_ident()
    assert call not in FILE_CALLS.lasting


def test_an_abandoned_call_silences_its_database_until_it_returns() -> None:
    hanging = Hanging(Path(f"{PATH}-wal"))
    assert FILE_CALLS.abandon(hanging.call)
    for path in (PATH, f"{PATH}-shm", f"{PATH}-journal"):
        with pytest.raises(UnresponsiveError, match=r"stat /mnt/far/app.db.*does not answer: read .*-wal"):
            FileCall(path, "stat").__enter__()
    with FileCall("/mnt/far/other.db", "stat"):
        pass
    hanging.end()
    assert isinstance(hanging.ended_by, ThreadAbandonedError)
    assert FILE_CALLS.take_answered() == [str(PATH)]
    with FileCall(PATH, "stat"):
        pass


def test_a_call_that_has_returned_is_not_abandoned() -> None:
    with FileCall(PATH, "open") as call:
        pass
    assert not FILE_CALLS.abandon(call)


def test_two_calls_that_hang_must_both_return() -> None:
    first, second = Hanging(), Hanging()
    calls = [first.call, second.call]
    assert all(FILE_CALLS.abandon(call) for call in calls)
    first.end()
    assert str(PATH) in FILE_CALLS.silent
    second.end()
    assert FILE_CALLS.take_answered() == [str(PATH)]


def test_a_lock_is_taken_from_an_abandoned_thread() -> None:
    """The thread that returns late does not release a lock that another thread holds by then."""
    lock = RevocableLock()
    hanging = Hanging(lock=lock)
    FILE_CALLS.abandon(hanging.call)
    with lock:
        hanging.end()
        entered = threading.Event()

        def enter() -> None:
            with lock:
                entered.set()

        other = threading.Thread(target=enter, daemon=True)
        other.start()
        assert not entered.wait(0.1)
    assert entered.wait(60)
    other.join(60)


def test_a_lock_may_be_taken_again_by_its_owner() -> None:
    lock = RevocableLock()
    taken: list[int] = []

    def take() -> None:
        with lock:
            taken.append(1)

    with lock, lock:
        pass
    in_thread(take)
    assert taken == [1]


def test_descriptors_of_a_silent_path_are_closed_when_it_answers(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    hanging = Hanging(tmp_path)
    FILE_CALLS.abandon(hanging.call)
    FILE_CALLS.close(tmp_path / "app.db", descriptor)
    os.fstat(descriptor)
    hanging.end()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("silent", "path", "is_covered"),
    [
        ("/mnt/app.db", "/mnt/app.db", True),
        ("/mnt/app.db", "/mnt/app.db-wal", True),
        ("/mnt/app.db", "/mnt/app.db2", False),
        ("/mnt", "/mnt/a/b/app.db-shm", True),
        ("/mnt", "/mnt2/app.db", False),
        ("/", "/mnt/app.db", True),
        ("/mnt/a", "/mnt", False),
    ],
)
def test_what_is_silent(silent: str, path: str, is_covered: bool) -> None:
    assert covers(silent, path) is is_covered


def test_the_database_of_a_file() -> None:
    assert database_of("/srv/app.db-journal") == "/srv/app.db"
    assert database_of(Path("/srv/app.db")) == "/srv/app.db"
