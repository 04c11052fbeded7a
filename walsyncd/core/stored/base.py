"""The object of a base: raw ranges of the database file, each a zstd frame of its own, packed into equal parts.

=============  ==================================================================================
range          one zstd frame with checksum of ``range_size`` raw bytes; the last range has what is left
part           whole frames while they fit, the last frame being that of a shorter range, then one
               skippable frame that makes the part exactly ``part_size`` long. Only the last part is
               shorter. Some stores demand equal parts, and all demand at least 5 MiB
=============  ==================================================================================

Similar data in a database is often megabytes apart, in pages that were written at different times. So ranges have at
least 8 MiB, the largest window that every zstd decoder accepts by default, and long distance matching searches all of
that window.

A part that is read again after a crash keeps its number, its ranges and its size, although its pages may compress to a
different size by then. If the ranges don't fit any more, the base is begun again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from walsyncd.core.stored.manifest import Range, range_checksum
from walsyncd.core.stored.zstd import zstd

RANGE_SIZE_MIN = 8 << 20
RANGES_MAX = 16_384  # not counting ranges that fill up a part
PART_SIZE_MIN = 8 << 20
PARTS_MAX = 9_000  # the most parts that are used of the 10,000 that S3 allows
BASE_BYTES_MAX = 5 << 40  # the largest object of S3
SKIPPABLE_MAGIC = 0x184D2A50
_SKIPPABLE_HEAD = 8
FILLER_UNIT = 64 << 10  # a range that fills up a part is a multiple of this, and at least an eighth of a whole range
_FILLER_MARGIN = 1.05  # a range may compress worse than the range before it, and worse when it is read again

_WORKERS = min(2, zstd.CompressionParameter.nb_workers.bounds()[1])  # 0 if libzstd was built without threads
# These options compress about 200 MB/s on two cores. Compared with ranges of 1 MiB without long distance matching,
# random rows take 0.82 of the size, and texts 0.48.
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.window_log: 23,
    zstd.CompressionParameter.enable_long_distance_matching: 1,
    zstd.CompressionParameter.ldm_min_match: 32,
    zstd.CompressionParameter.ldm_hash_rate_log: 5,
    zstd.CompressionParameter.ldm_bucket_size_log: 2,
    zstd.CompressionParameter.nb_workers: _WORKERS,
    **({zstd.CompressionParameter.job_size: RANGE_SIZE_MIN // 2} if _WORKERS else {}),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file of ``file_size`` bytes is cut into ranges and parts."""

    file_size: int
    range_size: int
    part_size: int

    def ranges(self, start: int = 0) -> list[tuple[int, int]]:
        """Return offset and length of every range from raw offset ``start`` on."""
        size, step = self.file_size, self.range_size
        return [(offset, min(step, size - offset)) for offset in range(start, size, step)]


def shape_of(file_size: int) -> Shape:
    """Return the shape for a file.

    A part holds at least one whole range even if nothing compresses, so that the parts stay few.
    """
    range_size = max(RANGE_SIZE_MIN, -(-file_size // RANGES_MAX))
    count = -(-file_size // range_size)
    in_a_part = -(-count // PARTS_MAX)
    return Shape(file_size, range_size, max(PART_SIZE_MIN, in_a_part * _bound(range_size) + _SKIPPABLE_HEAD))


def _bound(length: int) -> int:
    """Return a generous upper limit of the size to which zstd compresses ``length`` incompressible bytes."""
    return length + length // 128 + 512


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A part's body and its ranges. Their ``object_offset`` counts from the start of the part."""

    number: int
    body: bytes
    ranges: tuple[Range, ...]

    def padded(self, size: int) -> PackedPart | None:
        """Return the same part padded to exactly ``size`` bytes, or None if the part is too large for that."""
        left = size - len(self.body)
        if left == 0:
            return self
        return replace(self, body=self.body + padding(left)) if left >= _SKIPPABLE_HEAD else None


class FrameCompressor:
    """Makes zstd frames of ranges, in one thread. It holds about 35 MiB and two zstd threads as long as it exists."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(options=_OPTIONS)

    def frame(self, raw: bytes) -> bytes:
        """Return the frame of one range."""
        return self._zstd.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)


class Packer:
    """Packs ranges into parts of ``shape``, numbered from ``first``. Ranges come in order from raw ``reached`` on."""

    def __init__(
        self,
        shape: Shape,
        compressor: FrameCompressor,
        *,
        first: int = 1,
        reached: int = 0,
        filler_unit: int = FILLER_UNIT,
    ) -> None:
        self.reached = reached
        """Where the next range begins."""
        self._shape, self._filler_unit = shape, filler_unit
        self._compressor = compressor
        self._number = first
        self._frames: list[bytes] = []
        self._ranges: list[Range] = []
        self._used = 0
        self._rate = 1.0  # compressed bytes for each raw byte of the last frame
        # A part that holds this many raw bytes may be filled up without making more parts than S3 allows.
        self._whole = (shape.part_size - _SKIPPABLE_HEAD) // _bound(shape.range_size) * shape.range_size

    def wanted(self) -> int:
        """Return how many raw bytes the next range should have.

        A range that fills up a part is shorter than a whole range.
        """
        whole = self._shape.range_size
        if sum(part.length for part in self._ranges) < max(1, self._whole):
            return whole
        left = self._shape.part_size - self._used - _SKIPPABLE_HEAD
        fitting = int(left / (self._rate * _FILLER_MARGIN)) // self._filler_unit * self._filler_unit
        return fitting if whole // 8 <= fitting < whole else whole

    def add(self, raw: bytes) -> PackedPart | None:
        """Take the next range. Returns the part before the range if that part is full, or else None.

        A range that does not fit is not taken if a shorter range may fit, or if the range is shorter than a whole one.
        In every case, ``reached`` is where the next range begins.
        """
        frame = self._compressor.frame(raw)
        self._rate = len(frame) / len(raw)
        full = None
        if self._frames and not self._fits(len(frame)):
            if self.wanted() < len(raw):
                return None
            full = self._cut(self._shape.part_size)
            if len(raw) < self._shape.range_size:
                return full
        self._ranges.append(Range(self.reached, len(raw), self._used, len(frame), range_checksum(raw)))
        self._frames.append(frame)
        self._used += len(frame)
        self.reached += len(raw)
        return full

    def finish(self) -> PackedPart | None:
        """Return the last part without padding, or None if there is nothing left."""
        return self._cut(self._used) if self._frames else None

    def _fits(self, more: int) -> bool:
        left = self._shape.part_size - self._used - more
        return left == 0 or left >= _SKIPPABLE_HEAD

    def _cut(self, size: int) -> PackedPart:
        if size > self._used:
            self._frames.append(padding(size - self._used))
        part = PackedPart(self._number, b"".join(self._frames), tuple(self._ranges))
        self._frames, self._ranges, self._used = [], [], 0
        self._number += 1
        return part


def whole_body(ranges: Iterable[bytes], compressor: FrameCompressor, *, reached: int = 0) -> PackedPart:
    """Return ranges from raw offset ``reached`` on as the one part of a small base. No ranges give an empty frame."""
    packer = Packer(Shape(0, RANGE_SIZE_MIN, 1 << 62), compressor, reached=reached)
    for raw in ranges:
        packer.add(raw)
    return packer.finish() or PackedPart(1, compressor.frame(b""), ())


def padding(size: int) -> bytes:
    """Return a skippable zstd frame of ``size`` bytes, which must be at least 8 (RFC 8878, 3.1.2)."""
    assert size >= _SKIPPABLE_HEAD
    content = size - _SKIPPABLE_HEAD
    return SKIPPABLE_MAGIC.to_bytes(4, "little") + content.to_bytes(4, "little") + bytes(content)


def format_ranges(ranges: Sequence[Range]) -> str:
    """Return the text in which the journal keeps a part's ranges."""
    rows = [[r.offset, r.length, r.object_offset, r.object_length, r.checksum] for r in ranges]
    return json.dumps(rows, separators=(",", ":"))


def parse_ranges(text: str) -> tuple[Range, ...]:
    """Inverse of ``format_ranges``."""
    return tuple(Range(*row) for row in json.loads(text))


def placed(ranges: Sequence[Range], *, part: int, part_size: int) -> list[Range]:
    """Return the ranges of part number ``part`` with offsets that count from the start of the object."""
    shift = (part - 1) * part_size
    return [Range(r.offset, r.length, r.object_offset + shift, r.object_length, r.checksum) for r in ranges]
