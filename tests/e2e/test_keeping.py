"""Tests of compaction and pruning against real stores, those that refuse to delete, and those that only claim to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.aging import Story, told
from tests.e2e.daemon import Daemon, s3_section
from tests.engine.running import Place
from tests.faults.faults import Exchange, Fault, Kind, Said
from tests.faults.proxy import FaultProxy
from tests.stores import Store
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.core.stored.layout import BaseKey, ManifestKey, PrunedKey


def both_kept(story: Story) -> None:
    """Return whether the first day's epoch is one object, beside its segments."""
    story.day()
    story.check()
    story.day()
    story.wait_for_whole()
    assert len(story.segments(1)) == 4  # its first commit was the database's own
    story.check()


@pytest.mark.parametrize("kind", ["seaweedfs", "rclone"])
def test_kept_as_promised_at_every_step(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """There are segments, then both, then one object.

    Then bases and epochs are deleted, and what is promised stays exact at every step.
    """
    store: Store = request.getfixturevalue(kind)
    place = Place(tmp_path)
    with (
        closing(S3Storage(store.settings(store.make_bucket(), "hosts/one"))) as storage,
        told(place, storage, monkeypatch) as story,
    ):
        both_kept(story)
        parts = [storage.get(f"app/{key}") for key in sorted(names(storage, "/wal/00000001/"))]
        (whole,) = names(storage, "/whole/00000001")
        assert storage.get(f"app/{whole}") == b"".join(parts)
        story.prune()
        assert story.segments(1) == []
        story.check()
        for _ in range(3):
            story.day()
            story.prune()
            had = story.check()
        assert len(had) < len(story.moments)
        assert len(story.keys(ManifestKey)) == len(story.keys(BaseKey)) == 3
        (stated,) = story.keys(PrunedKey)
        assert (stated.first, stated.last) == (1, 2)


def names(storage: S3Storage, word: str) -> list[str]:
    return [info.key.removeprefix("app/") for info in storage.list("app/") if word in info.key]


class Habit(FaultProxy):
    """A store that refuses every deletion, or (``lies``) acknowledges a batch and keeps the objects."""

    lies = False
    willing = False
    store: Store

    def choose(self, kind: Kind, target: str) -> Fault | None:
        super().choose(kind, target)
        is_batch = "?" in target
        if kind is not Kind.DELETE or self.willing or (self.lies and not is_batch):
            return None
        return Fault("habit", frozenset({Kind.DELETE}), self._act)

    def _act(self, exchange: Exchange) -> None:
        if self.lies:
            exchange.say(Said(200, [("Content-Type", "application/xml")], b"<DeleteResult/>"))
        else:
            exchange.refuse(403, "AccessDenied")

    @property
    def deletions(self) -> list[str]:
        """Return the deletions that were requested, whatever the answer."""
        return [target for kind, target in self.asked if kind is Kind.DELETE]

    def storage(self, bucket: str) -> S3Storage:
        return S3Storage(replace(self.store.settings(bucket, "hosts/one"), endpoint_url=self.endpoint_url))


@pytest.fixture
def habit(seaweedfs: Store) -> Iterator[Habit]:
    proxy = Habit(seaweedfs, seed=0, faults_max=0)
    proxy.store = seaweedfs
    yield proxy
    proxy.close()


def test_a_store_that_refuses_to_delete(habit: Habit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon continues, and logs once what to do. The command fails. Once deletion is allowed, all is deleted."""
    place = Place(tmp_path)
    with (
        closing(habit.storage(habit.store.make_bucket())) as storage,
        capture_logs() as logs,
        told(place, storage, monkeypatch) as story,
    ):
        both_kept(story)
        story.compacts = False
        for _ in range(2):
            said = str(story.prune()["error"])
            assert "the store answered 403 AccessDenied" in said
            story.day()
            story.check()
        postponed = [log for log in logs if log["event"] == "housekeeping_postponed"]
        assert len(postponed) == 1
        assert "s3:DeleteObject" in postponed[0]["remedy"]
        assert "delete = false" in postponed[0]["remedy"]
        assert len(story.segments(1)) == 4
        habit.willing = True
        assert story.prune()["objects"] > 0
        assert story.segments(1) == []
        story.check()


def test_a_store_that_says_it_deleted(habit: Habit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that a batch left are found by listing and deleted one by one."""
    habit.lies = True
    place = Place(tmp_path)
    with closing(habit.storage(habit.store.make_bucket())) as storage, told(place, storage, monkeypatch) as story:
        both_kept(story)
        for _ in range(2):
            story.prune()
        assert story.segments(1) == []
        for _ in range(3):
            story.day()
            assert story.prune()["left"] == []
            story.check()
        assert len(story.keys(ManifestKey)) == len(story.keys(BaseKey)) == 3
        assert [target for target in habit.deletions if "?" in target]


def test_write_only_keys(habit: Habit, tmp_path: Path) -> None:
    """With ``delete = false`` no deletion is ever requested, and the check finds nothing wrong."""
    section = s3_section(habit.store, habit.store.make_bucket(), endpoint_url=habit.endpoint_url)
    keeping: dict[str, str | bool] = {**section, "delete": False, "expire_after": "30d"}
    path = tmp_path / "data" / "app.db"
    with Daemon(tmp_path, [path], storage=keeping) as daemon, wal_database(path) as writer:
        checked = daemon.walsyncd("check")
        assert checked.code == 0, checked.stdout
        daemon.start()
        writer.execute("insert into t values (1)")
        daemon.done("snapshot", "app")
        assert daemon.stop() == 0
        daemon.start()
        writer.execute("insert into t values (2)")
        daemon.sync()
        refused = daemon.walsyncd("prune")
        assert (refused.code, "nothing is removed with delete = false" in refused.stderr) == (2, True)
        connection = sqlite3.connect(daemon.restore("app"))
        assert connection.execute("select count(*) from t").fetchone() == (3,)
        connection.close()
    assert habit.deletions == []
