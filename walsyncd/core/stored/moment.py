"""Moments. The program counts in milliseconds since 1970, and shows and reads RFC 3339 in UTC.

``20261122T105600Z`` is used in the names of files. ``2026-11-22T10:56:00.123Z`` is for people, and ``restore --at``
reads it back exactly. A time without an offset (``2026-11-22 10:56:00``) is local, and the caller decides the zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from walsyncd.errors import UsageError

CLOCK_OFF_MS = 300_000
"""Two clocks may differ by this much, and a clock may be set by this much, before a clock is treated as wrong."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")


def format_moment(time_ms: int) -> str:
    """Return a moment as RFC 3339, in UTC with milliseconds."""
    return f"{_utc(time_ms):%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def format_stamp(time_ms: int) -> str:
    """Return a moment as text for names of files, to the second and without punctuation."""
    return f"{_utc(time_ms):%Y%m%dT%H%M%SZ}"


def parse_moment(text: str) -> datetime:
    """Return an aware moment for RFC 3339, or a naive moment in the caller's zone for ``YYYY-MM-DD HH:MM:SS``.

    Raises UsageError, which names both forms.
    """
    match = _FORM.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        return datetime.fromisoformat(_six_digits(text.strip().upper(), match[1]))
    except ValueError as error:
        raise UsageError(
            f"time {text!r} is neither RFC 3339 nor YYYY-MM-DD HH:MM:SS",
            hint="for example 2026-11-22T10:56:00Z, or '2026-11-22 11:56:00' in local time",
        ) from error


def _six_digits(text: str, fraction: str | None) -> str:
    """Cut a fraction to microseconds. ``fromisoformat`` takes no more digits, and they never matter."""
    return text if fraction is None else text.replace(fraction, fraction[:7], 1)


def moment_ms(moment: datetime) -> int:
    """Return the milliseconds since 1970 of an aware moment, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def format_span(span_ms: int) -> str:
    """Return a duration in its two greatest units: ``250 ms``, ``3 min 20 s``, ``2 d 4 h``."""
    if span_ms < 1000:
        return f"{span_ms} ms"
    parts: list[str] = []
    rest = span_ms // 1000
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, seconds)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def _utc(time_ms: int) -> datetime:
    return _EPOCH + time_ms * _MILLISECOND
