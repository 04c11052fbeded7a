"""The status of every database, computed from the journal alone, with or without a running daemon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from walsyncd.adapters.journal.drill_table import DrillOutcome
from walsyncd.adapters.journal.journal import DatabaseRow, Journal, JournalReader, ObjectKind
from walsyncd.adapters.journal.scrub_table import ScrubRow
from walsyncd.config import Suspended, format_size
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.errors import NewerFormatError


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """The status of one database. It is followed up to ``position`` and stored up to ``stored_position``, if any.

    ``lag_s`` is the age of the oldest commit that is not stored yet, or 0 if all are stored. ``lag_bytes`` is the size
    of the frames that are not stored. ``spool_bytes`` is the compressed size of the ``spool_objects`` objects that are
    spooled. Times are milliseconds since 1970, or None for never. ``last_verified_ms`` is when the replica was last
    read whole and found sound.
    """

    name: str
    path: str
    state: DatabaseState
    cause: str
    remedy: str
    position: str | None
    stored_position: str | None
    lag_s: float
    spool_bytes: int
    spool_objects: int
    last_commit_ms: int | None
    last_base_ms: int | None
    error: str
    error_ms: int | None
    state_since_ms: int | None = None
    lag_bytes: int = 0
    last_verified_ms: int | None = None
    last_scrub_ms: int | None = None
    last_scrub: str = ""
    """What the last comparison of the file with the replica compared and found, or why nothing was compared."""
    scrub_differing: int = 0
    """The number of pages that differed in the last comparison."""
    scrub_differing_total: int = 0
    bucket_bytes: int = 0
    bucket_objects: int = 0
    """How many objects of ``bucket_bytes`` in total are stored, as far as the journal knows.

    Each upload is counted, and the bucket is listed when something may be deleted.
    """
    storage: str = ""
    """The URL of the storage that the replica is in; empty before the database has a storage."""
    followed: str = ""
    """How the database's changes are found, and why in that way; empty before the database is followed."""
    has_base: bool = False
    """Whether the generation can be restored."""
    last_drill_ms: int | None = None
    last_drill: str = ""
    """The result, ``passed``, ``failed`` or ``skipped``, and what was examined or found."""
    drill_failed: bool = False
    presence_hindrance: str = ""
    """Why the locks of ``presence`` are not held although they are configured; empty if the cause may pass."""
    presence: str = "off"
    """``on`` if it is configured, ``held`` while the daemon holds the database open. Only the daemon knows."""
    backpressure_hindrance: str = ""
    """Why ``backpressure`` has no effect although it is configured; empty if nothing is known to be in the way."""
    backpressure: str = "off"
    """``on`` if it is configured. Only the daemon knows."""
    unseen_s: float = 0.0
    """For how long there may have been a commit that has not been looked at. Only the daemon knows."""
    unbased_s: float = 0.0
    """For how long a change has been in no base, if only bases store changes. Only the daemon knows."""
    base_waits_s: float = 0.0
    """For how long a base has been due and has waited for the WAL to restart. Only the daemon knows."""
    base_hindrance: str = ""
    """Why the base that waits could not begin without a restart of the WAL. Only the daemon knows."""
    wal_bytes: int = 0
    """Size of the WAL's frames that were followed since its last restart."""
    reads_whole: str = ""
    """Why a large file is read whole at each change, and what helps; empty if it is not. Only the daemon knows."""

    def behind_s(self, now_ms: int) -> float:
        """Return for how many seconds storage may have lacked something.

        While a database is not followed, its changes are unknown, and the time since its state began counts.
        """
        is_known = self.state in _FOLLOWED or (self.state is DatabaseState.COPYING_BASE and self.has_base)
        # A time in the future was taken by a wrong clock, and does not show that the database is up to date.
        unknown_ms = 0 if is_known or not self.state_since_ms else abs(now_ms - self.state_since_ms)
        return max(self.lag_s, self.unseen_s, self.unbased_s, unknown_ms / 1000)

    @property
    def waiting_base(self) -> str:
        """A sentence about a base that has waited for a long time; empty if none has."""
        if self.base_waits_s < WAITS_TOLD_S:
            return ""
        why = waits_for(self.base_hindrance)
        return f"a base has been due for {self.base_waits_s / 60:.0f} minutes: {why} ({RESTART_REMEDY})"

    @property
    def growing_wal(self) -> str:
        """A sentence about a WAL that has not restarted for a very long time; empty for any other WAL."""
        if self.wal_bytes < WAL_BYTES_TOLD:
            return ""
        text = "its WAL does not restart, it grows on, and each base stores its pages again"
        return f"{text}: {format_size(self.wal_bytes)} by now ({RESTART_REMEDY})"

    def without_daemon(self) -> DatabaseStatus:
        """Return this status for when no daemon runs: the database is not followed, whatever the last daemon noted."""
        is_followed = self.state in {DatabaseState.FOLLOWING, DatabaseState.COPYING_BASE}
        return replace(self, state=DatabaseState.STOPPED) if is_followed else self


WAITS_TOLD_S = 600.0  # by default a WAL restarts after 1,000 pages, at any time without a reader
WAL_BYTES_TOLD = 256 << 20  # 64 times the size at which a WAL restarts with the default checkpoints
AWAITS_RESTART = "it waits for the WAL to restart, since all of the current one must be in one stored epoch"
STORES_PAGES = "the pages of the WAL are stored again first, because the WAL has not restarted in this epoch"
RESTART_REMEDY = (
    "let the application checkpoint: wal_autocheckpoint above 0, no reader that stays open for ever; "
    "PRAGMA wal_checkpoint(TRUNCATE) ends it at once"
)


def waits_for(hindrance: str) -> str:
    """Return what a base waits for if it can't begin in the current epoch."""
    return f"{AWAITS_RESTART}; {hindrance}" if hindrance else STORES_PAGES


BY_WAL = "by its WAL: every commit"
BY_PAGES = (
    "by its pages, because its journal mode is not WAL: after each change the file is compared with the replica, "
    "above 4 MiB once it is quiet, and what differs is shipped"
)
BY_COPIES = (
    "by whole copies, because its journal mode is not WAL and there is nothing yet to compare its pages with: "
    "the first base is under way, or the file is encrypted"
)
_FOLLOWED = {DatabaseState.NEW, DatabaseState.FOLLOWING, DatabaseState.STOPPED}
_PAGE_SIZE_DEFAULT = 4096  # assumed for frames whose stamp is no longer known


def statuses(
    journal: Journal | JournalReader,
    *,
    now_ms: int,
    configured: Iterable[str] | None = None,
    suspended: Iterable[Suspended] = (),
) -> list[DatabaseStatus]:
    """Return the status of each database of the journal, or of each ``configured`` and ``suspended`` one, by name."""
    why = {each.name: each for each in suspended}
    names = None if configured is None else {*configured, *why}
    rows = [row for row in journal.databases() if names is None or row.name in names]
    found = {row.name: _status(journal, row, now_ms) for row in rows}
    for name, each in why.items():
        found[name] = suspended_status(each, found.get(name))
    return [found[name] for name in sorted(found)]


def suspended_status(why: Suspended, status: DatabaseStatus | None = None) -> DatabaseStatus:
    """Return the status of a match that can't be replicated; ``status`` is that of its database, if there is one."""
    status = status or unseen(why.name, why.path)
    is_known = status.state is DatabaseState.SUSPENDED
    since_ms = status.state_since_ms if is_known else why.since_ms or None
    state = DatabaseState.SUSPENDED
    return replace(status, state=state, cause=why.cause, remedy=why.remedy, state_since_ms=since_ms)


def parse_status(values: Mapping[str, Any]) -> DatabaseStatus:
    """Parse one database's status as a daemon of any version sends it.

    Unknown fields are ignored and missing ones have their defaults. Raises NewerFormatError if a field without a
    default is missing.
    """
    known = {field.name: values[field.name] for field in fields(DatabaseStatus) if field.name in values}
    lacking = [field.name for field in fields(DatabaseStatus) if field.default is MISSING and field.name not in known]
    if lacking:
        raise NewerFormatError(
            f"the daemon's status has no {', '.join(lacking)}: it is of another version than this command",
            hint="after an upgrade: systemctl restart walsyncd",
        )
    return DatabaseStatus(**{**known, "state": _parse_state(str(known["state"]))})


def _parse_state(word: str) -> DatabaseState:
    """Return the state of this name. A state that only a newer daemon knows does not count as healthy."""
    try:
        return DatabaseState(word)
    except ValueError:
        return DatabaseState.FAILING


def unseen(name: str, path: str) -> DatabaseStatus:
    """Return the status of a configured database before any daemon has run."""
    return DatabaseStatus(
        name=name,
        path=path,
        state=DatabaseState.NEW,
        cause="",
        remedy="",
        position=None,
        stored_position=None,
        lag_s=0,
        spool_bytes=0,
        spool_objects=0,
        last_commit_ms=None,
        last_base_ms=None,
        error="",
        error_ms=None,
    )


def _status(journal: Journal | JournalReader, row: DatabaseRow, now_ms: int) -> DatabaseStatus:
    pending = journal.pending(row.id)
    drill = journal.last_drill(row.id)
    scrub = journal.last_scrub(row.id)
    try:
        position, commit_ms, page_size, wal_frames = _followed(row)
        followed = _how(journal, row)
    except ValueError:  # the follower reports the cause when it begins with the database
        position, commit_ms, page_size, wal_frames, followed = None, 0, _PAGE_SIZE_DEFAULT, 0, ""
    stored = None
    if row.stored_generation is not None:
        stored = f"{row.stored_generation}/{row.stored_epoch:08x}/{row.stored_frame:08x}"
    lag_ms = _age_ms([waiting.time_ms for waiting in pending], now_ms)
    frames = sum(waiting.last - waiting.first + 1 for waiting in pending if waiting.kind is ObjectKind.SEGMENT)
    return DatabaseStatus(
        name=row.name,
        path=row.path,
        state=row.state,
        cause=row.cause,
        remedy=row.remedy,
        position=position,
        stored_position=stored,
        lag_s=lag_ms / 1000,
        spool_bytes=sum(waiting.size for waiting in pending),
        spool_objects=len(pending),
        last_commit_ms=commit_ms or None,
        last_base_ms=row.base_ms,
        error=row.error,
        error_ms=row.error_ms or None,
        state_since_ms=row.state_since_ms or None,
        lag_bytes=frames * (FRAME_HEADER_SIZE + page_size),
        wal_bytes=wal_frames * (FRAME_HEADER_SIZE + page_size),
        last_verified_ms=journal.verified_ms(row.name),
        last_drill_ms=drill.at_ms if drill else None,
        last_drill=f"{drill.outcome}: {drill.detail}" if drill else "",
        drill_failed=drill is not None and drill.outcome is DrillOutcome.FAILED,
        last_scrub_ms=(scrub.at_ms or None) if scrub else None,
        last_scrub=_scrub_words(scrub) if scrub else "",
        scrub_differing=scrub.differing if scrub else 0,
        scrub_differing_total=scrub.differing_total if scrub else 0,
        bucket_bytes=row.bucket_bytes,
        bucket_objects=row.bucket_objects,
        storage=row.place or "",
        followed=followed,
        has_base=row.has_base,
    )


def _age_ms(times_ms: Sequence[int], now_ms: int) -> int:
    """Return the age of the oldest of these times.

    A time in the future was taken by a wrong clock and does not count.
    """
    return now_ms - next((time_ms for time_ms in times_ms if time_ms <= now_ms), now_ms)


def _scrub_words(scrub: ScrubRow) -> str:
    if scrub.skipped:
        return f"skipped: {scrub.skipped}"
    return f"{scrub.pages} pages compared, {scrub.differing or 'none'} differed"


def _followed(row: DatabaseRow) -> tuple[str | None, int, int, int]:
    """Return the position, the time of the last commit, the page size, and how many WAL frames are followed."""
    if row.follow is None:
        return None, 0, _PAGE_SIZE_DEFAULT, 0
    state = parse_follow_state(row.follow)
    stream, cursor = state.stream, state.cursor
    page_size = stream.stamp.page_size if stream.stamp is not None else _PAGE_SIZE_DEFAULT
    return str(stream.position), stream.time_ms, page_size, cursor.frames if cursor is not None else 0


def _how(journal: Journal | JournalReader, row: DatabaseRow) -> str:
    """Return how the database is followed, and why it is followed in that way."""
    if row.follow is None:
        return ""
    state = parse_follow_state(row.follow)
    if state.mode != "rollback":
        return BY_WAL
    page_map = journal.page_map(row.id)
    return BY_PAGES if page_map is not None and page_map.generation == row.generation else BY_COPIES
