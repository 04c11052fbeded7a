"""Compares a restored file with the live database file, page by page, without a lock and while others write to it.

The comparison proves something for the following reason. Let ``P`` be the position restored. A look *before* the live
file is read finds a current incarnation of the WAL. Let ``S`` be the stored position just before frame 1 of that
incarnation (``FollowState.start``). Let ``Q`` be the position of a look that begins *after* the file was read, in the
same generation and without a gap in between: so the follower has proven that nothing was missed. (A page may be written
in a gap, read by us, and written back before the bridge. Then no frame holds the content that we read.)

If no frame after min(S, P) up to Q holds a page, the page has one content v at all of these positions. Before the first
look the file had v, since a WAL is copied back whole before it restarts. Whatever a checkpoint has written into the
file since then comes from those frames. So the live file has v for this page, and so must the restored file. Pages that
differ are looked up in the frames, which were stored meanwhile. A page that is in none of these frames is a difference.

Four kinds of page may differ although nothing is wrong:

- the page that SQLite's locks lie on
- pages cut off by a commit after min(S, P), which makes the database smaller without a frame for these pages
- pages past the smallest size since the base: a checkpoint does not copy frames that lie past the database's end. If
  the database grows again over such a page without writing it, the file does not have the content of the last frame
- free leaves, whose content SQLite does not write (``freelist``). In an encrypted file it is unknown which pages are
  free, but a page in use is never all zeros

Some ciphers encrypt a page again when a checkpoint copies it: SQLite3 Multiple Ciphers does so with its default cipher
and with others. Such a live file never has the bytes of a frame, so a restored file differs from it in every page that
a frame holds. Two signs together identify this. They concern the pages that the restore took from frames and that were
not written since: not one of these pages is equal, and in each of them nearly all bytes differ. Then these pages can't
be compared.

A bridge holds pages with the bytes that they had in the live file. Before the bridge that file may have been restored,
so that it held the frames' bytes. So if there was a bridge, only the pages of frames after the last bridge must all
differ.

In a database without a WAL (with a rollback journal) pages change in place. So pages that differ are read again at a
moment when the file has the content of a known position ``Q`` (``engine.rollback.shipped_moment``). The frames from
``P`` to ``Q`` hold what was committed between the two. A page that differs then, and is in no such frame, is a
difference, unless it is a free leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.restore.coverage import FramesKey, cover, listing_of
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.dbheader import HEADER_SIZE, parse_database_header
from walsyncd.core.sqlite.freelist import free_leaves
from walsyncd.core.stored.layout import BaseKey, ManifestKey
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.epoch_reader import EpochReader
from walsyncd.engine.restore.replica import Replica

BLOCK_BYTES = 1 << 20  # bytes read of each file at a time, a multiple of every page size
LOCK_BYTE = 0x40000000  # SQLite's pending byte
ALIKE_MIN = 0.1  # the share of a page's bytes that are equal; by chance one byte in 256 is equal
DIFFERENT_MAX = 1 << 20  # pages that a database may write in the minutes between; more differences are not looked up

PAGES_MAX = 1 << 32  # no page number is this large

Numbers: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True, slots=True)
class Differences:
    """The numbers of the pages that differ. ``zeros`` are those of them that are all zeros in the live file.

    ``alike`` are those of them in which a part of the bytes is equal. ``pages`` is the number of pages compared.
    """

    pages: int
    numbers: Numbers
    zeros: frozenset[int]
    alike: frozenset[int]


def differences(live: OpenFile, restored: Path, page_size: int, check: Callable[[], None]) -> Differences:
    """Read both files and return how they differ. Pages missing from the live file count as zeros.

    ``check`` is called for every block and may raise.
    """
    found: list[Numbers] = []
    zeros: set[int] = set()
    alike: set[int] = set()
    pages = restored.stat().st_size // page_size  # a SQLite database consists of whole pages
    with restored.open("rb", buffering=0) as file:
        offset = 0
        while block := file.read(min(BLOCK_BYTES, pages * page_size - offset)):
            check()
            ours = np.frombuffer(block, np.uint8).reshape(-1, page_size)
            theirs = np.frombuffer(live.pread(offset, len(block)).ljust(len(block), b"\0"), np.uint8).reshape(
                ours.shape
            )
            rows = np.flatnonzero((ours != theirs).any(axis=1))
            numbers = rows + (offset // page_size + 1)
            zeros.update(numbers[~theirs[rows].any(axis=1)].tolist())
            alike.update(numbers[(ours[rows] == theirs[rows]).mean(axis=1) > ALIKE_MIN].tolist())
            found.append(numbers[numbers != LOCK_BYTE // page_size + 1])
            offset += len(block)
    return Differences(pages, np.concatenate([np.empty(0, np.int64), *found]), frozenset(zeros), frozenset(alike))


def still_different(live: OpenFile, restored: Path, numbers: Numbers, page_size: int) -> Numbers:
    """Return which of the pages ``numbers`` differ now."""
    found: list[int] = []
    with restored.open("rb", buffering=0) as file:
        for number in numbers.tolist():
            offset = (number - 1) * page_size
            file.seek(offset)
            if live.pread(offset, page_size).ljust(page_size, b"\0") != file.read(page_size):
                found.append(number)
    return np.array(found, np.int64)


def encrypted_again(found: Differences, left: Numbers, applied: Numbers, copied: Numbers) -> bool:
    """Whether the pages ``left`` differ because a cipher encrypts them again at each checkpoint.

    ``applied`` are the pages that the restored file has from frames. ``copied`` are those of them that a checkpoint has
    copied into the live file. Pages that were written since are in neither.
    """
    return (
        bool(len(left))
        and bool(np.isin(copied[copied <= found.pages], left).all())
        and bool(np.isin(left, applied).all())
        and not any(number in found.alike for number in left.tolist() if number > 1)
    )


def after_last_bridge(replica: Replica, objects: Sequence[FramesKey], page_size: int) -> Position | None:
    """Return the position after the last bridge that these objects hold, or None if they hold no bridge.

    Raises CorruptError if the bridge is damaged.
    """
    bridge = next((key for key in reversed(objects) if key.bridge), None)
    if bridge is not None:
        for frames in EpochReader(replica, bridge.epoch, page_size).read(bridge):
            if frames.commits:
                return Position(bridge.generation, bridge.epoch, frames.commits[0])
    return None


def meaningless(restored: Path, page_size: int, found: Differences) -> Collection[int]:
    """Return the pages that may differ because SQLite does not write free leaves.

    For an encrypted file these are the pages that are zeros in the live file.
    """
    with restored.open("rb") as file:

        def page(number: int) -> bytes:
            file.seek((number - 1) * page_size)
            return file.read(page_size)

        header = parse_database_header(page(1)[:HEADER_SIZE])
        if header is None or not header.magic_ok:
            return found.zeros
        return free_leaves(page, found.pages)


@dataclass(frozen=True, slots=True)
class Written:
    """The page numbers of some frames, and the smallest size, in pages, that one of their commits records."""

    numbers: Numbers
    size_min: int

    def explains(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Test for each of these pages whether it was written or cut off."""
        return np.isin(numbers, self.numbers) | (numbers > self.size_min)


def written_between(replica: Replica, page_size: int, after: Position, upto: Position, previous: int) -> Written | None:
    """Return what the frames after the position ``after`` hold, or None if some frame up to ``upto`` is not stored.

    Both positions are of one generation. ``previous`` is the last frame of the epoch before the epoch of ``upto``.
    Raises CorruptError if the frames are damaged.
    """
    generation = after.generation
    keys = replica.frames_from(generation, after.epoch)
    (part,) = listing_of(keys, [generation]).generations
    as_base = ManifestKey(BaseKey(generation, after.epoch, after.frame, "0" * 8), after.epoch, after.frame, 0)
    coverage = cover(part, as_base)
    end = (upto.epoch, upto.frame) if upto.frame else (upto.epoch - 1, previous)
    if coverage.last < max(end, (after.epoch, after.frame)):
        return None
    numbers, size_min = [np.empty(0, np.int64)], PAGES_MAX
    for key in coverage.objects:
        held = after.frame if key.epoch == after.epoch else 0
        if key.last <= held:
            continue
        for frames in EpochReader(replica, key.epoch, page_size).read(key):
            new = slice(max(0, held + 1 - frames.first), None)
            numbers.append(np.unique(frames.page_numbers[new]).astype(np.int64))
            sizes = frames.sizes[new]
            size_min = min([size_min, *sizes[sizes > 0].tolist()])
    return Written(np.unique(np.concatenate(numbers)), size_min)
