"""Tests of ``walsyncd restore --all``: a host was lost, and one command restores it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.replicas import ReplicaMaker, counter_in, make_replica
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main, restore_all
from walsyncd.engine.restore import restorer
from walsyncd.engine.restore.replay import Applied

NAMES = ("srv/one.db", "srv/two.db", "var/three.db")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[list[ReplicaMaker]]:
    """Store three databases with one, two and three transactions in one storage."""
    with ExitStack() as stack:
        makers = []
        for count, name in enumerate(NAMES, 1):
            folder = tmp_path / f"app{count}"
            folder.mkdir()
            maker = stack.enter_context(make_replica(folder, name=name))
            maker.root = tmp_path / "replica"
            maker.storage = DirectoryStorage(maker.root)
            maker.base()
            maker.commit(count)
            maker.ship()
            makers.append(maker)
        yield makers


def restored(tmp_path: Path, *arguments: str) -> int:
    return main(["restore", "--all", f"file://{tmp_path}/replica", "-o", str(tmp_path / "out"), *arguments])


def test_every_database_comes_back_below_its_name(
    host: list[ReplicaMaker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is restored to its last commit. The table has a line for each, and a sum."""
    assert len(host) == 3
    assert restored(tmp_path) == 0
    assert [counter_in(tmp_path / "out" / name) for name in NAMES] == [1, 2, 3]
    told = capsys.readouterr().out
    assert [line.split()[:2] for line in told.splitlines()[1:4]] == [[name, "restored"] for name in NAMES]
    assert "3 of 3 restored" in told


def test_one_that_fails_does_not_stop_the_others(
    host: list[ReplicaMaker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failed one is named with its reason, and the command fails."""
    for path in host[1].folder.rglob("*.wal.zst"):
        path.write_bytes(path.read_bytes()[:-3])
    assert restored(tmp_path, "--json") == 1
    one, two, three = json.loads(capsys.readouterr().out)["databases"]
    assert (one["restored"], two["restored"], three["restored"]) == (True, False, True)
    assert ".wal.zst" in two["error"]
    assert one["position"] == str(host[0].history[-1].position)
    assert not (tmp_path / "out" / "srv/two.db").exists()


def test_what_is_there_needs_force_or_is_kept(
    host: list[ReplicaMaker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rule is that of a single database."""
    assert len(host) == 3
    kept = tmp_path / "out" / "srv/two.db"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    assert restored(tmp_path) == 1
    assert "--force" in capsys.readouterr().out
    for name in (NAMES[0], NAMES[2]):
        (tmp_path / "out" / name).unlink()
    assert restored(tmp_path, "--if-missing") == 0
    assert kept.read_bytes() == b"mine"
    assert restored(tmp_path, "--force") == 0
    assert counter_in(kept) == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_nothing_is_given_to_who_made_the_folder(host: list[ReplicaMaker], tmp_path: Path) -> None:
    """In a folder that everybody can write to, a stranger may have come first, perhaps with links."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    out = tmp_path / "shared" / "out"
    (out / "srv").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    (out / "var").symlink_to(tmp_path / "victim")
    for path in (out, out / "srv", out / "var"):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    url = f"file://{tmp_path}/replica"
    assert main(["restore", "--all", url, "-o", str(out)]) == 1
    assert list((tmp_path / "victim").iterdir()) == []
    for name in NAMES[:2]:
        status = (out / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o600)
    assert len(host) == 3


def test_restores_share_a_room_in_memory(
    host: list[ReplicaMaker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore that does not fit beside the others waits. One that is larger than the limit runs alone."""
    assert len(host) == 3
    at_once: list[int] = []
    running = 0
    build = restorer._build

    def counted(*arguments: Any) -> Applied:
        nonlocal running
        running += 1
        at_once.append(running)
        try:
            return build(*arguments)
        finally:
            running -= 1

    monkeypatch.setattr(restorer, "_build", counted)
    monkeypatch.setattr(restore_all, "ROOM_BYTES", 1)
    assert restored(tmp_path) == 0
    assert at_once == [1, 1, 1]
    assert [counter_in(tmp_path / "out" / name) for name in NAMES] == [1, 2, 3]


def test_moment_holds_for_all(host: list[ReplicaMaker], tmp_path: Path) -> None:
    """``--at`` is the same moment for each database. --dry-run writes nothing."""
    assert restored(tmp_path, "--at", "2026-11-22T10:56:01Z", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    assert restored(tmp_path, "--at", "2026-11-22T10:56:01Z") == 0
    assert counter_in(tmp_path / "out" / NAMES[2]) == 1
    assert len(host) == 3


def test_nothing_stored_is_3(tmp_path: Path) -> None:
    """An empty storage restores nothing."""
    (tmp_path / "replica").mkdir()
    assert restored(tmp_path) == 3


def test_what_means_one_database_is_refused(tmp_path: Path) -> None:
    """A position, a generation or standard output can't apply to all databases."""
    assert restored(tmp_path, "--generation", "20261122T105600Z-3f9c1a2b") == 2
    assert main(["restore", "--all", f"file://{tmp_path}", "-o", "-"]) == 2
