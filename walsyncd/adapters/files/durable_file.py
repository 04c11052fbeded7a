"""Writes files that are complete or absent, even after a power cut.

Write under another name, fsync the file, rename it, fsync the folder. A new folder is not safe before its parent was
fsynced. Source: rename(2), fsync(2) ("does not necessarily ensure that the entry in the directory has also reached
disk").

The operating system's errors become walsyncd's here:

================================  ================  ===============================================
errno                             class             because
================================  ================  ===============================================
ENOENT                            MissingError      it is not there
EACCES, EPERM, EROFS, EXDEV       RefusedError      a person must change something
ENAMETOOLONG, EFBIG               ImpossibleError   the file system will never accept this file
EISDIR, ENOTDIR, EEXIST           by direction      a file where a folder must be, or the reverse:
                                                    impossible to write, absent when reading
any other (ENOSPC, EIO, ESTALE)   TransientError    the same operation may succeed later
================================  ================  ===============================================
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from walsyncd.adapters.files.open_folder import is_empty_folder, open_folder
from walsyncd.adapters.files.private_modes import NEW_FILE_MODE, NEW_FOLDER_MODE
from walsyncd.errors import ImpossibleError, MissingError, RefusedError, TransientError, WalsyncdError

RENAME_ATTEMPTS_MAX = 10  # a folder vanishes under a rename only if another process deletes its last file just then
_CONFLICTS = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY})
_CONFLICT_HINT = "a name can't be a file and a folder at once: rename one of the databases"
_ACCESS_HINT = "give walsyncd's user access to it"
_MEANINGS: dict[int, tuple[type[WalsyncdError], str]] = {
    errno.ENOENT: (MissingError, ""),
    errno.EACCES: (RefusedError, _ACCESS_HINT),
    errno.EPERM: (RefusedError, _ACCESS_HINT),
    errno.EROFS: (RefusedError, "mount it writable"),
    errno.EXDEV: (RefusedError, "the whole storage folder must be one file system"),
    errno.ENAMETOOLONG: (ImpossibleError, "choose a shorter name"),
    errno.EFBIG: (ImpossibleError, "the file system can't hold a file of this size"),
    errno.ENOSPC: (TransientError, "make room on its file system"),
    errno.EDQUOT: (TransientError, "raise the quota of walsyncd's user"),
}


def write_temporary(folder: Path, fill: Callable[[BinaryIO], object]) -> Path:
    """Write a durable new file in ``folder`` with ``fill``, under a random name. A missing folder is created."""
    make_folders(folder)
    path = folder / secrets.token_hex(16)
    try:
        with create_file(path) as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def publish(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target`` durably, in one step. Missing folders on the way are created."""
    try:
        for attempts_left in reversed(range(RENAME_ATTEMPTS_MAX)):
            try:
                make_folders(target.parent)
                temporary.rename(target)
                sync_folder(target.parent)
            except FileNotFoundError:
                if not attempts_left or not temporary.exists():
                    raise
            else:
                return
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def create_file(path: Path) -> BinaryIO:
    """Create a file under an unused name, and return it open for writing.

    Only its owner and its group may read it, whatever the umask is. Root gives it to its folder's owner.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, NEW_FILE_MODE), "wb")
    try:
        leave_to_owner(file.fileno(), path.parent)
    except BaseException:
        file.close()
        raise
    return file


def make_folders(path: Path) -> None:
    """Create ``path`` and its parents where they are missing, each of them durable."""
    if path.is_dir():
        return
    make_folders(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=NEW_FOLDER_MODE)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if is_empty_folder(descriptor):  # otherwise it is not the one that we have just created
                leave_to_owner(descriptor, path.parent)
        finally:
            os.close(descriptor)
    sync_folder(path.parent)


def leave_to_owner(descriptor: int, folder: Path) -> None:
    """Give what root has just created in ``folder``, and has open, to the owner of that folder.

    An administrator's ``check`` or ``sync`` must not lock the daemon's user out of its own folder. What already has
    another owner was not created by us. In a folder that everybody can write to, its owner has no claim.
    """
    if os.geteuid() != 0 or os.fstat(descriptor).st_uid != 0:
        return
    with open_folder(folder) as opened:
        if opened.heir:
            os.fchown(descriptor, *opened.heir)


def sync_folder(path: Path) -> None:
    """Make changes of the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_whole(source: Path, target: BinaryIO) -> None:
    """Append a whole file to an open one. The kernel copies the bytes."""
    with source.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            copied = os.sendfile(target.fileno(), file.fileno(), None, left)
            if not copied:
                raise OSError(errno.EIO, "file became shorter while it was copied", str(source))
            left -= copied


@contextmanager
def reading(operation: str, path: Path) -> Iterator[None]:
    """Translate the operating system's errors while reading; ``operation`` begins the message."""
    try:
        yield
    except OSError as error:
        raise _translate(operation, path, error, conflict=MissingError) from error


@contextmanager
def writing(operation: str, path: Path) -> Iterator[None]:
    """Translate the operating system's errors while writing; ``operation`` begins the message."""
    try:
        yield
    except OSError as error:
        raise _translate(operation, path, error, conflict=ImpossibleError) from error


def _translate(operation: str, path: Path, error: OSError, *, conflict: type[WalsyncdError]) -> WalsyncdError:
    code = error.errno or 0
    kind, hint = (conflict, _CONFLICT_HINT) if code in _CONFLICTS else _MEANINGS.get(code, (TransientError, ""))
    return kind(f"{operation} {path}: {(error.strerror or str(error)).lower()}", hint=hint)
