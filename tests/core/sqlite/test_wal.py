"""The WAL parser finds exactly the frames that SQLite would, in real and in damaged files."""

from __future__ import annotations

import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wal_files import PAGE_SIZES, content_of, files_of, insert, recovered, wal_database, with_checksums
from walsyncd.core.sqlite.wal import (
    MAGIC,
    VERSION,
    WAL_HEADER_SIZE,
    FrameEnd,
    Frames,
    WalHeader,
    format_wal_header,
    is_unknown_wal,
    parse_frame_header,
    parse_wal_header,
    read_frames,
)

U32 = st.integers(0, 0xFFFFFFFF)


def header_of(wal: bytes) -> WalHeader:
    header = parse_wal_header(wal)
    assert header is not None
    return header


def all_frames(wal: bytes) -> Frames:
    header = header_of(wal)
    return read_frames(memoryview(wal)[WAL_HEADER_SIZE:], header, first=1, start=header.chain)


@pytest.fixture(scope="module")
def small_wal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A WAL of a few 512-byte pages with three commits."""
    path = tmp_path_factory.mktemp("small") / "app.db"
    with wal_database(path, 512) as connection:
        insert(connection, commits=3)
        return files_of(path).wal


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_real_wal_is_read_whole(tmp_path: Path, page_size: int, big_endian: bool) -> None:
    """Every frame of SQLite's own WAL is valid, and its fields are what SQLite wrote."""
    path = tmp_path / "app.db"
    with wal_database(path, page_size) as connection:
        insert(connection, commits=5, rows=3, size=page_size // 2)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        wal = with_checksums(files_of(path).wal, big_endian=big_endian)
    header = header_of(wal)
    assert (header.page_size, header.big_endian) == (page_size, big_endian)
    frames = all_frames(wal)
    assert header.offset_of(frames.last + 1) == len(wal)
    assert bytes(frames.data) == wal[WAL_HEADER_SIZE:]
    assert len(frames.commits) == 5
    assert frames.commits[-1] == frames.last == frames.count
    assert frames.sizes[-1] == pages
    assert set(frames.page_numbers.tolist()) <= set(range(1, pages + 1))
    last = parse_frame_header(wal[header.offset_of(frames.last) :])
    assert last is not None
    assert (last.page_number, last.database_pages) == (frames.page_numbers[-1], pages)
    assert (last.salts, last.chain) == (header.salts, frames.chain_after(frames.last, header.chain))
    assert (frames.end, frames.next_salts) == (FrameEnd.DATA, None)


@pytest.mark.parametrize("page_size", [512, 65536])
def test_big_endian_checksums_are_sqlites(tmp_path: Path, page_size: int) -> None:
    """The WAL with big-endian checksums, which these tests make, is one that SQLite itself recovers."""
    path = tmp_path / "app.db"
    with wal_database(path, page_size) as connection:
        insert(connection, commits=5, rows=3, size=page_size // 2)
        files = files_of(path)
    assert files.wal[3] == 0x82
    big = with_checksums(files.wal, big_endian=True)
    assert recovered(tmp_path / "copy", files.database, big) == content_of(path)


def test_wal_of_another_sqlite(tmp_path: Path) -> None:
    """The WAL of apsw's newer SQLite is read whole, too."""
    path = tmp_path / "app.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (payload)")
        for _ in range(10):
            connection.execute("INSERT INTO t VALUES (randomblob(9000))")
        wal = files_of(path).wal
    frames = all_frames(wal)
    assert header_of(wal).offset_of(frames.last + 1) == len(wal)
    assert len(frames.commits) == 11


def test_wal_of_another_process(tmp_path: Path) -> None:
    """A WAL that another process holds open is read whole."""
    path = tmp_path / "app.db"
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA journal_mode=WAL'); c.execute('CREATE TABLE t (x)');"
        "[c.execute('INSERT INTO t VALUES (randomblob(500))') for _ in range(20)];"
        "print('ready', flush=True); sys.stdin.read(); c.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wal = files_of(path).wal
        process.communicate(timeout=30)
    assert len(all_frames(wal).commits) == 21


def test_old_incarnation_behind_the_new(tmp_path: Path) -> None:
    """After a restart the new frames end where the old salts begin. Salt 1 has grown by 1."""
    path = tmp_path / "app.db"
    with wal_database(path, 4096) as connection:
        insert(connection, commits=20)
        old = files_of(path).wal
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        insert(connection, commits=2)
        new = files_of(path).wal
    assert len(new) == len(old)
    frames = all_frames(new)
    assert len(frames.commits) == 2
    assert (frames.end, frames.next_salts) == (FrameEnd.SALTS, header_of(old).salts)
    assert header_of(new).salt1 == header_of(old).salt1 + 1


def test_zeros_behind_the_frames(small_wal: bytes) -> None:
    """Zeros after the frames mean that the file was lengthened but not written.

    They are not taken for another incarnation.
    """
    frames = all_frames(small_wal + bytes(536))
    assert (frames.end, frames.next_salts) == (FrameEnd.HOLE, (0, 0))
    assert bytes(frames.data) == small_wal[WAL_HEADER_SIZE:]
    frames = all_frames(small_wal + (7).to_bytes(4, "big") + bytes(532))
    assert (frames.end, frames.next_salts) == (FrameEnd.ZERO, (0, 0))


def test_page_number_zero_is_not_a_frame() -> None:
    """SQLite refuses a frame for page 0 although its checksum fits; so do we."""
    wal = format_wal_header(page_size=512, big_endian=False, sequence=0, salt1=1, salt2=2)
    wal = with_checksums(wal + struct.pack(">4I", 0, 1, 1, 2) + bytes(8 + 512), big_endian=False)
    frames = all_frames(wal)
    assert (frames.count, frames.end, frames.next_salts) == (0, FrameEnd.CHAIN, (1, 2))


def test_every_prefix(small_wal: bytes) -> None:
    """However short the file is cut, the whole frames in it are found, and the salts of a frame cut short."""
    whole = all_frames(small_wal)
    for length in range(len(small_wal)):
        prefix = small_wal[:length]
        if length < WAL_HEADER_SIZE:
            assert parse_wal_header(prefix) is None
            continue
        count, rest = divmod(length - WAL_HEADER_SIZE, 536)
        frames = all_frames(prefix)
        assert frames.count == count
        assert frames.commits == [frame for frame in whole.commits if frame <= count]
        assert frames.end is FrameEnd.DATA
        assert frames.next_salts == (header_of(small_wal).salts if rest >= 24 else None)


def test_every_bit_flip(small_wal: bytes) -> None:
    """A flipped bit in the header leaves no WAL; one in a frame ends the run just before that frame."""
    for bit in range(len(small_wal) * 8):
        flipped = bytearray(small_wal)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit // 8 < WAL_HEADER_SIZE:
            assert parse_wal_header(flipped) is None
            continue
        row, at = divmod(bit // 8 - WAL_HEADER_SIZE, 536)
        frames = all_frames(bytes(flipped))
        assert frames.count == row
        assert bytes(frames.data) == small_wal[WAL_HEADER_SIZE:][: row * 536]
        assert frames.end is (FrameEnd.SALTS if 8 <= at < 16 else FrameEnd.CHAIN)


@given(head=st.binary(max_size=40), magic=st.sampled_from([b"", struct.pack(">I", MAGIC)]))
def test_random_headers(head: bytes, magic: bytes) -> None:
    """Random bytes are no WAL header, whatever their length."""
    assert parse_wal_header(magic + head) is None


@given(data=st.binary(max_size=3000), big_endian=st.booleans(), start=st.tuples(U32, U32))
def test_random_frames(data: bytes, big_endian: bool, start: tuple[int, int]) -> None:
    """Random bytes, even with the right salts, hold no frame."""
    header = WalHeader(512, big_endian, 0, 1, 2, start)
    salted = data[:8] + struct.pack(">2I", 1, 2) + data[16:]
    for candidate in (data, salted):
        assert read_frames(candidate, header, first=9, start=start).count == 0


@given(page_size=st.sampled_from(PAGE_SIZES), big_endian=st.booleans(), sequence=U32, salts=st.tuples(U32, U32))
@example(page_size=65536, big_endian=True, sequence=0, salts=(0, 0))
def test_header_format_and_parse_are_inverse(
    page_size: int, big_endian: bool, sequence: int, salts: tuple[int, int]
) -> None:
    """A formatted header is parsed back, field by field."""
    data = format_wal_header(
        page_size=page_size, big_endian=big_endian, sequence=sequence, salt1=salts[0], salt2=salts[1]
    )
    assert len(data) == WAL_HEADER_SIZE
    header = header_of(data + b"whatever follows")
    assert header == WalHeader(page_size, big_endian, sequence, *salts, header.chain)
    assert header.salts == salts


@pytest.mark.parametrize("page_size", [0, 1, 256, 4097, 131072])
def test_page_sizes_that_sqlite_refuses(page_size: int) -> None:
    """A header with a page size that is no power of two from 512 to 65536 is no header, though it adds up."""
    head = struct.pack(">6I", MAGIC, 3007000, page_size or 1, 0, 1, 2)[:8] + struct.pack(">I", page_size)
    wal = with_checksums(head + bytes(20), big_endian=False)
    assert parse_wal_header(wal) is None


def test_reading_in_pieces(small_wal: bytes) -> None:
    """Frames read in two pieces, the second from the chain of the first, are those read at once."""
    header = header_of(small_wal)
    whole = all_frames(small_wal)
    for cut in range(whole.count + 1):
        head = whole.upto(cut)
        middle = head.chain_after(cut, header.chain)
        tail = read_frames(small_wal[header.offset_of(cut + 1) :], header, first=cut + 1, start=middle)
        assert head.commits + tail.commits == whole.commits
        assert (tail.first, tail.last) == (cut + 1, whole.last)
        assert tail.chain_after(whole.last, middle) == whole.chain_after(whole.last, header.chain)


def test_cut(small_wal: bytes) -> None:
    """A run that is cut after a frame holds exactly the frames up to that frame.

    A run that is cut at its end is unchanged.
    """
    whole = all_frames(small_wal)
    cut = whole.upto(whole.commits[0])
    assert bytes(cut.data) == small_wal[WAL_HEADER_SIZE:][: cut.count * 536]
    assert (cut.commits, cut.end) == (whole.commits[:1], FrameEnd.DATA)
    assert whole.upto(whole.last) is whole
    assert whole.upto(0).count == len(whole.upto(0).data) == 0
    with pytest.raises(AssertionError, match="frame 99 not in"):
        whole.upto(99)


@pytest.mark.parametrize("count_max", [1, 3, 1000])
def test_pieces_are_the_whole(small_wal: bytes, count_max: int) -> None:
    """Cut into pieces of any size, a run keeps its numbers, pages, chains and commits."""
    whole = all_frames(small_wal)
    pieces = list(whole.pieces(count_max))
    assert b"".join(piece.data for piece in pieces) == bytes(whole.data)
    assert [frame for piece in pieces for frame in piece.commits] == whole.commits
    assert all(piece.count <= count_max for piece in pieces)
    assert [piece.first for piece in pieces] == list(range(1, whole.count + 1, count_max))
    assert pieces[-1].chains[-1].tolist() == whole.chains[-1].tolist()


@pytest.mark.parametrize(
    ("head", "unknown"),
    [
        (b"", False),
        (bytes(32), False),
        (struct.pack(">8I", MAGIC, VERSION, 4096, 0, 1, 2, 3, 4), False),
        (struct.pack(">8I", MAGIC | 1, 3021000, 4096, 0, 1, 2, 3, 4), True),
        (b"SQLite format 3\0" * 2, False),
    ],
)
def test_a_wal_of_another_format(head: bytes, *, unknown: bool) -> None:
    """A WAL that is short, all zeros, or has a wrong checksum is what a crash leaves.

    A WAL of another version is refused.
    """
    assert is_unknown_wal(head) is unknown
