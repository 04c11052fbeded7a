"""Keeps the reasons why scans read all pages of a large file instead of the pages that journals name.

Reading a large file whole at each commit costs disk and CPU time, and LAG grows if no pause between commits is long
enough. So each reason is counted for the metrics, and reported once it is steady.
"""

from __future__ import annotations

from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.engine.follow.environment import Environment

STEADY = 3  # a reason is steady after this many scans in a row; a single scan is usual, after a start or a miss
UNWATCHED = "no events tell of writes to it"
_ADVICE = (
    "in journal_mode DELETE or PERSIST, with the default synchronous and locking_mode, a commit's journal names its "
    "pages; WAL mode needs no scans"
)


class WholeScans:
    """The scans of one database that read all pages. The follower's thread uses this. Any thread may read ``words``."""

    def __init__(self, environment: Environment, name: str) -> None:
        self._environment = environment
        self._name = name
        self._in_a_row = 0
        self.words = ""
        """Why the file is read whole at each change, and the remedy. Empty if it is never or seldom read whole."""

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
