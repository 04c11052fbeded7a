"""Tests of walsyncd.adapters.files.inotify: folders that come, go, move, are listed or can't be watched."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.events import kinds, seen
from walsyncd.adapters.files.inotify import Event, InotifyReader, Kind, Role


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def watch_count(watcher: InotifyReader) -> int:
    """Return the number of watches that the kernel counts, from the descriptor's fdinfo."""
    text = Path(f"/proc/self/fdinfo/{watcher._queue.inotify.fileno()}").read_text(encoding="ascii")
    return sum(line.startswith("inotify wd:") for line in text.splitlines())


def test_two_paths_to_one_folder(watcher: InotifyReader, tmp_path: Path) -> None:
    """Databases reached through two paths to one inode both get their events from its one watch."""
    real = folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    one, two = real / "1.db", tmp_path / "link" / "2.db"
    watcher.add(one)
    watcher.add(two)
    (real / "1.db").touch()
    (real / "2.db").touch()
    assert {event.path for event in watcher.drain()} == {one, two}
    watcher.remove(one)
    (real / "2.db").write_bytes(b"x")
    assert Kind.MODIFY in kinds(watcher, two)


def test_a_missing_folder_is_awaited(watcher: InotifyReader, tmp_path: Path) -> None:
    """A database whose folders are made later is announced by REAPPEARED, then by its own events."""
    path = tmp_path / "a" / "b" / "app.db"
    watcher.add(path)
    assert watcher.drain() == []
    assert watcher.unwatched() == {}
    folder(path.parent)
    assert watcher.wait(timeout=10)
    assert watcher.drain() == [Event(path, Role.DATABASE, Kind.REAPPEARED)]
    path.touch()
    assert kinds(watcher, path) == [Kind.CREATE, Kind.CLOSE_WRITE]


def test_a_folder_made_step_by_step_is_awaited(watcher: InotifyReader, tmp_path: Path) -> None:
    """The nearest existing ancestor is watched at every step."""
    path = tmp_path / "a" / "b" / "app.db"
    watcher.add(path)
    folder(tmp_path / "a")
    assert watcher.drain() == []
    folder(path.parent)
    assert kinds(watcher, path) == [Kind.REAPPEARED]


def test_a_file_in_the_place_of_a_folder(watcher: InotifyReader, tmp_path: Path) -> None:
    """A file where a folder should be is no folder yet; it becomes one when it is replaced."""
    place = tmp_path / "a"
    place.touch()
    watcher.add(place / "app.db")
    place.unlink()
    place.mkdir()
    assert kinds(watcher, place / "app.db") == [Kind.REAPPEARED]


def remove_folder(path: Path) -> None:
    path.rmdir()


def move_folder(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def move_parent(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("leave", [remove_folder, move_folder, move_parent])
def test_a_folder_goes_and_comes_back(watcher: InotifyReader, tmp_path: Path, leave: Callable[[Path], None]) -> None:
    """A deleted or moved folder, or a renamed parent, causes WATCH_LOST, and REAPPEARED when it is made again."""
    path = folder(tmp_path / "a" / "b") / "app.db"
    watcher.add(path)
    leave(path.parent)
    assert kinds(watcher, path) == [Kind.WATCH_LOST]
    path.parent.mkdir(parents=True)
    assert kinds(watcher, path) == [Kind.REAPPEARED]
    path.touch()
    assert kinds(watcher, path) == [Kind.CREATE, Kind.CLOSE_WRITE]


def test_a_folder_replaced_between_two_looks(watcher: InotifyReader, tmp_path: Path) -> None:
    """A folder deleted and made again before anybody drains is lost and found, and watched again."""
    path = folder(tmp_path / "a") / "app.db"
    watcher.add(path)
    path.parent.rmdir()
    path.parent.mkdir()
    assert kinds(watcher, path) == [Kind.WATCH_LOST, Kind.REAPPEARED]
    path.touch()
    assert kinds(watcher, path) == [Kind.CREATE, Kind.CLOSE_WRITE]


def test_a_deleted_folder_that_is_held_open(watcher: InotifyReader, tmp_path: Path) -> None:
    """The kernel delays DELETE_SELF while a process has the folder open, so the parent's event is used."""
    path = folder(tmp_path / "a" / "b") / "app.db"
    watcher.add(path)
    held = os.open(path.parent, os.O_RDONLY)
    path.parent.rmdir()
    assert kinds(watcher, path) == [Kind.WATCH_LOST]
    path.parent.mkdir()
    assert kinds(watcher, path) == [Kind.REAPPEARED]
    os.close(held)


def test_a_switched_symbolic_link(watcher: InotifyReader, tmp_path: Path) -> None:
    """A link among the folders that is replaced leads to another folder, which is watched from then on."""
    for name in ("1", "2"):
        folder(tmp_path / name)
    (tmp_path / "current").symlink_to("1")
    path = tmp_path / "current" / "app.db"
    watcher.add(path)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "current")
    assert kinds(watcher, path) == [Kind.WATCH_LOST, Kind.REAPPEARED]
    (tmp_path / "1" / "app.db").touch()
    assert kinds(watcher, path) == []
    (tmp_path / "2" / "app.db").touch()
    assert kinds(watcher, path) == [Kind.CREATE, Kind.CLOSE_WRITE]


def test_nothing_is_watched_twice_or_left_behind(watcher: InotifyReader, tmp_path: Path) -> None:
    """After any number of moves there is one watch a folder, from / down to the database's."""
    path = folder(tmp_path / "a") / "app.db"
    watcher.add(path)
    for number in range(5):
        path.parent.rename(tmp_path / f"old-{number}")
        path.parent.mkdir()
        watcher.drain()
    assert watch_count(watcher) == len(path.parents)


def test_an_overflow_that_swallowed_the_loss_of_a_folder(watcher: InotifyReader, tmp_path: Path) -> None:
    """After an overflow every path is looked at again, so that a folder that moved meanwhile is noticed."""
    path = folder(tmp_path / "a") / "app.db"
    watcher.add(path)
    path.parent.rename(tmp_path / "b")
    watcher._queue.inotify.read(timeout=0)  # what the kernel would have dropped
    watcher._take(-1, 0x4000, "")
    assert kinds(watcher, path) == [Kind.OVERFLOW, Kind.WATCH_LOST]


def test_what_no_event_told_is_found_by_a_recheck(watcher: InotifyReader, tmp_path: Path) -> None:
    """A recheck finds a path that leads elsewhere though no event came, and wakes the waiting thread."""
    path = folder(tmp_path / "a") / "app.db"
    watcher.add(path)
    path.parent.rename(tmp_path / "b")
    path.parent.mkdir()
    watcher._queue.inotify.read(timeout=0)
    assert not watcher.wait(timeout=0)
    watcher.recheck()
    assert watcher.wait(timeout=0)
    assert kinds(watcher, path) == [Kind.WATCH_LOST, Kind.REAPPEARED]


def test_beyond_the_limit_of_watches(watcher: InotifyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases for which the kernel has no watch are reported with the remedy until one is free."""
    near, far = folder(tmp_path / "near") / "app.db", folder(tmp_path / "far") / "app.db"
    watcher.add(near)

    def refuse(_path: Path, _mask: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as limit:
        limit.setattr(watcher._queue.inotify, "add_watch", refuse)
        watcher.add(far)
        assert list(watcher.unwatched()) == [far]
        assert "max_user_watches" in watcher.unwatched()[far]
    watcher.recheck()
    assert watcher.unwatched() == {}
    assert kinds(watcher, far) == [Kind.REAPPEARED]


def test_a_missing_folder_under_an_unwatched_one(
    watcher: InotifyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose creation can't be seen is unwatched, too. Once the reason is gone, it is awaited."""
    watch = watcher._queue.inotify.add_watch

    def refuse(path: Path, mask: int) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return int(watch(path, mask))

    monkeypatch.setattr(watcher._queue.inotify, "add_watch", refuse)
    watcher.add(tmp_path / "a" / "app.db")
    assert "read permission" in watcher.unwatched()[tmp_path / "a" / "app.db"]
    folder(tmp_path / "b")
    watcher.add(tmp_path / "b" / "app.db")
    assert list(watcher.unwatched()) == [tmp_path / "a" / "app.db"]


def test_new_names_of_a_listed_folder(watcher: InotifyReader, tmp_path: Path) -> None:
    """New files and folders in a listed folder cause APPEARED with their name. Side files and changes do not."""
    environment = folder(tmp_path / "outside") / "moved.db"
    environment.touch()
    listed = folder(tmp_path / "listed")
    watcher.add_directory(listed)
    (listed / "new.db").write_bytes(b"x")
    (listed / "new.db-wal").touch()
    (listed / "new.db-shm").touch()
    (listed / "new.db-journal").touch()
    (listed / "tenant").mkdir()
    environment.rename(listed / "moved.db")
    (listed / "new.db").unlink()
    names = ("new.db", "tenant", "moved.db")
    assert watcher.drain() == [Event(listed / name, Role.DIRECTORY, Kind.APPEARED) for name in names]


def test_only_names_that_are_wanted_appear(watcher: InotifyReader, tmp_path: Path) -> None:
    """A name appears if anybody asked for it, until that request is taken back."""

    def databases(name: str, _is_folder: bool) -> bool:
        return name.endswith(".db")

    def folders(_name: str, is_folder: bool) -> bool:
        return is_folder

    watcher.add_directory(tmp_path, databases)
    watcher.add_directory(tmp_path, folders)
    (tmp_path / "a.db").touch()
    (tmp_path / "temporary").touch()
    (tmp_path / "tenant").mkdir()
    assert [event.path.name for event in watcher.drain()] == ["a.db", "tenant"]
    watcher.remove_directory(tmp_path, folders)
    (tmp_path / "another").mkdir()
    (tmp_path / "b.db").touch()
    assert [event.path.name for event in watcher.drain()] == ["b.db"]


def test_a_watched_database_does_not_appear(watcher: InotifyReader, tmp_path: Path) -> None:
    """A name that is watched already has its own events in a listed folder."""
    path = tmp_path / "app.db"
    watcher.add_directory(tmp_path)
    watcher.add(path)
    path.touch()
    assert set(seen(watcher)) == {(Role.DATABASE, Kind.CREATE), (Role.DATABASE, Kind.CLOSE_WRITE)}


def test_a_listed_folder_goes_and_comes_back(watcher: InotifyReader, tmp_path: Path) -> None:
    """A listed folder gets WATCH_LOST and REAPPEARED for its own path, also if it is missing at first."""
    listed = tmp_path / "a" / "listed"
    watcher.add_directory(listed)
    folder(listed)
    assert watcher.drain() == [Event(listed, Role.DIRECTORY, Kind.REAPPEARED)]
    listed.rmdir()
    assert watcher.drain() == [Event(listed, Role.DIRECTORY, Kind.WATCH_LOST)]


def test_a_listing_counts_its_users(watcher: InotifyReader, tmp_path: Path) -> None:
    """A folder is listed until everyone who asked for it has taken that back."""
    watcher.add_directory(tmp_path)
    watcher.add_directory(tmp_path)
    watcher.remove_directory(tmp_path)
    (tmp_path / "1").touch()
    assert seen(watcher) == [(Role.DIRECTORY, Kind.APPEARED)]
    watcher.remove_directory(tmp_path)
    watcher.remove_directory(tmp_path)
    (tmp_path / "2").touch()
    assert seen(watcher) == []


@pytest.mark.parametrize("seed", range(10))
def test_any_history_of_folders(watcher: InotifyReader, tmp_path: Path, seed: int) -> None:
    """Whatever was made, moved and removed, drained or not, a database whose folder exists has its events."""
    dice = random.Random(seed)
    folders = [tmp_path / name for name in ("a", "a/b", "a/c", "a/b/d", "e", "e/f")]
    for path in folders:
        watcher.add(path / "app.db")
    for step in range(200):
        place = dice.choice(folders)
        match dice.randrange(4):
            case 0:
                place.mkdir(parents=True, exist_ok=True)
            case 1 if place.exists():
                place.rename(tmp_path / f"trash-{step}")
            case 2 if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
            case _:
                other = dice.choice(folders)
                if place.exists() and other.parent.exists() and not other.exists() and place not in other.parents:
                    place.rename(other)
        if dice.random() < 0.5:
            continue
        watcher.drain()
        existing = [path for path in folders if path.exists()]
        for path in existing:
            (path / "app.db").touch()
        assert {event.path.parent for event in watcher.drain()} == set(existing)
        for path in existing:
            (path / "app.db").unlink()
    assert watcher.unwatched() == {}
    assert watch_count(watcher) == len(tmp_path.parents) + 1 + sum(path.exists() for path in folders)
