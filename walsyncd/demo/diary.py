"""The application's own record of what it committed, against which every restore is checked.

A text file outside the database's folder, one line a commit: ``<counter> <milliseconds since 1970>``, written
after COMMIT returned. Each transaction adds 1 to the counter, so that a restored database says which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit: the counter it left, and when it was certain."""

    counter: int
    time_ms: int


def format_entry(entry: Entry) -> str:
    """A line of the diary, with its end."""
    return f"{entry.counter} {entry.time_ms}\n"


def parse_diary(text: str) -> list[Entry]:
    """Inverse of ``format_entry`` for all lines; the last one counts only if it was written to its end."""
    lines = text.split("\n")[:-1]
    return [Entry(int(counter), int(time_ms)) for counter, time_ms in (line.split(" ") for line in lines)]


def read_diary(path: Path) -> list[Entry]:
    """All entries so far; none if nothing was committed yet."""
    return parse_diary(path.read_text(encoding="ascii")) if path.exists() else []


def counter_at(entries: list[Entry], time_ms: int) -> int:
    """The last counter that was committed at or before a moment; 0 if there was none."""
    return max((entry.counter for entry in entries if entry.time_ms <= time_ms), default=0)
