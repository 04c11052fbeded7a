"""The pruner: what may go goes, is seen to go, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.fakes import Deaths, FakeStorage, Killed
from tests.lifetimes import OPERATIONS, CopyContext, live
from tests.shipping import NAME, mortal
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.interface import ObjectInfo
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS, HeldObject, Policy
from walsyncd.core.restore.coverage import listing_of
from walsyncd.core.restore.plan import Head, Plan, make_plan
from walsyncd.core.stored.layout import PrunedKey, format_key, parse_key
from walsyncd.core.stored.position import Position
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.engine.upkeep.pruner import Pruner, list_folder
from walsyncd.errors import RefusedError

POLICY = Policy(7 * DAY_MS)


class AgedStorage(FakeStorage):
    """Objects are as old as a world says; ``stubborn`` ones stay, ``unbatched`` ones unless deleted alone."""

    def __init__(self, world: CopyContext) -> None:
        super().__init__()
        self.world = world
        self.stubborn: set[str] = set()
        self.unbatched: set[str] = set()
        for key in world.stored:
            self.put(f"{NAME}/{format_key(key)}", b"x", metadata={})
        self.calls.clear()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix, start_after=start_after):
            key = parse_key(info.key.removeprefix(f"{NAME}/"))
            held = self.world.everything.get(key) if key else None
            modified_ms = held.modified_ms if held else self.world.now_ms
            yield ObjectInfo(info.key, info.size, info.etag, modified_ms, {})

    def delete(self, keys: Sequence[str]) -> None:
        kept = self.stubborn | (self.unbatched if len(keys) > 1 else set())
        super().delete([key for key in keys if key not in kept])


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
    """Statement, manifests, bases, epochs; listed in between; the journal knows when to look again."""
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
    """The head can be restored at each of these moments, and in the end the same objects are there."""
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
    """Of any history: before and after each request and transaction; and the pruning that comes after it."""
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
    """The promises that what is stored by now does not keep."""
    keys = [key for name in storage.objects if (key := parse_key(name.removeprefix(f"{NAME}/")))]
    world.stored = {key: world.everything.get(key, HeldObject(key, world.now_ms)) for key in keys}
    return world.broken(POLICY)


def test_a_store_that_keeps_what_it_says_is_gone_is_found_out(tmp_path: Path) -> None:
    """What a batch left is deleted one by one; where that fails too the rest stays for another day."""
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
    """Foreign objects in a generation, and another database's folder below this one's."""
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
    (told,) = [log for log in logs if log["event"] == "foreign_objects"]
    assert (told["objects"], told["first"]) == (1, f"{NAME}/{world.generation}/notes.txt")


def test_two_daemons_prune_one_prefix(tmp_path: Path) -> None:
    """The one that is not the owner states nothing and deletes nothing."""
    storage = AgedStorage(old_world())
    before = set(storage.objects)
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage, refuse=True)
        with pytest.raises(RefusedError):
            pruner.prune(database_id, POLICY)
    assert set(storage.objects) == before


def test_statements_are_small_objects_of_their_own(tmp_path: Path) -> None:
    """Everything is in the name."""
    storage = AgedStorage(old_world())
    with Journal.open(tmp_path) as journal:
        pruner, database_id = make(journal, storage)
        pruner.prune(database_id, POLICY)
    stated = [parse_key(name.removeprefix(f"{NAME}/")) for name in storage.objects if "/pruned/" in name]
    assert [(key.first, key.last) for key in stated if isinstance(key, PrunedKey)] == [(1, 12)]
