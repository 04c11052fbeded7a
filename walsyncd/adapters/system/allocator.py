"""Tunes the C library's allocator for a process that unpacks gigabytes through blocks of some megabytes, and then ends.

For each thread separately, glibc keeps freed blocks or returns them to the kernel, depending on the size of the blocks
freed last. If a page was returned, the kernel clears it before it is used again, which takes a seventh of a restore's
time. Other C libraries have no such settings, and are left as they are.
"""

from __future__ import annotations

import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_REUSED_BYTES = 32 << 20  # the greatest value that mallopt takes; larger blocks are mapped as before
_KEPT_BYTES = 128 << 20  # up to this much may stay free at the end of a heap
_HEAPS = 2  # if each thread had a heap, each heap would keep the blocks that its thread freed


def reuse_blocks() -> None:
    """Make glibc reuse freed blocks, in all threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)
