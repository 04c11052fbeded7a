"""Functions that return which events an InotifyReader has read."""

from __future__ import annotations

from pathlib import Path

from walsyncd.adapters.files.inotify import InotifyReader, Kind, Role


def seen(watcher: InotifyReader) -> list[tuple[Role, Kind]]:
    """Return role and kind of each event in the queue, and empty it."""
    return [(event.role, event.kind) for event in watcher.drain()]


def kinds(watcher: InotifyReader, path: Path) -> list[Kind]:
    """Return the kinds of the events of one path."""
    return [event.kind for event in watcher.drain() if event.path == path]
