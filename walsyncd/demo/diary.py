"""The application's own record of what it committed, against which every restore is checked.

The diary is a text file outside the database's folder. It has one line for each commit, ``<counter> <milliseconds
since 1970>``, which is written after COMMIT returned. Each transaction adds 1 to the counter, so that a restored
database shows at which commit it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit: the counter after it, and when COMMIT had returned."""

    counter: int
    time_ms: int


def format_entry(entry: Entry) -> str:
    """Return a line of the diary, with its line feed."""
    return f"{entry.counter} {entry.time_ms}\n"


def parse_diary(text: str) -> list[Entry]:
    """Parse the lines of ``format_entry``. The last line counts only if it was written completely."""
    lines = text.split("\n")[:-1]
    return [Entry(int(counter), int(time_ms)) for counter, time_ms in (line.split(" ") for line in lines)]


def read_diary(path: Path) -> list[Entry]:
    """Return all entries so far, or none if nothing was committed yet."""
    return parse_diary(path.read_text(encoding="ascii")) if path.exists() else []


def counter_at(entries: list[Entry], time_ms: int) -> int:
    """Return the last counter that was committed at or before a moment, or 0 if there was none."""
    return max((entry.counter for entry in entries if entry.time_ms <= time_ms), default=0)
