"""Tests of walsyncd.engine.follow.segment_builder: frames on their way into a segment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.wal_files import files_of, insert, wal_database
from walsyncd.adapters.journal.journal import Journal, NewObject, SpoolFile
from walsyncd.adapters.journal.spool import SpoolWriter
from walsyncd.adapters.journal.state_disk import StateDisk
from walsyncd.core.content.page_entry import differs, entries_of_pages
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, Frames, parse_wal_header, read_frames
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.core.stored.segment import Commit, Trailer, decode_body
from walsyncd.engine.follow.segment_builder import SegmentBuilder, TooLargeError
from walsyncd.errors import StateError

GENERATION = "20261122T105600Z-00000001"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state") as journal:
        yield journal


@pytest.fixture
def frames(tmp_path: Path) -> Frames:
    """Return two transactions of a real WAL."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=2, rows=100, size=900)
        wal = files_of(path).wal
    header = parse_wal_header(wal)
    assert header is not None
    return read_frames(wal[WAL_HEADER_SIZE:], header, first=1, start=header.chain)


def collect(
    journal: Journal, stream: Stream, *pieces: Frames, seen_ms: int = 1000, memory_bytes_max: int = 1 << 20
) -> tuple[NewObject, Stream]:
    taker = SegmentBuilder(
        journal, stream, page_size=4096, salts=(1, 2), seen_ms=seen_ms, memory_bytes_max=memory_bytes_max
    )
    for piece in pieces:
        taker.add(piece)
    return taker.finish()


def body_of(new: NewObject) -> bytes:
    return new.body.path.read_bytes() if isinstance(new.body, SpoolFile) else new.body


def decoded(new: NewObject) -> tuple[bytes, Trailer]:
    parts = list(decode_body([body_of(new)]))
    assert isinstance(parts[-1], Trailer)
    return b"".join(part for part in parts if isinstance(part, bytes)), parts[-1]


def test_a_segment_and_the_stream_after_it(journal: Journal, frames: Frames) -> None:
    """The first segment of an epoch begins with the WAL's header. The stream says where the next segment begins."""
    new, stream = collect(journal, Stream(GENERATION, epoch=3, previous=9), frames)
    content, trailer = decoded(new)
    header = parse_wal_header(content)
    assert header is not None
    again = read_frames(content[WAL_HEADER_SIZE:], header, first=1, start=header.chain)
    assert again.count == frames.count
    assert trailer.commits == tuple(Commit(commit, 1000) for commit in frames.commits)
    key = SegmentKey(generation=GENERATION, epoch=3, first=1, last=frames.count, time_ms=1000, previous=9)
    assert new.key == format_key(key)
    assert (stream.epoch, stream.frame, stream.bytes, stream.began_ms) == (3, frames.count, len(content), 1000)
    assert stream.stamp is not None
    assert stream.stamp.chain == trailer.after


def test_the_next_segment_continues_the_epoch(journal: Journal, frames: Frames) -> None:
    """The next segment has no header and no new salts.

    Its frames are counted on from the stream's, whatever their number in the source.
    """
    _, stream = collect(journal, Stream(GENERATION), frames)
    new, after = collect(journal, stream, frames, seen_ms=2000)
    _, trailer = decoded(new)
    assert (trailer.first, trailer.last) == (frames.count + 1, 2 * frames.count)
    assert after.stamp is not None
    assert stream.stamp is not None
    assert after.stamp.salt1 == stream.stamp.salt1
    assert after.began_ms == 1000


def test_pieces_make_the_same_content(journal: Journal, frames: Frames) -> None:
    """However the frames come, the stored bytes are the same."""
    first = frames.upto(frames.commits[0])
    size = len(frames.data) // frames.count
    header_of_rest = frames.data[first.count * size :]
    rest = Frames(
        data=header_of_rest,
        first=first.last + 1,
        count=frames.count - first.count,
        page_numbers=frames.page_numbers[first.count :],
        sizes=frames.sizes[first.count :],
        chains=frames.chains[first.count :],
        end=frames.end,
        next_salts=None,
        before=first.chain_after(first.last, (0, 0)),
        big_endian=False,
    )
    whole, _ = collect(journal, Stream(GENERATION), frames)
    pieces, _ = collect(journal, Stream(GENERATION), first, rest)
    assert decoded(whole) == decoded(pieces)


def test_a_large_one_goes_to_a_spool_file(journal: Journal, frames: Frames) -> None:
    """A large segment's compressed bytes are not held in memory, and the body is the same."""
    small, _ = collect(journal, Stream(GENERATION), frames)
    large, _ = collect(journal, Stream(GENERATION), frames, memory_bytes_max=0)
    assert isinstance(large.body, SpoolFile)
    assert body_of(large) == body_of(small)


def test_one_that_is_given_up_leaves_no_file(journal: Journal, frames: Frames, tmp_path: Path) -> None:
    """The spool file of a segment that is given up is removed."""
    taker = SegmentBuilder(journal, Stream(GENERATION), page_size=4096, salts=(1, 2), seen_ms=0, memory_bytes_max=0)
    taker.add(frames)
    taker.drop()
    assert list((tmp_path / "state" / "spool").iterdir()) == []


def test_one_that_is_too_large_leaves_no_file(
    journal: Journal, frames: Frames, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The segment exceeds the spool, or the disk.

    If other rows fill the spool, or other files the disk, it is tried later.
    """
    spool = tmp_path / "state" / "spool"

    def take(limit: int) -> None:
        collect_with(journal, limit, frames)

    with pytest.raises(TooLargeError, match="spool_bytes_max, 100 B") as told:
        take(100)
    assert "raise spool_bytes_max" in told.value.hint
    assert list(spool.iterdir()) == []
    monkeypatch.setattr(StateDisk, "missing_bytes", lambda _disk: 50)
    with pytest.raises(TooLargeError, match="the disk under the state directory"):
        take(1 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "spool_bytes", lambda: 1 << 30)
        with pytest.raises(StateError, match="beside what waits"):
            take(1 << 30)
    assert list(spool.iterdir()) == []
    monkeypatch.setattr(StateDisk, "missing_bytes", lambda _disk: 1 << 30)
    take(1 << 30)

    def full(_writer: SpoolWriter, _block: bytes) -> None:
        raise StateError("write to the spool: No space left on device")

    monkeypatch.setattr(SpoolWriter, "write", full)
    before = list(spool.iterdir())
    with pytest.raises(StateError, match="No space left"):
        take(1 << 30)
    assert list(spool.iterdir()) == before


def collect_with(journal: Journal, limit: int, frames: Frames) -> None:
    taker = SegmentBuilder(
        journal, Stream(GENERATION), page_size=4096, salts=(1, 2), seen_ms=0, memory_bytes_max=0, file_bytes_max=limit
    )
    taker.add(frames)
    taker.finish()


def test_times_never_decrease(journal: Journal, frames: Frames) -> None:
    """A clock that was set back makes no commit older than the one before."""
    new, stream = collect(journal, Stream(GENERATION, time_ms=5000), frames, seen_ms=1000)
    assert (new.time_ms, stream.time_ms) == (5000, 5000)


def test_a_segment_says_what_it_changes_in_the_page_map(journal: Journal, frames: Frames) -> None:
    """The redo row has the last version of each page, and the sizes that the segment's commits state."""
    builder = SegmentBuilder(journal, Stream(GENERATION), page_size=4096, salts=(1, 2), seen_ms=1000)
    for piece in frames.pieces(7):
        builder.add(piece)
    new, _ = builder.finish()
    assert new.redo is not None
    assert new.redo.pages.tolist() == sorted(set(frames.page_numbers.tolist()))
    last = {page: row for row, page in enumerate(frames.page_numbers.tolist())}
    size = len(frames.data) // frames.count
    for page, entry in zip(new.redo.pages.tolist(), new.redo.entries, strict=True):
        content = frames.data[last[page] * size + 24 : (last[page] + 1) * size]
        assert not differs(np.array([entry]), entries_of_pages(content, 4096)).any()
    assert (new.redo.size_min, new.redo.size) == (min(frames.sizes[frames.sizes > 0]), frames.sizes[-1])
