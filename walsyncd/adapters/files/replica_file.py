"""A database file that others read while it is kept up to date: transactions appended to its WAL, as SQLite does it.

What a writer of SQLite does (wal.c; sqlite.org/walformat.html, section 2.3), and we after it:

1. hold the WRITER lock (byte 120 of the -shm), which no two writers, no recovery and no restart of the WAL can share;
2. append the frames after mxFrame, with the WAL's salts and chain; only the last one has a size, so that all are one
   transaction; fsync;
3. enter them into the wal-index's hash tables, behind mxFrame where no reader looks;
4. publish: the second copy of the wal-index's header, then the first, with iChange + 1 and the new mxFrame.

A reader sees the header before or after, so the state before or after; a kill leaves frames that nobody counts. Locks
are those of an open file description: they stand beside SQLite's own in this process and do not fall with them.

A connection of SQLite's beside it keeps -wal and -shm alive, recovers them after a crash, and checkpoints. Nothing
else may write to the file; that somebody did shows in iChange.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from walsyncd.adapters.files.source import Role, side_path
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.checksum import frame_chains
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, format_wal_header, parse_wal_header
from walsyncd.core.sqlite.walindex import IndexHeader, format_index_header, parse_index_header
from walsyncd.core.sqlite.walindex_hash import BLOCK_BYTES, add_frames, blocks_for
from walsyncd.core.stored.epoch import Stamp
from walsyncd.errors import CorruptError, RefusedError

LOCK_WAIT_S = 30.0  # only recovery and a checkpoint that empties the WAL hold the lock, for a few seconds at most
CHECKPOINT_WAIT_MS = 2000  # for readers of the WAL, when it is to be emptied
_WRITER_BYTE = 120
_FLOCK = struct.Struct("@hhqqi0q")


class ReplicaFile:
    """A database in WAL mode at ``path`` that we alone write to. RefusedError if SQLite can't use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._keeper = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)
            (mode,) = self._keeper.execute("PRAGMA journal_mode = WAL").fetchone()
            self._keeper.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._keeper.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT_MS}")
            (self.page_size,) = self._keeper.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error as error:
            raise RefusedError(
                f"follow with {path}: {error}", hint="an encrypted database can be restored, but not followed"
            ) from error
        if mode != "wal":
            raise RefusedError(f"follow with {path}: SQLite leaves it in {mode} mode")
        self._wal = os.open(side_path(path, Role.WAL), os.O_RDWR | os.O_CLOEXEC)
        self._shm = os.open(side_path(path, Role.SHM), os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self._shm, os.fstat(self._shm).st_size)
        self._barrier = threading.Lock()
        self._ichange = self._header().ichange

    def close(self) -> None:
        """SQLite empties the WAL if nobody reads. Closing a descriptor drops its locks: ours are closed after it."""
        self._keeper.close()
        self._map.close()
        os.close(self._shm)
        os.close(self._wal)

    def checkpoint(self) -> bool:
        """Copy the WAL back and empty it; False if readers are in the way, or others wrote meanwhile."""
        with self._translated():
            busy, _, _ = self._keeper.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return bool(busy == 0)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the system or SQLite refuses is RefusedError; the copy stays at the commit that it had reached."""
        try:
            yield
        except OSError as error:
            raise RefusedError(f"follow with {self.path}: {(error.strerror or str(error)).lower()}") from error
        except sqlite3.Error as error:
            raise RefusedError(f"follow with {self.path}: {error}") from error

    @property
    def wal_bytes(self) -> int:
        """The size of the -wal file."""
        return os.fstat(self._wal).st_size

    @contextmanager
    def update(self) -> Iterator[Update]:
        """One transaction; it exists only once ``commit`` has returned. RefusedError if somebody else wrote."""
        with self._translated(), self._writer_lock():
            header = self._header()
            if header.ichange != self._ichange:
                raise RefusedError(
                    f"follow with {self.path}: another process has written to it",
                    hint="restore it anew; whatever reads a copy that is followed must not write",
                )
            yield Update(self, self._wal, header)

    def publish(self, header: IndexHeader, first: int, page_numbers: list[int]) -> None:
        """Let readers see frames that are in the WAL from ``first`` on; only within an update."""
        size = blocks_for(header.max_frame) * BLOCK_BYTES
        if len(self._map) < size:
            have = os.fstat(self._shm).st_size
            os.pwrite(self._shm, bytes(max(0, size - have)), have)
            self._map.close()
            self._map = mmap.mmap(self._shm, max(size, have))
        with memoryview(self._map) as view:
            add_frames(view, first, page_numbers)
        copy = format_index_header(header)
        self._in_order()
        self._map[48:96] = copy
        self._in_order()
        self._map[:48] = copy
        self._in_order()
        self._ichange = header.ichange

    def _in_order(self) -> None:
        """What was stored before is seen before what is stored after: a lock's release and acquisition say so."""
        for _ in range(2):
            with self._barrier:
                pass

    def _header(self) -> IndexHeader:
        header = parse_index_header(self._map[:136])
        if header is None:  # somebody died while publishing: SQLite's next reader recovers it
            self._keeper.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            header = parse_index_header(self._map[:136])
        if header is None:
            raise CorruptError(f"follow with {self.path}: its wal-index can't be read")
        return header

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        self._header()  # recovered, if need be, while we do not hold the lock that recovery wants
        deadline_s = time.monotonic() + LOCK_WAIT_S
        while not self._lock(fcntl.F_WRLCK):
            if time.monotonic() > deadline_s:
                raise RefusedError(f"follow with {self.path}: another process holds its write lock")
            time.sleep(0.005)
        try:
            yield
        finally:
            self._lock(fcntl.F_UNLCK)

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.fcntl(self._shm, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _WRITER_BYTE, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True


class Update:
    """Frames on their way into the WAL, none of which anybody sees before `commit`."""

    def __init__(self, file: ReplicaFile, wal: int, header: IndexHeader) -> None:
        self._file = file
        self._wal = wal
        self._header = header
        self._stamp = self._begin()
        self._next = header.max_frame + 1
        self._numbers: list[int] = []

    def _begin(self) -> Stamp:
        """Continue the WAL; an empty one begins with a header, in salts that no frame left in the file has."""
        found, page_size = self._header, self._file.page_size
        if found.max_frame:
            if found.big_endian:
                raise RefusedError(f"follow with {self._file.path}: its WAL was begun on a machine of other byte order")
            return Stamp(page_size, 0, *found.salts, chain=found.frame_chain)
        salts = (found.salts[0] + 1) & 0xFFFFFFFF, secrets.randbits(32)
        data = format_wal_header(page_size=page_size, big_endian=False, sequence=0, salt1=salts[0], salt2=salts[1])
        os.pwrite(self._wal, data, 0)
        header = parse_wal_header(data)
        assert header is not None, "a WAL header that we formatted does not parse"
        self._header = replace(found, salts=salts, page_size=page_size, big_endian=False)
        return Stamp(page_size, 0, *salts, chain=header.chain)

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Append frames, a row each: page number and page are given, sizes too (0, but in the last before `commit`).

        Salts and checksums are put into the rows.
        """
        stamp, size = self._stamp, rows.shape[1]
        rows[:, 8:16] = np.frombuffer(struct.pack(">2I", stamp.salt1, stamp.salt2), np.uint8)
        chains = frame_chains(rows.data.cast("B"), size, stamp.chain, big_endian=False)
        rows[:, 16:24] = chains.astype(">u4").view(np.uint8)
        offset = WAL_HEADER_SIZE + (self._next - 1 + len(self._numbers)) * size
        view = rows.data.cast("B")
        while view:
            written = os.pwrite(self._wal, view, offset)
            view, offset = view[written:], offset + written
        self._stamp = replace(stamp, chain=(int(chains[-1][0]), int(chains[-1][1])))
        self._numbers += np.ascontiguousarray(rows[:, :4]).view(">u4")[:, 0].tolist()

    def commit(self, page_count: int) -> None:
        """Make it durable, then visible."""
        os.fsync(self._wal)
        header = replace(
            self._header,
            ichange=(self._header.ichange + 1) & 0xFFFFFFFF,
            max_frame=self._next - 1 + len(self._numbers),
            page_count=page_count,
            frame_chain=self._stamp.chain,
        )
        self._file.publish(header, self._next, self._numbers)
