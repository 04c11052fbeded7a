"""Tests of the pruner: it deletes what may be deleted, checks that it is gone, and touches nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.aged_storage import AgedStorage, body_of
from tests.fakes import Deaths, FakeStorage, Killed
from tests.lifetimes import OPERATIONS, T0, CopyContext, live
from tests.shipping import NAME, mortal
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS, HeldObject, Policy
from walsyncd.core.restore.coverage import listing_of
from walsyncd.core.restore.plan import Head, Plan, make_plan
from walsyncd.core.stored.layout import (
    BaseKey,
    Key,
    ManifestKey,
    PrunedKey,
    format_key,
    parse_key,
)
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.engine.upkeep.pruner import Pruner, list_folder
from walsyncd.errors import RefusedError

POLICY = Policy(7 * DAY_MS)


def old_world() -> CopyContext:
    world = CopyContext()
    for _ in range(20):
        world.base()
        world.commit()
        world.close()
        world.now_ms += DAY_MS
    return world


def make(journal: Journal, storage: AgedStorage, *, refuse: bool = False) -> tuple[Pruner, int]:
    def may_delete(_database_id: int) -> None:
        if refuse:
            raise RefusedError("another daemon writes here")

    database_id = journal.database(NAME, "/srv/app.db").id
    pruner = Pruner(journal, storage, may_delete=may_delete, store_ms=lambda: storage.world.now_ms, removals=Removals())
    return pruner, database_id


def head(storage: FakeStorage) -> Plan:
    keys = [key for name in storage.objects if (key := parse_key(name.removeprefix(f"{NAME}/")))]
    plan = make_plan(listing_of(keys), Head())
    assert isinstance(plan, Plan)
    return plan


def test_what_is_older_goes_and_the_statement_comes_first(tmp_path: Path) -> None:
    """The order is statement, manifests, bases, epochs, with a listing in between.

    The journal knows the time of the next pruning.
    """
    storage = AgedStorage(old_world())
    before = len(storage.objects)
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage)
        assert journal.next_prune_ms(0) is None
        pruner.prune(database_id, POLICY)
        calls = [call for call in storage.calls if call.name in {"put", "delete"}]
        assert "/pruned/" in calls[0].key
        kinds = ["json" if call.key.endswith("json.zst") else call.key.split("/")[2] for call in calls[1:]]
        assert kinds == sorted(kinds, key=["json", "base", "wal"].index)
        row = journal.database_by_id(database_id)
        assert row.bucket_objects == len(storage.objects) < before
        assert row.bucket_bytes == sum(len(each.body) for each in storage.objects.values())
        assert journal.next_prune_ms(0) == storage.world.now_ms + DAY_MS
        storage.calls.clear()
        pruner.prune(database_id, POLICY)
        assert not {"put", "delete"} & set(storage.names())
    assert head(storage).reached.position.generation == storage.world.generation


def test_killed_anywhere_the_next_one_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head can be restored at each of these moments, and in the end the same objects are left."""
    ends: set[frozenset[str]] = set()
    for at in range(1, 300):
        storage, deaths = AgedStorage(old_world()), Deaths(at)
        killed = False
        try:
            with Journal.open(tmp_path / str(at)) as journal:
                pruner, database_id = make(journal, storage)
                with mortal(monkeypatch, storage, deaths):
                    pruner.prune(database_id, POLICY)
        except Killed:
            killed = True
        assert head(storage).reached.position.generation == storage.world.generation
        with Journal.open(tmp_path / str(at)) as journal:
            pruner, database_id = make(journal, storage)
            pruner.prune(database_id, POLICY)
        ends.add(frozenset(storage.objects))
        if not killed:
            break
    assert len(ends) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(1, 80))
def test_what_is_promised_survives_a_death_at_any_call(data: st.DataObject, at: int) -> None:
    """For any history, killed before and after each request and transaction, the next pruning ends like an undisturbed
    one.
    """
    world = CopyContext()
    for _ in range(data.draw(st.integers(5, 30))):
        world.now_ms += data.draw(st.sampled_from([HOUR_MS, DAY_MS, 4 * DAY_MS]))
        live(world, data.draw(OPERATIONS), data)
    storage = AgedStorage(world)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, Journal.open(Path(folder)) as journal:
        pruner, database_id = make(journal, storage)
        with mortal(patch, storage, Deaths(at)), suppress(Killed):
            pruner.prune(database_id, POLICY)
        assert broken(world, storage) == []
        with Journal.open(Path(folder)) as again:
            pruner, database_id = make(again, storage)
            pruner.prune(database_id, POLICY)
        assert broken(world, storage) == []


def broken(world: CopyContext, storage: FakeStorage) -> list[Position]:
    """Return the promises that the present objects do not keep."""
    keys = [key for name in storage.objects if (key := parse_key(name.removeprefix(f"{NAME}/")))]
    world.stored = {key: world.everything.get(key, HeldObject(key, world.now_ms)) for key in keys}
    return world.broken(POLICY)


def test_a_store_that_keeps_what_it_says_is_gone_is_found_out(tmp_path: Path) -> None:
    """What a batch left is deleted one by one. If that fails too, it stays for a later pruning."""
    storage = AgedStorage(old_world())
    manifests = [name for name in storage.objects if name.endswith(".json.zst")]
    storage.unbatched = set(manifests[:3])
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
        assert not storage.unbatched & set(storage.objects)
        assert not [name for name in storage.objects if name.endswith(".db.zst") and "/00000001-" in name]
        storage = AgedStorage(old_world())
        storage.stubborn = set(manifests[:1])
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
        assert len([name for name in storage.objects if name.endswith(".db.zst")]) == 20, "no base before its manifest"
        assert journal.next_prune_ms(0) == storage.world.now_ms + DAY_MS


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """Foreign objects in a generation stay, and another database's folder below this one's."""
    world = old_world()
    storage = AgedStorage(world)
    foreign = {f"{NAME}/{world.generation}/notes.txt", f"{NAME}/nested/{world.generation}/base/x", f"{NAME}/readme"}
    for name in foreign:
        storage.put(name, b"", metadata={})
    assert list_folder(storage, NAME).foreign == (f"{NAME}/{world.generation}/notes.txt",)
    with Journal.open(tmp_path) as journal, capture_logs() as logs:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
    assert foreign <= set(storage.objects)
    (told,) = [log for log in logs if log["event"] == "foreign_objects_found"]
    assert (told["objects"], told["first"]) == (1, f"{NAME}/{world.generation}/notes.txt")


def test_two_daemons_prune_one_prefix(tmp_path: Path) -> None:
    """The daemon that is not the owner states nothing and deletes nothing."""
    storage = AgedStorage(old_world())
    before = set(storage.objects)
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage, refuse=True)
        with pytest.raises(RefusedError):
            pruner.prune(database_id, POLICY)
    assert set(storage.objects) == before


def test_statements_are_small_objects_of_their_own(tmp_path: Path) -> None:
    """The name of a statement has all of its content."""
    storage = AgedStorage(old_world())
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
    stated = [parse_key(name.removeprefix(f"{NAME}/")) for name in storage.objects if "/pruned/" in name]
    assert [(key.first, key.last) for key in stated if isinstance(key, PrunedKey)] == [(1, 12)]


def planted(world: CopyContext, epoch: int, kind: str) -> dict[Key, bytes]:
    """Return a base that nobody wrote, at the start of an epoch and with its age, and what its objects hold."""
    generation = world.generation if kind != "later generation" else "20261230T000000Z-00000000"
    base = BaseKey(generation, epoch if kind != "later generation" else 1, 0, "badbadba")
    manifest = ManifestKey(base, base.epoch, 0, world.everything[_base_of(world, epoch)].modified_ms)
    bodies: dict[Key, bytes] = {base: b"x", manifest: body_of(manifest)}
    if kind in {"garbage", "later generation"}:
        bodies[manifest] = b"no manifest"
    if kind == "deep":
        bodies[manifest] = zstd.compress(b"[" * 1_000_000)
    if kind == "other size":
        bodies[base] = b"xx"
    if kind == "other base":
        bodies[manifest] = body_of(_base_of(world, epoch))
    return bodies


def _base_of(world: CopyContext, epoch: int) -> ManifestKey:
    return next(key for key in world.everything if isinstance(key, ManifestKey) and key.epoch == epoch)


@pytest.mark.parametrize("kind", ["garbage", "deep", "other size", "other base", "later generation"])
@pytest.mark.parametrize("epoch", [1, 5, 12, 13, 20])
def test_a_planted_base_lets_nothing_go(tmp_path: Path, kind: str, epoch: int) -> None:
    """Wherever the planted base is, and however it is wrong, no more is deleted than without it."""
    world = old_world()
    storage, honest = AgedStorage(world), AgedStorage(world)
    for key, body in planted(world, epoch, kind).items():
        storage.put(f"{NAME}/{format_key(key)}", body, metadata={})
        world.everything[key] = HeldObject(key, T0, len(body))
    for number, each in enumerate((honest, storage)):
        with Journal.open(tmp_path / str(number)) as journal:
            pruner, database_id = make(journal, each)
            pruner.prune(database_id, POLICY)
    assert set(honest.objects) <= set(storage.objects)
    assert broken(world, storage) == []


def test_the_only_good_base_stays_where_a_newer_one_is_damaged(tmp_path: Path) -> None:
    """By its age the good base would be deleted, and no rule would keep it. The damage is reported once."""
    world = CopyContext()
    world.base()
    world.commit()
    world.close()
    world.base()
    good, damaged = (key for key in world.stored if isinstance(key, ManifestKey))
    world.now_ms += 30 * DAY_MS
    storage = AgedStorage(world)
    storage.put(f"{NAME}/{format_key(damaged)}", b"damaged", metadata={})
    with Journal.open(tmp_path) as journal, capture_logs() as logs:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
    assert f"{NAME}/{format_key(good)}" in storage.objects
    assert f"{NAME}/{format_key(good.base)}" in storage.objects
    (told,) = [log for log in logs if log["event"] == "bases_doubted"]
    assert format_key(damaged) in told["first"]


def test_a_base_that_the_journal_did_not_write_lets_nothing_go(tmp_path: Path) -> None:
    """The base is newer than the newest base that the journal knows, however well it is made."""
    world = CopyContext()
    world.base()
    world.commit()
    world.close()
    world.base()
    good, forged = (key for key in world.stored if isinstance(key, ManifestKey))
    world.now_ms += 30 * DAY_MS
    storage = AgedStorage(world)
    for known, is_kept in ((good, True), (forged, False)):
        with Journal.open(tmp_path) as journal:
            make(journal, storage)
        with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
            connection.execute("UPDATE database SET base_key = ?", (format_key(known),))
        with Journal.open(tmp_path) as journal:
            pruner, database_id = make(journal, storage)
            pruner.prune(database_id, POLICY)
        assert (f"{NAME}/{format_key(good.base)}" in storage.objects) == is_kept


def test_where_no_base_can_be_read_nothing_goes(tmp_path: Path) -> None:
    """Not even objects past their age are deleted, because somebody may still recover something from them."""
    world = old_world()
    storage = AgedStorage(world)
    for name in [name for name in storage.objects if name.endswith(".json.zst")]:
        storage.put(name, b"damaged", metadata={})
    before = set(storage.objects)
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
    assert set(storage.objects) == before
