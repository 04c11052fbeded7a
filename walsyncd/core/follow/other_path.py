"""Whether an application uses the database by another path, so that its -wal is in another folder.

A container's ``-v ./app.db:/app/app.db`` bind-mounts a single file elsewhere. Both paths name the same file, but SQLite
keeps the -wal beside the path that it was given. No event of that -wal arrives here. What can be seen is a **sign**:

1. the database's header says WAL mode, there is neither a -wal nor a -journal beside it, and
2. a process holds a POSIX lock on it (every connection does from its first read on), or the file was written.

An application that uses this path shows a sign only for the milliseconds between the deletion of its -wal and the end
of its last close, and each new -wal begins the count again. So ``SIGNS_MIN`` signs, ``APART_MS`` apart from each other
and ``SPAN_MS`` from the first to the last, are certain. A lock is sufficient and not necessary: an application that has
closed the database whenever we look shows no lock, but it writes.

The signs are the same if somebody deleted the -wal of a running application. In that case a -wal was seen beside the
file before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SIGNS_MIN = 3
APART_MS = 1_000
SPAN_MS = 3_000  # 300 times the longest that an honest last close was seen to take
FORGOTTEN_MS = 600_000  # without another sign

ELSEWHERE = "an application uses it by another path: it has no -wal beside this file, although it is in WAL mode"
ELSEWHERE_HINT = (
    "its commits do not arrive here: give the container the folder, not the single file, or let the application use "
    "the path that the configuration names"
)
DELETED = "its -wal was deleted while an application uses it"
DELETED_HINT = "restart the application at once: what it commits is only in a file that has no name any more"


@dataclass(frozen=True, slots=True)
class OtherPath:
    """The signs seen so far; moments are monotonic milliseconds."""

    signs: int = 0
    first_ms: int = 0
    last_ms: int = 0
    had_wal: bool = False
    """A -wal was seen beside the file, and at each later look without a -wal, somebody had the database open."""
    writes: int = 0
    """The number of writes to the database up to the last look without a WAL."""

    @property
    def is_certain(self) -> bool:
        """Whether there were enough signs, over a long enough time."""
        return self.signs >= SIGNS_MIN and self.last_ms - self.first_ms >= SPAN_MS

    @property
    def cause(self) -> str:
        """The cause: why no commit reaches the WAL beside this path."""
        return DELETED if self.had_wal else ELSEWHERE

    @property
    def remedy(self) -> str:
        """What the operator can do about the cause."""
        return DELETED_HINT if self.had_wal else ELSEWHERE_HINT

    def beside_wal(self) -> OtherPath:
        """Return the signs after a look that shows a -wal beside the file: the count begins again."""
        return OtherPath(had_wal=True, writes=self.writes)

    def beside_none(self, now_ms: int, *, is_bare: bool, is_locked: bool, writes: int) -> OtherPath:
        """Return the signs after a look that shows no -wal. ``is_bare`` and ``is_locked``: see ``other_path_sign``."""
        if not is_bare:
            return OtherPath(had_wal=self.had_wal, writes=writes)
        found = self.seen(now_ms) if is_locked or writes != self.writes else self.unseen(now_ms)
        return replace(found, had_wal=self.had_wal and is_locked, writes=writes)

    def seen(self, now_ms: int) -> OtherPath:
        """Return the signs after a look that shows a sign."""
        if not self.signs or now_ms - self.last_ms > FORGOTTEN_MS:
            return replace(self, signs=1, first_ms=now_ms, last_ms=now_ms)
        if now_ms - self.last_ms < APART_MS:
            return self
        return replace(self, signs=self.signs + 1, last_ms=now_ms)

    def unseen(self, now_ms: int) -> OtherPath:
        """Return the signs after a look that shows no sign, which proves nothing by itself."""
        if now_ms - self.last_ms > FORGOTTEN_MS:
            return replace(self, signs=0, first_ms=0, last_ms=0)
        return self
