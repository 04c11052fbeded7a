"""The follow state: everything that the daemon must know of a database when it starts again, as one JSON text.

The follow state is written in the same transaction as the segments that lead to it, so the two never disagree.

    stream     where our stored WAL ends: generation, epoch, frame, salts, running checksum
    cursor     our position in the source's WAL, or None if there was no WAL
    start      the stored position just before the first frame of the cursor's incarnation
    file       which file the database is, and what it looked like when no WAL existed
    seen       the database file and nBackfill at the last commit that was read from a WAL
    mode       "wal", or "rollback": no WAL was ever seen, and a base is taken whenever the file changed
    gap        the gap after this position, while it is bridged; absent otherwise
    overwritten
               present if pages were taken from the file although the WAL has them, too
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.overwritten import Overwritten
from walsyncd.core.sqlite.checksum import Chain
from walsyncd.core.sqlite.wal import Salts, WalHeader
from walsyncd.core.stored.epoch import Stamp
from walsyncd.core.stored.position import Position

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """Our stored WAL. The next frame to be stored is ``frame`` + 1 of ``epoch``.

    ``stamp`` is None before an epoch's first frame. ``previous`` is the last frame of the previous epoch, and ``bytes``
    is the size of this epoch's WAL so far. ``began_ms`` is when this epoch's first commit was seen. ``time_ms`` is when
    the last commit of the database was seen; it never decreases within an epoch.
    """

    generation: str
    epoch: int = 1
    frame: int = 0
    previous: int = 0
    stamp: Stamp | None = None
    bytes: int = 0
    began_ms: int = 0
    time_ms: int = 0

    @property
    def position(self) -> Position:
        """Where the stored WAL ends."""
        return Position(self.generation, self.epoch, self.frame)

    def next_epoch(self) -> Stream:
        """Return the stream at the start of the next epoch."""
        return Stream(self.generation, self.epoch + 1, previous=self.frame, time_ms=self.time_ms)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Which file the database is, and the file's size and times.

    Size and times are those from when there was no WAL (``known``). They are 0 if they are not known.
    Size and times are recorded only once the file has been quiet for longer than the granularity of its times. So any
    later write changes the times.
    """

    device: int
    inode: int
    birth_ns: int | None
    boot_id: str
    wal_inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0

    @property
    def known(self) -> bool:
        """Whether size and times were recorded."""
        return self.ctime_ns != 0

    def unknown(self) -> FileFacts:
        """Return the same file with unknown size and times."""
        return replace(self, size=0, mtime_ns=0, ctime_ns=0)

    def is_file(self, other: FileFacts) -> bool:
        """Whether both are the same file."""
        return (self.device, self.inode, self.birth_ns) == (other.device, other.inode, other.birth_ns)

    def has_content_of(self, other: FileFacts) -> bool:
        """Whether this is the same file as ``other``, and neither size nor mtime shows a write."""
        return self.is_file(other) and (self.size, self.mtime_ns) == (other.size, other.mtime_ns)

    def looks_like(self, other: FileFacts) -> bool:
        """Whether nothing at all was done to the file since ``other``, which must be ``known`` and the same file."""
        return other.known and self.has_content_of(other) and self.ctime_ns == other.ctime_ns


@dataclass(frozen=True, slots=True)
class SeenBesideWal:
    """The database file while it had a WAL, and how far the WAL was copied back.

    ``salts`` and ``backfilled`` are None if there was no wal-index. The wal-index is read before the file, because a
    checkpoint writes the file before it stores nBackfill.
    """

    salts: Salts | None
    backfilled: int | None
    size: int
    mtime_ns: int

    def explains(self, now: SeenBesideWal) -> bool:
        """Whether a checkpoint of the WAL suffices to explain what was written to the file since.

        It does only if the same wal-index shows that more frames were copied back, or that the WAL has restarted, which
        happens only after all frames were copied back. A wal-index that was removed or rebuilt since (its nBackfill
        begins at 0) may hide any other writer.
        """
        if (self.size, self.mtime_ns) == (now.size, now.mtime_ns):
            return True
        if self.backfilled is None or now.backfilled is None:
            return False
        return self.salts != now.salts or self.backfilled < now.backfilled


@dataclass(frozen=True, slots=True)
class BegunEpoch:
    """An epoch that was begun for a base, and the stored size of the transaction that it began with."""

    epoch: int
    size: int


@dataclass(frozen=True, slots=True)
class FollowState:
    """The state that is needed to follow one database; see the head of this file."""

    stream: Stream
    cursor: Cursor | None
    start_epoch: int
    start_frame: int
    file: FileFacts
    mode: str = "wal"
    seen: SeenBesideWal | None = None
    gap: Gap | None = None
    overwritten: Overwritten | None = None
    begun: BegunEpoch | None = None
    """The generation's last epoch that was begun for a base (``engine.content.epoch_start``)."""

    @property
    def start(self) -> Position:
        """The stored position just before frame 1 of the cursor's incarnation."""
        return Position(self.stream.generation, self.start_epoch, self.start_frame)

    def entered(self, cursor: Cursor | None) -> FollowState:
        """Return the state at the beginning of another incarnation. If ``cursor`` is None, there is no WAL."""
        stream = self.stream
        start_epoch, start_frame = stream.epoch, stream.frame
        overwritten = Overwritten(cursor.salts, 0) if self.overwritten is not None and cursor is not None else None
        return replace(
            self, cursor=cursor, start_epoch=start_epoch, start_frame=start_frame, seen=None, overwritten=overwritten
        )


def format_follow_state(state: FollowState) -> str:
    """Return the state as JSON text."""
    stream, cursor, stamp = state.stream, state.cursor, state.stream.stamp
    facts = {
        "format": FORMAT,
        "stream": {
            "generation": stream.generation,
            "epoch": stream.epoch,
            "frame": stream.frame,
            "previous": stream.previous,
            "bytes": stream.bytes,
            "began_ms": stream.began_ms,
            "time_ms": stream.time_ms,
        },
        "stamp": None if stamp is None else [stamp.page_size, stamp.sequence, stamp.salt1, stamp.salt2, *stamp.chain],
        "cursor": None if cursor is None else [*cursor.salts, cursor.frames, *cursor.chain],
        "header": None if cursor is None or cursor.header is None else _format_header(cursor.header),
        "start": [state.start_epoch, state.start_frame],
        "mode": state.mode,
        "seen": None if state.seen is None else _format_seen(state.seen),
        **({} if state.gap is None else {"gap": [str(state.gap.kind), state.gap.reason]}),
        **({} if state.overwritten is None else {"overwritten": _format_overwritten(state.overwritten)}),
        **({} if state.begun is None else {"begun": [state.begun.epoch, state.begun.size]}),
        "file": {name: getattr(state.file, name) for name in FileFacts.__dataclass_fields__},
    }
    return json.dumps(facts, separators=(",", ":"))


def parse_follow_state(text: str) -> FollowState:
    """Inverse of ``format_follow_state``. Raises ValueError if the text is not a follow state."""
    try:
        facts = json.loads(text)
        if facts["format"] != FORMAT:
            raise ValueError(f"follow state has format {facts['format']}, not {FORMAT}")
        start_epoch, start_frame = facts["start"]
        return FollowState(
            Stream(**facts["stream"], stamp=_parse_stamp(facts["stamp"])),
            _parse_cursor(facts),
            start_epoch,
            start_frame,
            FileFacts(**facts["file"]),
            facts["mode"],
            _parse_seen(facts.get("seen")),
            _parse_gap(facts.get("gap")),
            _parse_overwritten(facts.get("overwritten")),
            BegunEpoch(*facts["begun"]) if facts.get("begun") else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"follow state lacks or misstates {error}") from error


def _format_header(header: WalHeader) -> list[int]:
    order = int(header.big_endian)
    return [header.page_size, order, header.sequence, header.salt1, header.salt2, *header.chain]


def _parse_gap(fields: list[str] | None) -> Gap | None:
    if fields is None:
        return None
    kind, reason = fields
    return Gap(GapKind(kind), "{reason}", {"reason": reason})


def _format_overwritten(overwritten: Overwritten) -> list[Any]:
    return [*overwritten.salts, overwritten.frames]


def _parse_overwritten(fields: list[Any] | None) -> Overwritten | None:
    if fields is None:
        return None
    salt1, salt2, frames = fields
    return Overwritten((salt1, salt2), frames)


def _parse_stamp(fields: list[int] | None) -> Stamp | None:
    if fields is None:
        return None
    page_size, sequence, salt1, salt2, s0, s1 = fields
    return Stamp(page_size, sequence, salt1, salt2, (s0, s1))


def _format_seen(seen: SeenBesideWal) -> list[Any]:
    return [seen.salts, seen.backfilled, seen.size, seen.mtime_ns]


def _parse_seen(fields: list[Any] | None) -> SeenBesideWal | None:
    if fields is None:
        return None
    salts, backfilled, size, mtime_ns = fields
    return SeenBesideWal(None if salts is None else (salts[0], salts[1]), backfilled, size, mtime_ns)


def _parse_cursor(facts: Mapping[str, Any]) -> Cursor | None:
    if facts["cursor"] is None:
        return None
    salt1, salt2, frames, s0, s1 = facts["cursor"]
    salts: Salts = (salt1, salt2)
    chain: Chain = (s0, s1)
    header = None
    if facts["header"] is not None:
        page_size, order, sequence, head1, head2, c0, c1 = facts["header"]
        header = WalHeader(page_size, bool(order), sequence, head1, head2, (c0, c1))
    return Cursor(salts, header, frames, chain)
