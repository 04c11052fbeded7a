"""A database file that others read while it is kept current: transactions are appended to its WAL, as SQLite does.

A writer of SQLite does the following (wal.c; sqlite.org/walformat.html, section 2.3), and so do we:

1. hold the WRITER lock, which no two writers, no recovery and no restart of the WAL can share;
2. append the frames after mxFrame, with the WAL's salts and chain; only the last frame has a size, so that all are
   one transaction; fsync;
3. enter the frames into the wal-index's hash tables, after mxFrame, where no reader looks;
4. publish: write the second copy of the wal-index's header, then the first, with iChange + 1 and the new mxFrame.

A reader sees the old header or the new one, and so the old state or the new one. A kill leaves frames that no reader
uses.

This process has no SQLite connection to the file. SQLite's locks belong to a process, and closing any descriptor of the
file releases them (fcntl(2)). A process that had a connection and descriptors of its own would lose its locks, and the
next reader would consider a live wal-index stale and empty it. So this class does what a connection does. It holds DMS
and SHARED as long as the file is open, which keeps -wal and -shm in place. It recovers the wal-index from the WAL after
a kill, and copies the WAL back.

Nothing else may write to the file. After a foreign write the wal-index's header differs from the one that this process
published last. A checkpoint by another process is not a write.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from walsyncd.adapters.files.file_lock import lock_bytes
from walsyncd.adapters.files.open_folder import OpenFolder
from walsyncd.adapters.files.source import Role
from walsyncd.adapters.files.wal_copy import copy_back, recover_frames, write_whole
from walsyncd.adapters.files.wal_index_file import (
    CKPT,
    MARKS,
    READ0,
    READ1,
    WRITER,
    WalIndexFile,
)
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.checksum import frame_chains
from walsyncd.core.sqlite.dbheader import HEADER_SIZE, parse_database_header
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, format_wal_header, parse_wal_header
from walsyncd.core.sqlite.walindex import MARK_UNUSED, IndexHeader
from walsyncd.core.stored.epoch import Stamp
from walsyncd.errors import CorruptError, RefusedError, StateError

LOCK_WAIT_S = 30.0  # only recovery and a checkpoint that empties the WAL hold the lock, for a few seconds at most
CHECKPOINT_WAIT_S = 2.0  # the wait for readers when the WAL is copied back or restarted
_ALL_LOCKS = 0x40000000, 512  # PENDING, RESERVED and SHARED of the database file
_SHARED = 0x40000002, 510
_JOURNAL_MODES = slice(18, 20)  # in the database header: 2 and 2 is WAL
_CHANGE_COUNTERS = 24, 92  # two offsets where processes that have the file open look for a change
_FULL = {errno.ENOSPC, errno.EDQUOT}


FOREIGN_WRITE_HINT = "restore it again with --force; whatever reads a copy that is followed must not write"


class ForeignWriteError(RefusedError):
    """Another process has committed to the file, so the file's content is no longer known."""


@dataclass(frozen=True, slots=True)
class _State:
    """The content of the wal-index after our last commit. Only a checkpoint by another process may change it."""

    ichange: int
    salts: tuple[int, int]
    max_frame: int
    chain: tuple[int, int]


class ReplicaFile:
    """A database in WAL mode to which only this process writes. Raises RefusedError if the file can't be used.

    The file does not close ``folder``. All methods raise RefusedError for the system's errors, and StateError if there
    is no room.
    """

    def __init__(self, folder: OpenFolder, name: str) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = name
        with ExitStack() as opened, self._translated():
            self._database = self._open(name, opened)
            self._be_the_only_one()
            self._take_shared()
            self.page_size = self._into_wal_mode()
            self._wal = self._open(f"{name}{Role.WAL.value}", opened, create=True)
            self._index = WalIndexFile(self._open(f"{name}{Role.SHM.value}", opened, create=True))
            folder.sync()  # a commit in a WAL whose name is lost would be lost
            if not self._index.attach(LOCK_WAIT_S):
                raise RefusedError(f"follow with {self.path}: another process is setting up its wal-index")
            self._state = _state_of(self._header())
            opened.pop_all()

    def _open(self, name: str, opened: ExitStack, *, create: bool = False) -> int:
        """Open one of the files. A created file belongs to the owner of the database, as with SQLite."""
        flags = os.O_RDWR | os.O_NONBLOCK
        try:
            descriptor = self._folder.open(name, flags)
        except FileNotFoundError:
            if not create:
                raise
            descriptor = self._folder.open(name, flags | os.O_CREAT | os.O_EXCL)
            status = os.fstat(self._database)
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
        opened.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusedError(f"follow with {self.path}: {name} is not a regular file", hint="remove it")
        return descriptor

    def _be_the_only_one(self) -> None:
        """Lock the file, since two processes that follow with it would see each other's commits as foreign writes."""
        try:
            fcntl.flock(self._database, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"follow with {self.path}: another process follows with it", hint="stop one of the two"
            ) from error

    def _take_shared(self) -> None:
        if not lock_bytes(self._database, fcntl.F_RDLCK, *_SHARED):
            raise RefusedError(f"follow with {self.path}: another process has locked it", hint="stop that process")

    def _into_wal_mode(self) -> int:
        """Have readers look for a WAL, and return the page size.

        Only possible while nobody reads it in another mode.
        """
        raw = os.pread(self._database, HEADER_SIZE, 0)
        header = parse_database_header(raw)
        if header is None or not header.magic_ok or header.page_size is None:
            raise RefusedError(
                f"follow with {self.path}: file is not a database",
                hint="an encrypted or an empty database can be restored, but not followed",
            )
        if raw[_JOURNAL_MODES] != b"\2\2":
            if not lock_bytes(self._database, fcntl.F_WRLCK, *_ALL_LOCKS):
                raise RefusedError(f"follow with {self.path}: a process has it open", hint="stop its readers first")
            counter = struct.pack(">I", (int.from_bytes(raw[24:28], "big") + 1) & 0xFFFFFFFF)
            for offset in _CHANGE_COUNTERS:
                os.pwrite(self._database, counter, offset)
            os.pwrite(self._database, b"\2\2", _JOURNAL_MODES.start)
            os.fsync(self._database)
            lock_bytes(self._database, fcntl.F_UNLCK, *_ALL_LOCKS)
            self._take_shared()
        return header.page_size

    def close(self) -> None:
        """Copy the WAL back. -wal and -shm are removed if no other process uses the file."""
        with self._translated():
            self.checkpoint()
            if lock_bytes(self._database, fcntl.F_WRLCK, *_ALL_LOCKS) and not self.wal_bytes and self._is_named():
                for role in (Role.WAL, Role.SHM):
                    self._folder.unlink(f"{self._name}{role.value}")
        self._index.close()
        os.close(self._wal)
        os.close(self._database)

    def checkpoint(self, *, wait_s: float = CHECKPOINT_WAIT_S) -> bool:
        """Copy the WAL back as far as readers permit, and restart it if no reader needs it any more.

        ``wait_s`` is the time to wait for readers. Returns whether the whole database is in the database file now.
        """
        with (
            self._translated(),
            self._index.alone(WRITER, wait_s=LOCK_WAIT_S) as writes,
            self._index.alone(CKPT) as ours,
        ):
            if not writes or not ours:
                return False
            header = self._header(locked=True)
            if header.backfilled < header.max_frame and not self._copy_back(header, wait_s):
                return False
            with self._index.alone(READ1, MARKS - 1, wait_s=wait_s if self.wal_bytes else 0) as unread:
                if unread and header.max_frame:
                    self._begin_again(header)
            return True

    def _copy_back(self, header: IndexHeader, wait_s: float) -> bool:
        with self._index.alone(READ0, wait_s=wait_s) as held:
            if not held:
                return False
            safe = self._index.safe_frame(header)
            if header.backfilled < safe:
                os.fsync(self._wal)
                self._index.set_backfilled(header.backfilled, attempted=safe)
                frames = range(header.backfilled + 1, safe + 1)
                copy_back(self._wal, self._database, frames, page_size=self.page_size, page_count=header.page_count)
                if safe == header.max_frame:
                    os.ftruncate(self._database, header.page_count * self.page_size)
                os.fsync(self._database)
                self._index.set_backfilled(safe, attempted=safe)
            return safe == header.max_frame

    def _begin_again(self, header: IndexHeader) -> None:
        """Restart the WAL, so that the next transaction is written at its beginning.

        The caller ensures that the WAL has no readers, and that the database file holds all of it.
        """
        salts = (header.salts[0] + 1) & 0xFFFFFFFF, secrets.randbits(32)
        header = replace(header, max_frame=0, salts=salts)
        self._index.publish(header)
        self._index.set_backfilled(0, attempted=0)
        for number in range(1, MARKS):
            self._index.set_mark(number, 0 if number == 1 else MARK_UNUSED)
        os.ftruncate(self._wal, 0)
        self._state = _state_of(header)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors. After any error the copy stays at the commit that it had reached."""
        try:
            yield
        except OSError as error:
            reason = f"follow with {self.path}: {(error.strerror or str(error)).lower()}"
            if error.errno in _FULL:
                raise StateError(reason, hint="make room on its file system") from error
            raise RefusedError(reason) from error

    @property
    def database(self) -> int:
        """The descriptor of the database file. After a complete `checkpoint` that file holds all commits."""
        return self._database

    @property
    def wal_bytes(self) -> int:
        """The size of the -wal file."""
        return os.fstat(self._wal).st_size

    @contextmanager
    def update(self) -> Iterator[Update]:
        """Yield a transaction, which is in the database only once ``commit`` has returned.

        Raises RefusedError after a foreign write.
        """
        with self._translated(), self._index.alone(WRITER, wait_s=LOCK_WAIT_S) as held:
            if not held:
                raise RefusedError(f"follow with {self.path}: another process holds its write lock")
            if not self._is_named():
                raise RefusedError(
                    f"follow with {self.path}: somebody has moved, removed or replaced it, or its -wal or -shm",
                    hint="start the command again: it compares the file with what is stored",
                )
            header = self._header(locked=True)
            if not self._is_ours(header):
                raise ForeignWriteError(
                    f"follow with {self.path}: another process has written to it", hint=FOREIGN_WRITE_HINT
                )
            yield Update(self, self._wal, header)

    def _is_named(self) -> bool:
        """Whether the names still refer to the files that we have open."""
        suffixes = ("", Role.WAL.value, Role.SHM.value)
        for suffix, descriptor in zip(suffixes, (self._database, self._wal, self._index.descriptor), strict=True):
            found = self._folder.status(f"{self._name}{suffix}")
            if found is None or not os.path.samestat(found, os.fstat(descriptor)):
                return False
        return True

    def _is_ours(self, header: IndexHeader) -> bool:
        """Whether nobody else has committed: nothing changed, or a process copied the WAL back and emptied it."""
        now = _state_of(header)
        was_recovered = replace(now, ichange=self._state.ichange) == self._state
        was_emptied = header.max_frame == 0 and header.ichange == self._state.ichange
        return was_recovered or was_emptied

    def publish(self, header: IndexHeader, first: int, page_numbers: list[int]) -> None:
        """Let readers see the frames of the WAL from ``first`` on. Call it only within an update."""
        self._index.enter(first, page_numbers)
        self._index.publish(header)
        self._state = _state_of(header)

    def _header(self, *, locked: bool = False) -> IndexHeader:
        """Return the wal-index's header, after a recovery from the WAL if need be.

        ``locked`` says that we hold WRITER already.
        """
        header = self._index.header()
        if header is None:
            with ExitStack() as stack:
                held = locked or stack.enter_context(self._index.alone(WRITER, wait_s=LOCK_WAIT_S))
                if not held:
                    raise RefusedError(f"follow with {self.path}: another process holds its write lock")
                header = self._index.header()
                if header is None:
                    recover_frames(self._wal, self._index, page_size=self.page_size, wait_s=LOCK_WAIT_S)
                    header = self._index.header()
        if header is None:
            raise CorruptError(f"follow with {self.path}: its wal-index can't be read")
        return header


def _state_of(header: IndexHeader) -> _State:
    return _State(header.ichange, header.salts, header.max_frame, header.frame_chain)


class Update:
    """Frames that are being appended to the WAL. Nobody sees them before `commit`."""

    def __init__(self, file: ReplicaFile, wal: int, header: IndexHeader) -> None:
        self._file = file
        self._wal = wal
        self._header = header
        self._stamp = self._begin()
        self._next = self._header.max_frame + 1
        self._numbers: list[int] = []

    def _begin(self) -> Stamp:
        """Continue the WAL. An empty WAL gets a header, whose salts no frame left in the file has."""
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
        """Append frames, one in each row.

        The caller has set page number, page and size. The size is 0 except in the last row before `commit`.

        This method writes salts and checksums into the rows.
        """
        stamp, size = self._stamp, rows.shape[1]
        rows[:, 8:16] = np.frombuffer(struct.pack(">2I", stamp.salt1, stamp.salt2), np.uint8)
        chains = frame_chains(rows.data.cast("B"), size, stamp.chain, big_endian=False)
        rows[:, 16:24] = chains.astype(">u4").view(np.uint8)
        offset = WAL_HEADER_SIZE + (self._next - 1 + len(self._numbers)) * size
        write_whole(self._wal, rows.data.cast("B"), offset)
        self._stamp = replace(stamp, chain=(int(chains[-1][0]), int(chains[-1][1])))
        self._numbers += np.ascontiguousarray(rows[:, :4]).view(">u4")[:, 0].tolist()

    def commit(self, page_count: int) -> None:
        """Make the transaction durable, then visible."""
        os.fsync(self._wal)
        header = replace(
            self._header,
            ichange=(self._header.ichange + 1) & 0xFFFFFFFF,
            max_frame=self._next - 1 + len(self._numbers),
            page_count=page_count,
            frame_chain=self._stamp.chain,
        )
        self._file.publish(header, self._next, self._numbers)
