"""Makes small real replicas. SQLite writes, and its WAL is shipped as the daemon would, but at the test's command.

The application increments a counter with every transaction, so a restored file shows which commit it is::

    with make_replica(tmp_path) as replica:
        replica.base()                  # a base at the position reached so far
        replica.commit(5)               # five transactions, in SQLite's WAL only
        replica.ship(every=2)           # segments of 2, 2 and 1 transactions
        replica.close_epoch(); replica.compact()

    replica.bridge(lost=3)          # three more transactions, stored as one bridge
    replica.heal(since=position)    # a bridge that says that what came after a position may be wrong

``history`` lists what was shipped: position, time and counter of every commit, one second apart. ``lost`` lists the
times of those that only a bridge holds.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.sqlite.checksum import checksum
from walsyncd.core.sqlite.wal import Frames, WalHeader, format_wal_header, parse_wal_header, read_frames
from walsyncd.core.stored.bridge import BridgeSpan, SuspectSpan
from walsyncd.core.stored.epoch import begin_stamp, restamp
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, SegmentKey, WholeKey, format_key
from walsyncd.core.stored.manifest import Manifest, Range, format_manifest, range_checksum
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Commit, Trailer, decode_body, encode_segment
from walsyncd.core.stored.zstd import zstd

GENERATION = "20261122T105600Z-3f9c1a2b"
NEXT_GENERATION = "20261123T105600Z-00000001"
BEGAN_MS = 1_795_344_960_000  # 2026-11-22T10:56:00Z
STEP_MS = 1000
RANGE_BYTES = 8192  # several ranges even in a small file


@dataclass(frozen=True, slots=True)
class Shipped:
    """A commit that is stored."""

    position: Position
    time_ms: int
    counter: int


class ReplicaMaker:
    """An application with one database, and its replica. See the module."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, page_size: int, name: str) -> None:
        self.path = folder / "app.db"
        self.root = folder / "replica"
        self.storage = DirectoryStorage(self.root)
        self.name = name
        self.connection = connection
        self.page_size = page_size
        self.history: list[Shipped] = []
        self.lost: list[int] = []
        self.generation = GENERATION
        self.epoch = 1
        self._previous = 0
        self._counter = 0
        self._time_ms = BEGAN_MS
        self._source: WalHeader | None = None
        self._copied = 0  # frames of SQLite's WAL
        self._source_chain = (0, 0)
        self._bodies: list[bytes] = []
        self._opened_previous = 0
        self._begin_epoch()

    # The application

    def commit(self, count: int = 1, *, rows: int = 1) -> None:
        """Commit ``count`` transactions of ``rows`` rows each into SQLite's WAL."""
        for _ in range(count):
            self.connection.execute("BEGIN")
            self.connection.execute("UPDATE counter SET value = value + 1")
            for _ in range(rows):
                self.connection.execute("INSERT INTO t (payload) VALUES (randomblob(300))")
            self.connection.execute("COMMIT")

    def checkpoint(self) -> None:
        """Ship all, then have SQLite copy its WAL back and begin a new one."""
        self.ship()
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._source, self._copied = None, 0

    def file(self) -> bytes:
        """Return the database file as it is once everything is shipped and checkpointed."""
        self.checkpoint()
        return self.path.read_bytes()

    # The daemon

    @property
    def position(self) -> Position:
        """Return the position shipped last."""
        return Position(self.generation, self.epoch, self._frame)

    @property
    def folder(self) -> Path:
        """Return where the generation's objects are."""
        return self.root / self.name / self.generation

    def base(self) -> ManifestKey:
        """Store a base of the quiet file. Its S and N are the position reached."""
        raw = self.file()
        key = BaseKey(self.generation, self.epoch, self._frame, f"{len(self.history):08x}")
        body, ranges = encode_base(raw)
        named = ManifestKey(key, self.epoch, self._frame, self._time_ms)
        manifest = Manifest(
            database=self.name,
            generation=self.generation,
            predecessor="",
            predecessor_end="",
            page_size=self.page_size,
            file_size=len(raw),
            key=format_key(key),
            size=len(body),
            etag="",
            start=self.position,
            consistent_from=self.position,
            time_ms=self._time_ms,
            ranges=ranges,
        )
        self._put(format_key(key), body)
        self._put(format_key(named), format_manifest(manifest))
        return named

    def ship(self, every: int | None = None) -> list[SegmentKey]:
        """Store what was committed, in segments of ``every`` transactions, or in one."""
        frames = self._read_new()
        keys = []
        while frames.count:
            commits = frames.commits[: every or frames.count]
            part = frames.upto(commits[-1])
            keys.append(self._store(part))
            rest = frames.data[len(part.data) :]
            assert self._source is not None
            self._copied, self._source_chain = part.last, part.chain_after(part.last, self._source_chain)
            frames = read_frames(rest, self._source, first=self._copied + 1, start=self._source_chain)
        return keys

    def bridge(self, lost: int = 2, *, kind: str = "stopped", reason: str = "the daemon was stopped") -> SegmentKey:
        """Commit ``lost`` transactions, and store only the state after the last one, as a bridge."""
        before, old, proven_ms = self.file(), self.position, self._time_ms + STEP_MS // 4
        self.commit(lost)
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(lost - 1):
            self._time_ms, self._counter = self._time_ms + STEP_MS, self._counter + 1
            self.lost.append(self._time_ms)
        return self._store_bridge(before, BridgeSpan(old.epoch, old.frame, proven_ms, kind, reason))

    def heal(self, since: Shipped, pages: int = 2) -> SegmentKey:
        """Store a transaction, and a bridge of all pages after it, because what came after ``since`` may be wrong."""
        self.commit()
        self.file()
        span = SuspectSpan(since.position.epoch, since.position.frame, since.time_ms, pages)
        old, reason = self.position, f"{pages} pages differed from the replica"
        self._counter -= 1  # this is no transaction of the application
        return self._store_bridge(b"", BridgeSpan(old.epoch, old.frame, self._time_ms + STEP_MS, "scrub", reason, span))

    def _store_bridge(self, before: bytes, span: BridgeSpan) -> SegmentKey:
        """Store the pages of the file that have changed, as the first transaction of an epoch."""
        after = self.path.read_bytes()
        if self._frame:
            self.close_epoch()
        size = self.page_size
        numbers = [
            number
            for number in range(1, len(after) // size + 1)
            if number == 1 or after[(number - 1) * size : number * size] != before[(number - 1) * size : number * size]
        ]
        pages = [(number, after[(number - 1) * size : number * size]) for number in [*numbers, 1]]
        return self._store(frames_of(pages, len(after) // size), span)

    def close_epoch(self) -> None:
        """Begin the next epoch."""
        self.ship()
        self._previous, self.epoch = self._frame, self.epoch + 1
        self._begin_epoch()

    def compact(self) -> WholeKey:
        """Store the epoch that was closed last as one object. Its segments stay."""
        key = WholeKey(
            self.generation,
            self.epoch - 1,
            self._previous,
            self._closed_ms,
            self._closed_previous,
            any(item.bridge for item in decode_body(self._closed) if isinstance(item, Trailer)),
        )
        self._put(format_key(key), b"".join(self._closed))
        return key

    def begin_generation(self, generation: str) -> None:
        """Begin a new history, without a base yet."""
        self.checkpoint()
        self.generation, self.epoch, self._previous = generation, 1, 0
        self._begin_epoch()

    def remove(self, key: Key) -> None:
        """Delete an object."""
        self.object_path(key).unlink()

    def object_path(self, key: Key) -> Path:
        """Return the file of an object."""
        return self.root / self.name / format_key(key)

    def _begin_epoch(self) -> None:
        self._closed, self._bodies = self._bodies, []
        self._closed_ms = self._time_ms
        self._closed_previous = self._opened_previous
        self._opened_previous = self._previous
        self._frame = 0
        self._header, self._stamp = begin_stamp(self.page_size, self.epoch, (0x1000 + self.epoch, 0x2000))

    def _read_new(self) -> Frames:
        wal = Path(f"{self.path}-wal").read_bytes()
        header = parse_wal_header(wal)
        if header is None:
            return read_frames(b"", _NO_WAL, first=1, start=(0, 0))
        if self._source is None:
            self._source, self._source_chain = header, header.chain
        assert header == self._source
        new = wal[header.offset_of(self._copied + 1) :]
        return read_frames(new, header, first=self._copied + 1, start=self._source_chain)

    def _store(self, frames: Frames, bridge: BridgeSpan | None = None) -> SegmentKey:
        first = self._frame + 1
        content, stamp = restamp(frames, self._stamp)
        commits = [Commit(self._frame + frame - frames.first + 1, 0) for frame in frames.commits]
        commits = [Commit(commit.frame, self._tick(commit.frame)) for commit in commits]
        last = self._frame + frames.count
        trailer = Trailer(self.epoch, first, last, self._stamp.chain, stamp.chain, tuple(commits), bridge)
        body = encode_segment((self._header if first == 1 else b"") + content, trailer)
        previous = self._previous if first == 1 else None
        key = SegmentKey(self.generation, self.epoch, first, last, self._time_ms, previous, bridge is not None)
        self._put(format_key(key), body)
        self._bodies.append(body)
        self._frame, self._stamp = last, stamp
        return key

    def _tick(self, frame: int) -> int:
        self._time_ms += STEP_MS
        self._counter += 1
        self.history.append(Shipped(Position(self.generation, self.epoch, frame), self._time_ms, self._counter))
        return self._time_ms

    def _put(self, key: str, body: bytes) -> None:
        self.storage.put(f"{self.name}/{key}", body, metadata={})
        stored_ns = self._time_ms * 1_000_000  # the time by the store's clock
        os.utime(self.root / self.name / key, ns=(stored_ns, stored_ns))


_NO_WAL = WalHeader(512, big_endian=False, sequence=0, salt1=0, salt2=0, chain=(0, 0))


def frames_of(pages: Sequence[tuple[int, bytes]], page_count: int) -> Frames:
    """Return one transaction of these pages, numbered, which leaves the database with ``page_count`` pages."""
    page_size = len(pages[0][1])
    header = parse_wal_header(format_wal_header(page_size=page_size, big_endian=False, sequence=1, salt1=1, salt2=2))
    assert header is not None
    chain, data = header.chain, b""
    for at, (number, page) in enumerate(pages, 1):
        head = struct.pack(">2I", number, page_count if at == len(pages) else 0)
        chain = checksum(head[:8] + page, chain, big_endian=False)
        data += head + struct.pack(">4I", 1, 2, *chain) + page
    frames = read_frames(data, header, first=1, start=header.chain)
    assert frames.count == len(pages)
    return frames


def encode_base(raw: bytes) -> tuple[bytes, tuple[Range, ...]]:
    """Return a base object: a zstd frame for each range, with padding between them as between parts."""
    body = b""
    ranges = []
    for offset in range(0, len(raw), RANGE_BYTES):
        piece = raw[offset : offset + RANGE_BYTES]
        packed = zstd.compress(piece, options={zstd.CompressionParameter.checksum_flag: 1})
        ranges.append(Range(offset, len(piece), len(body), len(packed), range_checksum(piece)))
        body += packed + struct.pack("<II", 0x184D2A5E, 5) + bytes(5)
    return body, tuple(ranges)


@contextmanager
def make_replica(folder: Path, *, page_size: int = 4096, name: str = "srv/app.db") -> Iterator[ReplicaMaker]:
    """Make an application with an empty table and a counter at 0, all of it in the database file."""
    path = folder / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE counter (value INTEGER)")
        connection.execute("INSERT INTO counter VALUES (0)")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield ReplicaMaker(folder, connection, page_size, name)


def damage(path: Path) -> None:
    """Flip one bit of an object."""
    body = bytearray(path.read_bytes())
    body[len(body) // 3] ^= 1
    path.write_bytes(body)


def counter_in(path: Path) -> int:
    """Return which commit a restored database is, after SQLite found it sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        value = connection.execute("SELECT value FROM counter").fetchone()[0]
    assert isinstance(value, int)
    return value
