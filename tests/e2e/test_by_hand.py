"""Tests that a replica can be restored with ``zstd`` and ``sqlite3`` alone, and that the script refuses what would
silently go wrong.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.aging import told
from tests.engine.running import Place
from tests.forks import OtherHistory
from tests.readme import script_by_hand
from tests.replicas import GENERATION, ReplicaMaker, counter_in, make_replica
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.keep.retention import HOUR_MS
from walsyncd.core.stored.layout import SegmentKey


def by_hand(maker: ReplicaMaker, out: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "restore-by-hand.sh"
    script.write_text(script_by_hand())
    return subprocess.run(
        ["sh", str(script), maker.folder.name, str(out)],
        cwd=maker.folder.parent,  # so that the folder's name is the database's name
        capture_output=True,
        text=True,
        check=False,
    )


def two_epochs(maker: ReplicaMaker) -> list[SegmentKey]:
    """Store a base, an epoch of three segments, and an epoch of two. Return all five."""
    maker.base()
    maker.commit(6, rows=5)
    keys = maker.ship(every=2)
    maker.close_epoch()
    maker.commit(4, rows=5)
    return keys + maker.ship(every=2)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_gives_the_same_file(tmp_path: Path, page_size: int) -> None:
    """By hand or by walsyncd, the file is that of the source after a checkpoint."""
    with make_replica(tmp_path, page_size=page_size) as maker:
        two_epochs(maker)
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
        assert result.returncode == 0, result.stderr
        expected = maker.file()
        assert result.stdout == f"restored {tmp_path}/out.db: {_place(maker)}\n"
        assert counter_in(tmp_path / "out.db") == 10
        assert _without_counters((tmp_path / "out.db").read_bytes()) == _without_counters(expected)


@pytest.mark.parametrize("compacted", [False, True], ids=["segments", "wholes"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_takes_bridges_as_segments_and_as_wholes(tmp_path: Path, page_size: int, *, compacted: bool) -> None:
    """The file is that of the source, whether a bridge is the last thing stored or not."""
    with make_replica(tmp_path, page_size=page_size) as maker:
        two_epochs(maker)
        for number in range(2):
            maker.bridge(lost=3)
            result = by_hand(maker, tmp_path / f"bridge{number}.db", tmp_path)
            assert result.returncode == 0, result.stderr
            assert counter_in(tmp_path / f"bridge{number}.db") == 13 + 5 * number
            maker.commit(2)
            maker.ship()
            maker.close_epoch()
            if compacted:
                assert maker.compact().bridge
                shutil.rmtree(maker.folder / "wal" / f"{maker.epoch - 1:08x}")
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
        assert result.returncode == 0, result.stderr
        assert counter_in(tmp_path / "out.db") == 20
        assert _without_counters((tmp_path / "out.db").read_bytes()) == _without_counters(maker.file())


def _place(maker: ReplicaMaker) -> str:
    return f"{maker.position.epoch:08x}-{maker.position.frame:08x}"


def _without_counters(file: bytes) -> bytes:
    """Return the file without what every connection may change: change counter, version-valid-for, library version."""
    return file[:24] + bytes(4) + file[28:92] + bytes(8) + file[100:]


def test_takes_whole_epochs_and_later_bases(tmp_path: Path) -> None:
    """A closed epoch is read as one object. The newest base is taken, and its epoch's beginning is applied again."""
    with make_replica(tmp_path) as maker:
        for key in two_epochs(maker)[:3]:
            assert maker.object_path(key).exists()
        maker.close_epoch()
        maker.compact()
        maker.commit(2)
        maker.base()
        maker.commit(3)
        maker.ship()
        maker.close_epoch()
        maker.compact()
        maker.commit(1)
        maker.ship()
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 0, result.stderr
    assert counter_in(tmp_path / "out.db") == 16


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_hole_is_refused(tmp_path: Path, lost: int) -> None:
    """A missing segment, first or in the middle, stops the script."""
    with make_replica(tmp_path) as maker:
        maker.remove(two_epochs(maker)[lost])
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "hole or overlap" in result.stderr


def test_lost_end_of_an_epoch_is_refused(tmp_path: Path) -> None:
    """The next epoch names the frame that it follows."""
    with make_replica(tmp_path) as maker:
        maker.remove(two_epochs(maker)[2])
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "follows frame" in result.stderr


def test_lost_epoch_is_refused(tmp_path: Path) -> None:
    """The epochs after it notice that one is missing."""
    with make_replica(tmp_path) as maker:
        two_epochs(maker)
        shutil.rmtree(maker.folder / "wal" / "00000001")
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "epoch 00000001 is missing" in result.stderr


def test_overlap_is_refused(tmp_path: Path) -> None:
    """Two objects with the same frames would silently end the WAL early."""
    with make_replica(tmp_path) as maker:
        keys = two_epochs(maker)
        wide = SegmentKey(GENERATION, 1, keys[1].first, keys[2].last, keys[2].time_ms)
        both = (maker.object_path(key).read_bytes() for key in keys[1:3])
        maker.object_path(wide).write_bytes(b"".join(both))
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "hole or overlap" in result.stderr


def test_damaged_segment_is_refused(tmp_path: Path) -> None:
    """zstd's checksums notice a flipped bit."""
    with make_replica(tmp_path) as maker:
        path = maker.object_path(two_epochs(maker)[1])
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode != 0
    assert not (tmp_path / "out.db").exists()


def test_a_whole_epoch_that_follows_another_is_refused(tmp_path: Path) -> None:
    """``previous`` counts for an epoch in one object, too."""
    with make_replica(tmp_path) as maker:
        two_epochs(maker)
        maker.close_epoch()
        key = maker.compact()
        wrong = replace(key, previous=key.previous - 1)
        maker.object_path(key).rename(maker.object_path(wrong))
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "follows frame" in result.stderr


def test_a_base_without_its_own_frames_is_refused(tmp_path: Path) -> None:
    """Until it is consistent, a copied base is a state that never existed."""
    with make_replica(tmp_path) as maker:
        key = maker.base()
        maker.commit(3)
        maker.ship()
        place = maker.position
        later = replace(key, epoch=place.epoch, frame=place.frame)
        maker.object_path(key).rename(maker.object_path(later))
        assert by_hand(maker, tmp_path / "out.db", tmp_path).returncode == 0
        shutil.rmtree(maker.folder / "wal")
        result = by_hand(maker, tmp_path / "again.db", tmp_path)
    assert result.returncode == 1
    assert f"the base needs everything up to {_place(maker)}" in result.stderr
    assert not (tmp_path / "again.db").exists()


def test_a_base_alone_is_a_database(tmp_path: Path) -> None:
    """Nothing was committed since, or the database has no WAL."""
    with make_replica(tmp_path) as maker:
        maker.base()
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / "out.db").read_bytes() == maker.file()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_nothing_is_overwritten(tmp_path: Path, suffix: str) -> None:
    """The script overwrites neither a database nor a file that would be taken for its WAL."""
    (tmp_path / f"out.db{suffix}").write_bytes(b"precious")
    with make_replica(tmp_path) as maker:
        maker.base()
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert f"out.db{suffix} exists" in result.stderr
    assert (tmp_path / f"out.db{suffix}").read_bytes() == b"precious"


def test_a_refusal_leaves_no_files(tmp_path: Path) -> None:
    """A file that was being built is removed."""
    (tmp_path / "out").mkdir()
    with make_replica(tmp_path) as maker:
        maker.remove(two_epochs(maker)[4])
        maker.remove(two_epochs(maker)[1])
        assert by_hand(maker, tmp_path / "out" / "app.db", tmp_path).returncode == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_base_there_is_nothing(tmp_path: Path) -> None:
    """A base whose manifest was never written does not count."""
    with make_replica(tmp_path) as maker:
        maker.remove(maker.base())
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "no finished base" in result.stderr


def test_at_every_moment_of_compaction_and_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are segments only, then also one object of all, then some segments are deleted, then all.

    Bases and epochs are pruned.
    """
    place = Place(tmp_path)
    script = tmp_path / "restore-by-hand.sh"
    script.write_text(script_by_hand())
    seen: list[tuple[int, int]] = []
    with told(place, DirectoryStorage(place.replica), monkeypatch) as story:
        (generation,) = (place.replica / "app").glob("*-*")
        story.commit()
        story.commit()

        def look() -> None:
            out = tmp_path / f"out-{len(seen)}.db"
            done = subprocess.run(["sh", script, generation, out], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert _rows(out) >= story.moments[-1].rows
            segments, wholes = (len(list(generation.glob(each))) for each in ("wal/00000001/*", "whole/00000001-*"))
            seen.append((segments, wholes))

        story.storage.changed, story.storage.singly = look, True
        look()
        story.writer.execute("pragma wal_checkpoint(restart)")
        story.calendar.ahead_ms += 2 * HOUR_MS
        story.commit()
        story.wait_for_whole()
        story.prune()
        assert list(dict.fromkeys(seen)) == [(3, 0), (3, 1), (2, 1), (1, 1), (0, 1)]
        for _ in range(4):
            story.day()
            story.prune()
        assert not list(generation.glob("whole/00000001-*"))
        look()


def _rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    rows = [x for (x,) in connection.execute("select x from t order by x")]
    connection.close()
    assert rows == list(range(len(rows)))
    return len(rows)


def test_two_whole_epochs_are_refused(tmp_path: Path) -> None:
    """They are two histories, and SQLite would silently apply the first of them."""
    with make_replica(tmp_path) as maker:
        other = OtherHistory(maker, two_epochs(maker)[3:])
        maker.close_epoch()
        key = maker.compact()
        other.store_whole(key.previous)
        result = by_hand(maker, tmp_path / "out.db", tmp_path)
    assert result.returncode == 1
    assert "two histories" in result.stderr
