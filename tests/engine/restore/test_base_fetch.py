"""Tests that bases are fetched range by range, in parallel, and that every range is what the manifest says
or an error.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.replicas import make_replica
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.restore.base_fetch import THREADS, fetch_base, missing_ranges, write_at
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError


@pytest.mark.parametrize("block", [100, 20_000, 1 << 22])
def test_ranges_make_the_file(tmp_path: Path, block: int) -> None:
    """All ranges together are the database file, whether a request covers many of them or a part of one."""
    with make_replica(tmp_path) as maker:
        maker.commit(50, rows=5)
        key = maker.base()
        replica = Replica(maker.storage, maker.name)
        manifest = replica.manifest(key)
        raw = bytearray(manifest.file_size)
        lock = threading.Lock()

        def write(piece: bytes | memoryview, offset: int) -> None:
            with lock:
                raw[offset : offset + len(piece)] = piece

        fetch_base(replica, key, manifest, write, block_bytes=block, piece_bytes=3000)
        assert raw == maker.file()
    assert len(manifest.ranges) > 2 * THREADS


def test_range_that_is_not_what_it_should_be_is_named(tmp_path: Path) -> None:
    """Another checksum, another length, or another place in the object is a CorruptError."""
    with make_replica(tmp_path) as maker:
        maker.commit(20)
        key = maker.base()
        replica = Replica(maker.storage, maker.name)
        manifest = replica.manifest(key)
    second = manifest.ranges[1]
    wrong = [
        replace(second, checksum="0" * 32),
        replace(second, length=second.length - 1),
        replace(second, object_length=second.object_length - 1),
        replace(second, object_offset=second.object_offset + 1),
        replace(second, object_offset=manifest.size),
    ]
    for part in wrong:
        with pytest.raises(CorruptError, match=f"at {part.offset}"):
            fetch_base(replica, key, manifest, lambda _raw, _at: None, ranges=[part])


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """A frame that claims gigabytes is cut off at the length of its range."""
    with make_replica(tmp_path) as maker:
        key = maker.base()
        replica = Replica(maker.storage, maker.name)
        part = replica.manifest(key).ranges[0]
        bomb = zstd.compress(bytes(1 << 26))
        maker.object_path(key.base).write_bytes(bomb)
        written: list[int] = []
        with pytest.raises(CorruptError, match="not what the manifest says"):
            fetch_base(
                replica,
                key,
                replica.manifest(key),
                lambda raw, _at: written.append(len(raw)),
                ranges=[replace(part, object_length=len(bomb))],
            )
    assert sum(written) <= part.length


def test_first_error_stops_a_fetch(tmp_path: Path) -> None:
    """After the first wrong range the rest of a large base is not read."""
    with make_replica(tmp_path) as maker:
        maker.commit(300, rows=5)
        key = maker.base()
        replica = Replica(maker.storage, maker.name)
        manifest = replica.manifest(key)
        ranges = (replace(manifest.ranges[0], checksum="0" * 32), *manifest.ranges[1:])
        written: list[int] = []
        wrong = replace(manifest, ranges=ranges)
        with pytest.raises(CorruptError, match="the range of"):
            # one range for each request
            fetch_base(replica, key, wrong, lambda _raw, at: written.append(at), block_bytes=9000)
    assert len(written) < len(ranges) - 1


def test_what_is_in_the_file_is_not_missing(tmp_path: Path) -> None:
    """Ranges are compared by content.

    Ranges that were cut off or changed are missing, and fetching them repairs the file.
    """
    with make_replica(tmp_path) as maker:
        maker.commit(100, rows=5)
        key = maker.base()
        replica = Replica(maker.storage, maker.name)
        manifest = replica.manifest(key)
        whole = maker.file()
        path = tmp_path / "partial"
        path.write_bytes(whole[: len(whole) - 5])
        descriptor = os.open(path, os.O_RDWR)
        os.pwrite(descriptor, b"x", manifest.ranges[2].offset + 7)
        missing = missing_ranges(manifest, descriptor)
        assert missing == [manifest.ranges[2], manifest.ranges[-1]]
        advanced: list[int] = []
        fetch_base(replica, key, manifest, write_at(descriptor), ranges=missing, advance=advanced.append)
        os.close(descriptor)
    assert path.read_bytes() == whole
    assert sum(advanced) == sum(part.length for part in missing)


def test_write_at_writes_all(tmp_path: Path) -> None:
    """Bytes are written at their offset, and what is before them reads as zeros."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    write_at(descriptor)(b"abc", 5)
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == bytes(5) + b"abc"
