"""Pages of the database file that something other than SQLite wrote over after a checkpoint had copied them back.

Such a page has two versions, the last one in the WAL's frames and the one in the file. SQLite (``walTryBeginRead`` and
``walCheckpoint`` in wal.c) treats them like this:

- A new reader looks for a page only in the frames after nBackfill. So it reads the file's version.
- A checkpoint begins after frame nBackfill, so it never copies the page again.
- If nobody uses the wal-index, the next opener recovers it, with nBackfill = 0, and the next checkpoint copies every
  frame again. So the frames' version counts from then on, and the file's version is lost.
- After the WAL has restarted or was deleted there is only the file.

So if the last frame of a page is not after nBackfill of a wal-index in use, the replica has the file's version. The
follow state holds the number of frames up to which this was so. Each look compares that number with the wal-index while
the incarnation lasts. If fewer frames are copied back than before, or nobody uses the wal-index any more, the frames'
version counts again. Between two looks all of that may happen, and a checkpoint after it. So the frames' version is
assumed to count again, too, if the -shm was written meanwhile or the daemon was away. Then the file is compared again,
and the difference is bridged.

A file that was written over may be longer than the WAL says, even if no page that was copied back was written over. As
long as there is a WAL, readers believe the size in the WAL, or in the wal-index if the WAL was emptied. So the file is
compared again after the WAL has ended, even if the WAL had restarted before.

Versions of SQLite before 3.11 read the frames' version until all frames are copied back. Without a wal-index (exclusive
mode) it is not known what was copied back. Then the frames' version is taken, and the file is compared again after the
WAL has restarted (``engine.content.page_content``).
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.follow.decision import Cursor, DmsHolder, Observation
from walsyncd.core.sqlite.wal import Salts
from walsyncd.core.sqlite.walindex import IndexHeader


@dataclass(frozen=True, slots=True)
class Overwritten:
    """The replica has the file's version of pages in frames 1 to ``frames`` of the WAL's incarnation ``salts``.

    If ``frames`` is 0, only the file's size may differ from what the WAL says.
    """

    salts: Salts
    frames: int


def copied_back(index: IndexHeader | None, cursor: Cursor | None) -> int:
    """Return how many frames up to ``cursor`` are certainly in the file. ``index`` is that of a wal-index in use."""
    if index is None or cursor is None or index.salts != cursor.salts:
        return 0
    return min(index.backfilled, cursor.frames)


def frames_count_again(known: Overwritten, seen: Observation) -> bool:
    """Whether readers read the frames' version again. ``seen`` is what a look at the same incarnation saw.

    While a process sets the wal-index up or leaves it, the answer is no, because a later look shows the result.
    """
    if not known.frames:
        return False
    if seen.holder is DmsHolder.NONE:
        return True
    if seen.holder is not DmsHolder.LIVE or seen.index is None or seen.index.salts != known.salts:
        return False
    return seen.index.backfilled < known.frames
