"""The object of a base: raw ranges of the database file, each a zstd frame of its own, packed into equal parts.

=============  ==================================================================================
range          ``range_size`` raw bytes (the last: what is left), one zstd frame with checksum
part           whole frames while they fit, then one skippable frame up to exactly ``part_size``;
               only the last part is shorter. Some stores demand equal parts, all demand 5 MiB
=============  ==================================================================================

A part that is read again after a crash keeps its number, its ranges and its size, whatever its pages compress to by
then; if they don't fit any more, the base is begun anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from walsyncd.core.manifest import Range, range_checksum
from walsyncd.core.zstd import zstd

RANGE_SIZE_MIN = 1 << 20
RANGES_MAX = 16_384
PART_SIZE_MIN = 8 << 20
PARTS_MAX = 9_000  # of 10,000 that S3 allows
LEVEL = 3  # about 300 MB/s a core, a third smaller than level 1
SKIPPABLE_MAGIC = 0x184D2A50
_SKIPPABLE_HEAD = 8

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file of ``file_size`` bytes is cut."""

    file_size: int
    range_size: int
    part_size: int

    def ranges(self, start: int = 0) -> list[tuple[int, int]]:
        """Offset and length of every range from raw offset ``start`` on."""
        size, step = self.file_size, self.range_size
        return [(offset, min(step, size - offset)) for offset in range(start, size, step)]


def shape_of(file_size: int) -> Shape:
    """The shape for a file; a part holds several ranges even if nothing compresses, so that parts stay few."""
    range_size = max(RANGE_SIZE_MIN, -(-file_size // RANGES_MAX))
    count = -(-file_size // range_size)
    bound = range_size + range_size // 128 + 512  # what zstd makes of incompressible bytes, generously
    in_a_part = -(-count // PARTS_MAX)
    return Shape(file_size, range_size, max(PART_SIZE_MIN, in_a_part * bound + _SKIPPABLE_HEAD))


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A part's body and its ranges; ``object_offset`` counts from the start of the part."""

    number: int
    body: bytes
    ranges: tuple[Range, ...]

    def padded(self, size: int) -> PackedPart | None:
        """The same part at exactly ``size`` bytes, or None if it is too large for that."""
        left = size - len(self.body)
        if left == 0:
            return self
        return replace(self, body=self.body + padding(left)) if left >= _SKIPPABLE_HEAD else None


class Packer:
    """Packs ranges, which come in order, into parts from number ``first`` on."""

    def __init__(self, part_size: int, *, first: int = 1) -> None:
        self._part_size = part_size
        self._number = first
        self._frames: list[bytes] = []
        self._ranges: list[Range] = []
        self._used = 0

    def add(self, offset: int, raw: bytes) -> PackedPart | None:
        """Take the range at ``offset``; the part that it no longer fits into, or None."""
        frame = zstd.compress(raw, options=_OPTIONS)
        full = None
        if self._frames and not self._fits(len(frame)):
            full = self._cut(self._part_size)
        self._ranges.append(Range(offset, len(raw), self._used, len(frame), range_checksum(raw)))
        self._frames.append(frame)
        self._used += len(frame)
        return full

    def finish(self) -> PackedPart | None:
        """The last part, as long as it is; None if there is nothing left."""
        return self._cut(self._used) if self._frames else None

    def _fits(self, more: int) -> bool:
        left = self._part_size - self._used - more
        return left == 0 or left >= _SKIPPABLE_HEAD

    def _cut(self, size: int) -> PackedPart:
        if size > self._used:
            self._frames.append(padding(size - self._used))
        part = PackedPart(self._number, b"".join(self._frames), tuple(self._ranges))
        self._frames, self._ranges, self._used = [], [], 0
        self._number += 1
        return part


def whole_body(ranges: Iterable[tuple[int, bytes]]) -> PackedPart:
    """A base in one piece, for a small file; an empty file gives an empty zstd frame."""
    packer = Packer(1 << 62)
    for offset, raw in ranges:
        packer.add(offset, raw)
    return packer.finish() or PackedPart(1, zstd.compress(b"", options=_OPTIONS), ())


def padding(size: int) -> bytes:
    """A skippable zstd frame of ``size`` bytes, 8 at least (RFC 8878, 3.1.2)."""
    assert size >= _SKIPPABLE_HEAD
    content = size - _SKIPPABLE_HEAD
    return SKIPPABLE_MAGIC.to_bytes(4, "little") + content.to_bytes(4, "little") + bytes(content)


def format_ranges(ranges: Sequence[Range]) -> str:
    """A part's ranges as the journal keeps them."""
    rows = [[r.offset, r.length, r.object_offset, r.object_length, r.checksum] for r in ranges]
    return json.dumps(rows, separators=(",", ":"))


def parse_ranges(text: str) -> tuple[Range, ...]:
    """Inverse of ``format_ranges``."""
    return tuple(Range(*row) for row in json.loads(text))


def placed(ranges: Sequence[Range], *, part: int, part_size: int) -> list[Range]:
    """Ranges of part number ``part`` with offsets that count from the start of the object."""
    shift = (part - 1) * part_size
    return [Range(r.offset, r.length, r.object_offset + shift, r.object_length, r.checksum) for r in ranges]
