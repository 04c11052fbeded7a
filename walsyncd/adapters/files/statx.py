"""Reads the birth time of a file by statx(2), since os.stat has none on Linux.

| offset in struct statx | bytes | what (native byte order) |
|---|---|---|
| 0 | 4 | mask of the fields that the file system filled in |
| 80 | 8 + 4 | birth time: seconds, nanoseconds |

The structure has 256 bytes on every architecture (linux/stat.h).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

_SIZE = 256
_MASK = struct.Struct("@I")
_BIRTH = struct.Struct("@qI")
_BIRTH_OFFSET = 80
_STATX_BTIME = 0x800
_AT_EMPTY_PATH = 0x1000


def _find() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None).statx
    except (OSError, AttributeError):  # an old C library
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    function.restype = ctypes.c_int
    return function


_statx = _find()


def birth_ns(descriptor: int) -> int | None:
    """Return when the open file was created (ns since 1970), or None if that is not known."""
    if _statx is None:
        return None
    buffer = ctypes.create_string_buffer(_SIZE)
    if _statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return None
    (mask,) = _MASK.unpack_from(buffer)
    if not mask & _STATX_BTIME:
        return None
    seconds, nanoseconds = _BIRTH.unpack_from(buffer, _BIRTH_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
