"""Decides whether a doubt is cleared. If it is, the database equals its replica: nothing is shipped, positions stay.

A doubt says that something may have been missed after a position. After the doubt, a scan has read the file, and a look
that began later has followed the WAL's current incarnation up to N. The doubt is cleared only if all of these hold:

- The scan read every page of the file that no frame of the current incarnation holds, in one pass.
- **No frame lies between the position and N.** Either the incarnation holds no commit at N, or it holds exactly the
  commits that were shipped: the same salts, the same last frame, and the same running checksum. If there were other
  frames, a state between them may never have been shipped, because a page that a frame holds was not compared. (A
  missed transfer between two rows, and then an update of each, leaves no page that differs, but the state after the
  first update is not the stored state.)
- No page within the size at N differs from the map, each of these pages exists, and the map has no page past that size.

A change that was written and then written back is not noticed, because no content shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.content.bridge_passes import LastVersions
from walsyncd.core.content.page_entry import PageNumbers, lock_page
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.sqlite.arrays import np

# With these kinds of gaps, something may have been missed. With every other kind, something was missed.
DOUBTS = frozenset({GapKind.UNCERTAIN, GapKind.DOUBT, GapKind.REVERTED, GapKind.REPLACED})


@dataclass(frozen=True, slots=True, eq=False)
class ScannedFile:
    """The result of the scan. The file has ``pages`` pages of ``page_size`` bytes.

    ``differing`` are the pages that differ from the map. ``size`` is the size of the database at N in pages.
    ``map_has_more`` says that the map has entries of pages past that size.
    """

    page_size: int
    pages: int
    differing: PageNumbers
    size: int
    map_has_more: bool


def clears_doubt(old: Cursor | None, now: Cursor | None, found: LastVersions, file: ScannedFile) -> bool:
    """Whether nothing happened after the position whose cursor is ``old``. ``now`` is the cursor at N."""
    if not found.is_whole or not _same_frames(old, now):
        return False
    if file.map_has_more or (file.differing <= file.size).any():
        return False
    beyond = np.arange(file.pages + 1, file.size + 1)
    beyond = beyond[beyond != lock_page(file.page_size)]
    return bool(np.isin(beyond, found.pages).all())


def _same_frames(old: Cursor | None, now: Cursor | None) -> bool:
    if now is None or not now.frames:
        return True
    return old is not None and (old.salts, old.frames, old.chain) == (now.salts, now.frames, now.chain)
