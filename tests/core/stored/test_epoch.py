"""Tests of epochs: one that was built from many incarnations is one WAL that SQLite reads whole."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.wal_files import content_of, files_of, insert, recovered, wal_database, with_checksums
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, FrameEnd, Frames, WalHeader, parse_wal_header, read_frames
from walsyncd.core.stored.epoch import Stamp, begin_stamp, restamp

SALTS = (0x11223344, 0xFFFFFFFF)


def frames_of(wal: bytes) -> Frames:
    header = parse_wal_header(wal)
    assert header is not None
    return read_frames(wal[WAL_HEADER_SIZE:], header, first=1, start=header.chain)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_sqlite_takes_many_incarnations_as_one_wal(tmp_path: Path, page_size: int, big_endian: bool) -> None:
    """Base and the stamped frames of hundreds of incarnations give SQLite the content that the database has."""
    path = tmp_path / "app.db"
    with wal_database(path, page_size):
        pass
    base = path.read_bytes()
    stored, stamp = begin_stamp(page_size, 7, SALTS)
    commits = 0
    for wal_pair in range(200 if page_size == 512 else 12):
        with wal_database(path, page_size) as connection:
            insert(connection, commits=wal_pair % 4 + 1, rows=2, size=page_size // 3)
            if wal_pair % 3 == 1:
                connection.execute("DELETE FROM t WHERE id % 5 = 0")
            wal = with_checksums(files_of(path).wal, big_endian=big_endian)
        frames = frames_of(wal)
        assert frames.end is FrameEnd.DATA
        commits += len(frames.commits)
        piece, stamp = restamp(frames, stamp)
        stored += piece
    result = frames_of(stored)
    assert (result.end, len(result.commits)) == (FrameEnd.DATA, commits)
    assert result.chain_after(result.last, (0, 0)) == stamp.chain
    assert recovered(tmp_path / "copy", base, stored) == content_of(path)


def test_header_is_the_epochs(tmp_path: Path) -> None:
    """The header holds the epoch's number and salts, and its checksums are over little-endian words."""
    data, stamp = begin_stamp(65536, 7, SALTS)
    header = parse_wal_header(data)
    assert header is not None
    assert stamp == Stamp(65536, 7, *SALTS, header.chain)
    assert (header.page_size, header.sequence, header.salts, header.big_endian) == (65536, 7, SALTS, False)
    assert struct.unpack_from(">I", data) == (0x377F0682,)


@pytest.fixture
def source(tmp_path: Path) -> Frames:
    path = tmp_path / "app.db"
    with wal_database(path, 512) as connection:
        insert(connection, commits=4, rows=3)
        return frames_of(files_of(path).wal)


def after(frames: Frames, cut: int) -> Frames:
    """Return the frames after ``cut``, as a second look would read them."""
    salt1, salt2 = struct.unpack_from(">2I", frames.data, 8)
    chain = frames.chain_after(cut, (0, 0))
    if cut == 0:
        return frames
    header = WalHeader(512, False, 0, salt1, salt2, chain)
    return read_frames(frames.data[cut * 536 :], header, first=cut + 1, start=chain)


def test_only_salts_and_checksums_change(source: Frames) -> None:
    """Page number, size and page of every frame stay as they were."""
    stored, _ = restamp(source, begin_stamp(512, 1, SALTS)[1])
    for at in range(0, len(stored), 536):
        assert stored[at : at + 8] == source.data[at : at + 8]
        assert struct.unpack_from(">2I", stored, at + 8) == SALTS
        assert stored[at + 24 : at + 536] == source.data[at + 24 : at + 536]


def test_the_cut_into_pieces_does_not_show(source: Frames) -> None:
    """Frames that are stamped in two pieces, one of them perhaps empty, give the same bytes and stamp as in one."""
    _, start = begin_stamp(512, 1, SALTS)
    for cut in range(source.count + 1):
        head, middle = restamp(source.upto(cut), start)
        tail, end = restamp(after(source, cut), middle)
        assert (head + tail, end) == restamp(source, start)


def test_same_frames_same_bytes(source: Frames) -> None:
    """Stamping the same frames again gives the same bytes, and does not change the source frames."""
    before = bytes(source.data)
    _, start = begin_stamp(512, 1, SALTS)
    assert restamp(source, start) == restamp(source, start)
    assert bytes(source.data) == before


def test_other_page_size_is_a_bug_of_the_caller(source: Frames) -> None:
    """Frames of another page size than the epoch's are not stamped."""
    with pytest.raises(AssertionError, match="another page size"):
        restamp(source, begin_stamp(1024, 1, SALTS)[1])
