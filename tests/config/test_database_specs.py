import os
from pathlib import Path

import pytest

from walsyncd.config import (
    DaemonSettings,
    DatabaseEntry,
    DatabaseSpec,
    Settings,
    StorageSettings,
    database_specs,
    expand,
)
from walsyncd.config.database_specs import network_mount, parse_mounts
from walsyncd.errors import UsageError

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/files rw,relatime shared:5 master:1 - nfs4 server:/files rw
31 27 0:41 / /mnt/my\040files rw - fuse.sshfs me@server: rw
32 30 254:1 / /mnt/files/local rw - xfs /dev/vdb rw
33 27 0:42 / /mnt/over rw - cifs //server/share rw
34 33 254:2 / /mnt/over rw - ext4 /dev/vdc rw
""".strip()


def _settings(*entries: str | tuple[str, str], state_dir: str = "/nowhere/state", url: str = "s3://bucket") -> Settings:
    """Settings with an entry for each path, or each path and name."""
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
    """It may appear; the name is the path without its leading slash."""
    path = tmp_path / "app.db"
    (spec,) = expand(_settings(str(path)))
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
    """Sorted, each named after its path, without SQLite's own files, folders and dead links."""
    _touch(tmp_path, "b/data.db", "a/data.db", "a/data.db-wal", "a/data.db-shm", "a/data.db-journal", "c/other")
    (tmp_path / "folder" / "data.db").mkdir(parents=True)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "data.db").symlink_to("nowhere")
    specs = expand(_settings(f"{tmp_path}/*/data.db*"))
    assert [spec.path for spec in specs] == [tmp_path / "a/data.db", tmp_path / "b/data.db"]
    assert [spec.name for spec in specs] == [f"{tmp_path}/a/data.db"[1:], f"{tmp_path}/b/data.db"[1:]]
    assert {spec.entry for spec in specs} == {"database[1]"}


def test_two_stars_cross_folders(tmp_path: Path) -> None:
    """``**`` is any depth, also none."""
    _touch(tmp_path, "x.db", "a/b/x.db")
    assert [spec.path for spec in expand(_settings(f"{tmp_path}/**/x.db"))] == [
        tmp_path / "a/b/x.db",
        tmp_path / "x.db",
    ]


def test_a_pattern_may_match_nothing_yet(tmp_path: Path) -> None:
    """New matches are picked up as they appear."""
    assert expand(_settings(f"{tmp_path}/*.db")) == []


def test_paths_are_resolved_and_named_as_configured(tmp_path: Path) -> None:
    """SQLite finds -wal beside the resolved path; the name stays the same when a link moves on."""
    (real,) = _touch(tmp_path, "releases/7/app.db")
    link = tmp_path / "current"
    link.symlink_to("releases/7")
    (spec,) = expand(_settings(f"{link}/app.db"))
    assert (spec.path, spec.configured_as, spec.name) == (real, f"{link}/app.db", f"{link}/app.db"[1:])


@pytest.mark.parametrize("way", ["the same path", "a symbolic link", "a hard link", "a link to nothing yet"])
def test_one_file_twice_is_refused_with_both_entries(tmp_path: Path, way: str) -> None:
    """Whatever way leads to it."""
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    if way != "a link to nothing yet":
        first.touch()
    if way == "the same path":
        second = first
    elif way == "a hard link":
        second.hardlink_to(first)
    else:
        second.symlink_to(first)
    error = _refusal(_settings(str(first), (str(second), "another")))
    assert f"database[2].path = '{second}': is the same file as database[1] ({first})" in error.message


def test_a_pattern_over_a_configured_path_is_refused(tmp_path: Path) -> None:
    """Two entries for one file contradict each other."""
    (file,) = _touch(tmp_path, "a.db")
    assert "same file as database[1]" in _refusal(_settings(str(file), f"{tmp_path}/*.db")).message


def test_two_databases_of_one_name_are_refused(tmp_path: Path) -> None:
    """They would write into one folder."""
    first, second = _touch(tmp_path, "a.db", "b.db")
    error = _refusal(_settings((str(first), "app"), (str(second), "app")))
    assert f"database[2].path = '{second}': has the name 'app' of database[1]" in error.message


def test_a_matchs_name_is_checked_too(tmp_path: Path) -> None:
    """A pattern's matches are known only on the disk."""
    _touch(tmp_path, "20261122T105600Z-3f9c1a2b/data.db")
    assert "20261122T105600Z-3f9c1a2b" in _refusal(_settings(f"{tmp_path}/*/data.db")).message


def test_a_match_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A key is UTF-8, a file name need not be."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")).touch()
    assert "is not UTF-8" in _refusal(_settings(f"{tmp_path}/*.db")).message


@pytest.mark.parametrize("state", ["", "state", "deep/below/state"])
def test_a_state_directory_in_a_watched_folder_is_refused(tmp_path: Path, state: str) -> None:
    """Our own writes would wake us."""
    error = _refusal(_settings(f"{tmp_path}/app.db", state_dir=f"{tmp_path}/{state}"))
    assert error.message.startswith("configuration config.toml: daemon.state_dir")
    assert f"is inside {tmp_path}, the folder of database[1]" in error.message


def test_a_state_directory_beside_a_watched_folder_is_fine(tmp_path: Path) -> None:
    """A common parent does not matter, nor does a common beginning of the name."""
    assert expand(_settings(f"{tmp_path}/app/app.db", state_dir=f"{tmp_path}/app-state"))


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For databases and for the state directory, with the reason."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(database_specs, "MOUNTS_FILE", mounts)
    error = _refusal(_settings("/mnt/files/a/app.db"))
    assert "database[1].path = '/mnt/files/a/app.db': is on a network file system (nfs4 at /mnt/files)" in error.message
    assert "shared memory" in error.hint
    assert "inotify" in error.hint
    assert "daemon.state_dir" in _refusal(_settings("/a/app.db", state_dir="/mnt/files/state")).message


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/srv/app.db", ""),
        ("/mnt/files/app.db", "nfs4 at /mnt/files"),
        ("/mnt/files-too/app.db", ""),
        ("/mnt/my files/app.db", "fuse.sshfs at /mnt/my files"),
        ("/mnt/files/local/app.db", ""),
        ("/mnt/over/app.db", ""),
    ],
)
def test_the_nearest_and_last_mount_decides(path: str, mount: str) -> None:
    """Spaces are escaped, a local disk may be mounted in a network folder or over it."""
    assert network_mount(Path(path), parse_mounts(MOUNTS)) == mount


def test_all_refusals_come_together(tmp_path: Path) -> None:
    """One error names every entry that can't be replicated."""
    (file,) = _touch(tmp_path, "a.db")
    error = _refusal(_settings(str(file), (str(file), "x"), state_dir=str(tmp_path)))
    assert "2 problems" in error.message
    assert "database[2].path" in error.message
    assert "daemon.state_dir" in error.message
