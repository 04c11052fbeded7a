"""After a start of the daemon: whether the WAL continues where the last run stopped.

- The database must be the file that we followed, else there is a gap. If the file was written since, the write was a
  checkpoint if nBackfill or the salts have changed too.
- In the same boot and with the same -wal, our last frame with its checksum proves all frames before it. After a
  reboot, or with another -wal, blocks before it may be lost, so the chain is verified from frame 1 on.
- After a reboot, frames after ours count once a live connection has published them, or once nobody has had the
  database open for a while.
- If the salts have changed, the restart must be proven. That proof checks for itself whether the boot is the same.

``decide_resume`` decides on what a look has seen (``ResumeSeen``). ``settle_resume`` decides on what the look has read
after that.
``engine.follow.resume`` does the reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.follow.decision import Again, Cursor, DmsHolder, Observation, salts_now
from walsyncd.core.follow.follow_state import FileFacts, SeenBesideWal
from walsyncd.core.follow.gap import OTHER_FILE, Gap, GapKind

QUIET_AFTER_REBOOT_MS = 10_000
WRITTEN_MEANWHILE = "the database was written while the daemon did not watch it, and no checkpoint explains it"


@dataclass(frozen=True, slots=True)
class ResumeSeen:
    """What the first look after a start has seen. ``file`` and ``beside_wal`` were recorded with the follow state.

    ``beside_wal_now`` is None if there is nothing to compare it with. Nobody has had the database open since
    ``quiet_since_ms``, which is None if this is not known yet. It and ``now_ms`` are monotonic.
    """

    cursor: Cursor
    seen: Observation
    file: FileFacts
    file_now: FileFacts
    beside_wal: SeenBesideWal | None
    beside_wal_now: SeenBesideWal | None
    now_ms: int
    quiet_since_ms: int | None

    @property
    def is_resumed(self) -> bool:
        """Whether the machine was not rebooted and the -wal is the same file."""
        then, now = self.file, self.file_now
        return (now.boot_id, now.wal_inode) == (then.boot_id, then.wal_inode)


@dataclass(frozen=True, slots=True)
class OtherIncarnation:
    """There is nothing to verify: the WAL has restarted, or its salts can't be read if ``is_known`` is false."""

    is_known: bool


@dataclass(frozen=True, slots=True)
class WaitForQuiet:
    """Frames after ours do not count yet. ``since_ms`` is since when nobody has had the database open."""

    since_ms: int


@dataclass(frozen=True, slots=True)
class VerifyFrames:
    """Verify that the WAL holds what was shipped. Our last frame suffices if ``is_last_enough``."""

    is_last_enough: bool


def decide_resume(resume: ResumeSeen) -> Gap | OtherIncarnation | WaitForQuiet | VerifyFrames:
    """Return what the first look after a start has to do."""
    if not resume.file_now.is_file(resume.file):
        return Gap.of(GapKind.REPLACED, OTHER_FILE)
    then, now = resume.beside_wal, resume.beside_wal_now
    if then is not None and now is not None and not then.explains(now):
        return Gap.of(GapKind.DOUBT, WRITTEN_MEANWHILE)
    salts = salts_now(resume.seen)
    if salts != resume.cursor.salts:
        return OtherIncarnation(salts is not None)
    if not resume.is_resumed and not _is_settled(resume):
        return WaitForQuiet(resume.now_ms if resume.quiet_since_ms is None else resume.quiet_since_ms)
    return VerifyFrames(resume.is_resumed)


def _is_settled(resume: ResumeSeen) -> bool:
    """Whether the frames after ours will still be there for the next opener."""
    if resume.file_now.boot_id == resume.file.boot_id or resume.seen.holder is DmsHolder.LIVE:
        return True
    since_ms = resume.quiet_since_ms
    return since_ms is not None and resume.now_ms - since_ms >= QUIET_AFTER_REBOOT_MS


def settle_resume(cursor: Cursor, held: int, after: Observation) -> Again | Gap | None:
    """Return why the WAL can't be followed further, or None if it holds all that was shipped.

    ``held`` is how many of the shipped frames the WAL held, and ``after`` was observed after they were read.
    """
    if salts_now(after) != cursor.salts:
        return Again("the WAL restarted while it was verified")
    if held != cursor.frames:
        text = "the WAL holds {held} of {shipped} frames that were shipped: history forked"
        return Gap.of(GapKind.REVERTED, text, held=held, shipped=cursor.frames)
    return None
