"""Tests of the bodies of segments: any zstd decompresses them to the WAL, and damage to them is reported."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.stored.test_bridge import bridge_spans
from tests.wal_files import content_of, files_of, insert, recovered, wal_database
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, parse_wal_header, read_frames
from walsyncd.core.stored.bridge import BridgeSpan, SuspectSpan, format_bridge
from walsyncd.core.stored.epoch import begin_stamp, restamp
from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.core.stored.segment import (
    CONTENT_BLOCK_SIZE,
    Commit,
    SegmentWriter,
    Trailer,
    decode_body,
    encode_segment,
    format_trailer,
    last_trailer,
    parse_trailer,
)
from walsyncd.core.stored.zstd import zstd
from walsyncd.errors import CorruptError

U32 = st.integers(0, 0xFFFFFFFF)
CHAINS = st.tuples(U32, U32)
NOON_MS = 1_795_953_600_000


@st.composite
def trailers(draw: st.DrawFn) -> Trailer:
    first = draw(st.integers(1, 0xFFFFFFFF))
    last = draw(st.integers(first, 0xFFFFFFFF))
    frames = sorted(draw(st.sets(st.integers(first, last), max_size=20)))
    times = sorted(draw(st.lists(st.integers(0, TIME_MS_MAX), min_size=len(frames), max_size=len(frames))))
    commits = tuple(Commit(frame, time) for frame, time in zip(frames, times, strict=True))
    return Trailer(draw(U32), first, last, draw(CHAINS), draw(CHAINS), commits)


@st.composite
def bridge_trailers(draw: st.DrawFn) -> Trailer:
    span = draw(bridge_spans())
    epoch = draw(st.integers(span.epoch + 1, 2**32 - 1)) if span.epoch < 2**32 - 1 else span.epoch
    span = span if span.epoch < epoch else replace(span, frame=0, suspect=None)
    commit = Commit(draw(st.integers(1, 2**32 - 1)), draw(st.integers(span.proven_ms, TIME_MS_MAX)))
    return Trailer(epoch, 1, commit.frame, draw(CHAINS), draw(CHAINS), (commit,), span)


def plain(first: int, last: int) -> Trailer:
    """Return a trailer of epoch 1 whose chains are made up but continue from one to the next."""
    return Trailer(1, first, last, (first - 1, 0), (last, 0), (Commit(last, NOON_MS + last),))


def decoded(body: bytes) -> tuple[bytes, list[Trailer]]:
    items = list(decode_body([body]))
    content = b"".join(item for item in items if isinstance(item, bytes))
    return content, [item for item in items if isinstance(item, Trailer)]


def unpacked(body: bytes) -> bytes:
    """Return what the zstd program unpacks from ``body``."""
    return subprocess.run(["/usr/bin/zstd", "-dc"], input=body, capture_output=True, check=True).stdout


def bridge() -> Trailer:
    """Return the trailer of a bridge of epoch 1 that takes the place of frames 1 to 3 of ``plain``."""
    span = BridgeSpan(1, 0, NOON_MS, "restart", "the daemon was stopped", SuspectSpan(1, 0, NOON_MS - 9, 2))
    return replace(plain(1, 3), bridge=span)


@pytest.fixture(scope="module", params=["plain", "bridge"])
def two_parts(request: pytest.FixtureRequest) -> bytes:
    noise = random.Random(1).randbytes(150)
    first = plain(1, 3) if request.param == "plain" else bridge()
    return encode_segment(b"A" * 400 + noise, first) + encode_segment(noise + b"B" * 300, plain(4, 9))


def test_by_hand(tmp_path: Path) -> None:
    """If `zstd -dc` unpacks the concatenated bodies, the result is the WAL, and SQLite accepts it."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        base = path.read_bytes()
        insert(connection, commits=6, rows=2, size=2000)
        source = files_of(path).wal
    header = parse_wal_header(source)
    assert header is not None
    frames = read_frames(source[WAL_HEADER_SIZE:], header, first=1, start=header.chain)
    head, begin = begin_stamp(4096, 1, (1, 2))
    stored, end = restamp(frames, begin)
    wal, chains = head + stored, [begin.chain, *chains_of(head + stored)]
    bodies = []
    for before, last in pairwise([0, *frames.commits]):
        at = 0 if before == 0 else header.offset_of(before + 1)
        content = wal[at : header.offset_of(last + 1)]
        ends = (chains[before], chains[last])
        bodies.append(encode_segment(content, Trailer(1, before + 1, last, *ends, (Commit(last, NOON_MS),))))
    whole = b"".join(bodies)
    assert unpacked(whole) == wal == decoded(whole)[0]
    assert decoded(whole)[1][-1].after == end.chain
    assert recovered(tmp_path / "copy", base, unpacked(whole)) == content_of(path)


def chains_of(wal: bytes) -> list[tuple[int, int]]:
    header = parse_wal_header(wal)
    assert header is not None
    chains = read_frames(wal[WAL_HEADER_SIZE:], header, first=1, start=header.chain).chains
    return [(s0, s1) for s0, s1 in chains.tolist()]


@given(trailer=trailers() | bridge_trailers())
def test_trailer_format_and_parse_are_inverse(trailer: Trailer) -> None:
    """A formatted trailer is parsed back, and is a skippable frame that states its length."""
    data = format_trailer(trailer)
    assert struct.unpack_from("<2I", data) == (0x184D2A5E, len(data) - 8)
    assert parse_trailer(data) == trailer


@given(content=st.binary(max_size=200), trailer=trailers() | bridge_trailers(), cut=st.integers(0, 400))
def test_the_last_trailer_is_found_from_the_end(content: bytes, trailer: Trailer, cut: int) -> None:
    """The last trailer is found whatever bytes come before it, even the magic number itself.

    The result is None if a part of the trailer is missing.
    """
    own = format_trailer(trailer)
    body = content + own[:4] + content + own
    tail = body[cut:]
    assert last_trailer(tail) == (trailer if len(tail) >= len(own) else None)


@given(content=st.binary(max_size=5000), trailer=trailers(), sizes=st.lists(st.integers(1, 999), min_size=1))
def test_body_and_its_parts(content: bytes, trailer: Trailer, sizes: list[int]) -> None:
    """Content and trailer come back from a body, whether it is written and read whole or in pieces."""
    writer = SegmentWriter()
    pieces = bytearray()
    for at in range(0, len(content), sizes[0]):
        pieces += writer.feed(content[at : at + sizes[0]])
    pieces += writer.finish(trailer)
    assert decoded(bytes(pieces)) == decoded(encode_segment(content, trailer)) == (content, [trailer])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10_000])
def test_blocks_of_any_size(two_parts: bytes, size: int) -> None:
    """A body that comes byte by byte, with empty blocks between, is read like one that comes whole."""
    blocks = [two_parts[at : at + size] for at in range(0, len(two_parts), size)]
    spaced = [piece for block in blocks for piece in (b"", block)]
    items = list(decode_body(spaced))
    content = b"".join(item for item in items if isinstance(item, bytes))
    assert (content, [item for item in items if isinstance(item, Trailer)]) == decoded(two_parts)


def test_trailer_follows_its_content(two_parts: bytes) -> None:
    """Decoding yields content and trailers in the order in which the body has them."""
    kinds = [type(item) for item in decode_body([two_parts])]
    assert kinds == [bytes, Trailer, bytes, Trailer]


def test_every_truncation(two_parts: bytes) -> None:
    """A body cut anywhere but between two parts is corrupt; the message says at which byte it ends."""
    legal = legal_end(two_parts)
    for length in range(len(two_parts)):
        if length == legal:
            assert decoded(two_parts[:length])[1] == decoded(two_parts)[1][:1]
            continue
        with pytest.raises(CorruptError, match=f"ends at byte {length}, inside a part"):
            decoded(two_parts[:length])


def legal_end(body: bytes) -> int:
    """Return the offset at which the first part, which has frames 1 to 3, ends."""
    trailer = format_trailer(decoded(body)[1][0])
    return body.index(trailer) + len(trailer)


def test_every_bit_flip(two_parts: bytes) -> None:
    """A flipped bit is reported, except the one in each zstd header that RFC 8878 leaves unused."""
    unused = {position * 8 + 4 for position in (4, legal_end(two_parts) + 4)}
    for bit in range(len(two_parts) * 8):
        flipped = bytearray(two_parts)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit in unused:
            assert decoded(bytes(flipped)) == decoded(two_parts)
            continue
        with pytest.raises(CorruptError, match=r"decode segment: .*byte \d+"):
            decoded(bytes(flipped))


@given(data=st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    """Random bytes are no body, with and without the magic of zstd."""
    for body in (data, b"\x28\xb5\x2f\xfd" + data):
        with pytest.raises(CorruptError):
            decoded(body)


@given(data=st.binary(max_size=100))
def test_random_trailers(data: bytes) -> None:
    """Random bytes are no trailer, even if magic, length and signature fit."""
    head = struct.pack("<2I", 0x184D2A5E, len(data) + 4)
    for body in (data, head + b"WSG1" + data, head + b"WSG2" + data):
        with pytest.raises(CorruptError, match="parse segment trailer"):
            parse_trailer(body)


def test_memory_is_bounded() -> None:
    """A body of 40 MiB is returned in pieces of at most 1 MiB, and is read only as far as needed."""
    content = bytes(40 * 1024 * 1024)
    noise = random.Random(2).randbytes(300_000)
    body = encode_segment(content, plain(1, 9)) + encode_segment(noise, plain(10, 11))
    asked = 0

    def blocks() -> Iterator[bytes]:
        nonlocal asked
        for at in range(0, len(body), 1000):
            asked = at
            yield body[at : at + 1000]

    pieces = decode_body(blocks())
    first = next(pieces)
    assert asked < 2000
    lengths = [len(first)] if isinstance(first, bytes) else []
    lengths += [len(item) for item in pieces if isinstance(item, bytes)]
    assert max(lengths) <= CONTENT_BLOCK_SIZE
    assert sum(lengths) == len(content) + len(noise)


def test_window_is_bounded() -> None:
    """A frame that asks for a window of 128 MiB is refused, not allocated."""
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    writer = zstd.ZstdCompressor(options=options)
    body = writer.compress(bytes(1000)) + writer.flush() + format_trailer(plain(1, 2))
    with pytest.raises(CorruptError, match="zstd frame at byte 0"):
        decoded(body)


def test_empty_body() -> None:
    """A body without any part is corrupt."""
    with pytest.raises(CorruptError, match="ends at byte 0"):
        decoded(b"")


@pytest.mark.parametrize(
    "second",
    [
        plain(3, 5),
        plain(5, 6),
        Trailer(2, 4, 5, (3, 0), (5, 0), ()),
        Trailer(1, 4, 5, (9, 9), (5, 0), ()),
    ],
    ids=["overlap", "hole", "epoch", "chain"],
)
def test_parts_that_do_not_adjoin(second: Trailer) -> None:
    """Parts that overlap, leave a hole, change the epoch or break the chain are no body."""
    body = encode_segment(b"x", plain(1, 3)) + encode_segment(b"y", second)
    with pytest.raises(CorruptError, match="does not continue"):
        decoded(body)


def test_content_without_trailer() -> None:
    """A zstd frame needs its trailer. Two trailers in a row, or another skippable frame, make a body corrupt."""
    frame = zstd.compress(b"content", options={zstd.CompressionParameter.checksum_flag: 1})
    for rest in (frame, struct.pack("<2I", 0x184D2A50, 0) + frame):
        with pytest.raises(CorruptError, match=f"no trailer at byte {len(frame)}"):
            decoded(frame + rest)


def test_unknown_form_of_trailer() -> None:
    """A trailer with another signature is refused with the likely reason."""
    data = format_trailer(plain(1, 2)).replace(b"WSG1", b"WSG3")
    with pytest.raises(CorruptError, match="newer walsyncd"):
        parse_trailer(data)


@pytest.mark.parametrize(
    "trailer",
    [
        Trailer(1, 0, 3, (0, 0), (0, 0), ()),
        Trailer(1, 4, 3, (0, 0), (0, 0), ()),
        Trailer(1, 1, 3, (0, 0), (0, 0), (Commit(4, 5),)),
        Trailer(1, 2, 3, (0, 0), (0, 0), (Commit(1, 5),)),
        Trailer(1, 1, 3, (0, 0), (0, 0), (Commit(2, 5), Commit(2, 5))),
        Trailer(1, 1, 3, (0, 0), (0, 0), (Commit(2, 5), Commit(3, 4))),
        Trailer(1, 1, 3, (0, 0), (0, 0), (Commit(2, 5), Commit(3, TIME_MS_MAX + 1))),
        replace(bridge(), first=2),
        replace(bridge(), commits=()),
        replace(bridge(), commits=(Commit(2, NOON_MS + 3),)),
        replace(bridge(), commits=(Commit(1, NOON_MS + 3), Commit(3, NOON_MS + 3))),
        replace(bridge(), commits=(Commit(3, NOON_MS - 1),)),
        replace(bridge(), bridge=BridgeSpan(1, 1, NOON_MS, "restart", "")),
        replace(bridge(), bridge=BridgeSpan(2, 0, NOON_MS, "restart", "")),
    ],
)
def test_trailer_that_contradicts_itself(trailer: Trailer) -> None:
    """A trailer with frames from 0 or backwards, commits outside or out of order, falling times, or an odd bridge is
    never written.
    """
    with pytest.raises(AssertionError):
        format_trailer(trailer)


def test_a_bridge_adds_its_span_after_the_commit() -> None:
    """The trailer of a bridge is that of other segments but for its signature and the span."""
    plainly, bridged = format_trailer(plain(1, 3)), format_trailer(bridge())
    span = bridge().bridge
    assert span is not None
    cut = len(plainly) - 4
    assert bridged[12:cut] == plainly[12:cut]
    assert bridged[cut:-4] == format_bridge(span)
    assert (plainly[8:12], bridged[8:12]) == (b"WSG1", b"WSG2")


def test_trailers_without_a_bridge_are_as_they_always_were() -> None:
    """The bytes are those that the first release wrote, so old objects stay readable."""
    old = bytes.fromhex(
        "5e2a4d18340000005753473107000000020000000300000001000000020000000300000004000000"
        "010000000300000000262d27a20100002d389ab0"
    )
    trailer = Trailer(7, 2, 3, (1, 2), (3, 4), (Commit(3, NOON_MS),))
    assert parse_trailer(old) == trailer
    assert format_trailer(trailer) == old


def test_a_bridge_does_not_continue_a_part() -> None:
    """A body in which a bridge follows other frames is corrupt."""
    body = encode_segment(b"x", plain(1, 3)) + encode_segment(b"y", bridge())
    with pytest.raises(CorruptError, match="does not continue"):
        decoded(body)
