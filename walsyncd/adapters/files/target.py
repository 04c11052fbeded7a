"""The file that a restore creates: built beside its name, and put in place in one step or not at all.

SQLite keeps ``-wal``, ``-shm`` and ``-journal`` beside the file. SQLite would apply a stale -wal or -journal to the
restored file, so these files are moved aside, and never removed.

Order: partial file → bytes → fsync → ``NAME-wal`` … moved aside → rename → fsync of the folder. A kill before the
rename leaves the old database, at worst with its WAL renamed (``NAME-wal.before-restore-…``).

The partial file, ``.NAME.TAG.partial``, has one name for each content (``tag``), so that the next restore finds what a
killed restore has left. It is locked (flock) while it is built, so that two restores do not write into one file. Its
bytes are only trusted where checksums match, so no record of what was done is needed.

The folder may belong to an untrusted user. It is opened once (`open_folder`). Every file in it is created, opened and
renamed by the folder's descriptor, and no link is followed. A target that is a link is refused. Owner and mode are set
on descriptors, without special bits.

Locks on the replaced file are SQLite's own (sqlite.org/lockingv3.html, os_unix.c): every open connection in WAL mode,
and every reader or writer in the other modes, holds some of the 512 bytes from 0x40000000 on. A restore locks all these
bytes, for its open file description, from before the last check until the rename. So nobody can begin in between.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from walsyncd.adapters.files.file_lock import lock_bytes
from walsyncd.adapters.files.open_folder import OpenFolder, open_folder
from walsyncd.adapters.files.source import DatabaseLock, Liveness, OpenFile, Role, database_lock, liveness
from walsyncd.errors import CorruptError, RefusedError, TransientError, UsageError

PRIVATE_MODE = 0o600  # a database may hold anything; wider access must be requested, or have existed before
GROUP_MODE = 0o640  # in a folder that its group may read
SPACE_RESERVE_BYTES = 1024 * 1024  # folders and metadata also need some space
KEPT_BYTES_MIN = 64 << 20  # a smaller file is fetched again in a second or two, and is not worth keeping
FOLLOW_SUFFIX = "-follow"
_SIDE_SUFFIXES = (Role.WAL.value, Role.SHM.value, Role.JOURNAL.value)
_LOCK_BYTES = 0x40000000, 512
_BLOCK = 512  # the unit of st_blocks
_PERMISSIONS = 0o777  # without setuid, setgid and sticky bits
_PEEK = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO or a device of that name must not block us


@dataclass(frozen=True, slots=True)
class Access:
    """Access to the restored file. A field that is None is taken from the replaced file, or else from the folder."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


def follow_path(database: Path) -> Path:
    """Return the path of the file in which a copy that follows a replica records its progress."""
    return database.with_name(f"{database.name}{FOLLOW_SUFFIX}")


def is_missing(path: Path) -> bool:
    """Whether there is no database at ``path``: no file, or a file of 0 bytes whose -wal is absent or empty."""
    return _size(path) == 0 and _size(path.with_name(f"{path.name}{Role.WAL.value}")) == 0


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise RefusedError(f"look for {path}: {_reason(error)}") from error
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


class Target:
    """A path to restore a database to. Raises UsageError if there is no folder, RefusedError for a link.

    ``create_folder`` creates the folder and gives it to its parent's owner.
    """

    def __init__(self, path: Path, *, create_folder: bool = False) -> None:
        self._name = path.name
        if self._name in {"", ".."}:
            raise UsageError(f"restore to {path}: not a regular file", hint="name the file that is to be written")
        try:
            self._folder = open_folder(path.parent, create=create_folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"restore to {path}: there is no folder {path.parent}", hint="make it first") from error
        except OSError as error:
            raise RefusedError(f"restore to {path}: open its folder: {_reason(error)}") from error
        self.path = self._folder.path / self._name
        self._stem = f".{self._name[:50]}"  # file systems allow 255 bytes in a name; a letter has at most four bytes
        self._partial = f"{self._stem}.partial"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        self._folder.close()

    @property
    def folder(self) -> OpenFolder:
        """The folder that the file is in; it is closed with the target."""
        return self._folder

    def exists(self) -> bool:
        """Whether the name exists. A link that leads nowhere counts too."""
        return self._folder.status(self._name) is not None

    def check(self, *, force: bool, replace_empty: bool = False) -> None:
        """Refuse what must not be replaced. ``replace_empty`` permits a file of 0 bytes that has no -wal.

        Raises UsageError if the file exists and ``force`` was not given, and RefusedError if it is a link or in use.
        """
        status = self._folder.status(self._name)
        if status is not None:
            self._check_kind(status)
            if not force and not (replace_empty and self._is_empty(status)):
                raise UsageError(
                    f"restore to {self.path}: the file exists",
                    hint="--force replaces it, --if-missing leaves it as it is",
                )
        self._check_unused()

    def _is_empty(self, status: os.stat_result) -> bool:
        wal = self._folder.status(f"{self._name}{Role.WAL.value}")
        return status.st_size == 0 and (wal is None or (stat.S_ISREG(wal.st_mode) and wal.st_size == 0))

    def _check_kind(self, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise RefusedError(
                f"restore to {self.path}: it is a symbolic link",
                hint="restores follow no link: name the file that it leads to, or remove the link",
            )
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"restore to {self.path}: not a regular file", hint="remove it, or choose another name")

    def _check_unused(self, *, locked: bool = False) -> None:
        """Check for locks of others: an idle connection in a rollback mode has none. ``locked``: we hold our own."""
        if (not locked and self._is_locked()) or self._is_attached():
            raise self._in_use()

    def _in_use(self) -> RefusedError:
        return RefusedError(
            f"restore to {self.path}: a process has this database open",
            hint="stop the application first: it would go on writing to the replaced file",
        )

    def check_space(self, size: int, *, descriptor: int | None = None) -> None:
        """Raise RefusedError if the folder's file system has no room for ``size`` more bytes.

        ``descriptor`` is that of the partial file, whose bytes count towards ``size``.
        """
        free = self._free_bytes() + (os.fstat(descriptor).st_blocks * _BLOCK if descriptor is not None else 0)
        if size + SPACE_RESERVE_BYTES > free:
            raise RefusedError(
                f"restore to {self.path}: needs {size} bytes, {free} are free in {self._folder.path}",
                hint="the new file is built beside the old one; restore to another file system",
            )

    def partials(self) -> list[Path]:
        """Return the partial files, of any content, that interrupted restores to this path have left."""
        return [self._folder.path / name for name in self._partial_names()]

    def _partial_names(self) -> list[str]:
        begin, end = f"{self._stem}.", ".partial"
        names = self._folder.names()
        return [
            name for name in names if name.startswith(begin) and name.endswith(end) and len(name) > len(begin + end)
        ]

    @contextmanager
    def building(self, tag: str, *, kept_bytes_min: int = KEPT_BYTES_MIN) -> Iterator[int]:
        """Yield a descriptor of the partial file, which keeps the bytes of an earlier restore of the same content.

        The file is removed at the end unless it was published. A large file is also kept if the restore was
        interrupted, storage went away, or an object vanished or is damaged: the next restore continues with it. Raises
        RefusedError if another process is building the file.
        """
        self._partial = f"{self._stem}.{tag}.partial"
        with self._failing("create a file beside"):
            descriptor = self._open_partial()
        kept = False
        try:
            self._remove_others()
            yield descriptor
        except OSError as error:
            raise self._failed("write", error) from error
        except (KeyboardInterrupt, SystemExit, TransientError, CorruptError):
            kept = os.fstat(descriptor).st_blocks * _BLOCK >= kept_bytes_min
            raise
        finally:
            if not kept and self._names_file(self._partial, descriptor):  # otherwise it was published
                with suppress(FileNotFoundError):
                    self._folder.unlink(self._partial)
            os.close(descriptor)

    def publish(
        self, descriptor: int, *, stamp: str, access: Access = Access(), follow_point: bytes | None = None
    ) -> list[Path]:
        """Make the built file durable and give it the target's name. Returns what was moved aside.

        ``stamp`` ends the names of the files moved aside. ``follow_point`` is written beside the target before the
        target appears, so that a copy that follows a replica always has a follow point.
        """
        self._give(descriptor, access)
        os.fsync(descriptor)
        moved: list[tuple[str, str]] = []
        with self._locked_out():
            try:
                for stale, aside in self._stale(stamp):
                    self._folder.rename(stale, aside)
                    moved.append((stale, aside))
                if follow_point is not None:
                    self._folder.write(f"{self._name}{FOLLOW_SUFFIX}", follow_point)
                self._folder.rename(self._partial, self._name)
            except OSError:
                for stale, aside in moved:  # the old database stays, and may need these files
                    self._folder.rename(aside, stale)
                raise
        self._folder.sync()
        if not self._names_file(self._name, descriptor):
            raise RefusedError(
                f"restore to {self.path}: somebody else changes names in this folder",
                hint="find out who, and try again",
            )
        return [self._folder.path / aside for _, aside in moved]

    def _names_file(self, name: str, descriptor: int) -> bool:
        found, ours = self._folder.status(name), os.fstat(descriptor)
        return found is not None and os.path.samestat(found, ours)

    def _open_partial(self) -> int:
        while True:
            try:
                descriptor = self._folder.open(self._partial, os.O_RDWR | os.O_NONBLOCK)
            except FileNotFoundError:
                try:
                    descriptor = self._folder.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
                except FileExistsError:
                    continue
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                    raise self._not_ours() from error
                raise
            try:
                self._take(descriptor)
                if self._names_file(self._partial, descriptor):
                    return descriptor  # otherwise the process that had the lock published or removed it: try again
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        """Lock the partial file, which must be ours, since any user can create such a file in a shared folder."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise self._not_ours()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"restore to {self.path}: another restore to it is under way", hint="wait for it, or stop it"
            ) from error
        os.fchmod(descriptor, PRIVATE_MODE)

    def _not_ours(self) -> RefusedError:
        return RefusedError(
            f"restore to {self.path}: {self._folder.path / self._partial} is not ours", hint="remove it"
        )

    def _remove_others(self) -> None:
        """Remove the files that interrupted restores of other contents have left beside the same target."""
        for name in self._partial_names():
            status = self._folder.status(name)
            if name == self._partial or status is None:
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                continue
            with suppress(OSError):  # another process renames the file meanwhile, or builds it
                descriptor = self._folder.open(name, _PEEK)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._folder.unlink(name)
                finally:
                    os.close(descriptor)

    @contextmanager
    def _locked_out(self) -> Iterator[None]:
        """Keep other processes from opening the replaced database. Raises RefusedError if a process has it open."""
        self._check_unused()
        try:
            descriptor = self._folder.open(self._name, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(f"restore to {self.path}: it is a symbolic link") from error
            if error.errno not in {errno.ENOENT, errno.EACCES, errno.EROFS, errno.EISDIR}:
                raise
            yield  # there is no file that we may lock; the rename raises what is not permitted
            return
        try:
            if not lock_bytes(descriptor, fcntl.F_WRLCK, *_LOCK_BYTES):
                raise self._in_use()
            self._check_unused(locked=True)
            yield
        finally:
            os.close(descriptor)

    def _is_locked(self) -> bool:
        database = self._open_existing(self._name)
        if database is None:
            return False
        with database:
            return database_lock(database) is not DatabaseLock.NONE

    def _is_attached(self) -> bool:
        shm = self._open_existing(f"{self._name}{Role.SHM.value}")
        if shm is None:
            return False
        with shm:
            return liveness(shm) is not Liveness.NONE

    def _open_existing(self, name: str) -> OpenFile | None:
        """Open an existing file, or return None. A link is refused, as SQLite refuses it."""
        path = self._folder.path / name
        try:
            descriptor = self._folder.open(name, _PEEK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(
                    f"restore to {self.path}: {path} is a symbolic link", hint="restores follow no link: remove it"
                ) from error
            raise RefusedError(f"restore to {self.path}: open {path}: {_reason(error)}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise UsageError(f"restore to {self.path}: {path} is not a regular file", hint="remove it")
        return OpenFile(path, descriptor, status)

    def _free_bytes(self) -> int:
        with self._failing("look for room beside"):
            status = os.fstatvfs(self._folder.descriptor)
        return status.f_bavail * status.f_frsize

    def _give(self, descriptor: int, access: Access) -> None:
        """Set owner and mode: those requested, else those of the replaced file, else those that the folder implies.

        Only root can change a file's owner. In a folder that is open to everybody the owner stays, and a replaced file
        of another user is not taken into account.
        """
        heir = self._folder.heir
        mode = GROUP_MODE if heir and self._folder.mode & stat.S_IXGRP else PRIVATE_MODE
        owner = heir
        replaced = self._folder.status(self._name)
        if replaced is not None and (heir or replaced.st_uid in {0, os.geteuid()}):
            mode, owner = replaced.st_mode & _PERMISSIONS, (replaced.st_uid, replaced.st_gid)
        if owner is not None and os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        if access.uid is not None or access.gid is not None:
            uid, gid = (-1 if number is None else number for number in (access.uid, access.gid))
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode if access.mode is None else access.mode & _PERMISSIONS)

    def _stale(self, stamp: str) -> Iterator[tuple[str, str]]:
        """Yield the name of each side file of the target, and the unused name to which that file is moved."""
        for suffix in (*_SIDE_SUFFIXES, FOLLOW_SUFFIX):
            stale = f"{self._name}{suffix}"
            if self._folder.status(stale) is not None:
                aside = f"{stale}.before-restore-{stamp}"
                if self._folder.status(aside) is not None:
                    aside = f"{aside}-{secrets.token_hex(4)}"
                yield stale, aside

    @contextmanager
    def _failing(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(action, error) from error

    def _failed(self, action: str, error: OSError) -> RefusedError:
        return RefusedError(f"restore: {action} {self.path}: {error.strerror}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
