"""Which waiting segments of the spool are uploaded as one object, and under which key.

The concatenated bodies of adjoining segments are a legal body, so waiting segments may be merged:

    00000001-00000004.<t1>.<previous>.wal.zst ┐
    00000005-00000005.<t2>.wal.zst            ├─> 00000001-00000009.<t3>.<previous>.wal.zst
    00000006-00000009.<t3>.wal.zst            ┘

A run has segments of one generation and epoch only, and each segment begins where the one before it ends. A segment
whose upload was ever begun is never merged or renamed, because the upload may have reached the store. A bridge is never
merged, because its name says that it is a bridge. A run has at most ``MERGED_SIZE_MAX`` bytes. It ends only where the
next segment would not fit, so n bytes of spool with segments of at most s bytes become no more than
n / (MERGED_SIZE_MAX - s) + 1 objects an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from walsyncd.core.stored.layout import SegmentKey

MERGED_SIZE_MAX = 8 << 20  # bytes; it fits into one PUT, and a restore holds one segment in memory
MERGED_SIZE_MIN = 256 << 10  # bytes; they take four seconds at 0.5 Mbit/s
CROWD = 1024  # if this many objects wait in one queue, merging them before they are sent is worth the writes


@dataclass(frozen=True, slots=True)
class Waiting:
    """An object in its queue. ``key`` is None if it is not a segment; ``size`` is in bytes."""

    key: SegmentKey | None
    size: int
    begun: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run: the first ``count`` (≥ 1) objects are uploaded as one. If ``full``, waiting longer would add nothing."""

    count: int
    full: bool


def head_run(waiting: Sequence[Waiting], *, size_max: int = MERGED_SIZE_MAX) -> Run:
    """Return which objects of a queue that is not empty are uploaded next."""
    head = waiting[0]
    if head.begun or head.key is None or head.key.bridge:
        return Run(1, full=True)
    size = head.size
    for count, (before, after) in enumerate(pairwise(waiting), start=1):
        if after.begun or not adjoins(before.key, after.key):
            return Run(count, full=True)
        if size + after.size > size_max:
            return Run(count, full=True)
        size += after.size
    return Run(len(waiting), full=size >= size_max)


def size_max_after(size: int, *, size_max: int, is_stored: bool) -> int:
    """Return how large the next merged object may be, after an object of ``size`` bytes was stored or failed.

    On a line that breaks now and then, a smaller object has a better chance. So the limit is halved after a failure,
    and doubled once an object of about that size is stored. An object above the limit was merged before the limit was
    halved. It is tried again as it is, and does not change the limit when it is stored.
    """
    if is_stored:
        return min(MERGED_SIZE_MAX, 2 * size_max) if size_max // 2 <= size <= size_max else size_max
    return max(MERGED_SIZE_MIN, min(size_max, size // 2)) if size > MERGED_SIZE_MIN else size_max


def crowded_runs(
    waiting: Sequence[Waiting], *, count_min: int, size_max: int = MERGED_SIZE_MAX
) -> list[tuple[int, int]]:
    """Return the runs (from, to) of at least ``count_min`` objects, which are worth merging before they are sent.

    A merged object is part of the next run. So if ``count_min`` segments have c bytes, every byte is written about
    MERGED_SIZE_MAX / 2c times.
    """
    runs = []
    start = 0
    while start < len(waiting):
        count = head_run(waiting[start:], size_max=size_max).count
        if count >= count_min:
            runs.append((start, start + count))
        start += count
    return runs


def adjoins(before: SegmentKey | None, after: SegmentKey | None) -> bool:
    """Whether ``after`` continues ``before`` in the same epoch, and neither is a bridge."""
    if before is None or after is None or before.bridge or after.bridge:
        return False
    return (before.generation, before.epoch, before.last + 1) == (after.generation, after.epoch, after.first)


def merged_key(keys: Sequence[SegmentKey]) -> SegmentKey:
    """Return the key of the object that a run becomes. It begins like the first key and ends like the last key."""
    assert all(adjoins(before, after) for before, after in pairwise(keys)), "not a run"
    return replace(keys[0], last=keys[-1].last, time_ms=keys[-1].time_ms)
