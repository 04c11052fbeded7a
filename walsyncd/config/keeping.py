"""Checks that retention, keep rules, ``delete`` and ``expire_after`` do not contradict each other.

A lifecycle rule (``delete = false``) removes objects by age alone. To restore the oldest moment of the promised span,
the base before the moment is needed, which is up to ``snapshot_interval`` older. Frames are needed, too, that are older
than the base by up to the length of an epoch. All of these objects have to outlive the span with a margin, so
``expire_after`` must be longer than twice the sum of ``retention`` and ``snapshot_interval``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from walsyncd.config.problem import Problem
from walsyncd.config.settings import DatabaseEntry, StorageSettings
from walsyncd.config.units import format_duration

_DAYS_A_WEEK, _DAYS_A_MONTH = 7, 31


def keeping_problems(storage: StorageSettings, databases: Sequence[DatabaseEntry]) -> Iterator[Problem]:
    """Yield every contradiction."""
    yield from _deletion_problems(storage)
    for entry in databases:
        yield from _entry_problems(entry)
        if not storage.delete:
            yield from _expiry_problems(storage, entry)


def _deletion_problems(storage: StorageSettings) -> Iterator[Problem]:
    if storage.delete and storage.expire_after_s is not None:
        shown = repr(format_duration(storage.expire_after_s))
        message = "is for delete = false: a lifecycle rule would remove what this daemon needs"
        yield Problem(
            f"{storage.section}.expire_after", shown, message, "write delete = false, or remove the rule and this key"
        )
    if not storage.delete and storage.expire_after_s is None:
        hint = 'the age at which the bucket\'s lifecycle rule removes objects, for example expire_after = "30d"'
        yield Problem(f"{storage.section}.expire_after", "", "is missing beside delete = false", hint)


def _entry_problems(entry: DatabaseEntry) -> Iterator[Problem]:
    if entry.retention_s < entry.snapshot_interval_s:
        shown, interval = format_duration(entry.retention_s), format_duration(entry.snapshot_interval_s)
        message = f"is shorter than snapshot_interval = {interval!r}: nothing could be removed before the next base"
        yield Problem(f"{entry.key}.retention", repr(shown), message, "make retention longer, or bases more frequent")
    spans = (
        ("keep_daily", entry.keep.daily, 1),
        ("keep_weekly", entry.keep.weekly, _DAYS_A_WEEK),
        ("keep_monthly", entry.keep.monthly, _DAYS_A_MONTH),
    )
    for index, (name, count, days) in enumerate(spans):
        for finer, finer_count, finer_days in spans[:index]:
            if count and finer_count * finer_days >= count * days:
                message = f"keeps nothing that {finer} = {finer_count} does not keep"
                yield Problem(f"{entry.key}.{name}", str(count), message, "make it larger, or remove it")


def _expiry_problems(storage: StorageSettings, entry: DatabaseEntry) -> Iterator[Problem]:
    if entry.keep.daily or entry.keep.weekly or entry.keep.monthly:
        message = "can't be held with delete = false: a lifecycle rule removes by age alone"
        yield Problem(f"{entry.key}.keep_…", "", message, "remove the keep rules, or allow deletion")
    least_s = 2 * (entry.retention_s + entry.snapshot_interval_s)
    if storage.expire_after_s is not None and storage.expire_after_s <= least_s:
        shown, least = format_duration(storage.expire_after_s), format_duration(least_s)
        message = f"is not longer than twice retention + snapshot_interval of {entry.key}, {least!r}"
        yield Problem(f"{storage.section}.expire_after", repr(shown), message, "a longer rule, or a shorter retention")
