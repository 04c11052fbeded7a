"""Tests of walsyncd.engine.content.bridge_body: one transaction of the pages that differ."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.shipping import G1
from walsyncd.adapters.journal.journal import Journal, NewObject, SpoolFile
from walsyncd.core.content.page_entry import entries_of_pages
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.limits import Limits
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, Frames, parse_wal_header, read_frames
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.layout import SegmentKey, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Trailer, decode_body
from walsyncd.engine.content.bridge_body import BridgeBody, BridgeImpossibleError
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.errors import TransientError

SIZE = 512
SPAN = BridgeSpan(1, 7, 900, "uncertain", "a reason")


@pytest.fixture
def old() -> list[bytes]:
    chance = random.Random(1)
    return [chance.randbytes(SIZE) for _ in range(6)]


@pytest.fixture
def journal(tmp_path: Path, old: list[bytes]) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        journal.database("app", "/srv/app.db")
        journal.begin_generation(1, G1, "first", "{}", 0)
        with PageMaps(journal).writer(1, SIZE) as writer:
            writer.add(entries_of_pages(b"".join(old), SIZE))
            writer.finish(len(old))
            journal.page_map_made(1, G1, writer.map_id, SIZE, Position(G1, 1, 0))
        yield journal


def body(
    journal: Journal, *, bytes_min: int = 1 << 20, pages_bytes_max: int = 1 << 20, body_bytes_max: int = 1 << 20
) -> BridgeBody:
    page_map = PageMaps(journal).open(1)
    assert page_map is not None
    stream = Stream(G1, epoch=2, previous=7)
    return BridgeBody(
        journal,
        page_map,
        stream,
        (1, 2),
        pages_bytes_max=pages_bytes_max,
        body_bytes_max=body_bytes_max,
        limits=Limits(bridge_bytes_min=bytes_min),
    )


def offer(made: BridgeBody, first: int, pages: list[bytes], wanted: list[int] | None = None) -> None:
    block = b"".join(pages)
    numbers = None if wanted is None else np.array(wanted, np.uint32)
    made.take_differing(first, block, entries_of_pages(block, SIZE), numbers)


def offer_all(made: BridgeBody, pages: list[bytes]) -> None:
    for number, page in enumerate(pages):
        offer(made, number % 6 + 1, [page])


def decoded(new: NewObject) -> tuple[Frames, Trailer]:
    body = new.body.path.read_bytes() if isinstance(new.body, SpoolFile) else new.body
    *content, trailer = decode_body([body])
    data = b"".join(piece for piece in content if isinstance(piece, bytes))
    header = parse_wal_header(data)
    assert header is not None
    assert isinstance(trailer, Trailer)
    return read_frames(data[WAL_HEADER_SIZE:], header, first=1, start=header.chain), trailer


def test_it_holds_what_differs_and_ends_with_page_1(journal: Journal, old: list[bytes]) -> None:
    """A bridge has pages of the file where the map differs, and pages from the pass before.

    Pages that need not be read are left out.
    """
    made = body(journal)
    made.begin_pass()
    changed = [old[0], b"b" * SIZE, old[2], b"d" * SIZE, b"e" * SIZE, old[5], b"g" * SIZE]
    offer(made, 1, changed, wanted=[1, 2, 3, 4, 6, 7])
    made.begin_pass()
    offer(made, 2, [b"b" * SIZE, old[2], b"D" * SIZE])
    new, after = made.finish(old[0], 7, SPAN, 1000)
    frames, trailer = decoded(new)
    assert frames.page_numbers.tolist() == [2, 4, 7, 4, 1]
    assert frames.sizes.tolist() == [0, 0, 0, 0, 7]
    assert trailer.bridge == SPAN
    assert (trailer.first, trailer.last, [commit.frame for commit in trailer.commits]) == (1, 5, [5])
    assert parse_key(new.key) == SegmentKey(G1, 2, 1, 5, 1000, 7, bridge=True)
    assert (after.epoch, after.frame, after.previous, after.time_ms) == (2, 5, 7, 1000)
    assert after.stamp is not None
    assert after.stamp.chain == trailer.after
    assert after.bytes == WAL_HEADER_SIZE + 5 * (SIZE + 24)


def test_what_it_changes_in_the_map(journal: Journal, old: list[bytes]) -> None:
    """The map gets the last version of each page, and nothing past the size of the commit."""
    made = body(journal)
    made.begin_pass()
    offer(made, 1, [b"1" * SIZE, *old[1:4], b"5" * SIZE, b"6" * SIZE])
    made.begin_pass()
    offer(made, 1, [b"2" * SIZE])
    new, _ = made.finish(b"2" * SIZE, 5, SPAN, 1000)
    assert new.redo is not None
    assert (new.redo.size_min, new.redo.size) == (5, 5)
    assert new.redo.pages.tolist() == [1, 5]
    assert new.redo.entries.tolist() == entries_of_pages(b"2" * SIZE + b"5" * SIZE, SIZE).tolist()


def test_a_bridge_that_is_worse_than_a_base(journal: Journal, old: list[bytes], tmp_path: Path) -> None:
    """Such a bridge would have too many pages, or take too much of the spool. When it is dropped, it leaves nothing."""
    chance = random.Random(2)
    other = [chance.randbytes(SIZE) for _ in old]
    for limits in ({"pages_bytes_max": 3 * SIZE}, {"body_bytes_max": 2 * SIZE}):
        made = body(journal, bytes_min=0, **limits)
        made.begin_pass()
        with pytest.raises(BridgeImpossibleError):
            offer_all(made, other * 400)
        made.drop()
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_epoch_before_may_grow_while_it_is_built(journal: Journal, old: list[bytes]) -> None:
    """The bridge's key names the end of the epoch before.

    If another epoch began meanwhile, the bridge can't be used.
    """
    made = body(journal)
    offer(made, 2, [b"2" * SIZE])
    with pytest.raises(TransientError, match="epoch 2 began without it"):
        made.begin_after(Stream(G1, epoch=3, previous=9))
    made.begin_after(Stream(G1, epoch=2, previous=12))
    new, stream = made.finish(b"5" * SIZE, 6, None, 1_700_000_000_000, number=5)
    key = parse_key(new.key)
    assert isinstance(key, SegmentKey)
    assert (key.epoch, key.first, key.previous, key.bridge) == (2, 1, 12, False)
    frames, _ = decoded(new)
    assert frames.page_numbers.tolist() == [2, 5]
    assert frames.sizes.tolist() == [0, 6]
    assert stream.position == Position(G1, 2, 2)
