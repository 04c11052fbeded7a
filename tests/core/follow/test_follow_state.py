"""Tests of walsyncd.core.follow.follow_state: text in the journal and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import (
    BegunEpoch,
    FileFacts,
    FollowState,
    SeenBesideWal,
    Stream,
    format_follow_state,
    parse_follow_state,
)
from walsyncd.core.follow.overwritten import Overwritten
from walsyncd.core.sqlite.wal import WalHeader
from walsyncd.core.stored.epoch import Stamp
from walsyncd.core.stored.position import Position

GENERATION = "20261122T105600Z-3f9c1a2b"
u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
chains = st.tuples(u32, u32)
headers = st.builds(WalHeader, st.sampled_from([512, 65536]), st.booleans(), u32, u32, u32, chains)
stamps = st.builds(Stamp, st.sampled_from([512, 65536]), u32, u32, u32, chains)
cursors = st.builds(Cursor, chains, st.none() | headers, u32, chains)
streams = st.builds(Stream, st.just(GENERATION), u32, u32, u32, st.none() | stamps, u63, u63, u63)
facts = st.builds(FileFacts, u63, u63, st.none() | u63, st.text(), u63, u63, u63, u63)
overwritten = st.none() | st.builds(Overwritten, chains, u32)
modes = st.sampled_from(["wal", "rollback"])
begun = st.none() | st.builds(BegunEpoch, u32, u63)
states = st.builds(
    FollowState, streams, st.none() | cursors, u32, u32, facts, modes, overwritten=overwritten, begun=begun
)

FACTS = FileFacts(1, 2, 3, "boot", 4, 4096, 1000, 2000)
STATE = FollowState(Stream(GENERATION, 3, 40, 7, Stamp(4096, 3, 1, 2, (8, 9)), 5000, 10, 20), None, 2, 30, FACTS)


@given(states)
def test_parsing_is_the_inverse_of_formatting(state: FollowState) -> None:
    """Every state comes back as it was."""
    assert parse_follow_state(format_follow_state(state)) == state


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format":1}', "x"])
def test_what_is_no_follow_state(text: str) -> None:
    """A text that is no follow state raises ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"."):
        parse_follow_state(text)


def test_a_format_of_the_future() -> None:
    """The error names a format of the future."""
    fields = json.loads(format_follow_state(STATE))
    with pytest.raises(ValueError, match="format 2"):
        parse_follow_state(json.dumps({**fields, "format": 2}))


@pytest.mark.parametrize("field", ["stream", "stamp", "cursor", "header", "start", "mode", "file"])
def test_a_field_that_is_missing(field: str) -> None:
    """A missing field is an error, and no value is made up for it."""
    cursor = Cursor((1, 2), WalHeader(512, True, 1, 1, 2, (3, 4)), 5, (6, 7))
    fields = json.loads(format_follow_state(replace(STATE, cursor=cursor)))
    del fields[field]
    with pytest.raises(ValueError, match=field):
        parse_follow_state(json.dumps(fields))


def test_positions() -> None:
    """The state says where the stored WAL ends, and where the cursor's incarnation began in it."""
    assert STATE.stream.position == Position(GENERATION, 3, 40)
    assert STATE.start == Position(GENERATION, 2, 30)
    entered = STATE.entered(None)
    assert (entered.start, entered.cursor) == (Position(GENERATION, 3, 40), None)


def test_the_next_epoch() -> None:
    """The next epoch knows where the one before it ended, and its time. It has no salts yet."""
    assert STATE.stream.next_epoch() == Stream(GENERATION, 4, 0, 40, None, 0, 0, 20)


def test_which_file_it_is() -> None:
    """A file is identified by device, inode and birth time. The file's facts and the WAL's inode do not count."""
    assert FACTS.is_file(replace(FACTS, wal_inode=9, size=9, mtime_ns=9, ctime_ns=9, boot_id="other"))
    for other in (replace(FACTS, device=9), replace(FACTS, inode=9), replace(FACTS, birth_ns=None)):
        assert not FACTS.is_file(other)
        assert not FACTS.has_content_of(other)


def test_what_its_look_says() -> None:
    """File facts that were not recorded prove nothing."""
    assert FACTS.known
    assert not FACTS.unknown().known
    assert FACTS.looks_like(FACTS)
    assert not FACTS.looks_like(FACTS.unknown())
    assert not FACTS.unknown().looks_like(FACTS.unknown())
    assert FACTS.has_content_of(replace(FACTS, ctime_ns=9))
    assert not FACTS.looks_like(replace(FACTS, ctime_ns=9))


@pytest.mark.parametrize(
    ("before", "now", "explains"),
    [
        (((1, 2), 3), ((1, 2), 4), True),  # a checkpoint
        (((1, 2), 3), ((2, 9), 0), True),  # and a restart of the WAL after it
        (((1, 2), 3), ((1, 2), 3), False),
        (((1, 2), 3), ((1, 2), 0), False),  # rebuilt
        (((1, 2), 3), (None, None), False),  # removed
        ((None, None), ((1, 2), 3), False),
        ((None, None), (None, None), False),
    ],
)
def test_what_explains_a_write_to_the_file(before: Any, now: Any, explains: bool) -> None:
    """Only a wal-index that moved on explains a write to the file. Without a write there is nothing to explain."""

    def beside(index: Any, size: int, mtime_ns: int) -> SeenBesideWal:
        return SeenBesideWal(index[0], index[1], size, mtime_ns)

    seen = beside(before, 4096, 1)
    assert seen.explains(beside(now, 4096, 2)) is explains
    assert seen.explains(beside(now, 8192, 1)) is explains
    assert seen.explains(beside(now, 4096, 1))


def test_another_incarnation_hides_no_page() -> None:
    """In the new incarnation no frame hides pages that somebody wrote over beside the earlier WAL."""
    state = replace(STATE, overwritten=Overwritten((1, 2), 5))
    assert state.entered(None).overwritten is None
    cursor = Cursor((5, 6), None, 0, (0, 0))
    assert state.entered(cursor).overwritten == Overwritten(cursor.salts, 0)
    assert replace(state, overwritten=None).entered(cursor).overwritten is None
