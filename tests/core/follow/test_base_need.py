"""Tests of walsyncd.core.follow.base_need: when a base of the current generation can begin."""

from __future__ import annotations

import pytest

from walsyncd.core.follow.base_need import BaseNeed
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream


@pytest.mark.parametrize(
    ("need", "start_epoch", "can_begin"),
    [
        (BaseNeed(), 2, False),
        (BaseNeed(wanted="first generation"), 1, True),
        (BaseNeed(wanted="first generation", under_way=True), 2, False),
        (BaseNeed(wanted="first generation", awaits_restart=True), 1, False),
        (BaseNeed(awaits_restart=True), 2, True),
    ],
)
def test_when_a_base_can_begin(need: BaseNeed, start_epoch: int, *, can_begin: bool) -> None:
    """A base that waits for a restart of the WAL begins in the epoch in which the WAL's incarnation began."""
    state = FollowState(Stream("g", epoch=2), None, start_epoch, 0, FileFacts(1, 2, None, "boot"))
    assert need.can_begin(state) is can_begin
    assert not need.can_begin(None)
    assert need.wanting("asked for").wanted in {"first generation", "asked for"}


def test_only_the_epoch_that_was_begun_for_a_base_holds_pages_again() -> None:
    """The pages that are stored again follow the start of that epoch.

    A base from a later position does not need them.
    """
    need = BaseNeed(begun_epoch=7, begun_bytes=1000)
    assert [need.begun_for_base(*start) for start in [(7, 0), (7, 5), (8, 0)]] == [1000, 0, 0]
