"""Makes names durable, and says what the operating system's errors mean.

A file is written under another name, fsynced and renamed, and then its folder is fsynced. So it is complete or absent,
even after a power cut. A new folder is not durable before its parent was fsynced. Source: rename(2), fsync(2) ("does
not necessarily ensure that the entry in the directory has also reached disk").

The operating system's errors become walsyncd's here:

================================  ================  ===============================================
errno                             class             because
================================  ================  ===============================================
ENOENT                            MissingError      the file does not exist
EACCES, EPERM, EROFS, EXDEV       RefusedError      a person must change something
ELOOP, EINVAL                     RefusedError      a link or a device is where a file or a folder must be
ENAMETOOLONG, EFBIG               ImpossibleError   the file system will never accept this file
EISDIR, ENOTDIR, EEXIST           by direction      a file is where a folder must be, or the reverse: when writing this
                                                    is an ImpossibleError, when reading a MissingError
any other (ENOSPC, EIO, ESTALE)   TransientError    the same operation may succeed later
================================  ================  ===============================================
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walsyncd.errors import ImpossibleError, MissingError, RefusedError, TransientError, WalsyncdError

_CONFLICTS = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY})
_CONFLICT_HINT = "a name can't be a file and a folder at once: rename one of the databases"
_ACCESS_HINT = "give walsyncd's user access to it"
_MEANINGS: dict[int, tuple[type[WalsyncdError], str]] = {
    errno.ENOENT: (MissingError, ""),
    errno.EACCES: (RefusedError, _ACCESS_HINT),
    errno.EPERM: (RefusedError, _ACCESS_HINT),
    errno.EROFS: (RefusedError, "mount it writable"),
    errno.ELOOP: (
        RefusedError,
        "a symbolic link is there, and none is followed: remove it, and put what it leads to in its place",
    ),
    errno.EINVAL: (RefusedError, "it is neither a file nor a folder: remove it"),
    errno.EXDEV: (RefusedError, "the whole storage folder must be one file system"),
    errno.ENAMETOOLONG: (ImpossibleError, "choose a shorter name"),
    errno.EFBIG: (ImpossibleError, "the file system can't hold a file of this size"),
    errno.ENOSPC: (TransientError, "make room on its file system"),
    errno.EDQUOT: (TransientError, "raise the quota of walsyncd's user"),
}


def sync_folder(path: Path) -> None:
    """Make changes to the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
