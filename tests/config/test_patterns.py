"""Which folders make a pattern match more."""

from __future__ import annotations

from pathlib import Path

from walsyncd.config import Settings, glob_folders
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, StorageSettings


def settings_with(*paths: str) -> Settings:
    entries = tuple(
        DatabaseEntry(f"database[{n}]", path, None, 1.0, 1.0, 1.0, presence=False) for n, path in enumerate(paths, 1)
    )
    daemon = DaemonSettings(Path("/var/lib/walsyncd"), 1 << 30, 4, "info")
    return Settings(Path("config.toml"), StorageSettings("file:///r"), daemon, entries)


def test_each_folder_in_which_a_match_may_appear_is_listed(tmp_path: Path) -> None:
    """The folder of the pattern, and every folder that its pattern matches."""
    for tenant in ("a", "b"):
        (tmp_path / tenant).mkdir()
    (tmp_path / "file").touch()
    assert glob_folders(settings_with(f"{tmp_path}/*/data.db")) == [tmp_path, tmp_path / "a", tmp_path / "b"]
    assert glob_folders(settings_with(f"{tmp_path}/*.db", f"{tmp_path}/a/x.db")) == [tmp_path]


def test_a_recursive_pattern_lists_every_folder_below(tmp_path: Path) -> None:
    """``**`` stands for any depth."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    folders = glob_folders(settings_with(f"{tmp_path}/**/x.db"))
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "deep"} <= set(folders)


def test_plain_paths_need_no_folder() -> None:
    """What is named can't match more."""
    assert glob_folders(settings_with("/srv/app.db")) == []
