"""The C library's allocator: what becomes of freed blocks of some megabytes, which are what bases are made of.

glibc keeps them or gives them back as it comes, by how large the last ones were, and for each thread apart. For a
process that unpacks gigabytes and then ends, giving back is work: the kernel clears every page again before it is
written, a seventh of a restore's time. A daemon that is idle afterwards must not keep them. Other C libraries have no
such settings, and are left as they are.
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
_RETURNED_BYTES = 1 << 20


def reuse_blocks() -> None:
    """Have freed blocks used again, from now on, by whichever thread."""
    _set((_M_MMAP_THRESHOLD, _REUSED_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_ARENA_MAX, _HEAPS))


def return_blocks() -> None:
    """Have blocks of a megabyte and more given back as soon as they are freed."""
    _set((_M_MMAP_THRESHOLD, _RETURNED_BYTES))


def _set(*settings: tuple[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in settings:
            mallopt(parameter, value)
