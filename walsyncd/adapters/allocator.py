"""The C library's allocator, for a process that unpacks gigabytes through blocks of a few megabytes and then ends.

glibc maps such a block anew each time and gives it back at once, so that the kernel clears every page again before it
is written: a seventh of a restore's time. Other C libraries have no such setting, and are left as they are.
"""

from __future__ import annotations

import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_REUSED_BYTES = 32 << 20  # the most that mallopt takes; larger blocks are mapped as ever
_KEPT_BYTES = 128 << 20  # so much may lie free at the end of a heap


def reuse_blocks() -> None:
    """Have freed blocks used again, from now on. What is held at most stays what it was, about."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
