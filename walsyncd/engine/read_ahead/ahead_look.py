"""A look whose reading was done ahead. Nothing of it is verified.

It is judged by the same code as a look at the files themselves (``follow.source_reader``), with two differences:

- What was read is all that can be read. Whatever else the judgement asks for ends it (``NotReadError``), and the files
  are looked at instead.
- It is judged later than it was read. Events void evidence and never add any, so those that came in between make the
  judgement stricter. A new mark counts from the events that had been counted before the reading began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from walsyncd.core.follow.decision import Cursor, Observation
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Salts
from walsyncd.core.sqlite.walindex import IndexHeader
from walsyncd.errors import WalsyncdError


class NotReadError(WalsyncdError):
    """A part of the WAL was asked for that was not read ahead."""


@dataclass(frozen=True, slots=True)
class AheadLook:
    """What was read between two observations of a live wal-index, as (offset, bytes) of the WAL.

    The reading began after the position ``salts`` and ``frames``. ``after_tail`` was observed after the rest of the old
    incarnation was read, and before anything else was; it is None if there was no restart. ``began_ms`` (monotonic),
    ``shm_serial``, ``index_rebuilds`` and ``closed`` mean the same as in ``CounterMark``. They were taken before the
    first observation.
    """

    salts: Salts
    frames: int
    before: Observation
    after_tail: Observation | None
    after: Observation
    extents: tuple[tuple[int, bytes], ...]
    began_ms: int
    shm_serial: int
    index_rebuilds: int
    closed: int
    seen: tuple[tuple[int, int], ...]
    """Entries (frame, monotonic ms), ascending: the frames up to this one were read at this time."""

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return sum(len(data) for _, data in self.extents)

    @property
    def index(self) -> IndexHeader:
        """The wal-index at the first observation. Everything that it shows was read."""
        assert self.before.index is not None
        return self.before.index

    def continues(self, cursor: Cursor) -> bool:
        """Whether this look holds everything that comes after ``cursor``, as far as its wal-index shows."""
        if (cursor.salts, cursor.frames) == (self.salts, self.frames):
            return True
        first = self.frames if self.salts == self.index.salts else 0
        return cursor.salts == self.index.salts and first <= cursor.frames < self.index.max_frame

    def goes_on(self, before: AheadLook) -> bool:
        """Whether this look and ``before`` are of one incarnation, and nothing lies between them.

        This look begins with the last frame of ``before``, which has changed if somebody has written over the -wal.
        """
        is_same = before.salts == before.index.salts == self.salts == self.index.salts
        if not is_same or self.frames != before.index.max_frame:
            return False
        start, data = self.extents[0]
        return before.pread(start, FRAME_HEADER_SIZE) == data[:FRAME_HEADER_SIZE]

    def pread(self, offset: int, length: int) -> bytes:
        """Return what was read of these bytes. There are fewer at the end of the WAL, and where the reading ended.

        After a restart, the frames of the new incarnation are the first extent, which ends with the header of one more
        frame. The next extent is the rest of the old incarnation; it can hold that frame completely.
        """
        found: bytes | None = None
        for start, data in self.extents:
            if start <= offset <= start + len(data):
                part = data[offset - start : offset - start + length]
                if len(part) > FRAME_HEADER_SIZE:
                    return part
                found = part if found is None or len(part) > len(found) else found
        if found is None:
            raise NotReadError(f"{length} bytes at {offset} of the WAL were not read ahead")
        return found


def joined(looks: list[AheadLook]) -> AheadLook:
    """Join several looks, each of which goes on after the one before.

    The result is the last look with the frames of all. Committed frames never change within their incarnation.
    """
    if len(looks) == 1:
        return looks[0]
    pieces = []
    for look, after in pairwise(looks):
        (offset, data), (end, _) = look.extents[0], after.extents[0]
        pieces.append(data[: end - offset])  # the next look begins with the last frame of this look
    pieces.append(looks[-1].extents[0][1])
    extent = (looks[0].extents[0][0], b"".join(pieces))
    seen = tuple(each for look in looks for each in look.seen)
    return replace(looks[-1], frames=looks[0].frames, extents=(extent,), seen=seen)
