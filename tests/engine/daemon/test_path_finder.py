"""Tests of walsyncd.engine.daemon.path_finder: how often it looks, but not how fast."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.running import Place, wait_for
from walsyncd.config import Found, SearchStoppedError, Settings
from walsyncd.engine.daemon.path_finder import PathFinder
from walsyncd.errors import FaultError

NOTHING = Found([], [], [], {})


class Looks:
    """A finder in a thread of its own. Each look waits until the test lets it continue."""

    def __init__(self, settings: Settings, **pauses: float) -> None:
        self.settings = settings
        self.count = 0
        self.ready = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: OSError | None = None
        self.finder = PathFinder(lambda: self.settings, self._find, self._is_ready, **pauses)

    def _find(self, _settings: Settings, is_stopped: Callable[[], bool]) -> Found:
        self.count += 1
        while not self.go_on.wait(0.01):
            if is_stopped():
                raise SearchStoppedError
        if self.error is not None:
            raise self.error
        return NOTHING

    def _is_ready(self) -> None:
        self.ready += 1

    @contextmanager
    def running(self) -> Iterator[PathFinder]:
        thread = threading.Thread(target=self.finder.run)
        thread.start()
        try:
            yield self.finder
        finally:
            self.finder.stop()
            thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Place(tmp_path).settings()


def test_a_storm_of_events_costs_a_look_a_pause(settings: Settings) -> None:
    """If the finder is woken ten thousand times during a pause, it looks once."""
    looks = Looks(settings, pause_s=3600.0)
    with looks.running() as finder:
        finder.wake()
        wait_for(lambda: looks.ready == 1)
        for _ in range(10_000):
            finder.wake()
        time.sleep(0.05)
        assert looks.count == 1


def test_what_comes_up_during_a_look_is_looked_for_again(settings: Settings) -> None:
    """A file may appear after its folder was listed."""
    looks = Looks(settings, pause_s=0.0, pause_factor=0.0)
    looks.go_on.clear()
    with looks.running() as finder:
        finder.wake()
        wait_for(lambda: looks.count == 1)
        finder.wake()
        looks.go_on.set()
        wait_for(lambda: looks.ready == 2)


def test_it_looks_without_being_woken(settings: Settings) -> None:
    """Some changes cause no event."""
    looks = Looks(settings, pause_s=0.0, recheck_s=0.01)
    with looks.running():
        wait_for(lambda: looks.ready >= 3)


def test_who_waits_is_answered_when_it_was_applied(settings: Settings) -> None:
    """The answer comes at once, whatever the pause, and also if another look comes before anybody took what this one
    found.
    """
    looks = Looks(settings, pause_s=3600.0)
    with looks.running() as finder:
        first = finder.look_now()
        wait_for(lambda: looks.ready == 1)
        second = finder.look_now()
        wait_for(lambda: looks.ready == 2)
        assert not first.done()
        finding = finder.take()
        assert finding is not None
        assert finding.settings is looks.settings
        assert finder.take() is None
        finding.applied()
        assert first.done()
        assert second.done()


def test_a_stop_does_not_wait_for_a_look(settings: Settings) -> None:
    """A tree without end must not delay the stop."""
    looks = Looks(settings)
    looks.go_on.clear()
    with looks.running() as finder:
        finder.wake()
        wait_for(lambda: looks.count == 1)
    assert looks.ready == 0


def test_a_look_that_fails_is_tried_again(settings: Settings) -> None:
    """A client that waits gets the error, and the thread continues."""
    looks = Looks(settings, pause_s=0.0)
    looks.error = OSError("no descriptors")
    with looks.running() as finder:
        assert isinstance(finder.look_now().exception(30.0), FaultError)
        looks.error = None
        finder.wake()
        wait_for(lambda: looks.ready)
