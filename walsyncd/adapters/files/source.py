"""The user's files: opened O_RDONLY, read with pread, never written, and locked only if presence is configured.

No symbolic link is followed (``safe_open``): callers resolve paths before, and SQLite itself follows no link in the
place of a side file.

SQLite keeps three files beside a database (by its resolved path): ``-wal``, ``-shm`` and ``-journal``.

Locks are queried (``F_OFD_GETLK``) by byte (sqlite.org/walformat.html 2.3, SQLite's os_unix.c):

| file | bytes | what a lock there means |
|---|---|---|
| -shm | 128 (DMS) | F_RDLCK: a process uses the database; F_WRLCK: a process is setting the -shm up |
| -shm | 121 | F_WRLCK: a checkpoint is under way |
| database | 0x40000000, 1 | PENDING |
| database | 0x40000001, 1 | RESERVED |
| database | 0x40000002, 510 | SHARED as F_RDLCK, EXCLUSIVE as F_WRLCK |

``take_dms`` and ``take_database`` take the shared locks of an idle SQLite connection. Nothing takes any other lock.
These are locks of the open file description (fcntl(2), F_OFD_SETLK): closing that descriptor releases them, and closing
another descriptor does not. POSIX locks of a process vanish when it closes *any* descriptor of the file. This process
holds no POSIX locks on these files and does not open them through SQLite, so opening and closing the files never
affects a lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Self

from walsyncd.adapters.files.file_lock import OFD_PID, lock_bytes, lock_in_the_way
from walsyncd.adapters.files.safe_open import open_folder, open_in
from walsyncd.adapters.files.statx import birth_ns
from walsyncd.core.sqlite.dbheader import HEADER_SIZE, DatabaseHeader, parse_database_header
from walsyncd.core.sqlite.match_check import FOREIGN, FOREIGN_HINT, is_foreign
from walsyncd.core.stored.owner import UNNAMED
from walsyncd.errors import RefusedError, TransientError, UsageError
from walsyncd.file_calls import FILE_CALLS, FileCall

DMS_BYTE = 128
_CHECKPOINT_BYTE = 121
_LOCK_BYTES = (0x40000000, 512)
_SHARED_BYTES = (0x40000002, 510)

_READ_HINT = (
    "let the daemon read it: by its group, by an ACL (setfacl -m u:walsyncd:r FILE, and x on every folder "
    "above) or by the capability CAP_DAC_READ_SEARCH"
)
_LINK_HINT = (
    "no link is followed in the place of a database's files; a link in a configured path is followed if root made it, "
    "or if it leads to a file or into a folder of its owner: configure the path that it leads to, or chown -h root"
)


class Role(Enum):
    """Which file of a database it is. The value is what SQLite appends to the name."""

    DATABASE = ""
    WAL = "-wal"
    SHM = "-shm"
    JOURNAL = "-journal"
    DIRECTORY = "/"  # the folder itself, which only events of a watched folder have as role


FILE_ROLES = (Role.DATABASE, Role.WAL, Role.SHM, Role.JOURNAL)
_SIDE_SUFFIXES = tuple(role.value for role in FILE_ROLES[1:])


class Liveness(Enum):
    """Whether a process uses a wal-index, by the lock on its DMS byte."""

    LIVE = "live"
    SETTING_UP = "setting up"
    NONE = "none"


LIVENESS_BY_LOCK = {
    fcntl.F_RDLCK: Liveness.LIVE,
    fcntl.F_WRLCK: Liveness.SETTING_UP,
    fcntl.F_UNLCK: Liveness.NONE,
}


class DatabaseLock(Enum):
    """The lock that another process holds on the database file itself."""

    NONE = "none"
    SHARED = "shared"
    WRITER = "writer"


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of the DMS byte. ``pid`` is -1 for an OFD lock, 0 in another pid namespace or without a holder."""

    liveness: Liveness
    pid: int

    @property
    def is_process(self) -> bool:
        """Whether the lock is a POSIX lock, as SQLite's are. Only another walsyncd has OFD locks."""
        return self.liveness is not Liveness.NONE and self.pid != OFD_PID


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """The state of a file at one moment. Times are ns since 1970; ``birth_ns`` is None if the file system has none."""

    device: int
    inode: int
    birth_ns: int | None
    size: int
    mtime_ns: int
    ctime_ns: int


def side_path(database: Path, role: Role) -> Path:
    """Return the path where SQLite keeps the file of that role. ``database`` is resolved."""
    return database.with_name(database.name + role.value)


def is_side_name(name: str) -> bool:
    """Whether a file of that name is a database's -wal, -shm or -journal."""
    return name.endswith(_SIDE_SUFFIXES)


_holding = threading.Lock()


class OpenFile:
    """A descriptor of one of the user's files. It can be read even after the file was unlinked.

    Every method may raise TransientError (the device) or RefusedError (permission).
    """

    __slots__ = ("_descriptor", "_holds", "_is_closed", "_key", "path")

    def __init__(self, path: Path, descriptor: int, status: os.stat_result) -> None:
        self.path = path
        self._descriptor = descriptor
        self._holds, self._is_closed = 0, False
        # As long as the descriptor is open, no other file can get this inode number.
        self._key = (status.st_dev, status.st_ino)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for queries that this class does not have."""
        return self._descriptor

    def pread(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``, fewer only at the end of the file."""
        with file_access(f"read {length} bytes at {offset} of", self.path):
            block = os.pread(self._descriptor, length, offset)
            if not block or len(block) == length:
                return block
            blocks = [block]
            missing = length - len(block)
            while missing and (block := os.pread(self._descriptor, missing, offset + length - missing)):
                blocks.append(block)
                missing -= len(block)
            return b"".join(blocks)

    def size(self) -> int:
        """The file's size in bytes now."""
        return self._status().st_size

    def size_and_mtime(self) -> tuple[int, int]:
        """Return the file's size in bytes and its mtime (ns since 1970) now."""
        status = self._status()
        return status.st_size, status.st_mtime_ns

    def identity(self) -> FileIdentity:
        """Return the state of the open file, whatever the path names now."""
        status = self._status()
        with file_access("stat", self.path):
            born_ns = birth_ns(self._descriptor)
        times = status.st_mtime_ns, status.st_ctime_ns
        return FileIdentity(status.st_dev, status.st_ino, born_ns, status.st_size, *times)

    def duplicate(self) -> OpenFile:
        """Return another descriptor of the same file, to be closed separately."""
        with file_access("duplicate a descriptor of", self.path):
            descriptor = fcntl.fcntl(self._descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
        return OpenFile(self.path, descriptor, os.fstat(descriptor))

    def still_named(self) -> bool:
        """Whether the path names this very file now."""
        with file_access("stat", self.path):
            return self.is_at_its_path()

    def is_at_its_path(self) -> bool:
        """Do what ``still_named`` does, as a part of a longer ``file_access``. Raises OSError."""
        try:
            status = os.lstat(self.path)  # a link to the file counts as another file
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (status.st_dev, status.st_ino) == self._key

    def unlinked(self) -> bool:
        """Whether the file has no name any more: it was deleted or replaced."""
        return self._status().st_nlink == 0

    def hold(self) -> bool:
        """Keep the descriptor open until ``release``, even after ``close``. Returns False if it is closed already."""
        with _holding:
            if not self._is_closed:
                self._holds += 1
            return not self._is_closed

    def release(self) -> None:
        """End a ``hold``."""
        with _holding:
            self._holds -= 1
        self._close_unheld()

    def close(self) -> None:
        """Close the descriptor as soon as no ``hold`` is left. This method can be called twice."""
        with _holding:
            self._is_closed = True
        self._close_unheld()

    def _close_unheld(self) -> None:
        with _holding:
            if not self._is_closed or self._holds:
                return
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            FILE_CALLS.close(self.path, descriptor)

    def _status(self) -> os.stat_result:
        with file_access("stat", self.path):
            return os.fstat(self._descriptor)


def open_file(path: Path, *, own_only: bool = False) -> OpenFile | None:
    """Open a file of the user for reading, or return None if there is none; ``path`` is resolved.

    ``own_only`` is for a path that no person has named. A file with several hard links is then accepted only if its
    owner also owns the folder, since anybody may link another user's file into a folder of their own.

    Raises RefusedError without permission, UsageError for a link or another file that is not regular, and
    TransientError if the device fails or descriptors are lacking.
    """
    with file_access("open", path):
        try:
            with open_folder(path.parent) as folder:
                return _examined(path, open_in(folder, path.name), os.fstat(folder) if own_only else None)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UsageError(f"open {path}: there is a symbolic link in its place", hint=_LINK_HINT) from error
            if error.errno == errno.ENXIO:  # a socket
                raise _not_regular(path) from error
            raise


def _examined(path: Path, descriptor: int, folder: os.stat_result | None) -> OpenFile:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    if folder is not None and is_foreign(links=status.st_nlink, owner=status.st_uid, folder_owner=folder.st_uid):
        os.close(descriptor)
        raise UsageError(f"open {path}: {FOREIGN}", hint=FOREIGN_HINT)
    return OpenFile(path, descriptor, status)


def _not_regular(path: Path) -> UsageError:
    return UsageError(f"open {path}: not a regular file", hint="the configuration must name the database file itself")


class file_access:  # noqa: N801  used as a function
    """A call on a user's file. The call is registered while it lasts, and its OSError becomes an error of walsyncd."""

    __slots__ = ("_call",)

    def __init__(self, action: str, path: Path) -> None:
        self._call = FileCall(path, action)

    def __enter__(self) -> None:
        self._call.__enter__()

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._call.__exit__()
        match error:
            case PermissionError():
                text = f"{self._call.action} {self._call.path}: permission denied"
                raise RefusedError(text, hint=_READ_HINT) from error
            case OSError():
                raise TransientError(f"{self._call.action} {self._call.path}: {error.strerror}") from error


def read_header(database: OpenFile) -> DatabaseHeader | None:
    """Return the database's header, or None if the file is shorter than a header."""
    return parse_database_header(database.pread(0, HEADER_SIZE))


def hot_journal(database: Path, *, own_only: bool = False) -> bool:
    """Whether a rollback journal has to be played back: -journal exists and its first byte is not zero."""
    journal = open_file(side_path(database, Role.JOURNAL), own_only=own_only)
    if journal is None:
        return False
    with journal:
        return journal.pread(0, 1) not in {b"", b"\x00"}


def dms_holder(shm: OpenFile) -> Holder:
    """Return the holder of the DMS byte of the wal-index, or one of the holders if there are several.

    The query is for F_WRLCK, which conflicts with any lock. It does not report our own lock on the same descriptor.
    """
    kind, pid = _lock_in_the_way(shm, fcntl.F_WRLCK, DMS_BYTE, 1)
    return Holder(LIVENESS_BY_LOCK[kind], pid)


def liveness(shm: OpenFile) -> Liveness:
    """Return whether a process uses the database. The path must still name the file that ``shm`` has open."""
    return dms_holder(shm).liveness


def is_checkpointing(shm: OpenFile) -> bool:
    """Whether a process is copying the WAL back into the database."""
    kind, _ = _lock_in_the_way(shm, fcntl.F_WRLCK, _CHECKPOINT_BYTE, 1)
    return kind != fcntl.F_UNLCK


def database_lock(database: OpenFile) -> DatabaseLock:
    """Return the strongest lock of others on the database file. PENDING and RESERVED are locks of a writer."""
    for question, answer in ((fcntl.F_RDLCK, DatabaseLock.WRITER), (fcntl.F_WRLCK, DatabaseLock.SHARED)):
        kind, _ = _lock_in_the_way(database, question, *_LOCK_BYTES)
        if kind != fcntl.F_UNLCK:
            return answer
    return DatabaseLock.NONE


def lock_of_others(database: OpenFile, start: int, length: int) -> int:
    """Return F_WRLCK if a lock of others keeps a reader from these bytes, else F_UNLCK."""
    return _lock_in_the_way(database, fcntl.F_RDLCK, start, length)[0]


def posix_lock_holder(database: OpenFile) -> int | None:
    """Return the pid of a process that holds a lock of SQLite's on the database (0: in another pid namespace).

    Returns None if no process or only another walsyncd holds one.
    """
    kind, pid = _lock_in_the_way(database, fcntl.F_WRLCK, *_LOCK_BYTES)
    return None if kind == fcntl.F_UNLCK or pid == OFD_PID else pid


def take_dms(shm: OpenFile) -> bool:
    """Lock the DMS byte, shared, until ``shm`` is closed. Returns False if a process is setting the wal-index up.

    Call it only while another process holds the DMS byte (``presence_decision``), since the next process that opens the
    database will trust the wal-index because of this lock.
    """
    return _lock_shared(shm, DMS_BYTE, 1)


def take_database(database: OpenFile) -> bool:
    """Lock the SHARED bytes, shared, until ``database`` is closed. Returns False if a process has an exclusive lock."""
    return _lock_shared(database, *_SHARED_BYTES)


def _lock_shared(file: OpenFile, start: int, length: int) -> bool:
    with file_access("lock", file.path):
        return lock_bytes(file.fileno(), fcntl.F_RDLCK, start, length)


def _lock_in_the_way(file: OpenFile, wanted: int, start: int, length: int) -> tuple[int, int]:
    with file_access("ask for locks on", file.path):
        return lock_in_the_way(file.fileno(), wanted, start, length)


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def machine_id() -> str:
    """Return this machine's id (machine-id(5)). A container often has no such id; then its host name is used."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        text = ""
    return f"{UNNAMED}{os.uname().nodename}" if text in {"", "uninitialized"} else text
