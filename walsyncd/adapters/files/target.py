"""The file that a restore makes: built beside its name, put in place in one step, or not at all.

SQLite keeps ``-wal``, ``-shm`` and ``-journal`` beside the *resolved* path, so that is where all of this
happens. A stale one of them would be applied to the restored file: they are moved aside, never removed.

Order: partial file → bytes → fsync → ``NAME-wal`` … moved aside → rename → fsync of the folder. A kill
before the rename leaves the old database, at worst with its WAL renamed (``NAME-wal.before-restore-…``).

The partial file, ``.NAME.TAG.partial``, has one name for one content (``tag``) and is locked (flock) while it is built,
so that the next restore finds what one that was killed has left, and two at a time do not write into one file. What is
in it is believed only where its checksums fit, so it needs no record of what was done.

Locks on the replaced file are SQLite's own (sqlite.org/lockingv3.html, os_unix.c): every open connection in WAL mode,
and every reader or writer in the other modes, holds some of the 512 bytes from 0x40000000 on. They are all held,
as an open file description's lock, from before the last look until the rename: nobody can begin in between.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from walsyncd.adapters.files.durable_file import sync_folder
from walsyncd.adapters.files.source import (
    DatabaseLock,
    Liveness,
    Role,
    database_lock,
    liveness,
    open_file,
    side_path,
)
from walsyncd.errors import CorruptError, RefusedError, TransientError, UsageError, WalsyncdError

PRIVATE_MODE = 0o600  # a database may hold anything; who needs more says so, or had it before
GROUP_MODE = 0o640  # in a folder that lets its group in
SPACE_RESERVE_BYTES = 1024 * 1024  # folders and metadata need a little too
KEPT_BYTES_MIN = 64 << 20  # what is fetched again in a second or two is not worth a file that somebody has to find
_FLOCK = struct.Struct("@hhqqi0q")  # struct flock of a 64-bit Linux
_LOCK_BYTES = 0x40000000, 512
_BLOCK = 512  # the unit of st_blocks


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the restored file; what is None is as it was, or as its folder suggests."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


def follow_path(database: Path) -> Path:
    """Where a copy that follows a replica says how far it has come."""
    return database.with_name(f"{database.name}-follow")


class Target:
    """A path that a database is to be restored to."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._folder = self.path.parent
        self._stem = f".{self.path.name[:50]}"  # file systems take 255 bytes of a name; a letter has at most four
        self._partial = self._folder / f"{self._stem}.partial"

    def exists(self) -> bool:
        """Whether something is there by that name."""
        return os.path.lexists(self.path)

    def check(self, *, force: bool) -> None:
        """Refuse what must not be replaced: UsageError without ``force``, RefusedError if it is in use."""
        if not self._folder.is_dir():
            raise UsageError(f"restore to {self.path}: there is no folder {self._folder}", hint="make it first")
        if self.exists() and not force:
            raise UsageError(
                f"restore to {self.path}: the file exists",
                hint="--force replaces it, --if-missing leaves it as it is",
            )
        self._check_unused()

    def _check_unused(self, *, locked: bool = False) -> None:
        """As far as locks tell: an idle connection in a rollback-journal mode holds none. ``locked``: by us."""
        if (not locked and self._is_locked()) or self._is_attached():
            raise self._in_use()

    def _in_use(self) -> RefusedError:
        return RefusedError(
            f"restore to {self.path}: a process has this database open",
            hint="stop the application first: it would go on writing to the replaced file",
        )

    def check_space(self, size: int, *, descriptor: int | None = None) -> None:
        """RefusedError if the folder's file system has no room for ``size`` bytes beside what is there.

        ``descriptor`` is that of the partial file, whose bytes are part of them.
        """
        free = self._free_bytes() + (os.fstat(descriptor).st_blocks * _BLOCK if descriptor is not None else 0)
        if size + SPACE_RESERVE_BYTES > free:
            raise RefusedError(
                f"restore to {self.path}: needs {size} bytes, {free} are free in {self._folder}",
                hint="the new file is built beside the old one; restore to another file system",
            )

    def partials(self) -> list[Path]:
        """What interrupted restores to this path have left, of any content."""
        return sorted(self._folder.glob(f"{glob.escape(self._stem)}.*.partial"))

    @contextmanager
    def building(self, tag: str) -> Iterator[int]:
        """A descriptor of the partial file, with what an earlier restore of the same content left in it.

        It is removed at the end unless it was published, or is large and the restore was interrupted, storage went
        away, or an object did or is damaged: then the next one goes on with it. RefusedError if another process
        builds it just now.
        """
        self._partial = self._folder / f"{self._stem}.{tag}.partial"
        descriptor = self._open_partial()
        inode = os.fstat(descriptor).st_ino
        kept = False
        try:
            self._remove_others()
            yield descriptor
        except OSError as error:
            raise self._failed("write", error) from error
        except (KeyboardInterrupt, SystemExit, TransientError, CorruptError):
            kept = os.fstat(descriptor).st_blocks * _BLOCK >= KEPT_BYTES_MIN
            raise
        finally:
            with suppress(FileNotFoundError):
                if not kept and self._partial.stat().st_ino == inode:  # else it was published
                    self._partial.unlink()
            os.close(descriptor)

    def publish(self, descriptor: int, *, stamp: str, access: Access = Access()) -> list[Path]:
        """Make the built file durable and give it the target's name; returns what was moved aside.

        ``stamp`` ends the names of what is moved.
        """
        self._give(descriptor, access)
        os.fsync(descriptor)
        moved: list[tuple[Path, Path]] = []
        with self._locked_out():
            try:
                for stale, aside in self._stale(stamp):
                    stale.rename(aside)
                    moved.append((stale, aside))
                self._partial.rename(self.path)
            except OSError:
                for stale, aside in moved:  # the old database stays, and may need them
                    aside.rename(stale)
                raise
        sync_folder(self._folder)
        return [aside for _, aside in moved]

    def _open_partial(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            try:
                descriptor = os.open(self._partial, flags, PRIVATE_MODE)
            except OSError as error:
                raise self._failed("create a file beside", error) from error
            try:
                self._take(descriptor)
                with suppress(FileNotFoundError):
                    if self._partial.stat().st_ino == os.fstat(descriptor).st_ino:
                        return descriptor  # else who had the lock has published or removed it: once more
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        """Lock the partial file, which must be our own: in a shared folder anybody can make one."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise RefusedError(f"restore to {self.path}: {self._partial} is not ours", hint="remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"restore to {self.path}: another restore to it is under way", hint="wait for it, or stop it"
            ) from error
        os.fchmod(descriptor, PRIVATE_MODE)

    def _remove_others(self) -> None:
        """What interrupted restores of other contents have left beside the same target."""
        for found in self.partials():
            if found == self._partial or found.is_symlink() or found.stat().st_uid != os.geteuid():
                continue
            with found.open("rb") as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.unlink(missing_ok=True)

    @contextmanager
    def _locked_out(self) -> Iterator[None]:
        """Nobody has the replaced file open, and nobody can begin to use it; RefusedError if somebody does."""
        self._check_unused()
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EACCES, errno.EROFS, errno.EISDIR}:
                raise
            yield  # there is none, or none that we may lock; the rename says what may not be
            return
        try:
            start, length = _LOCK_BYTES
            lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
            except (BlockingIOError, PermissionError) as error:
                raise self._in_use() from error
            self._check_unused(locked=True)
            yield
        finally:
            os.close(descriptor)

    def _is_locked(self) -> bool:
        database = open_file(self.path)
        if database is None:
            return False
        with database:
            return database_lock(database) is not DatabaseLock.NONE

    def _is_attached(self) -> bool:
        shm = open_file(side_path(self.path, Role.SHM))
        if shm is None:
            return False
        with shm:
            return liveness(shm) is not Liveness.NONE

    def _free_bytes(self) -> int:
        try:
            status = os.statvfs(self._folder)
        except OSError as error:
            raise self._failed("look for room beside", error) from error
        return status.f_bavail * status.f_frsize

    def _give(self, descriptor: int, access: Access) -> None:
        """Owner and mode as asked for; else those of the replaced file; else as the folder suggests.

        Only root can give a file away; without ``access`` nobody else is asked to.
        """
        folder = self._folder.stat()
        mode = GROUP_MODE if folder.st_mode & stat.S_IXGRP else PRIVATE_MODE
        owner = folder.st_uid, folder.st_gid
        with suppress(FileNotFoundError):
            replaced = self.path.stat()
            mode, owner = stat.S_IMODE(replaced.st_mode), (replaced.st_uid, replaced.st_gid)
        if os.geteuid() == 0:
            os.fchown(descriptor, *owner)
        if access.uid is not None or access.gid is not None:
            uid, gid = (-1 if number is None else number for number in (access.uid, access.gid))
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode if access.mode is None else access.mode)

    def _stale(self, stamp: str) -> Iterator[tuple[Path, Path]]:
        """What lies beside the target, and where it is moved to: a name that nothing has."""
        sides = [side_path(self.path, role) for role in (Role.WAL, Role.SHM, Role.JOURNAL)]
        for stale in (*sides, follow_path(self.path)):
            if os.path.lexists(stale):
                aside = stale.with_name(f"{stale.name}.before-restore-{stamp}")
                if os.path.lexists(aside):
                    aside = aside.with_name(f"{aside.name}-{secrets.token_hex(4)}")
                yield stale, aside

    def _failed(self, action: str, error: OSError) -> WalsyncdError:
        return RefusedError(f"restore: {action} {self.path}: {error.strerror}")
