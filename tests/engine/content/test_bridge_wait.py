"""Tests of walsyncd.engine.content.bridge_wait."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import cast

import pytest

from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.engine.content import bridge_wait
from walsyncd.engine.content.bridge_wait import VOIDED_MAX, BridgeWait
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.threads.mailbox import Mailbox, Request
from walsyncd.errors import WalsyncdError

RETRY_S, BACK_OFF_S = DEFAULT_LIMITS.bridge_retry_s, DEFAULT_LIMITS.bridge_retry_s_max


@dataclass
class Scene:
    """A database and its schedule, as far as a wait uses them, and a clock."""

    name: str = "app"
    mailbox: Mailbox = field(default_factory=Mailbox)
    now_s: float = 1000.0
    looks: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def at(self, _tracked: object, wait_s: float) -> None:
        self.looks.append(wait_s)

    def fail_requests(self, error: WalsyncdError) -> None:
        self.failed.append(error.message)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(bridge_wait, "time", scene)
    return scene


@pytest.fixture
def wait(scene: Scene) -> BridgeWait:
    return BridgeWait(cast("FollowedDatabase", scene), cast("Schedule", scene), DEFAULT_LIMITS)


def test_rests_grow_with_each_failure(scene: Scene, wait: BridgeWait) -> None:
    """Each pause is twice as long as the one before, and a minute at most."""
    assert wait.wait_s() == 0
    rests = [wait.rest_after_failure() for _ in range(20)]
    assert rests[:4] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S]
    assert rests[4:] == [BACK_OFF_S] * 16
    assert scene.looks == rests
    assert wait.wait_s() == BACK_OFF_S
    scene.now_s += BACK_OFF_S
    assert wait.wait_s() == 0


def test_some_passes_may_be_voided_before_it_rests(wait: BridgeWait) -> None:
    """Each further round of voided passes doubles the pause."""
    rests = [wait.rest_after_gap(voided) for voided in range(1, 2 * VOIDED_MAX + 1)]
    assert [each for each in rests if each] == [BACK_OFF_S, 2 * BACK_OFF_S]
    assert rests[VOIDED_MAX - 1] == BACK_OFF_S


def test_whoever_asks_ends_a_rest_but_not_at_once(scene: Scene, wait: BridgeWait) -> None:
    """Otherwise requests that come all the time would void passes all the time."""
    wait.rest(BACK_OFF_S)
    scene.mailbox.ask(Request(lambda _tracked: None, Future()))
    assert wait.wait_s() == RETRY_S
    scene.now_s += RETRY_S
    assert wait.wait_s() == 0


def test_it_waits_for_what_is_named(scene: Scene, wait: BridgeWait) -> None:
    """A client that asks meanwhile is told the condition. Once the condition was true, it is not checked again."""
    answers = iter([False, True])
    wait.wait_for(lambda: next(answers), "storage can be reached")
    waiting = [wait.is_for_event]
    assert wait.wait_s() == DEFAULT_LIMITS.begin_look_s
    assert scene.failed == ["app waits until storage can be reached"]
    assert wait.wait_s() == 0
    assert wait.wait_s() == 0
    assert [*waiting, wait.is_for_event] == [True, False]
