"""A look at a database in rollback mode whose changes are shipped as pages.

Any event of the file, or any change of its times, may mean a commit. The change counter of page 1 does not show that:
it does not change in exclusive mode. Bytes also change without a commit when a transaction is rolled back after it has
spilled pages. So the file is scanned after each event or change of its times, and only the scan says what changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from walsyncd.adapters.files.source import read_header
from walsyncd.core.follow.follow_state import FileFacts, FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import database_identity, file_facts, is_settled, settling_ms
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.no_wal import ENTERED_WAL
from walsyncd.engine.follow.step import Step, gap_step
from walsyncd.engine.follow.wal_pairs import REPLACED

CHANGED = "the database changed"


class FileScans(Protocol):
    """The scans of one database, as a look sees them."""

    def has_map(self) -> bool:
        """Whether there is a map of the current generation, so that changes are shipped as pages."""

    def is_closing(self) -> bool:
        """Whether a base waits for a scan that ships what the base lacks."""

    def is_known(self, now: FileFacts, then: FileFacts) -> bool:
        """Whether nothing wrote to the file since its content was last compared."""

    def note_known(self, events: int) -> None:
        """Note that what happened up to this number of events (``WriteTrail.file_events``) has been dealt with."""

    def taken(self, state: FollowState) -> Step | None:
        """Return the step that ships what a scan found, or None if no scan has found a committed state."""

    def step(self, state: FollowState, file_bytes: int) -> Step:
        """Take one step towards shipping what changed. ``file_bytes`` is the size of the file."""


def not_by_pages(why: str) -> Step:
    """Return the step that ends the generation because only a base can hold what changed."""
    return gap_step(GapKind.SPOOL, "what changed is not shipped page by page: {why}", why=why)


def look_in_rollback_mode(
    tracked: FollowedDatabase, environment: Environment, state: FollowState, scans: FileScans
) -> Step | None:
    """Look at a database without a WAL. Returns None if its page size can't be read, as in an encrypted file.

    The result of a scan is taken before this look begins, because the result belongs to an earlier moment, at which the
    scan itself has looked. The next look sees what has happened since that moment.
    """
    if (step := scans.taken(state)) is not None:
        return step
    has_map = scans.has_map()  # asked for once, because each answer is a query of the journal
    if not has_map and not has_page_size(tracked):
        return None
    pairs = tracked.wal_pairs
    events_before = pairs.trail.file_events
    facts = file_facts(database_identity(tracked), environment.boot_id, None)
    environment.drain()
    if pairs.queue:
        return Step(gap=Gap.of(GapKind.CHANGED, ENTERED_WAL))
    writes, events = pairs.database_writes, pairs.trail.file_events
    if not facts.is_file(state.file):
        return Step(gap=Gap.of(GapKind.REPLACED, REPLACED))
    if not has_map and state.stream.frame:
        # The next base begins a generation. Differences from that base alone can't be applied after these frames.
        return not_by_pages("the page map is lost")
    if scans.is_known(facts, state.file):
        scans.note_known(events_before)  # a later event may be that of a write after the facts were read
        return _unchanged(environment, state, facts, writes, is_watched=pairs.watched)
    if has_map or scans.is_closing():
        return scans.step(state, facts.size)
    scans.note_known(events)
    return replace(_unchanged(environment, state, facts, writes, is_watched=pairs.watched), base_wanted=CHANGED)


def _unchanged(
    environment: Environment, state: FollowState, facts: FileFacts, writes: int, *, is_watched: bool
) -> Step:
    """Return the step for a file whose content is dealt with. The file's facts are noted once they have settled."""
    quiet_ms = environment.machine_ms() - facts.ctime_ns // 1_000_000
    wait_ms = environment.limits.quiet_file_ms if is_watched else settling_ms(facts)
    settled = (quiet_ms > wait_ms or quiet_ms < 0) and is_settled(facts, environment)
    look = facts if settled else facts.unknown()
    now = replace(state, file=look) if look != state.file else None
    again_s = None if settled else wait_ms / 1000
    return Step(state=now, known_upto=writes, caught_up=True, again_s=again_s)


def has_page_size(tracked: FollowedDatabase) -> bool:
    """Whether the file's header, which encryption hides, says how large a page is."""
    file = tracked.open()
    if file is None:
        return False
    with file:
        header = read_header(file)
    return header is not None and header.magic_ok and header.page_size is not None
