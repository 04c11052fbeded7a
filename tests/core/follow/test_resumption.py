"""Tests of walsyncd.core.follow.resumption: the first look after a start, and what it has to verify."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from walsyncd.core.follow.decision import Again, Cursor, DmsHolder, Observation
from walsyncd.core.follow.follow_state import FileFacts, SeenBesideWal
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.resumption import (
    QUIET_AFTER_REBOOT_MS,
    WRITTEN_MEANWHILE,
    OtherIncarnation,
    ResumeSeen,
    VerifyFrames,
    WaitForQuiet,
    decide_resume,
    settle_resume,
)
from walsyncd.core.sqlite.wal import WalHeader
from walsyncd.core.sqlite.walindex import IndexHeader

SALTS = (10, 1)
HEADER = WalHeader(512, False, 0, *SALTS, (0, 0))
CURSOR = Cursor(SALTS, HEADER, 20, (5, 6))
UNUSED = Observation(DmsHolder.NONE, None, HEADER, 9999)
INDEX = IndexHeader(3, False, 512, 20, 9, (0, 0), SALTS, 0, (0, 0, 0, 0, 0))
LIVE = Observation(DmsHolder.LIVE, INDEX, HEADER, 9999)
OTHER_SALTS = replace(UNUSED, wal=replace(HEADER, salt1=11))
FILE = FileFacts(1, 2, 3, "boot", wal_inode=7)
BESIDE_WAL = SeenBesideWal(SALTS, 5, 4096, 1)

RESUMED = ResumeSeen(
    cursor=CURSOR,
    seen=UNUSED,
    file=FILE,
    file_now=FILE,
    beside_wal=BESIDE_WAL,
    beside_wal_now=BESIDE_WAL,
    now_ms=50_000,
    quiet_since_ms=None,
)
REBOOTED = replace(RESUMED, file_now=replace(FILE, boot_id="another"))
OTHER_WAL = replace(RESUMED, file_now=replace(FILE, wal_inode=8))


def says(found: object, text: str) -> bool:
    return isinstance(found, Gap) and re.search(text, found.reason) is not None


def test_our_last_frame_is_enough_in_the_same_boot_and_wal() -> None:
    """After a reboot, or with another -wal, all frames are verified."""
    assert decide_resume(RESUMED) == VerifyFrames(is_last_enough=True)
    assert decide_resume(OTHER_WAL) == VerifyFrames(is_last_enough=False)
    assert decide_resume(replace(REBOOTED, seen=LIVE)) == VerifyFrames(is_last_enough=False)


def test_frames_after_a_reboot_count_once_nobody_has_used_them_for_a_while() -> None:
    """The wait begins when the frames are first seen, and continues across looks."""
    assert decide_resume(REBOOTED) == WaitForQuiet(50_000)
    early = replace(REBOOTED, quiet_since_ms=50_001 - QUIET_AFTER_REBOOT_MS)
    assert decide_resume(early) == WaitForQuiet(50_001 - QUIET_AFTER_REBOOT_MS)
    late = replace(REBOOTED, quiet_since_ms=50_000 - QUIET_AFTER_REBOOT_MS)
    assert decide_resume(late) == VerifyFrames(is_last_enough=False)


@pytest.mark.parametrize("resume", [RESUMED, REBOOTED, OTHER_WAL])
def test_another_incarnation_is_proven_elsewhere(resume: ResumeSeen) -> None:
    """Nothing of another incarnation is verified or waited for. A WAL whose salts are not known is verified later."""
    assert decide_resume(replace(resume, seen=OTHER_SALTS)) == OtherIncarnation(is_known=True)
    assert decide_resume(replace(resume, seen=replace(UNUSED, wal=None))) == OtherIncarnation(is_known=False)


@pytest.mark.parametrize("seen", [UNUSED, LIVE, OTHER_SALTS])
def test_a_database_that_is_another_one_or_was_written(seen: Observation) -> None:
    """Such a database is a gap, whatever the WAL says, unless a checkpoint explains the write."""
    other = replace(RESUMED, seen=seen, file_now=replace(FILE, inode=9), beside_wal_now=None)
    assert says(decide_resume(other), "^another file")
    written = replace(RESUMED, seen=seen, beside_wal_now=replace(BESIDE_WAL, mtime_ns=2))
    assert says(decide_resume(written), f"^{WRITTEN_MEANWHILE}$")
    copied_back = replace(written, beside_wal_now=replace(BESIDE_WAL, mtime_ns=2, backfilled=6))
    assert not isinstance(decide_resume(copied_back), Gap)
    assert not isinstance(decide_resume(replace(written, beside_wal=None, beside_wal_now=None)), Gap)


def test_what_was_verified() -> None:
    """All that was shipped has to be in the WAL, in the incarnation that is still the current one."""
    assert settle_resume(CURSOR, 20, UNUSED) is None
    assert settle_resume(CURSOR, 20, LIVE) is None
    assert says(settle_resume(CURSOR, 19, LIVE), "the WAL holds 19 of 20 frames")
    assert isinstance(settle_resume(CURSOR, 19, OTHER_SALTS), Again)
    assert isinstance(settle_resume(CURSOR, 20, replace(UNUSED, wal=None)), Again)
