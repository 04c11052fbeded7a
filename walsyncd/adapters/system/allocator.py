"""The C library's allocator, for a process that unpacks gigabytes through blocks of some megabytes, and then ends.

glibc keeps freed blocks or gives them back as it comes, by how large the last ones were, and for each thread apart. Of
those given back the kernel clears every page before it is written again, a seventh of a restore's time. Other C
libraries have no such settings, and are left as they are.
"""

from __future__ import annotations

import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_REUSED_BYTES = 32 << 20  # the most that mallopt takes; larger blocks are mapped as ever
_KEPT_BYTES = 128 << 20  # so much may lie free at the end of a heap
_HEAPS = 2  # one for each thread would keep what only that one frees


def reuse_blocks() -> None:
    """Have freed blocks used again, from now on, by whichever thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)
