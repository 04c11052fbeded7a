"""Locks of an open file description on ranges of bytes (fcntl(2), F_OFD_SETLK), and queries for conflicting locks.

Such a lock belongs to the descriptor that took it. Closing another descriptor of the same file does not release such a
lock, but it releases the POSIX locks that SQLite takes. The two kinds of locks conflict with each other as usual.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

OFD_PID = -1  # the pid that the kernel returns for the holder of such a lock
# The message and remedy for a kernel without such locks.
NO_OFD_LOCKS = (
    "this kernel has no OFD locks, so nobody can be asked who has a database open: WAL databases are not followed",
    "run the daemon on a Linux kernel of 3.15 or newer, not in a sandbox that imitates one",
)
_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
# struct flock of 64-bit Linux: type, whence, (padding,) start, length, pid, (padding); "0q" pads the end.
_FLOCK = struct.Struct("@hhqqi0q")
_HELD_BY_ANOTHER = {errno.EAGAIN, errno.EACCES}  # fcntl(2) allows either of the two


def has_ofd_locks() -> bool:
    """Whether this kernel has such locks. For example, gVisor may not have them."""
    descriptor = os.memfd_create("walsyncd-locks", os.MFD_CLOEXEC)
    try:
        lock_in_the_way(descriptor, fcntl.F_RDLCK, 0, 1)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOSYS}:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def lock_bytes(descriptor: int, kind: int, start: int, length: int) -> bool:
    """Take a lock (F_RDLCK, F_WRLCK), change one, or release it (F_UNLCK), without waiting.

    Returns False if another lock is in the way. Raises OSError.
    """
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True


def lock_in_the_way(descriptor: int, wanted: int, start: int, length: int) -> tuple[int, int]:
    """Return type and pid of a lock that a ``wanted`` lock conflicts with, or (F_UNLCK, 0) if none does.

    Raises OSError.
    """
    question = _FLOCK.pack(wanted, os.SEEK_SET, start, length, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, question))
    return (kind, 0) if kind == fcntl.F_UNLCK else (kind, pid)
