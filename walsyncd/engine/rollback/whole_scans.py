"""Keeps the reasons why scans read all pages of a large file instead of those that journals name.

A large file that is read whole at each commit costs the disk and the CPU, and LAG grows where no pause is long enough.
So the reason is counted for the metrics, and reported once it is steady.
"""

from __future__ import annotations

from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.engine.follow.environment import Environment

STEADY = 3  # scans in a row; one alone is usual, after a start or a miss
UNWATCHED = "no events tell of writes to it"
_ADVICE = (
    "in journal_mode DELETE or PERSIST, with the default synchronous and locking_mode, a commit's journal names its "
    "pages; WAL mode needs no scans"
)


class WholeScans:
    """The scans of one database. For the follower's thread, and any may read ``words``."""

    def __init__(self, environment: Environment, name: str) -> None:
        self._environment = environment
        self._name = name
        self._in_a_row = 0
        self.words = ""
        """Why the file is read whole at each change, and what helps. Empty if that happens never or seldom."""

    def accepted(self, reason: str | None, *, file_bytes: int, is_watched: bool) -> None:
        """Take in a scan whose result counts. ``reason`` is why it read all pages, or None if journals named them."""
        if file_bytes > SMALL_BYTES and not is_watched:
            reason = UNWATCHED
        if file_bytes <= SMALL_BYTES or reason is None:
            self._in_a_row, self.words = 0, ""
            return
        self._environment.read_whole(self._name, reason)
        self._in_a_row += 1
        if self._in_a_row >= STEADY:
            self.words = f"all of the file is read at each change, because {reason} ({_ADVICE})"
