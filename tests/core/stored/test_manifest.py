"""Tests of manifests: format and parse are inverse, and damage of any kind is CorruptError."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.manifest import (
    Manifest,
    Range,
    RangeDigest,
    format_manifest,
    parse_manifest,
    range_checksum,
)
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.zstd import zstd
from walsyncd.errors import CorruptError

G = "20261122T105600Z-3f9c1a2b"

EXAMPLE = Manifest(
    database="srv/äpp.db",
    generation=G,
    predecessor="20261121T105600Z-3f9c1a2b",
    predecessor_end="3 transactions after epoch 7 frame 512 were overwritten before they were read",
    page_size=4096,
    file_size=12288,
    key=f"{G}/base/00000001-00000000-0badcafe.db.zst",
    size=700,
    etag='"e"',
    start=Position(G, 1, 0),
    consistent_from=Position(G, 1, 7),
    time_ms=1_795_344_960_000,
    ranges=(Range(0, 8192, 0, 300, range_checksum(b"a")), Range(8192, 4096, 350, 350, range_checksum(b"b"))),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    ranges: list[Range] = []
    raw = packed = 0
    for _ in range(draw(st.integers(0, 5))):
        length, gap, size = (draw(st.integers(low, 10**9)) for low in (1, 0, 1))
        ranges.append(Range(raw, length, packed + gap, size, draw(st.text(alphabet="0f", max_size=5))))
        raw, packed = raw + length, packed + gap + size
    texts = [draw(st.text(alphabet='aZ0/\\" \u00e4\u20ac', max_size=9)) for _ in range(4)]
    return replace(
        EXAMPLE,
        database=texts[0],
        predecessor=texts[1],
        predecessor_end=texts[2],
        etag=texts[3],
        page_size=2 ** draw(st.integers(9, 16)),
        file_size=raw,
        size=packed + draw(st.integers(0, 9)),
        ranges=tuple(ranges),
    )


@given(manifests())
def test_parse_is_the_inverse_of_format(manifest: Manifest) -> None:
    """Every manifest comes back from its body."""
    assert parse_manifest(format_manifest(manifest)) == manifest


def test_every_cut_and_every_flip_is_noticed() -> None:
    """No truncated body and no body with one bit flipped is taken for a manifest."""
    body = format_manifest(EXAMPLE)
    damaged = [body[:size] for size in range(len(body))]
    damaged += [
        body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :] for at in range(4, len(body)) for bit in range(8)
    ]
    for other in damaged:
        try:
            assert parse_manifest(other) == EXAMPLE  # bits of the frame header that have no meaning
        except CorruptError:
            continue


def test_newer_format_is_said_to_be_newer() -> None:
    """A reader reports a newer format as newer, and does not guess at it."""
    with pytest.raises(CorruptError, match="format 3 is newer than 2"):
        parse_manifest(format_manifest(replace(EXAMPLE, format_version=3)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"page_size": 4097}, "page size 4097 is not a power of two"),
        ({"file_size": 12289}, "ranges end at 12288, the file at 12289"),
        ({"size": 10}, "of an object of 10 bytes"),
        ({"start": Position(G, 2, 0)}, "before its start"),
        ({"ranges": EXAMPLE.ranges[1:]}, "does not follow"),
        ({"ranges": (EXAMPLE.ranges[0], replace(EXAMPLE.ranges[1], object_offset=299))}, "overlaps"),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], fault: str) -> None:
    """A manifest that contradicts itself is not used."""
    with pytest.raises(CorruptError, match=fault):
        parse_manifest(format_manifest(replace(EXAMPLE, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": None},
        {"page_size": True},
        {"file_size": -1},
        {"database": 1},
        {"ranges": [[1]]},
        {"start": [1]},
    ],
)
def test_fields_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    """Fields of another type are refused, whatever the JSON holds."""
    fields = json.loads(zstd.decompress(format_manifest(EXAMPLE))) | change
    with pytest.raises(CorruptError, match="read base manifest"):
        parse_manifest(zstd.compress(json.dumps(fields).encode()))


@pytest.mark.parametrize("body", [b"", b"{}", zstd.compress(b"[]"), zstd.compress(b"\xff"), zstd.compress(b"{}") * 2])
def test_other_bodies_are_refused(body: bytes) -> None:
    """A body that is not one zstd frame around a JSON object is no manifest."""
    with pytest.raises(CorruptError, match="read base manifest"):
        parse_manifest(body)


@pytest.mark.parametrize("checksum", [range_checksum(b"onetwo"), hashlib.sha256(b"onetwo").hexdigest()[:32]])
def test_a_range_is_compared_with_its_checksum_of_either_format(checksum: str) -> None:
    """A base that an older walsyncd began has checksums of both kinds."""
    for pieces, fits in (([b"one", b"two"], True), ([b"onetwo"], True), ([b"one"], False), ([b"one", b"twp"], False)):
        digest = RangeDigest(checksum)
        for piece in pieces:
            digest.update(piece)
        assert digest.fits() == fits


@pytest.mark.parametrize("checksum", ["", "0", range_checksum(b"")[:-1], range_checksum(b"") + "0"])
def test_a_checksum_that_is_none_fits_nothing(checksum: str) -> None:
    """If a text is only a part of a checksum, no range fits it."""
    assert not RangeDigest(checksum).fits()


def packed(text: str) -> bytes:
    return zstd.compress(text.encode(errors="surrogatepass"), options={zstd.CompressionParameter.checksum_flag: 1})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        '{"a":' * 500_000,
        "1" * 1_000_000,
        "\ud800",
        " " * (4 << 20) + "{}",
        '{"format": 1e999}',
        '{"format": NaN}',
        '{"format": ' + "9" * 5000 + "}",
    ],
    ids=["lists", "objects", "digits", "surrogate", "long", "infinite", "nan", "large"],
)
def test_odd_json_is_corrupt(text: str) -> None:
    """Any odd JSON, however deep or long, is reported as damage to one object. No other exception is raised."""
    with pytest.raises(CorruptError):
        parse_manifest(packed(text))


@pytest.mark.parametrize("field", ["page_size", "file_size", "object_size", "time_ms", "format"])
@pytest.mark.parametrize("value", [-1, 1 << 63, 10**400, 1.5, None, [], "1", True])
def test_absurd_numbers_are_corrupt(field: str, value: object) -> None:
    """A size, time or version that is negative, or larger than a file can be, is corrupt."""
    fields = json.loads(zstd.decompress(format_manifest(EXAMPLE)))
    with pytest.raises(CorruptError):
        parse_manifest(packed(json.dumps(fields | {field: value})))


def test_a_window_of_128_mib_is_refused() -> None:
    """A few bytes must not make us allocate memory that no manifest needs."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    writer = zstd.ZstdCompressor(options=options)
    with pytest.raises(CorruptError):
        parse_manifest(writer.compress(b"{}") + writer.flush())


def test_texts_can_be_shown() -> None:
    """Characters that control a terminal are replaced. The base is usable anyway."""
    manifest = parse_manifest(format_manifest(replace(EXAMPLE, predecessor_end="a\x1b[2J\nb")))
    assert manifest.predecessor_end == "a?[2J?b"
