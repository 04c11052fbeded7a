"""When a database without a WAL is scanned next: what changed is shipped soon, and a scan that fails costs little.

- A scan that was accepted takes one token of the database's bucket (``core.send.pacing``), as the segment's upload
  does. So changes that are further apart than ``upload_interval`` are scanned at once, and faster ones are merged.
- A scan of a file of more than ``SMALL_BYTES`` is not cheap. After such a scan the database rests for ``REST_SHARE``
  times the scan's duration, so that scans take only a small share of the time. A scan of all pages delays only the next
  scan of all pages. A scan that reads only the pages that the journals name is *early*. An early scan costs little, and
  does not wait for that rest to end.
- A voided scan, during which the file was not quiet, is repeated after a pause, which doubles each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from walsyncd.core.send.pacing import BURST, Bucket, due_ms, refill, take

SMALL_BYTES = 4 << 20  # reading and hashing it takes 0.4 ms, less than the events of one commit (measured)
REST_SHARE = 10
RETRY_MS = 2.0  # a commit of a small transaction takes about a millisecond
SMALL_RETRY_MAX_MS = 20.0  # a writer at full speed leaves the file alone while its journal is synced
HINDERED_MAX_MS = 10_000.0  # a lock that is held for this long belongs to a process that keeps the lock
REST_MAX_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class ScanPace:
    """The pace of one database. Times are milliseconds of one monotonic clock."""

    bucket: Bucket = field(default_factory=lambda: Bucket(BURST, 0.0))
    rest_until_ms: float = 0.0
    all_pages_from_ms: float = 0.0
    """No scan reads all pages of a large file before this moment."""
    voided: int = 0
    """The number of scans in a row that were hindered or voided, while no event showed that a writer ended."""
    since_ms: float | None = None
    """The moment of the first of these scans."""

    def wait_ms(self, now_ms: float, interval_ms: float, *, is_asked: bool, is_early: bool = False) -> float:
        """Return how long to wait before the next scan.

        ``is_asked`` says that somebody waits for what is committed now, and ``is_early`` that the scan will not read
        all pages.
        """
        ready_ms = self.rest_until_ms if is_early else max(self.rest_until_ms, self.all_pages_from_ms)
        if not is_asked and refill(self.bucket, now_ms=now_ms, interval_ms=interval_ms).level < 1.0:
            ready_ms = max(ready_ms, due_ms(self.bucket, interval_ms=interval_ms))
        return max(0.0, ready_ms - now_ms)

    def accepted(
        self, now_ms: float, interval_ms: float, *, took_ms: float, file_bytes: int, is_early: bool = False
    ) -> ScanPace:
        """Return the pace after a scan of ``file_bytes`` whose result was a committed state."""
        bucket = refill(self.bucket, now_ms=now_ms, interval_ms=interval_ms)
        bucket = take(bucket, now_ms=now_ms, interval_ms=interval_ms) or replace(bucket, level=0.0)
        until_ms = now_ms + min(REST_SHARE * took_ms if file_bytes > SMALL_BYTES else 0.0, REST_MAX_MS)
        if is_early:
            return ScanPace(bucket, until_ms, self.all_pages_from_ms)
        return ScanPace(bucket, all_pages_from_ms=until_ms)

    def hindered(self, now_ms: float, *, took_ms: float, file_bytes: int, has_read: bool) -> ScanPace:
        """Return the pace after a scan that was not allowed to begin, or whose result was not a committed state."""
        pause_ms = min(RETRY_MS * 2.0 ** min(self.voided, 20), SMALL_RETRY_MAX_MS if has_read else HINDERED_MAX_MS)
        if has_read and file_bytes > SMALL_BYTES:
            pause_ms = max(pause_ms, min(REST_SHARE * took_ms * 2.0 ** min(self.voided, 5), REST_MAX_MS))
        since_ms = now_ms if self.since_ms is None else self.since_ms
        return replace(self, rest_until_ms=now_ms + pause_ms, voided=self.voided + 1, since_ms=since_ms)

    def woken(self, now_ms: float) -> ScanPace:
        """Return the pace after an event while a writer was in the way. The writer may have ended or may end soon."""
        return replace(self, rest_until_ms=min(self.rest_until_ms, now_ms + RETRY_MS), voided=0)
