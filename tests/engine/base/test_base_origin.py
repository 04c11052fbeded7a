"""Tests of walsyncd.engine.base.base_origin: a base is given up when its generation or the following ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.following import spec_of
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.engine.base.base_copy import AbandonedError
from walsyncd.engine.base.base_origin import origin_of
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs

G1, G2 = "20261122T105600Z-00000001", "20261122T105600Z-00000002"
STATE = FollowState(Stream(G1, 1, 3), None, 1, 2, FileFacts(1, 2, 3, "boot"), "wal")


def test_a_base_goes_on_while_nothing_is_missed(tmp_path: Path) -> None:
    """The database may advance. A gap, a spool that is read again, and another generation end it."""
    path = tmp_path / "app.db"
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    tracked.resume(STATE)
    origin = origin_of(tracked, STATE)
    assert (origin.start.epoch, origin.start.frame) == (1, 2)
    assert origin.taking is None
    tracked.resume(replace(STATE, stream=replace(STATE.stream, frame=9)))
    origin.check(tracked)
    for name in ("gaps", "rewinds"):
        setattr(tracked, name, 1)
        with pytest.raises(AbandonedError, match="gap is bridged"):
            origin.check(tracked)
        setattr(tracked, name, 0)
    for ended in (None, replace(STATE, stream=replace(STATE.stream, generation=G2))):
        tracked.belief = replace(tracked.belief, state=ended)
        with pytest.raises(AbandonedError, match="generation ended"):
            origin.check(tracked)
