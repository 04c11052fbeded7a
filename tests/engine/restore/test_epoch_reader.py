"""Tests of the reader of an epoch: it returns batches of verified frames, however the pieces come, and refuses all
else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.replicas import GENERATION, ReplicaMaker, make_replica
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.core.stored.segment import Trailer, decode_body, encode_segment
from walsyncd.engine.restore import replica as replica_module
from walsyncd.engine.restore.commit_times import trailers
from walsyncd.engine.restore.epoch_reader import BATCH_BYTES, EpochReader
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError, TransientError

PAGE_SIZE = 4096


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path, page_size=PAGE_SIZE) as made:
        yield made


def reader_of(maker: ReplicaMaker, page_size: int | None = PAGE_SIZE, *, batch_bytes: int = BATCH_BYTES) -> EpochReader:
    return EpochReader(Replica(maker.storage, maker.name), 1, page_size, batch_bytes=batch_bytes)


def frames_read(reader: EpochReader, *keys: SegmentKey, upto: int | None = None) -> list[int]:
    """Return the numbers of all frames that are returned."""
    batches = [frames for key in keys for frames in reader.read(key, upto=upto)]
    return [number for frames in batches for number in range(frames.first, frames.last + 1)]


def rewrite(maker: ReplicaMaker, key: SegmentKey, trailer: Trailer) -> None:
    """Return the same content with another trailer."""
    body = maker.object_path(key).read_bytes()
    content = b"".join(item for item in decode_body([body]) if isinstance(item, bytes))
    maker.object_path(key).write_bytes(encode_segment(content, trailer))


@pytest.mark.parametrize("batch_bytes", [1, 5000, 1 << 22])
def test_frames_come_in_order_whatever_the_batches(maker: ReplicaMaker, batch_bytes: int) -> None:
    """Every frame is returned once, and the chain continues from object to object."""
    maker.commit(9, rows=30)
    keys = maker.ship(every=4)
    assert frames_read(reader_of(maker, batch_bytes=batch_bytes), *keys) == list(range(1, keys[-1].last + 1))


def test_reading_stops_at_a_frame(maker: ReplicaMaker) -> None:
    """``upto`` is the last frame returned, and another object continues after it."""
    maker.commit(4)
    first, second = maker.ship(every=2)
    reader = reader_of(maker)
    assert frames_read(reader, first, upto=first.last - 1) == list(range(1, first.last))
    assert frames_read(reader, first, second) == list(range(first.last, second.last + 1))


def test_reading_begins_and_stops_within_an_epoch(maker: ReplicaMaker) -> None:
    """Reading can begin and stop at any frame. Later batches are read for the trailer, which confirms the chain."""
    maker.commit(1)
    maker.ship()
    maker.commit(30, rows=300)
    (key,) = maker.ship()
    blocks = [item for item in decode_body([maker.object_path(key).read_bytes()]) if isinstance(item, bytes)]
    assert len(blocks) > 3
    for last in [*range(key.first, key.last, 7), key.last]:
        assert frames_read(reader_of(maker, batch_bytes=1), key, upto=last) == list(range(key.first, last + 1))


def test_reading_can_begin_within_an_epoch(maker: ReplicaMaker) -> None:
    """The chain before an object is in its trailer. If the page size is unknown, the object's beginning is needed."""
    maker.commit(4)
    _, second = maker.ship(every=2)
    assert frames_read(reader_of(maker), second) == list(range(second.first, second.last + 1))
    with pytest.raises(CorruptError, match="page size are not known"):
        frames_read(reader_of(maker, None), second)


def test_broken_stream_is_read_again(maker: ReplicaMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames before the break are not returned a second time."""
    monkeypatch.setattr(replica_module, "pause", lambda _attempt: None)
    maker.commit(200)
    (key,) = maker.ship()
    whole = DirectoryStorage.stream
    breaks = iter([True, True, False])

    def breaking(storage: DirectoryStorage, name: str) -> Iterator[bytes]:
        body = b"".join(whole(storage, name))
        if next(breaks):
            yield body[: len(body) - 10]
            raise TransientError("the connection broke")
        yield body

    monkeypatch.setattr(DirectoryStorage, "stream", breaking)
    assert frames_read(reader_of(maker, batch_bytes=1), key) == list(range(1, key.last + 1))


def test_name_that_promises_more_is_noticed(maker: ReplicaMaker) -> None:
    """An object has to hold exactly the frames that its name says."""
    maker.commit(3)
    (key,) = maker.ship()
    for last in (key.last + 1, key.last - 1):
        other = SegmentKey(GENERATION, 1, 1, last, key.time_ms, 0)
        maker.object_path(other).write_bytes(maker.object_path(key).read_bytes())
        with pytest.raises(CorruptError, match=f"it ends with frame {key.last}, its name says {last}"):
            frames_read(reader_of(maker), other)


def test_gap_between_objects_is_noticed(maker: ReplicaMaker) -> None:
    """An object that does not begin where the one before ended is refused."""
    maker.commit(6)
    first, _, third = maker.ship(every=2)
    with pytest.raises(CorruptError, match=f"begins with frame {third.first}, after frame {first.last}"):
        frames_read(reader_of(maker), first, third)


def test_trailer_that_lies_is_noticed(maker: ReplicaMaker) -> None:
    """Frames, chain and commits of a trailer have to match the frames before it."""
    maker.commit(3)
    (key,) = maker.ship()
    (true,) = trailers(Replica(maker.storage, maker.name), key)
    lies = {
        "has the trailer": Trailer(2, true.first, true.last, true.before, true.after, true.commits),
        "on the chain": Trailer(1, true.first, true.last, true.before, (1, 2), true.commits),
        "on the commits": Trailer(1, true.first, true.last, true.before, true.after, true.commits[1:]),
    }
    for fault, trailer in lies.items():
        rewrite(maker, key, trailer)
        with pytest.raises(CorruptError, match=f"{format_key(key)}.*{fault}"):
            frames_read(reader_of(maker), key)


def test_bridge_and_its_name_agree(maker: ReplicaMaker) -> None:
    """The name and the trailer must agree on whether an object begins with a bridge, and after which frame."""
    maker.commit(3)
    (key,) = maker.ship()
    plain = maker.object_path(key).read_bytes()
    bridge = maker.bridge()
    body = maker.object_path(bridge).read_bytes()
    assert (bridge.bridge, bridge.previous) == (True, key.last)
    reader = EpochReader(Replica(maker.storage, maker.name), 2, PAGE_SIZE)
    assert frames_read(reader, bridge) == list(range(1, bridge.last + 1))
    for named, content, fault in [
        (replace(key, bridge=True), plain, "it is not a bridge"),
        (replace(bridge, bridge=False), body, "it is a bridge"),
        (replace(bridge, previous=key.last + 1), body, f"follows frame {key.last}, its name {key.last + 1}"),
    ]:
        maker.object_path(named).write_bytes(content)
        with pytest.raises(CorruptError, match=fault):
            frames_read(EpochReader(Replica(maker.storage, maker.name), named.epoch, PAGE_SIZE), named)


def test_other_page_size_is_noticed(maker: ReplicaMaker) -> None:
    """An epoch has the page size of its base. Without a base it states its own."""
    maker.commit()
    (key,) = maker.ship()
    with pytest.raises(CorruptError, match="WAL header for pages of 512 bytes"):
        frames_read(reader_of(maker, 512), key)
    assert frames_read(reader_of(maker, None), key)
