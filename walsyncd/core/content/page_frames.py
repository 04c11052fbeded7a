"""Writes pages as frames of a stored epoch. A bridge consists of such frames.

Only the last frame of a bridge commits. If a transaction holds a page twice, SQLite applies the last version.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.checksum import Buffer, frame_chains
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.core.stored.epoch import Stamp


def frames_of_pages(pages: Sequence[tuple[int, Buffer]], stamp: Stamp, *, size: int = 0) -> tuple[bytes, Stamp]:
    """Return the frames that hold these pages (number, content), and the stamp after the last frame.

    The last frame commits with a database of ``size`` pages. If ``size`` is 0, no frame commits.
    """
    if not pages:
        return b"", stamp
    frame_size = FRAME_HEADER_SIZE + stamp.page_size
    frames = bytearray()
    for number, content in pages:
        assert len(content) == stamp.page_size, f"page {number} of {len(content)} bytes"
        frames += struct.pack(">6I", number, 0, stamp.salt1, stamp.salt2, 0, 0)
        frames += content
    struct.pack_into(">I", frames, len(frames) - frame_size + 4, size)
    chains = frame_chains(frames, frame_size, stamp.chain, big_endian=False)
    fields = np.frombuffer(frames, ">u4").reshape(len(pages), frame_size // 4)
    fields[:, 4:6] = chains
    s0, s1 = chains[-1]
    del fields
    return bytes(frames), replace(stamp, chain=(int(s0), int(s1)))
