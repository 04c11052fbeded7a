"""Durations and sizes as people write them in a configuration or on a command line.

========  ============================  ================  =====================
kind      units                         example           value
========  ============================  ================  =====================
duration  ms, s, m, h, d                ``"1.5s"``        seconds, a float
size      B, KiB MiB GiB TiB (1024),    ``"64KiB"``       bytes, an int
          kB MB GB TB (1000)
========  ============================  ================  =====================

The text is a number, then one unit. A size without a unit counts bytes. A duration without a unit is refused, since it
could mean seconds or milliseconds. Durations are exact to the millisecond, sizes to the byte. Case does not matter.
"""

from __future__ import annotations

import re
from decimal import Decimal

from walsyncd.errors import UsageError

_DURATION_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_UNITS = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_PRINTED_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_SIZE_UNITS_FOLDED = {unit.casefold(): scale for unit, scale in _SIZE_UNITS.items()}

# Fifteen digits hold every size and every duration that can occur, and keep the arithmetic exact.
_QUANTITY_PATTERN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Return the seconds of ``"500ms"``, ``"1s"``, ``"7d"``. Raises UsageError, whose message shows the valid form."""
    match = _QUANTITY_PATTERN.fullmatch(text.strip())
    scale_ms = _DURATION_UNITS_MS.get(match[2].lower()) if match else None
    if match is None or scale_ms is None:
        raise UsageError(f"{text!r} is not a duration", hint='a number and a unit: "500ms", "1s", "5m", "24h" or "7d"')
    return float(Decimal(match[1]) * scale_ms / 1000)


def format_duration(seconds: float) -> str:
    """Invert ``parse_duration``. The duration is rounded to the millisecond, in the largest unit that divides it."""
    total_ms = round(seconds * 1000)
    for unit, scale_ms in reversed(_DURATION_UNITS_MS.items()):
        if total_ms and total_ms % scale_ms == 0:
            return f"{total_ms // scale_ms}{unit}"
    return "0s"


def parse_size(text: str) -> int:
    """Return the bytes of ``"64KiB"``, ``"4GiB"``, ``"10MB"``, ``"4096"``. Raises UsageError, which names the form."""
    match = _QUANTITY_PATTERN.fullmatch(text.strip())
    scale = _SIZE_UNITS_FOLDED.get(match[2].casefold() or "b") if match else None
    size = Decimal(match[1]) * scale if match and scale else None
    if size is None or size % 1:
        raise UsageError(f"{text!r} is not a size", hint='a number of bytes, or with a unit: "64KiB", "4GiB" or "10MB"')
    return int(size)


def format_size(size: int) -> str:
    """Return a size in bytes for people, in its largest unit: ``12.3 MiB``. `parse_size` reads whole ones."""
    value = float(size)
    for unit in _PRINTED_UNITS[:-1]:
        if value < _STEP:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    return f"{value:.1f} {_PRINTED_UNITS[-1]}"
