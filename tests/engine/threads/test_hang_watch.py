"""Tests of walsyncd.engine.threads.hang_watch. Nothing really hangs: a call lasts until the test ends it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from walsyncd.engine.threads import hang_watch
from walsyncd.engine.threads.hang_watch import HangWatch
from walsyncd.engine.threads.supervisor import Supervisor
from walsyncd.errors import MissingError, UnresponsiveError
from walsyncd.file_calls import FILE_CALLS, FileCall, ThreadAbandonedError

LOOK_S = 0.02


class Stuck:
    """A file on which calls hang until ``answer``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = 0
        self._answers = threading.Event()

    def read(self) -> str:
        with FileCall(self.path, "read"):
            self.begun += 1
            assert self._answers.wait(60)
        return "content"

    def answer(self) -> None:
        self._answers.set()
        until_s = time.monotonic() + 60
        while FILE_CALLS.silent or FILE_CALLS.abandoned:
            assert time.monotonic() < until_s
            time.sleep(0.001)


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Stuck]:
    stuck = Stuck(tmp_path / "app.db")
    yield stuck
    stuck.answer()
    FILE_CALLS.take_answered()


def test_work_is_done_in_another_thread_and_its_result_and_error_come_back() -> None:
    with HangWatch(look_s=LOOK_S) as watch:
        assert watch.carry_out(threading.get_ident) != threading.get_ident()

        def fail() -> None:
            raise MissingError("not there")

        with pytest.raises(MissingError, match="not there"):
            watch.carry_out(fail)
        watch.try_out(fail)


def test_work_that_hangs_is_given_up(stuck: Stuck) -> None:
    """The path is not tried again until it answers."""
    with HangWatch(look_s=LOOK_S) as watch:
        with pytest.raises(UnresponsiveError, match="does not answer"):
            watch.carry_out(stuck.read)
        with pytest.raises(UnresponsiveError, match="does not answer"):
            watch.carry_out(stuck.read)
        assert stuck.begun == 1
    stuck.answer()
    with HangWatch() as watch:  # seconds, as in a daemon: the call is short, but the machine may be busy
        assert watch.carry_out(stuck.read) == "content"


def test_a_search_goes_on_without_what_hangs(stuck: Stuck) -> None:
    def search() -> list[str]:
        try:
            return [stuck.read()]
        except UnresponsiveError:
            return []

    with HangWatch(look_s=LOOK_S) as watch:
        assert watch.search(search) == []


def test_a_thread_that_hangs_has_a_successor_and_ends_when_its_call_returns(stuck: Stuck) -> None:
    supervisor = Supervisor()
    answered: list[list[str]] = []
    started, stopping = threading.Semaphore(0), threading.Event()

    def work() -> None:
        started.release()
        try:
            stuck.read()
        except UnresponsiveError:
            stopping.wait(60)

    with HangWatch(owns=supervisor.owns, replace=supervisor.replace, answered=answered.append, look_s=LOOK_S) as watch:
        supervisor.start("worker", work)
        assert started.acquire(timeout=60)
        assert started.acquire(timeout=60)
        assert supervisor.crash is None
        stuck.answer()
        until_s = time.monotonic() + 60
        while not answered:
            assert time.monotonic() < until_s
            time.sleep(0.001)
        assert answered == [[str(stuck.path)]]
        stopping.set()
        assert supervisor.join(60) == []
        assert watch.carry_out(lambda: 1) == 1


def test_a_thread_of_somebody_else_is_left_alone(stuck: Stuck) -> None:
    thread = threading.Thread(target=stuck.read, daemon=True)
    with HangWatch(look_s=LOOK_S):
        thread.start()
        time.sleep(20 * LOOK_S)
        assert FILE_CALLS.silent == {}
    stuck.answer()
    thread.join(60)


def test_calls_that_come_one_after_the_other_do_not_hang(tmp_path: Path) -> None:
    """However many looks there are meanwhile, only the single call counts."""
    watch, replaced = HangWatch(owns=lambda _thread: True), list[int]()
    watch.replace = replaced.append
    for _ in range(3 * hang_watch.LOOKS):
        with FileCall(tmp_path, "read"):
            watch._look()
    assert (FILE_CALLS.silent, replaced) == ({}, [])

    def last() -> None:
        with FileCall(tmp_path, "read"):
            for _ in range(hang_watch.LOOKS + 1):
                watch._look()

    with pytest.raises(ThreadAbandonedError):
        last()
    FILE_CALLS.ended(threading.get_ident())
    FILE_CALLS.take_answered()
    assert replaced == [threading.get_ident()]


def test_a_mount_that_does_not_answer_is_silent_as_a_whole(
    stuck: Stuck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, silenced = threading.Event(), list[str]()
    monkeypatch.setattr(hang_watch, "mount_of", lambda _path: tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _path: answers.wait(60))
    with HangWatch(silenced=silenced.append, look_s=LOOK_S, probe_s=LOOK_S) as watch:
        with pytest.raises(UnresponsiveError):
            watch.carry_out(stuck.read)
        assert silenced == [str(tmp_path)]
        with pytest.raises(UnresponsiveError, match="statvfs"):
            FileCall(tmp_path / "other.db", "open").__enter__()
        answers.set()
        stuck.answer()
        with FileCall(tmp_path / "other.db", "open"):
            pass


def test_the_watch_sleeps_while_no_call_lasts() -> None:
    with HangWatch(look_s=LOOK_S):
        until_s = time.monotonic() + 60
        while not FILE_CALLS.is_unwatched:
            assert time.monotonic() < until_s
            time.sleep(0.001)
        with FileCall("/srv/app.db", "open"):
            assert not FILE_CALLS.is_unwatched
