"""Tests of walsyncd.config.database_search."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_mounts import MOUNTS
from walsyncd.config import (
    DaemonSettings,
    DatabaseEntry,
    DatabaseSpec,
    NewNames,
    Settings,
    StorageSettings,
    check_named,
    database_search,
    expand,
    find_databases,
    mounts,
)
from walsyncd.config.patterns import Matches
from walsyncd.errors import UsageError


def settings_with(
    *entries: str | tuple[str, str], state_dir: str = "/nowhere/state", url: str = "s3://bucket"
) -> Settings:
    """Return settings with an entry for each path, or each path and name."""
    pairs = [(entry, None) if isinstance(entry, str) else entry for entry in entries]
    return Settings(
        file=Path("config.toml"),
        storage=StorageSettings(url=url),
        daemon=DaemonSettings(Path(state_dir), 1 << 30, 8, "info"),
        databases=tuple(
            DatabaseEntry(f"database[{number}]", path, name, 1.0, 2.0, 3.0, presence=False)
            for number, (path, name) in enumerate(pairs, 1)
        ),
    )


def _touch(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def _refusal(settings: Settings) -> UsageError:
    with pytest.raises(UsageError) as caught:
        expand(settings)
    return caught.value


def test_a_path_is_kept_while_its_file_is_missing(tmp_path: Path) -> None:
    """The file may appear later. The name is the path without its leading slash."""
    path = tmp_path / "app.db"
    (spec,) = expand(settings_with(str(path)))
    assert spec == DatabaseSpec(
        path=path,
        name=str(path)[1:],
        configured_as=str(path),
        entry="database[1]",
        upload_interval_s=1.0,
        snapshot_interval_s=2.0,
        retention_s=3.0,
        presence=False,
    )


def test_a_pattern_stands_for_the_files_that_match(tmp_path: Path) -> None:
    """They are sorted, and named after their paths. SQLite's own files, folders and dead links are left out."""
    _touch(tmp_path, "b/data.db", "a/data.db", "a/data.db-wal", "a/data.db-shm", "a/data.db-journal", "c/other")
    (tmp_path / "folder" / "data.db").mkdir(parents=True)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "data.db").symlink_to("nowhere")
    specs = expand(settings_with(f"{tmp_path}/*/data.db*"))
    assert [spec.path for spec in specs] == [tmp_path / "a/data.db", tmp_path / "b/data.db"]
    assert [spec.name for spec in specs] == [f"{tmp_path}/a/data.db"[1:], f"{tmp_path}/b/data.db"[1:]]
    assert {spec.entry for spec in specs} == {"database[1]"}


def test_two_stars_cross_folders(tmp_path: Path) -> None:
    """``**`` stands for any depth, also for none."""
    _touch(tmp_path, "x.db", "a/b/x.db")
    assert [spec.path for spec in expand(settings_with(f"{tmp_path}/**/x.db"))] == [
        tmp_path / "a/b/x.db",
        tmp_path / "x.db",
    ]


def test_a_pattern_may_match_nothing_yet(tmp_path: Path) -> None:
    """New matches are picked up as they appear."""
    assert expand(settings_with(f"{tmp_path}/*.db")) == []


def test_paths_are_resolved_and_named_as_configured(tmp_path: Path) -> None:
    """SQLite looks for -wal beside the resolved path. The name stays the same when a link changes."""
    (real,) = _touch(tmp_path, "releases/7/app.db")
    link = tmp_path / "current"
    link.symlink_to("releases/7")
    (spec,) = expand(settings_with(f"{link}/app.db"))
    assert (spec.path, spec.configured_as, spec.name) == (real, f"{link}/app.db", f"{link}/app.db"[1:])


@pytest.mark.parametrize("way", ["the same path", "a symbolic link", "a hard link", "a link to nothing yet"])
def test_one_file_twice_is_refused_with_both_entries(tmp_path: Path, way: str) -> None:
    """This holds whatever way leads to the file."""
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    if way != "a link to nothing yet":
        first.touch()
    if way == "the same path":
        second = first
    elif way == "a hard link":
        second.hardlink_to(first)
    else:
        second.symlink_to(first)
    error = _refusal(settings_with(str(first), (str(second), "another")))
    assert f"database[2].path = '{second}': is the same file as database[1] ({first})" in error.message


def test_two_databases_of_one_name_are_refused(tmp_path: Path) -> None:
    """Both databases would be written into one folder."""
    first, second = _touch(tmp_path, "a.db", "b.db")
    error = _refusal(settings_with((str(first), "app"), (str(second), "app")))
    assert f"database[2].path = '{second}': has the name 'app' of database[1]" in error.message


@pytest.mark.parametrize("state", ["", "state", "deep/below/state"])
def test_a_state_directory_in_a_watched_folder_is_refused(tmp_path: Path, state: str) -> None:
    """Our own writes would wake us there."""
    error = _refusal(settings_with(f"{tmp_path}/app.db", state_dir=f"{tmp_path}/{state}"))
    assert error.message.startswith("configuration config.toml: daemon.state_dir")
    assert f"is inside {tmp_path}, the folder of database[1]" in error.message


def test_a_state_directory_beside_a_watched_folder_is_fine(tmp_path: Path) -> None:
    """A common parent does not matter, nor does a common beginning of the name."""
    assert expand(settings_with(f"{tmp_path}/app/app.db", state_dir=f"{tmp_path}/app-state"))


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for databases and for the state directory. The error has the reason."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    monkeypatch.setattr(mounts, "MOUNTS_FILE", table)
    error = _refusal(settings_with("/mnt/files/a/app.db"))
    assert "database[1].path = '/mnt/files/a/app.db': is on a network file system (nfs4 at /mnt/files)" in error.message
    assert "shared memory" in error.hint
    assert "inotify" in error.hint
    assert "daemon.state_dir" in _refusal(settings_with("/a/app.db", state_dir="/mnt/files/state")).message


def test_all_refusals_come_together(tmp_path: Path) -> None:
    """One error names every entry that can't be replicated."""
    (file,) = _touch(tmp_path, "a.db")
    error = _refusal(settings_with(str(file), (str(file), "x"), state_dir=str(tmp_path)))
    assert "2 problems" in error.message
    assert "database[2].path" in error.message
    assert "daemon.state_dir" in error.message


def test_named_paths_are_checked_without_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon refuses a configuration before it creates anything, and searches thousands of folders only once."""

    def search(*_: object, **__: object) -> Matches:
        raise AssertionError("a pattern is searched")

    (file,) = _touch(tmp_path, "a.db")
    monkeypatch.setattr(database_search, "matches_of", search)
    check_named(settings_with(str(file), f"{tmp_path}/*/*.db"))
    with pytest.raises(UsageError, match="same file"):
        check_named(settings_with(str(file), (str(file), "x"), f"{tmp_path}/*/*.db"))


# files that a pattern matches and that can't be replicated


def odd(settings: Settings, **how: Any) -> dict[str, str]:
    """Return the causes of the suspended matches, by the last part of their names."""
    found = find_databases(settings, **how)
    assert not found.problems, "a match is no error of the configuration"
    return {each.name.rpartition("/")[2]: each.cause for each in found.suspended}


def paths(settings: Settings, **how: Any) -> list[str]:
    return [spec.path.name for spec in find_databases(settings, **how).specs]


def test_odd_matches_are_suspended_one_by_one(tmp_path: Path) -> None:
    """Each has its reason, and the other matches are replicated."""
    _touch(tmp_path, "good.db", "other.db", "app.db-wal", ".hidden.db", "z.db.before-restore-7.db")
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "fifo.db")
    (tmp_path / "link.db").symlink_to("good.db")
    (tmp_path / "dead.db").symlink_to("nowhere")
    (tmp_path / "second.db").hardlink_to(tmp_path / "good.db")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.db"))
        settings = settings_with(f"{tmp_path}/*.db*")
        assert odd(settings) == {
            "dead.db": "is a symbolic link",
            "fifo.db": "is a FIFO, no file",
            "folder.db": "is a folder, no file",
            "link.db": "is a symbolic link",
            "second.db": f"is the same file as database[1] ({tmp_path}/good.db)",
            "socket.db": "is a socket, no file",
            "z.db.before-restore-7.db": "was left there by a restore",
        }
        assert paths(settings) == ["good.db", "other.db"]
        assert [spec.path.name for spec in expand(settings)] == ["good.db", "other.db"]


def test_names_that_no_replica_can_have(tmp_path: Path) -> None:
    """These are names that are not UTF-8 or contain a newline, an escape or a generation's id.

    What is shown can be printed.
    """
    for name in (b"\xff.db", b"a\nb.db", b"\x1b[2J.db", b"20261122T105600Z-3f9c1a2b.db"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    _touch(tmp_path, "20261122T105600Z-3f9c1a2b/data.db", "good.db")
    settings = settings_with(f"{tmp_path}/**/*.db")
    found = find_databases(settings)
    assert [spec.path.name for spec in found.specs] == ["20261122T105600Z-3f9c1a2b.db", "good.db"]
    assert {each.name.removeprefix(f"{tmp_path}/"[1:]) for each in found.suspended} == {
        "\\xff.db",
        "a\\nb.db",
        "\\x1b[2J.db",
        "20261122T105600Z-3f9c1a2b/data.db",
    }
    assert all((each.name + each.path + each.cause).isprintable() for each in found.suspended)
    assert all(each.since_ms for each in found.suspended)


def test_who_is_followed_goes_on_when_another_name_of_its_file_comes(tmp_path: Path) -> None:
    """This holds whichever name sorts first, so a tenant can't take over a replica, or end it, by a link."""
    _touch(tmp_path, "b.db")
    (tmp_path / "a.db").hardlink_to(tmp_path / "b.db")
    settings = settings_with(f"{tmp_path}/*.db")
    assert paths(settings) == ["a.db"]
    assert paths(settings, followed={f"{tmp_path}/b.db"[1:]}) == ["b.db"]
    assert paths(settings_with(f"{tmp_path}/*.db", (f"{tmp_path}/b.db", "named"))) == ["b.db"]


def test_a_path_of_its_own_says_how_a_match_is_replicated(tmp_path: Path) -> None:
    """A file that is named and matched, or matched twice, is one database, and nothing is reported."""
    _touch(tmp_path, "a.db", "b.db")
    settings = settings_with(f"{tmp_path}/*.db", (f"{tmp_path}/a.db", "special"), f"{tmp_path}/b*")
    found = find_databases(settings)
    assert [(spec.name, spec.entry) for spec in found.specs] == [
        (f"{tmp_path}/b.db"[1:], "database[1]"),
        ("special", "database[2]"),
    ]
    assert not found.suspended
    assert [spec.is_match for spec in found.specs] == [True, False]


def test_a_matchs_name_that_is_given_to_another(tmp_path: Path) -> None:
    """The match can't have that name for its row, because it is the other database's."""
    _touch(tmp_path, "a.db", "b.db")
    name = f"{tmp_path}/a.db"[1:]
    found = find_databases(settings_with((f"{tmp_path}/b.db", name), f"{tmp_path}/a*"))
    assert [each.name for each in found.suspended] == [f"{name} (database[2])"]
    assert found.suspended[0].cause == f"has the name {name!r} of database[1] ({tmp_path}/b.db)"


def test_links_are_followed_in_the_fixed_part_alone(tmp_path: Path) -> None:
    """The operator wrote the fixed part. Below it tenants can make links."""
    _touch(tmp_path, "disk/a/data.db", "elsewhere/data.db", "disk/c/other")
    (tmp_path / "srv").symlink_to("disk")
    (tmp_path / "disk" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "disk" / "empty").symlink_to(tmp_path / "disk" / "c")
    found = find_databases(settings_with(f"{tmp_path}/srv/*/data.db"))
    assert [(spec.path, spec.configured_as) for spec in found.specs] == [
        (tmp_path / "disk/a/data.db", f"{tmp_path}/srv/a/data.db")
    ]
    assert [(each.path, each.cause) for each in found.suspended] == [
        (f"{tmp_path}/srv/b/data.db", f"is behind {tmp_path}/srv/b, a link")
    ]
    assert NewNames(str(tmp_path), frozenset({"srv"})) in found.watched[tmp_path]
    assert {tmp_path / "disk", tmp_path / "disk" / "a"} <= found.watched.keys()


def test_every_link_of_a_named_path_is_watched(tmp_path: Path) -> None:
    """The link that another one leads to is watched, too, even if there is nothing at its end."""
    (tmp_path / "current").symlink_to("alias")
    (tmp_path / "alias").symlink_to("releases/1")
    found = find_databases(settings_with(f"{tmp_path}/current/app.db"))
    assert [spec.path for spec in found.specs] == [tmp_path / "releases/1/app.db"]
    wanted = {"current", "alias"}
    assert {name for names in found.watched[tmp_path] for name in names.names} == wanted


def test_other_things_than_databases_are_examined_but_for_those_that_are_followed(tmp_path: Path) -> None:
    """A followed file is not examined, because its follower looks at it all the time."""
    _touch(tmp_path, "a.db", "b.db")
    seen = []

    def examine(path: Path) -> UsageError | None:
        seen.append(path.name)
        return UsageError("is no SQLite database", hint="")

    settings = settings_with(f"{tmp_path}/*.db")
    assert odd(settings, examine=examine, followed={f"{tmp_path}/b.db"[1:]}) == {"a.db": "is no SQLite database"}
    assert seen == ["a.db"]


def test_a_match_on_a_network_mount_or_around_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users may mount what they like below a pattern. Only a path of the configuration can be refused for it."""
    _touch(tmp_path, "a/x.db", "b/x.db", "c/x.db")
    table = tmp_path / "mountinfo"
    table.write_text(f"{MOUNTS}\n35 27 0:43 / {tmp_path}/b rw - nfs4 server:/files rw\n")
    monkeypatch.setattr(mounts, "MOUNTS_FILE", table)
    settings = settings_with(f"{tmp_path}/*/x.db", state_dir=f"{tmp_path}/c/state")
    found = find_databases(settings)
    assert [spec.path.parent.name for spec in found.specs] == ["a"]
    assert not found.problems
    assert [each.cause for each in found.suspended] == [
        f"is on a network file system (nfs4 at {tmp_path}/b)",
        f"the state directory {tmp_path}/c/state is below its folder",
    ]


def test_what_a_named_path_can_not_be_is_suspended_while_the_daemon_runs(tmp_path: Path) -> None:
    """It is an error for the command that reads the configuration, and a row in the list of databases for
    the daemon.
    """
    (file,) = _touch(tmp_path, "a.db")
    (tmp_path / "b.db").hardlink_to(file)
    found = find_databases(settings_with(str(file), (f"{tmp_path}/b.db", "b")))
    assert [spec.path for spec in found.specs] == [file]
    assert [(each.name, each.cause) for each in found.suspended] == [("b", f"is the same file as database[1] ({file})")]
    assert len(found.problems) == 1


def test_what_is_excluded_is_neither_taken_nor_odd(tmp_path: Path) -> None:
    """An excluded match, or one in an excluded folder, is neither replicated nor reported."""
    _touch(tmp_path, "a/data.db", "test-1/data.db", "old/data.db")
    os.mkfifo(tmp_path / "old" / "fifo.db")
    exclude = (f"{tmp_path}/test-*/*", f"{tmp_path}/old")
    settings = settings_with(f"{tmp_path}/*/*.db")
    settings = replace(settings, databases=(replace(settings.databases[0], exclude=exclude),))
    found = find_databases(settings)
    assert [spec.path.parent.name for spec in found.specs] == ["a"]
    assert not found.suspended
    assert tmp_path / "old" not in found.watched


def test_too_many_rows_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row says how many more there are."""
    monkeypatch.setattr(database_search, "SUSPENDED_MAX", 3)
    for number in range(7):
        (tmp_path / f"{number}.db").mkdir()
    found = find_databases(settings_with(f"{tmp_path}/*.db"))
    assert [each.name.rpartition("/")[2] for each in found.suspended] == ["0.db", "1.db", "(others)"]
    assert found.suspended[-1].cause.startswith("5 more matches")


def test_a_folder_that_cannot_be_listed_and_a_pattern_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are reported. Otherwise nobody would notice that databases in there are not replicated."""
    monkeypatch.setattr(
        database_search,
        "matches_of",
        lambda *_arguments, **_how: Matches(unlisted={f"{tmp_path}/a": "Permission denied"}, is_cut=True),
    )
    assert odd(settings_with(f"{tmp_path}/*/x.db")) == {
        "a": "what is in it can't be listed: Permission denied",
        "x.db": "the pattern has too many names to look at; not all were",
    }
