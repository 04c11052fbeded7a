"""Tests of the heartbeat: what the service manager is told, and that no thread is woken for it in vain."""

from __future__ import annotations

import pytest

from walsyncd.adapters.system.service_manager import ServiceManager
from walsyncd.engine.daemon.heartbeat import REFRESH_S, START_BEAT_S, Heartbeat, status_words


class Manager(ServiceManager):
    """Remembers what it was told."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.told: list[str] = []

    def tell(self, *lines: str) -> None:
        self.told += lines


class Scene:
    """A heartbeat with a clock that the test moves."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        self.now_s = 1000.0
        self.manager = Manager(watchdog_s)
        self.words = "1 database, 0 behind"
        self.hung = ""
        self.wakes = 0
        self.heart = Heartbeat(
            self.manager,
            words=lambda: self.words,
            hung=lambda: self.hung,
            wake=self.wake,
            monotonic_s=lambda: self.now_s,
        )

    def wake(self) -> None:
        self.wakes += 1

    def after(self, seconds: float) -> list[str]:
        """Return what a beat at this later time reports."""
        self.now_s += seconds
        self.manager.told.clear()
        self.heart.beat()
        return self.manager.told


def test_an_idle_daemon_sleeps_for_ever() -> None:
    """The daemon has reported that it is ready, nothing has changed, and there is no watchdog, so nothing is due."""
    scene = Scene()
    scene.heart.ready()
    assert scene.manager.told == ["READY=1", "STATUS=1 database, 0 behind"]
    scene.heart.beat()
    assert scene.heart.due_s() is None


def test_changes_wake_once_and_are_told_at_most_so_often() -> None:
    """A thousand uploads a second are one wake-up and one line in that time.

    A text that is the same is not sent again.
    """
    scene = Scene()
    scene.heart.ready()
    scene.heart.beat()
    for _ in range(1000):
        scene.heart.changed()
    assert scene.wakes == 1
    scene.words = "1 database, 1 behind"
    assert scene.after(0.5) == []
    assert scene.heart.due_s() == pytest.approx(REFRESH_S - 0.5)
    assert scene.after(REFRESH_S) == ["STATUS=1 database, 1 behind"]
    scene.heart.changed()
    assert scene.after(REFRESH_S) == []
    assert scene.wakes == 2


def test_the_watchdog_is_fed_only_while_nobody_hangs() -> None:
    """The watchdog is fed at half its interval. If it is not fed, the service manager acts."""
    scene = Scene(watchdog_s=300)
    scene.heart.ready()
    scene.heart.beat()
    assert scene.heart.due_s() == 150
    assert scene.after(149) == []
    assert scene.after(1) == ["WATCHDOG=1"]
    scene.hung = "follower"
    assert scene.after(150) == []
    scene.hung = ""
    assert scene.after(150) == ["WATCHDOG=1"]


def test_a_long_start_asks_for_time() -> None:
    """The daemon asks while the first looks continue and no thread hangs."""
    scene = Scene(watchdog_s=300)
    scene.heart.beat()
    assert scene.heart.due_s() == START_BEAT_S
    assert scene.after(START_BEAT_S) == ["EXTEND_TIMEOUT_USEC=60000000"]
    scene.hung = "follower"
    assert scene.after(START_BEAT_S) == []


def test_the_words() -> None:
    """The text says how many databases there are, how many lag, what is wrong, and when something was stored last."""
    well = status_words(databases=12, behind=0, troubled=0, stored_ms=1_763_807_760_000, storage="")
    assert well == "12 databases, 0 behind, last upload 2025-11-22 10:36:00 UTC"
    ill = status_words(databases=1, behind=1, troubled=1, stored_ms=0, storage="storage is away: timed out")
    assert ill == "1 database, 1 behind, 1 in trouble, nothing uploaded yet, storage is away: timed out"
    fresh = status_words(databases=0, behind=0, troubled=0, stored_ms=0, storage="")
    assert fresh == "no databases to replicate, nothing uploaded yet"
