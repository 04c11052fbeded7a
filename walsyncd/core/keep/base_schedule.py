"""When a base is due: by stored work, or by the clock. No base is due for a database that did not change.

A restore applies everything that was stored since a base. So a new base is worth taking once as much was stored since
the last base as that base has (``snapshot_wal_ratio``). Databases that were first copied together would all be due
together. So each database has a slightly shorter interval, which depends on its number, and their bases drift apart.

A lifecycle rule may remove objects at any time after an age E. Then each base lasts until E after the oldest object
that the base needs. That object is the first segment of the epoch in which the base begins, stored at o. With retention
R and interval I, a restore to the moment R ago needs a base that was ready by then, so the next base has to be ready by
o + E - R. A base by the clock does not help if the WAL has not restarted for long: the base begins in the same epoch,
and needs the same segments. So

1. a base is taken only while ``now + I < o + E / 2``;
2. a base that can't begin, because the WAL has not restarted in the current epoch and no other epoch could be begun for
   the base, is given up when it is late by I.

Otherwise a new generation begins, and stores the WAL again from its first frame. Since E > 2 (R + I)
(``config.keeping``), if a base was taken at b, the next one comes at b + I, or at b + 2 I by the second rule. The next
base has time until o + E - R > b + I + E / 2 - R, so E / 2 - R - I remains for delays.

Only bases of one size class wait for one another, so a base waits for a base of at most sixteen times its size. Bases
of different classes are copied by turns. There are few classes, so few bases are under way at a time.

| class | file                | class | file               |
|-------|---------------------|-------|--------------------|
| 0     | below 8 MiB: a PUT  | 3     | below 32 GiB       |
| 1     | below 128 MiB       | 4     | below 512 GiB      |
| 2     | below 2 GiB         | 5     | … and so on        |
"""

from __future__ import annotations

import math

from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.stored.moment import CLOCK_OFF_MS

WHOLE_COPY_REST_SHARE = 10  # times the duration of a whole copy; a scan of all pages has the same share (scan_pace)

_CLASS_BITS = 4  # each class has a limit sixteen times as large as the class before
_SPREAD = 0.1
_GOLDEN = 0.6180339887498949  # multiples of this, modulo 1, are spread evenly, however many there are


def is_due_by_work(
    *, wal_bytes: int, base_bytes: int, ratio: float, bytes_min: int = DEFAULT_LIMITS.base_work_bytes
) -> bool:
    """Whether enough was stored since a base of ``base_bytes`` to make another base worth it.

    Both sizes are sizes of stored objects.
    """
    return wal_bytes > max(bytes_min, ratio * base_bytes)


def whole_copy_rest_s(
    took_s: float,
    copied_bytes: int,
    interval_s: float,
    *,
    bytes_per_s: float = DEFAULT_LIMITS.whole_copy_bytes_per_s,
) -> float:
    """Return for how many seconds a change does not cause another whole copy, after a copy that took ``took_s``.

    Bases are taken every ``interval_s`` in any case.
    """
    return min(max(WHOLE_COPY_REST_SHARE * took_s, copied_bytes / bytes_per_s), interval_s)


def spread_s(interval_s: float, number: int) -> float:
    """Return the interval of the database with that number. It is shorter than ``interval_s`` by up to a tenth."""
    return interval_s * (1.0 - _SPREAD * (number * _GOLDEN % 1.0))


def age_s(taken_ms: int, now_ms: int) -> float:
    """Return the age of a base, which is infinite if the clock was ahead when the base was taken.

    With a negative age, no base would follow until the clock reaches the wrong time.
    """
    age_ms = now_ms - taken_ms
    return age_ms / 1000 if age_ms >= -CLOCK_OFF_MS else math.inf


def must_begin_anew(
    *,
    now_ms: int,
    epoch_began_ms: int,
    generation_began_ms: int,
    base_ms: int | None,
    can_begin: bool,
    interval_ms: int,
    expire_ms: int,
) -> bool:
    """Whether a new generation must begin, because a base of this one would expire before enough other bases follow.

    ``epoch_began_ms`` is when the first commit of the current epoch was seen, or 0 if there is none. ``base_ms`` is
    when the generation's last base was taken. ``can_begin`` says that the WAL restarted in the current epoch, or has no
    frame before it.
    """
    if generation_began_ms > now_ms + CLOCK_OFF_MS:
        return True  # the clock was ahead then, so the age is unknown
    if not can_begin:
        return now_ms >= (generation_began_ms if base_ms is None else base_ms) + 2 * interval_ms
    if not epoch_began_ms:
        return False
    # Commit times never decrease, so after a clock was ahead, later commits have a wrong time, too.
    oldest_ms = epoch_began_ms if epoch_began_ms <= now_ms else generation_began_ms
    return now_ms + interval_ms >= oldest_ms + expire_ms // 2


def size_class(file_size: int, *, small_size: int = DEFAULT_LIMITS.small_base_bytes) -> int:
    """Return the class of a database file of ``file_size`` bytes (see the module). It is 0 below ``small_size``."""
    return ((file_size // small_size).bit_length() + _CLASS_BITS - 1) // _CLASS_BITS
