"""Compares the history of a database, commit by commit, with what its replica holds.

The history is a tree: a commit has the one before it as its parent, and a machine that lost its last commits continues
from an earlier one. Each commit is identified by the digest of the whole database file, as SQLite itself makes it from
a copy. What is stored is right if the states after its commits are on one path of that tree, without leaving one out.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE

Place = tuple[int, int]
"""Epoch and frame, always after a commit."""


def digest_of(image: bytes | bytearray) -> bytes:
    """Return the digest by which a state is identified."""
    return hashlib.sha256(image).digest()


def committed(path: Path) -> bytes:
    """Return the database file as the next opener makes it. SQLite recovers a copy, by its WAL or its journal."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        for suffix in ("", "-wal", "-journal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        return copy.read_bytes()


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """One state of the database, and the one before it. None means that it did not come from a known state."""

    number: int
    parent: Commit | None


@dataclass(slots=True)
class History:
    """Every state that the database was ever in."""

    commits: dict[bytes, Commit] = field(default_factory=dict)
    current: bytes = b""

    def note(self, image: bytes, *, foreign: bool = False) -> None:
        """Note that the database is ``image`` now, which is a new commit unless it was in that state before."""
        digest = digest_of(image)
        if digest not in self.commits:
            parent = None if foreign else self.commits.get(self.current)
            self.commits[digest] = Commit(len(self.commits), parent)
        self.current = digest

    def assert_follows(self, digest: bytes, before: bytes | None, where: object) -> None:
        """Assert that a stored state is one that was committed, and the very next one after ``before``."""
        commit = self.commits.get(digest)
        assert commit is not None, f"{where} is no state that was ever committed"
        if before is None or before == digest:
            return
        last = self.commits[before]
        assert commit.parent is last, (
            f"{where} is commit {commit.number}, whose parent is {commit.parent and commit.parent.number}, "
            f"stored right after commit {last.number}"
        )


class View:
    """A base and the stored frames, which are applied to it as they come."""

    def __init__(self, image: bytes, start: Place) -> None:
        self._image = bytearray(image)
        self.reached = start

    @property
    def digest(self) -> bytes:
        """Return the digest of the database at the last commit that was applied."""
        return digest_of(self._image)

    def apply(self, segment: Segment) -> Iterator[tuple[Place, bytes]]:
        """Apply a segment's frames after those that the view has. Yield each commit, and the state that it leaves."""
        for number, page, pages, content in segment.frames():
            place = (segment.epoch, number)
            if place <= self.reached:
                continue
            self.reached = place
            end = page * len(content)
            if len(self._image) < end:
                self._image.extend(bytes(end - len(self._image)))
            self._image[end - len(content) : end] = content
            if pages:
                size = pages * len(content)
                self._image[size:] = bytes(max(0, size - len(self._image)))
                yield place, self.digest


@dataclass(frozen=True, slots=True)
class Segment:
    """The plain bytes that one stored object holds of an epoch's WAL. ``page_size`` is the epoch's."""

    epoch: int
    first: int
    last: int
    page_size: int
    content: bytes

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield number, page, size in pages if it commits else 0, and content of each frame."""
        at = WAL_HEADER_SIZE if self.first == 1 else 0
        size = FRAME_HEADER_SIZE + self.page_size
        assert len(self.content) == at + size * (self.last - self.first + 1)
        for number in range(self.first, self.last + 1):
            page, pages = struct.unpack_from(">2I", self.content, at)
            yield number, page, pages, self.content[at + FRAME_HEADER_SIZE : at + size]
            at += size


class Stored:
    """Everything stored of one generation. Whatever is added is compared with the history at once."""

    def __init__(self, generation: str, history: History) -> None:
        self.generation = generation
        self.head: bytes | None = None
        """The state after the last commit that can be restored; None while there is no base."""
        self._history = history
        self._segments: list[Segment] = []
        self._states: dict[Place, bytes] = {}
        self._views: list[View] = []

    @property
    def positions(self) -> int:
        """Return how many positions can be restored."""
        return len(self._states)

    def add(self, segment: Segment) -> None:
        """Add a stored segment. Each base must give what was committed at its positions."""
        if self._segments and self._segments[-1].epoch == segment.epoch:
            assert segment.first == self._segments[-1].last + 1
        else:
            assert segment.first == 1
        self._segments.append(segment)
        for view in self._views:
            for place, digest in view.apply(segment):
                self._found(place, digest)

    def crown(self, image: bytes, start: Place, consistent: Place) -> None:
        """Add a stored base that counts from ``start``.

        With the frames up to ``consistent`` it must be the database now.
        """
        view = View(image, start)
        for segment in self._segments:
            for _ in view.apply(segment):
                pass
        assert view.reached == consistent, f"the frames end at {view.reached}, the base is consistent at {consistent}"
        where = f"{self.generation} at {consistent}"
        assert view.digest == self._history.current, f"the base of {where} with its frames is not the database"
        if consistent in self._states:
            assert view.digest == self._states[consistent], f"two bases differ at {where}"
        self._states[consistent] = self.head = view.digest
        self._views.append(view)

    def _found(self, place: Place, digest: bytes) -> None:
        where = f"{self.generation} at {place}"
        if place in self._states:
            assert digest == self._states[place], f"two bases differ at {where}"
            return
        self._history.assert_follows(digest, self.head, where)
        self._states[place] = self.head = digest
