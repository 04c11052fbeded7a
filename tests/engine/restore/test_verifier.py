"""Tests of verification: a sound replica has no problem, and whatever is damaged is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replicas import GENERATION, NEXT_GENERATION, ReplicaMaker, make_replica
from walsyncd.core.stored.layout import Key, SegmentKey, format_key
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.verifier import Verification, verify
from walsyncd.errors import NothingToRestoreError


def verified(maker: ReplicaMaker, *, quick: bool = False) -> Verification:
    return verify(Replica(maker.storage, maker.name), quick=quick)


def fill(maker: ReplicaMaker) -> dict[str, Key]:
    """Store a base, a whole epoch with its segments, and an open epoch. Return one object of each kind."""
    manifest = maker.base()
    maker.commit(5, rows=10)
    segments = maker.ship(every=2)
    maker.close_epoch()
    whole = maker.compact()
    maker.commit(3)
    tail = maker.ship(every=1)
    return {
        "base": manifest.base,
        "manifest": manifest,
        "segment of a whole": segments[1],
        "whole": whole,
        "segment": tail[1],
    }


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.write_bytes(body)


def test_sound_replica_has_no_problem(tmp_path: Path) -> None:
    """Everything is read and counted once."""
    with make_replica(tmp_path) as maker:
        fill(maker)
        result = verified(maker)
    assert (result.problems, result.notes) == ([], [])
    assert (result.generations, result.objects, result.transactions) == (1, 9, 8)


@pytest.mark.parametrize("kind", ["base", "manifest", "segment of a whole", "whole", "segment"])
def test_flipped_bit_is_found_anywhere(tmp_path: Path, kind: str) -> None:
    """A flipped bit is found even in objects that a restore would not read."""
    with make_replica(tmp_path) as maker:
        key = fill(maker)[kind]
        flip(maker.object_path(key))
        result = verified(maker)
    assert any(format_key(key) in problem for problem in result.problems), result.problems


def test_missing_objects_are_found(tmp_path: Path) -> None:
    """A lost segment is a hole, and a lost base is missing for its manifest."""
    with make_replica(tmp_path) as maker:
        objects = fill(maker)
        maker.remove(objects["segment"])
        assert any("missing in epoch 2" in problem for problem in verified(maker).problems)
        maker.remove(objects["base"])
        assert any(format_key(objects["base"]) in problem for problem in verified(maker).problems)


def test_unfinished_is_noted(tmp_path: Path) -> None:
    """A base without a manifest, and a generation without a base, are no damage."""
    with make_replica(tmp_path) as maker:
        objects = fill(maker)
        maker.remove(objects["manifest"])
        maker.begin_generation(NEXT_GENERATION)
        result = verified(maker)
    assert result.problems == ["nothing can be restored: no generation has a finished base"]
    assert [GENERATION in note for note in result.notes] == [True, True]


def test_fork_beside_the_objects_is_found(tmp_path: Path) -> None:
    """An object that is sound by itself but of another history does not fit into the chain."""
    (tmp_path / "other").mkdir()
    with make_replica(tmp_path) as maker, make_replica(tmp_path / "other") as other:
        objects = fill(maker), fill(other)
        key = objects[0]["segment of a whole"]
        assert isinstance(key, SegmentKey)
        maker.object_path(key).write_bytes(other.object_path(key).read_bytes())
        result = verified(maker)
    assert any("another history" in problem for problem in result.problems)


def test_empty_replica_is_nothing_to_verify(tmp_path: Path) -> None:
    """A replica that holds nothing is not called sound."""
    with make_replica(tmp_path) as maker, pytest.raises(NothingToRestoreError, match="empty"):
        verified(maker)


def test_every_damaged_object_is_named(tmp_path: Path) -> None:
    """Segments after a damaged one are read anyway. They are lost, and those before are still good."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(6)
        segments = maker.ship(every=1)
        for key in (segments[2], segments[4]):
            flip(maker.object_path(key))
        result = verified(maker)
    assert [any(format_key(key) in problem for problem in result.problems) for key in segments] == [
        number in {2, 4} for number in range(6)
    ]
    (left,) = result.damage_report
    ((good,), (lost,)) = left.good, left.lost
    assert (good.last.position, lost.first.position, lost.last.position) == (
        maker.history[1].position,
        maker.history[1].position,
        maker.history[5].position,
    )


def test_quick_reads_no_object(tmp_path: Path) -> None:
    """A flipped bit is not noticed, but an empty object and a missing one are."""
    with make_replica(tmp_path) as maker:
        objects = fill(maker)
        flip(maker.object_path(objects["segment"]))
        assert verified(maker, quick=True).problems == []
        maker.object_path(objects["segment of a whole"]).write_bytes(b"")
        maker.remove(objects["base"])
        result = verified(maker, quick=True)
    names = format_key(objects["segment of a whole"]), format_key(objects["base"])
    assert [any(name in problem for problem in result.problems) for name in names] == [True, True]
    assert result.transactions == 0


def test_object_that_goes_meanwhile_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction that ends during the reading appears in another listing."""
    with make_replica(tmp_path) as maker:
        key = fill(maker)["segment of a whole"]
        real = Replica.stream

        def stream_and_lose(replica: Replica, name: str) -> Iterator[bytes]:
            if maker.object_path(key).exists():
                maker.remove(key)
            return real(replica, name)

        monkeypatch.setattr(Replica, "stream", stream_and_lose)
        result = verified(maker)
    assert (result.problems, result.generations) == ([], 1)


def test_head_is_restored_and_checked_by_sqlite(tmp_path: Path) -> None:
    """A sound head has no problem. A head whose application database is broken has a problem."""
    with make_replica(tmp_path) as maker:
        fill(maker)
        result = verify(Replica(maker.storage, maker.name), scratch=tmp_path / "head.db")
    assert (result.problems, result.notes) == ([], [])
    assert (tmp_path / "head.db").exists()


def test_base_of_the_head_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is most of what is read, and restoring the head has verified it. Other bases are read too."""
    asked: Counter[tuple[str, int]] = Counter()
    get = Replica.get

    def counted(replica: Replica, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        asked[key, first] += 1
        return get(replica, key, first=first, length=length)

    with make_replica(tmp_path) as maker:
        old = maker.base()
        maker.commit(5, rows=10)
        new = maker.base()
        monkeypatch.setattr(Replica, "get", counted)
        verify(Replica(maker.storage, maker.name), scratch=tmp_path / "head.db")
    bases = {key: count for (key, _), count in asked.items() if key.endswith(".db.zst")}
    assert bases == {format_key(old.base): 1, format_key(new.base): 1}


@pytest.mark.parametrize("kind", ["base", "segment"])
def test_damage_below_the_head_is_told_once(tmp_path: Path, kind: str) -> None:
    """The damaged object is reported, and not also that the head can't be restored."""
    with make_replica(tmp_path) as maker:
        key = fill(maker)[kind]
        flip(maker.object_path(key))
        result = verify(Replica(maker.storage, maker.name), scratch=tmp_path / "head.db")
    (problem,) = result.problems
    assert format_key(key) in problem
