"""An epoch: the WAL that we store, built from the frames of any number of incarnations of SQLite's WAL.

An epoch is a WAL like SQLite's own (`walsyncd.core.sqlite.wal`). The header has magic 0x377f0682 (little-endian words),
the number of the epoch as checkpoint sequence number, and the epoch's own salts. A frame keeps its page number, size
and page, and gets the salts and the running checksum of the epoch:

    source frame   page number | size | source's salts | source's checksum | page
    stored frame   page number | size | epoch's salts  | epoch's checksum  | page

So SQLite reads the stored frames of many incarnations as one log. The same source frames with the same first stamp
always give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.checksum import Chain, frame_chains, moved_chains
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames, format_wal_header, parse_wal_header


@dataclass(frozen=True, slots=True)
class Stamp:
    """The salts and the checksum with which the next frame of an epoch is stored.

    ``chain`` is the checksum after the last frame that was stored.
    """

    page_size: int
    sequence: int
    salt1: int
    salt2: int
    chain: Chain


def begin_stamp(page_size: int, epoch: int, salts: tuple[int, int]) -> tuple[bytes, Stamp]:
    """Return the WAL header of an epoch (32 bytes), and the stamp for its frame 1."""
    salt1, salt2 = salts
    data = format_wal_header(page_size=page_size, big_endian=False, sequence=epoch, salt1=salt1, salt2=salt2)
    header = parse_wal_header(data)
    assert header is not None, "a WAL header that we formatted does not parse"
    return data, Stamp(page_size, epoch, salt1, salt2, header.chain)


def restamp(frames: Frames, stamp: Stamp) -> tuple[bytes, Stamp]:
    """Return the frames as the epoch stores them, and the stamp for the frame after them."""
    if frames.count == 0:
        return b"", stamp
    size = FRAME_HEADER_SIZE + stamp.page_size
    assert len(frames.data) == frames.count * size, "frames of another page size than the epoch's"
    if frames.big_endian:
        chains = frame_chains(frames.data, size, stamp.chain, big_endian=False)
    else:
        chains = moved_chains(frames.chains, size, frames.before, stamp.chain)
    fields = np.empty((frames.count, 6), ">u4")
    fields[:, 0] = frames.page_numbers
    fields[:, 1] = frames.sizes
    fields[:, 2:4] = stamp.salt1, stamp.salt2
    fields[:, 4:6] = chains
    s0, s1 = chains[-1].tolist()
    after = Stamp(stamp.page_size, stamp.sequence, stamp.salt1, stamp.salt2, (s0, s1))
    return _joined(fields.tobytes(), frames.data, size), after


def _joined(headers: bytes, source: memoryview, size: int) -> bytes:
    """Return the pages of ``source``, each after its header. Pages are copied once; stamping a copy would need two."""
    pieces: list[bytes | memoryview] = []
    for row in range(len(source) // size):
        pieces.append(headers[row * FRAME_HEADER_SIZE : (row + 1) * FRAME_HEADER_SIZE])
        pieces.append(source[row * size + FRAME_HEADER_SIZE : (row + 1) * size])
    return b"".join(pieces)
