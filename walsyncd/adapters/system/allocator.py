"""Tunes the C library's allocator for a process that unpacks gigabytes through blocks of some megabytes, and then ends.

glibc keeps freed blocks or returns them to the kernel depending on the size of the last ones, for each thread
separately. The kernel clears every page that was returned before it is written again, which takes a seventh of a
restore's time. Other C libraries have no such settings, and are left as they are.
"""

from __future__ import annotations

import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_REUSED_BYTES = 32 << 20  # the most that mallopt takes; larger blocks are mapped as before
_KEPT_BYTES = 128 << 20  # up to that much may stay free at the end of a heap
_HEAPS = 2  # with one for each thread, each would keep what its thread freed


def reuse_blocks() -> None:
    """Make glibc reuse freed blocks, in all threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)
