"""Tests of which commits an object holds. Its end is read where that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replicas import ReplicaMaker, make_replica
from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.stored.layout import format_key
from walsyncd.engine.restore.commit_times import TAIL_BYTES, commits_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    """Return one segment of five transactions, about 30 KiB, and the same as a whole of two parts."""
    with make_replica(tmp_path) as made:
        made.base()
        made.commit(5, rows=20)
        yield made


def listed(maker: ReplicaMaker) -> Replica:
    replica = Replica(maker.storage, maker.name)
    assert list(replica.objects(maker.generation))
    return replica


def read_of(
    replica: Replica, key: FramesKey, monkeypatch: pytest.MonkeyPatch, *, tail_bytes: int = TAIL_BYTES
) -> list[int]:
    """Return how many bytes each request for an object returned."""
    sizes: list[int] = []
    get, stream = Replica.get, Replica.stream

    def counted_get(self: Replica, name: str, *, first: int = 0, length: int | None = None) -> bytes:
        body = get(self, name, first=first, length=length)
        sizes.append(len(body))
        return body

    def counted_stream(self: Replica, name: str) -> Iterator[bytes]:
        for block in stream(self, name):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(Replica, "get", counted_get)
    monkeypatch.setattr(Replica, "stream", counted_stream)
    commits_of(replica, key, tail_bytes=tail_bytes)
    return sizes


def test_the_end_of_a_segment_is_enough(maker: ReplicaMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment's trailer lists every commit, and the frames are not fetched."""
    (key,) = maker.ship()
    replica = listed(maker)
    found = [(commit.frame, commit.time_ms) for commit in commits_of(replica, key, tail_bytes=500).commits]
    assert found == [(commit.position.frame, commit.time_ms) for commit in maker.history]
    assert replica.size_of(key) > 5000
    assert read_of(replica, key, monkeypatch, tail_bytes=500) == [500]


@pytest.mark.parametrize("tail", [4, 60])
def test_longer_trailers_are_read_whole(maker: ReplicaMaker, tail: int) -> None:
    """The trailer of a segment of very many transactions does not fit into the first request."""
    (key,) = maker.ship()
    assert len(commits_of(listed(maker), key, tail_bytes=tail).commits) == 5


def test_a_whole_is_read_for_the_trailers_of_all_its_parts(maker: ReplicaMaker) -> None:
    """The last trailer alone has only some of the commits."""
    maker.ship(every=2)
    maker.close_epoch()
    whole = maker.compact()
    assert len(commits_of(listed(maker), whole).commits) == 5


def test_damage_names_the_object(maker: ReplicaMaker) -> None:
    """Times are believed only if the checksum is right."""
    (key,) = maker.ship()
    path = maker.object_path(key)
    path.write_bytes(path.read_bytes()[:-5] + b"12345")
    with pytest.raises(CorruptError, match=format_key(key)):
        commits_of(listed(maker), key)
