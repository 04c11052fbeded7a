"""Locks of an open file description on ranges of bytes (fcntl(2), F_OFD_SETLK), and the question who is in the way.

Such a lock belongs to the descriptor that took it. Closing another descriptor of the same file does not drop it, as it
drops the POSIX locks that SQLite takes. Both kinds conflict with each other as usual.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

OFD_PID = -1  # what the kernel gives for the holder of such a lock
_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
# struct flock of 64-bit Linux: type, whence, (padding,) start, length, pid, (padding); "0q" pads the end.
_FLOCK = struct.Struct("@hhqqi0q")
_HELD_BY_ANOTHER = {errno.EAGAIN, errno.EACCES}  # fcntl(2) leaves open which of the two


def lock_bytes(descriptor: int, kind: int, start: int, length: int) -> bool:
    """Take a lock (F_RDLCK, F_WRLCK), change one, or give it up (F_UNLCK), without waiting.

    Returns False if somebody else is in the way. Raises OSError.
    """
    try:
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True


def lock_in_the_way(descriptor: int, wanted: int, start: int, length: int) -> tuple[int, int]:
    """The type and pid of a lock that ``wanted`` would run into, or (F_UNLCK, 0) if there is none. Raises OSError."""
    question = _FLOCK.pack(wanted, os.SEEK_SET, start, length, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, _F_OFD_GETLK, question))
    return (kind, 0) if kind == fcntl.F_UNLCK else (kind, pid)
