"""What the demo's bucket contains, found from the names of the files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from walsyncd.core.stored.layout import ManifestKey, SegmentKey, WholeKey, parse_key
from walsyncd.core.stored.position import Position


@dataclass(frozen=True, slots=True)
class Contents:
    """The number of objects in a database's folder, and their bytes. ``stored`` is their newest position."""

    objects: int
    size: int
    bases: int
    generations: tuple[str, ...]
    stored: Position | None


def contents(folder: Path) -> Contents:
    """Return what a database's folder contains now. Objects that come or go meanwhile may or may not be counted."""
    found = list(_objects(folder))
    keys = [key for key in (parse_key(name) for name, _ in found) if key is not None]
    ends = [Position(key.generation, key.epoch, key.last) for key in keys if isinstance(key, SegmentKey | WholeKey)]
    ends += [Position(key.generation, key.epoch, key.frame) for key in keys if isinstance(key, ManifestKey)]
    return Contents(
        objects=len(found),
        size=sum(size for _, size in found),
        bases=sum(isinstance(key, ManifestKey) for key in keys),
        generations=tuple(sorted({key.generation for key in keys})),
        stored=max(ends, default=None),
    )


def _objects(folder: Path) -> Iterator[tuple[str, int]]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size
        except FileNotFoundError:
            continue
