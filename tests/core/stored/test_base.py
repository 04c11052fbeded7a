"""Tests of the object of a base: ranges, parts, padding."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.base import (
    FILLER_UNIT,
    PARTS_MAX,
    FrameCompressor,
    PackedPart,
    Packer,
    Shape,
    format_ranges,
    padding,
    parse_ranges,
    placed,
    shape_of,
    whole_body,
)
from walsyncd.core.stored.manifest import Range, range_checksum
from walsyncd.core.stored.zstd import zstd

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize("size", [1, MIB, 16 * GIB, 40 * GIB, 64 * GIB, 300 * GIB, 1 << 44, 281 << 40])
def test_even_an_incompressible_file_of_any_size_fits_into_the_parts_that_s3_allows(size: int) -> None:
    """With every range at zstd's worst case, parts stay below S3's 10,000 and each holds at least one range."""
    shape = shape_of(size)
    worst = shape.range_size + shape.range_size // 256 + 64
    in_a_part = (shape.part_size - 8) // worst
    count = -(-size // shape.range_size)
    assert in_a_part >= 1
    assert -(-count // in_a_part) <= PARTS_MAX


def test_ranges_cover_the_file_without_a_hole() -> None:
    """Every byte is in exactly one range, also when a copy continues in the middle."""
    shape = Shape(file_size=10_000, range_size=4096, part_size=8192)
    assert shape.ranges() == [(0, 4096), (4096, 4096), (8192, 1808)]
    assert shape.ranges(4096) == [(4096, 4096), (8192, 1808)]
    assert Shape(0, 4096, 8192).ranges() == []


COMPRESSOR = FrameCompressor()


def pack(contents: list[bytes], part_size: int) -> list[PackedPart]:
    packer = Packer(Shape(sum(map(len, contents)), len(contents[0]), part_size), COMPRESSOR)
    parts = [*(packer.add(content) for content in contents), packer.finish()]
    assert packer.reached == sum(map(len, contents))
    return [part for part in parts if part is not None]


def pack_as_wanted(raw: bytes, shape: Shape, *, filler_unit: int = FILLER_UNIT) -> list[PackedPart]:
    """Pack a file as a base does: each range has the length that the packer asks for."""
    packer, parts = Packer(shape, COMPRESSOR, filler_unit=filler_unit), list[PackedPart | None]()
    while packer.reached < len(raw):
        parts.append(packer.add(raw[packer.reached : packer.reached + packer.wanted()]))
    return [part for part in (*parts, packer.finish()) if part is not None]


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 40),
    in_a_part=st.integers(1, 3),
    kinds=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=4),
)
def test_ranges_that_fill_up_a_part_make_no_more_parts_than_whole_ones_might(
    seed: int, count: int, in_a_part: int, kinds: list[float]
) -> None:
    """However well the content compresses, the parts cover the file, and each but the last has its full size."""
    rng, size = random.Random(seed), 4096
    raw = b"".join(rng.randbytes(int(size * share)).ljust(size, b"x") for share in rng.choices(kinds, k=count))
    shape = Shape(len(raw), size, in_a_part * (size + size // 128 + 512) + 8)
    parts = pack_as_wanted(raw, shape, filler_unit=64)
    assert zstd.decompress(b"".join(part.body for part in parts)) == raw
    assert all(len(part.body) == shape.part_size for part in parts[:-1])
    assert all(sum(r.length for r in part.ranges) >= in_a_part * size for part in parts[:-1])


def test_a_part_is_filled_up_with_a_shorter_range() -> None:
    """If content compresses evenly, almost nothing of a part is padding."""
    rng = random.Random(3)
    raw = b"".join(rng.randbytes(512) + bytes(512) for _ in range(24 << 10))
    shape = shape_of(len(raw))
    parts = pack_as_wanted(raw, shape)
    assert len(parts) > 1
    lengths = [r.length for r in parts[0].ranges]
    assert lengths[0] == shape.range_size
    assert shape.range_size // 8 <= lengths[-1] < shape.range_size
    assert sum(r.object_length for r in parts[0].ranges) > 0.97 * shape.part_size


def test_a_part_is_filled_up_where_the_content_changes() -> None:
    """A range that does not fit shows how much would, so no part stays half empty."""
    rng = random.Random(4)
    raw = b"".join(rng.randbytes(8 * MIB) if drain % 2 else b"as ever, " * MIB for drain in range(6))
    parts = pack_as_wanted(raw, shape_of(len(raw)))
    packed, used = sum(len(part.body) for part in parts), sum(r.object_length for part in parts for r in part.ranges)
    assert used > 0.9 * packed


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), size=st.sampled_from([300, 1000, 5000]))
def test_all_parts_but_the_last_have_one_size_and_every_range_is_where_it_is_said_to_be(
    seed: int, count: int, size: int
) -> None:
    """The object is one zstd stream equal to the file, and each range can be fetched and checked by itself."""
    rng = random.Random(seed)
    contents = [rng.randbytes(size) if rng.random() < 0.5 else bytes(size) for _ in range(count)]
    part_size = size + 100 + rng.randrange(3 * size)
    parts = pack(contents, part_size)
    assert all(len(part.body) == part_size for part in parts[:-1])
    assert len(parts[-1].body) <= part_size
    body = b"".join(part.body for part in parts)
    assert zstd.decompress(body) == b"".join(contents)
    ranges = [r for part in parts for r in placed(part.ranges, part=part.number, part_size=part_size)]
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    for r, content in zip(ranges, contents, strict=True):
        raw = zstd.decompress(body[r.object_offset : r.object_offset + r.object_length])
        assert raw == content
        assert r.checksum == range_checksum(raw)
        assert r.length == len(raw)


def test_a_part_that_is_read_again_is_padded_to_its_size_or_refused() -> None:
    """A part keeps its size, however well its pages compress now. If the pages no longer fit, this is reported."""
    part = whole_body([bytes(1000)], COMPRESSOR)
    padded = part.padded(500)
    assert padded is not None
    assert len(padded.body) == 500
    assert zstd.decompress(padded.body) == bytes(1000)
    assert part.padded(len(part.body)) is part
    assert part.padded(len(part.body) + 7) is None
    assert part.padded(len(part.body) - 1) is None


def test_an_empty_file_has_a_body_all_the_same() -> None:
    """A database that was never checkpointed may be empty. Its base is then an empty zstd frame."""
    part = whole_body([], COMPRESSOR)
    assert part.ranges == ()
    assert zstd.decompress(part.body) == b""


@pytest.mark.parametrize("size", [8, 9, 4096])
def test_padding_has_exactly_its_size_and_unpacks_to_nothing(size: int) -> None:
    """Padding is a skippable frame of any size from 8 bytes on."""
    assert len(padding(size)) == size
    assert zstd.decompress(zstd.compress(b"x") + padding(size)) == b"x"


@given(st.lists(st.builds(Range, *[st.integers(0, 2**60)] * 4, st.text("0123456789abcdef", min_size=32, max_size=32))))
def test_ranges_come_back_from_the_journal_as_they_went(ranges: list[Range]) -> None:
    """``format_ranges`` and ``parse_ranges`` are inverse."""
    assert parse_ranges(format_ranges(ranges)) == tuple(ranges)
