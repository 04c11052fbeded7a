"""Opens the file that a resolved path names, for reading, and follows no symbolic link on the way.

The owner of a folder may put a link, a FIFO or another user's file in a file's place at any moment, also between two
system calls. So nothing is reached by name twice:

1. The folder is opened by openat2(2) with RESOLVE_NO_SYMLINKS. A path that was resolved before holds no link. A link
   that was created since is refused (ELOOP).
2. The file is opened relative to that descriptor with O_NOFOLLOW, so that a link in its place is refused as well.
3. The caller checks by fstat which file and which folder the descriptors refer to.

Where the kernel has no openat2 (before Linux 5.6), or a sandbox forbids it (EPERM), each folder on the way is opened
with O_NOFOLLOW instead. The result is the same, but each folder takes a system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# O_NONBLOCK has no effect on a regular file. It keeps a FIFO in the file's place from stopping the daemon.
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_DIRECTORY | os.O_CLOEXEC

_OPENAT2 = 437  # the system call's number, which is the same on every architecture
_OPEN_HOW = struct.Struct("@QQQ")  # flags, mode, resolve (linux/openat2.h)
_RESOLVE_NO_SYMLINKS = 0x04
_AT_FDCWD = -100
_NOT_AVAILABLE = {errno.ENOSYS, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Yield a descriptor of the folder, so that files can be opened relative to it.

    Raises OSError, with ELOOP for a link on the way.
    """
    descriptor = folder_descriptor(folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def folder_descriptor(folder: Path | str, access: int = os.O_PATH) -> int:
    """Return a descriptor of the folder, opened as ``open_folder`` does.

    With O_RDONLY the folder can be listed and fsynced.
    """
    flags = access | _FOLDER_FLAGS
    try:
        return _openat2(folder, flags)
    except OSError as error:
        if error.errno not in _NOT_AVAILABLE:
            raise
    return _open_step_by_step(Path(folder), flags)


def open_in(folder: int, name: str) -> int:
    """Return a read-only descriptor of a file in an open folder. Raises OSError, with ELOOP for a symbolic link.

    The access time stays as it is if the kernel permits that: if we own the file or have CAP_FOWNER.
    """
    try:
        return os.open(name, _FILE_FLAGS | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        return os.open(name, _FILE_FLAGS, dir_fd=folder)


def _openat2(folder: Path | str, flags: int) -> int:
    how = _OPEN_HOW.pack(flags, 0, _RESOLVE_NO_SYMLINKS)
    number, directory, size = ctypes.c_long(_OPENAT2), ctypes.c_long(_AT_FDCWD), ctypes.c_size_t(len(how))
    descriptor = int(_libc.syscall(number, directory, ctypes.c_char_p(os.fsencode(folder)), how, size))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(folder))
    return descriptor


def _open_step_by_step(folder: Path, flags: int) -> int:
    descriptor = os.open("/", flags)
    for part in folder.parts[1:]:
        above, descriptor = descriptor, -1
        try:
            descriptor = _open_below(above, part, folder, flags)
        finally:
            os.close(above)
    return descriptor


def _open_below(above: int, part: str, folder: Path, flags: int) -> int:
    try:
        return os.open(part, flags | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError:  # Linux reports the same error for a link in a folder's place
        if stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder)) from None
        raise
