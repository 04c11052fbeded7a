"""Tests of restores of small real replicas: every commit, every refusal, and every kind of damage."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.replicas import GENERATION, NEXT_GENERATION, ReplicaMaker, counter_in, damage, make_replica
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Target
from walsyncd.core.stored.layout import Key
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import Restored, RestoreOptions, check_target, find_plan, restore, restore_request
from walsyncd.errors import CorruptError, NothingToRestoreError, RefusedError, TargetError, UsageError


def replica_of(maker: ReplicaMaker) -> Replica:
    return Replica(maker.storage, maker.name)


def restored(
    maker: ReplicaMaker, target: Target, path: Path, *, force: bool = False, allow_partial: bool = False
) -> Restored:
    replica = replica_of(maker)
    return restore(replica, find_plan(replica, target, allow_partial=allow_partial), path, force=force)


def restored_with(maker: ReplicaMaker, path: Path, *, kept_bytes_min: int) -> Restored:
    return restore_request(
        replica_of(maker), RestoreRequest(Head()), path, RestoreOptions(kept_bytes_min=kept_bytes_min)
    )


def three_epochs(maker: ReplicaMaker) -> None:
    """Store a base, three epochs of which the first is whole too, a checkpoint within the second, and a second base."""
    maker.base()
    maker.commit(6, rows=8)
    maker.ship(every=2)
    maker.close_epoch()
    maker.compact()
    maker.commit(3)
    maker.checkpoint()
    maker.commit(4, rows=20)
    maker.ship(every=3)
    maker.base()
    maker.commit(2)
    maker.close_epoch()
    maker.commit(5, rows=3)
    maker.ship()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_head_is_the_source_page_for_page(tmp_path: Path, page_size: int) -> None:
    """The restored head equals the source's file after a checkpoint, byte for byte."""
    with make_replica(tmp_path, page_size=page_size) as maker:
        three_epochs(maker)
        result = restored(maker, Head(), tmp_path / "out.db")
        assert (tmp_path / "out.db").read_bytes() == maker.file()
    assert result.plan.reached.position == maker.history[-1].position
    assert result.plan.reached.time_ms == maker.history[-1].time_ms


def test_every_position_can_be_restored(tmp_path: Path) -> None:
    """Each commit's position gives the database with exactly that counter."""
    with make_replica(tmp_path) as maker:
        three_epochs(maker)
        for commit in maker.history:
            out = tmp_path / f"{commit.counter}.db"
            result = restored(maker, AtPosition(commit.position), out)
            assert counter_in(out) == commit.counter
            assert (result.plan.reached.position, result.plan.reached.time_ms) == (
                commit.position,
                commit.time_ms,
            )


@pytest.mark.parametrize("after_ms", [0, 1, 999])
def test_every_moment_gives_the_last_commit_before_it(tmp_path: Path, after_ms: int) -> None:
    """A moment at or after a commit, and before the next one, gives that commit."""
    with make_replica(tmp_path) as maker:
        three_epochs(maker)
        for commit in maker.history[:-1]:
            out = tmp_path / f"{commit.counter}.db"
            result = restored(maker, AtTime(commit.time_ms + after_ms), out)
            assert counter_in(out) == commit.counter
            assert result.plan.reached.position == commit.position


def test_base_alone_is_a_position(tmp_path: Path) -> None:
    """A replica of a base and nothing else restores to that base."""
    with make_replica(tmp_path) as maker:
        maker.base()
        result = restored(maker, Head(), tmp_path / "out.db")
        assert (tmp_path / "out.db").read_bytes() == maker.file()
    assert result.plan.reached.position == Position(GENERATION, 1, 0)
    assert result.applied.transactions == 0


def test_overlapping_segments_are_cut(tmp_path: Path) -> None:
    """Frames that two objects hold are applied once."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        keys = maker.ship(every=2)
        maker.close_epoch()
        whole = maker.compact()
        merged = maker.object_path(whole).read_bytes()
        maker.remove(whole)
        maker.remove(keys[1])
        wide = type(keys[0])(GENERATION, 1, 1, keys[1].last, keys[1].time_ms, 0)
        maker.object_path(wide).write_bytes(merged)
        restored(maker, Head(), tmp_path / "out.db")
    assert counter_in(tmp_path / "out.db") == 4


def test_frames_before_the_start_are_not_needed(tmp_path: Path) -> None:
    """An epoch whose first segments are gone restores from a base that starts after them."""
    with make_replica(tmp_path) as maker:
        maker.commit(4)
        early = maker.ship(every=2)
        maker.base()
        maker.commit(3)
        maker.ship()
        for key in early:
            maker.remove(key)
        restored(maker, Head(), tmp_path / "out.db")
        assert (tmp_path / "out.db").read_bytes() == maker.file()


def test_empty_replica_restores_nothing(tmp_path: Path) -> None:
    """Without any object, and without a finished base, there is nothing to restore."""
    with make_replica(tmp_path) as maker:
        with pytest.raises(NothingToRestoreError, match="the replica is empty"):
            find_plan(replica_of(maker), Head())
        maker.commit()
        maker.ship()
        with pytest.raises(NothingToRestoreError, match="no generation has a finished base"):
            find_plan(replica_of(maker), Head())


def test_head_falls_back_behind_a_generation_without_base(tmp_path: Path) -> None:
    """The generation before is restored, and a note says how far it lags."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3)
        maker.begin_generation(NEXT_GENERATION)
        maker.commit(2)
        maker.ship()
        result = restored(maker, Head(), tmp_path / "out.db")
    assert counter_in(tmp_path / "out.db") == 3
    assert result.plan.generation == GENERATION
    assert any(NEXT_GENERATION in note for note in result.plan.notes)


def test_lost_segment_is_a_hole_with_its_neighbours(tmp_path: Path) -> None:
    """A missing segment refuses the head, names the positions around, and allows the one before."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(6)
        keys = maker.ship(every=2)
        maker.remove(keys[1])
        with pytest.raises(TargetError, match=rf"frames {keys[1].first} to {keys[1].last} are missing") as caught:
            find_plan(replica_of(maker), Head())
        assert str(maker.history[1].position) in str(caught.value)
        restored(maker, Head(), tmp_path / "out.db", allow_partial=True)
    assert counter_in(tmp_path / "out.db") == 2
    assert caught.value.exit_code == 4


def test_moment_after_the_head_names_the_head(tmp_path: Path) -> None:
    """A moment after the last stored commit is not covered. With allow_partial it is the head."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3)
        maker.ship()
        late = AtTime(maker.history[-1].time_ms + 1)
        with pytest.raises(TargetError, match=f"nearest before: {maker.history[-1].position}"):
            find_plan(replica_of(maker), late)
        restored(maker, late, tmp_path / "out.db", allow_partial=True)
    assert counter_in(tmp_path / "out.db") == 3


def test_frame_within_a_transaction_names_its_commits(tmp_path: Path) -> None:
    """A frame that does not commit is refused with the commits around it.

    With allow_partial the earlier commit is restored.
    """
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3, rows=30)
        maker.ship()
        before, after = maker.history[1:]
        inside = AtPosition(Position(GENERATION, 1, after.position.frame - 1))
        with pytest.raises(TargetError, match="not a commit") as caught:
            find_plan(replica_of(maker), inside)
        assert f"before: {before.position}" in str(caught.value)
        assert f"after: {after.position}" in str(caught.value)
        result = restored(maker, inside, tmp_path / "out.db", allow_partial=True)
    assert counter_in(tmp_path / "out.db") == before.counter
    assert result.plan.shortfall


@pytest.mark.parametrize("kind", ["base", "manifest", "segment"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_object_is_named_and_leaves_nothing(tmp_path: Path, kind: str, damage: str) -> None:
    """The error names whichever object is damaged, and no file appears."""
    out = tmp_path / "out"
    out.mkdir()
    with make_replica(tmp_path) as maker:
        manifest = maker.base()
        maker.commit(4, rows=40)
        (segment,) = maker.ship()
        objects: dict[str, Key] = {"base": manifest.base, "manifest": manifest, "segment": segment}
        victim = maker.object_path(objects[kind])
        replica = replica_of(maker)
        plan = find_plan(replica, Head())
        body = victim.read_bytes()
        match damage:
            case "truncated":
                victim.write_bytes(body[: len(body) // 2])
            case "flipped":
                victim.write_bytes(
                    body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
                )
            case _:
                victim.unlink()
        with pytest.raises(CorruptError, match=victim.name):
            restore(replica, plan, out / "app.db")
    assert left_in(out) == []


def test_segment_of_another_history_is_refused(tmp_path: Path) -> None:
    """The chain reveals two objects that disagree."""
    with make_replica(tmp_path) as maker, make_replica(_folder(tmp_path / "other")) as other:
        for one in (maker, other):
            one.base()
            one.commit(4)
        mine, theirs = maker.ship(every=2), other.ship(every=2)
        assert mine == theirs
        maker.object_path(mine[1]).write_bytes(other.object_path(theirs[1]).read_bytes())
        with pytest.raises(CorruptError, match="does not continue the chain"):
            restored(maker, Head(), tmp_path / "out.db")
    assert not (tmp_path / "out.db").exists()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_existing_file_needs_force_and_keeps_its_mode(tmp_path: Path) -> None:
    """A file is replaced only with force. Its mode stays, and its WAL is moved aside."""
    out = tmp_path / "out.db"
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        out.write_bytes(b"precious")
        out.chmod(0o640)
        Path(f"{out}-wal").write_bytes(b"stale")
        with pytest.raises(UsageError, match="exists"):
            restored(maker, Head(), out)
        assert out.read_bytes() == b"precious"
        result = restored(maker, Head(), out, force=True)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert [path.read_bytes() for path in result.moved] == [b"stale"]
    assert counter_in(out) == 2


def test_new_file_is_private(tmp_path: Path) -> None:
    """Without a file to replace, in a private folder, the mode is 0600, and no temporary file stays."""
    out = _folder(tmp_path / "out")
    out.chmod(0o700)
    with make_replica(tmp_path) as maker:
        maker.base()
        restored(maker, Head(), out / "app.db")
    assert stat.S_IMODE((out / "app.db").stat().st_mode) == 0o600
    assert left_in(out) == ["app.db"]


def test_open_database_is_not_replaced(tmp_path: Path) -> None:
    """A database that another process has open is refused even with force, and is not touched."""
    with make_replica(tmp_path) as maker:
        maker.base()
        with wal_database(tmp_path / "busy.db") as process:
            before = (tmp_path / "busy.db").read_bytes()
            with pytest.raises(RefusedError, match="a process has this database open"):
                restored(maker, Head(), tmp_path / "busy.db", force=True)
            assert (tmp_path / "busy.db").read_bytes() == before
            process.close()
        restored(maker, Head(), tmp_path / "busy.db", force=True)
    assert counter_in(tmp_path / "busy.db") == 0


def test_target_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The link's owner decides where it leads to, and may change that at any moment. Even with force it is refused."""
    out = tmp_path / "link.db"
    out.symlink_to(_folder(tmp_path / "real") / "app.db")
    with make_replica(tmp_path) as maker:
        maker.base()
        for force in (False, True):
            with pytest.raises(RefusedError, match="symbolic link"):
                restored(maker, Head(), out, force=force)
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize(("size", "is_refused"), [(251, False), (252, True), (300, True)])
def test_a_name_must_leave_room_for_a_wal(tmp_path: Path, size: int, *, is_refused: bool) -> None:
    """SQLite could not open a database with a longer name. The name is refused before anything is fetched."""
    with pytest.raises(UsageError, match="too long") if is_refused else nullcontext():
        check_target(tmp_path / ("x" * size))


def test_database_that_shrank_is_cut(tmp_path: Path) -> None:
    """The size is that of the last commit, even if the base is larger."""
    with make_replica(tmp_path) as maker:
        maker.commit(1, rows=500)
        maker.base()
        maker.connection.execute("DELETE FROM t")
        maker.connection.execute("VACUUM")
        maker.ship()
        result = restored(maker, Head(), tmp_path / "out.db")
        assert (tmp_path / "out.db").read_bytes() == maker.file()
    assert result.size == (tmp_path / "app.db").stat().st_size


def test_restored_file_takes_new_transactions(tmp_path: Path) -> None:
    """The application continues where the restore ended."""
    with make_replica(tmp_path) as maker:
        three_epochs(maker)
        restored(maker, Head(), tmp_path / "out.db")
    with closing(sqlite3.connect(tmp_path / "out.db", isolation_level=None)) as connection:
        connection.execute("UPDATE counter SET value = value + 1")
    assert counter_in(tmp_path / "out.db") == maker.history[-1].counter + 1


def test_a_write_error_is_not_lost_behind_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a write error once. Without it a partial file kept for the next restore would look right."""

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        damage(maker.object_path(maker.ship(every=2)[0]))
        out = tmp_path / "restored" / "out.db"
        out.parent.mkdir()
        with pytest.raises(CorruptError):
            restored_with(maker, out, kept_bytes_min=0)
        assert left_in(out.parent), "it would be kept"
        monkeypatch.setattr(os, "fdatasync", failing)
        with pytest.raises(RefusedError, match=os.strerror(errno.EIO)):
            restored_with(maker, out, kept_bytes_min=0)
        assert not left_in(out.parent)
