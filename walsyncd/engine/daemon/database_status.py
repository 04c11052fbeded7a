"""How every database stands, from the journal alone: with a daemon beside it or without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from walsyncd.adapters.journal.drill_table import DrillOutcome
from walsyncd.adapters.journal.journal import DatabaseRow, Journal, JournalReader, ObjectKind
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.errors import NewerFormatError


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """One database. ``position`` is followed, ``stored_position`` in storage; None before the first.

    ``lag_s`` is the age of the oldest commit that is not stored yet (0: nothing waits), ``lag_bytes`` the size of the
    frames that are not stored, ``spool_bytes`` and ``spool_objects`` what waits, compressed. Times are milliseconds
    since 1970, None for never; ``last_verified_ms``: when its replica was last read whole and found sound.
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
    bucket_bytes: int = 0
    bucket_objects: int = 0
    """What is stored, as far as the journal knows: counted as it goes, and listed when something may go."""
    storage: str = ""
    """The URL of the storage that its replica is in, empty before the first."""
    has_base: bool = False
    """Whether the generation can be restored."""
    last_drill_ms: int | None = None
    last_drill: str = ""
    """How it ended, ``passed``, ``failed`` or ``skipped``, and what it looked at or found."""
    drill_failed: bool = False
    presence_hindrance: str = ""
    """Why the locks of ``presence`` are not held although they are wanted; empty if that may pass by itself."""
    presence: str = "off"
    """``on`` if it is asked for, ``held`` while the daemon holds the database open; only the daemon knows."""
    unseen_s: float = 0.0
    """For how long something may have been committed that nobody has looked at yet; only the daemon knows."""
    unbased_s: float = 0.0
    """For how long a change is in no base, where only bases store changes; only the daemon knows."""
    base_waits_s: float = 0.0
    """For how long a base has been due and has waited for the WAL to restart; only the daemon knows."""

    def behind_s(self, now_ms: int) -> float:
        """For how long storage may not have had everything: of a database that is not followed nobody knows."""
        is_known = self.state in _FOLLOWED or (self.state is DatabaseState.COPYING_BASE and self.has_base)
        unknown_ms = 0 if is_known or not self.state_since_ms else now_ms - self.state_since_ms
        return max(self.lag_s, self.unseen_s, self.unbased_s, unknown_ms / 1000)

    @property
    def waiting_base(self) -> str:
        """What a base that is due has waited for, for long; empty if for nothing."""
        if self.base_waits_s < WAITS_TOLD_S:
            return ""
        return f"a base has been due for {self.base_waits_s / 60:.0f} minutes: {AWAITS_RESTART} ({RESTART_REMEDY})"

    def without_daemon(self) -> DatabaseStatus:
        """The same while no daemon runs: nobody follows it, whatever the last daemon noted."""
        is_followed = self.state in {DatabaseState.FOLLOWING, DatabaseState.COPYING_BASE}
        return replace(self, state=DatabaseState.STOPPED) if is_followed else self


WAITS_TOLD_S = 600.0  # by default a WAL restarts after 1,000 pages, and whenever nobody reads
AWAITS_RESTART = "it waits for the WAL to restart, since all of the current one must be in one stored epoch"
RESTART_REMEDY = (
    "let the application checkpoint: wal_autocheckpoint above 0, no reader that stays open for ever; "
    "PRAGMA wal_checkpoint(TRUNCATE) ends it at once"
)
_FOLLOWED = {DatabaseState.NEW, DatabaseState.FOLLOWING, DatabaseState.STOPPED}
_PAGE_SIZE_DEFAULT = 4096  # of frames whose stamp is not known any more


def statuses(
    journal: Journal | JournalReader, *, now_ms: int, configured: Iterable[str] | None = None
) -> list[DatabaseStatus]:
    """All databases of the journal, or only those ``configured``, by name."""
    names = None if configured is None else set(configured)
    rows = [row for row in journal.databases() if names is None or row.name in names]
    return [_status(journal, row, now_ms) for row in sorted(rows, key=lambda row: row.name)]


def parse_status(values: Mapping[str, Any]) -> DatabaseStatus:
    """One database as a daemon of any version says it: what it adds is left out, what it lacks has its default.

    NewerFormatError if it lacks what has none.
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
    """The state of this name; one that a newer daemon knows is not one in which nothing is wrong."""
    try:
        return DatabaseState(word)
    except ValueError:
        return DatabaseState.FAILING


def unseen(name: str, path: str) -> DatabaseStatus:
    """A configured database before any daemon has run."""
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
    try:
        position, commit_ms, page_size = _followed(row)
    except ValueError:  # the follower says so when it takes the database up; the others are shown all the same
        position, commit_ms, page_size = None, 0, _PAGE_SIZE_DEFAULT
    stored = None
    if row.stored_generation is not None:
        stored = f"{row.stored_generation}/{row.stored_epoch:08x}/{row.stored_frame:08x}"
    lag_ms = max(0, now_ms - pending[0].time_ms) if pending else 0
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
        last_verified_ms=journal.verified_ms(row.name),
        last_drill_ms=drill.at_ms if drill else None,
        last_drill=f"{drill.outcome}: {drill.detail}" if drill else "",
        drill_failed=drill is not None and drill.outcome is DrillOutcome.FAILED,
        bucket_bytes=row.bucket_bytes,
        bucket_objects=row.bucket_objects,
        storage=row.place or "",
        has_base=row.generation is not None and (row.base_key or "").startswith(row.generation),
    )


def _followed(row: DatabaseRow) -> tuple[str | None, int, int]:
    """Position, time of the last commit, page size."""
    if row.follow is None:
        return None, 0, _PAGE_SIZE_DEFAULT
    stream = parse_follow_state(row.follow).stream
    page_size = stream.stamp.page_size if stream.stamp is not None else _PAGE_SIZE_DEFAULT
    return str(stream.position), stream.time_ms, page_size
