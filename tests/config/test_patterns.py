"""Tests of walsyncd.config.patterns."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

import pytest

from walsyncd.config.patterns import (
    Match,
    Matches,
    NewNames,
    SearchStoppedError,
    fixed_part,
    is_excluded,
    is_pattern,
    matches_of,
    matches_part,
)


def look(pattern: str, *exclude: str, entries_max: int = 10_000) -> Matches:
    return matches_of(pattern, exclude, entries_max=entries_max, is_stopped=lambda: False)


def names(folder: Path, pattern: str, *exclude: str) -> list[str]:
    found = look(f"{folder}/{pattern}", *(f"{folder}/{each}" for each in exclude)).found
    return [match.path.removeprefix(f"{folder}/") for match in found]


def watched(pattern: str) -> set[Path]:
    return {Path(each.folder) for each in look(pattern).watched}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("x.db", "a/x.db", "a/b/x.db", "a/.hidden/x.db", ".x.db", "c/y.db", "[d]/x.db", "a/x.db.bak", "aa/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*.db",
        "*/x.db",
        "**/x.db",
        "a/**/*.db",
        "**/b/*",
        "?/x.db",
        "[ac]/*.db",
        "[!a]/*",
        "*/b/x.db",
        ".*",
        "*/.*/*.db",
    ],
)
def test_matches_are_those_of_a_shell(tree: Path, pattern: str) -> None:
    """They are those of Python's glob, if no link is on the way."""
    expected = sorted(glob.glob(f"{tree}/{pattern}", recursive=True))  # noqa: PTH207 - it is the oracle
    assert [f"{tree}/{name}" for name in names(tree, pattern)] == expected


def test_two_stars_at_the_end_stand_for_every_file_below(tree: Path) -> None:
    """Folders are not matched, and are searched for files."""
    assert names(tree, "a/**") == ["a/b/x.db", "a/x.db", "a/x.db.bak"]


def test_links_are_matches_and_no_ways(tree: Path) -> None:
    """Links are not followed: not one that matches, nor one below which matches are or may be, nor a circle."""
    (tree / "circle").symlink_to(".")
    (tree / "a" / "up").symlink_to("..")
    (tree / "dead").symlink_to("nowhere")
    (tree / "link.db").symlink_to("x.db")
    assert names(tree, "**/x.db") == ["[d]/x.db", "a/b/x.db", "a/x.db", "x.db"]
    found = {match.path.removeprefix(f"{tree}/"): match.link for match in look(f"{tree}/*/x.db").found if match.link}
    assert found == {"circle/x.db": f"{tree}/circle"}
    behind = {match.path for match in look(f"{tree}/*/*.db").found if match.link}
    assert behind == {f"{tree}/circle"}
    assert Match(f"{tree}/link.db", f"{tree}/link.db") in look(f"{tree}/*.db").found


def test_what_is_looked_at_has_a_limit(tree: Path) -> None:
    """The result says that not everything was searched. A search ends early if its caller no longer waits."""
    assert look(f"{tree}/**/x.db", entries_max=5).is_cut
    assert not look(f"{tree}/**/x.db").is_cut
    with pytest.raises(SearchStoppedError):
        matches_of(f"{tree}/**/x.db", is_stopped=lambda: True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.root
def test_a_folder_that_cannot_be_listed_is_said() -> None:
    """Databases may be in such a folder. lost+found is never reported."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        for each in ("a", "b", "lost+found"):
            (folder / each).mkdir(mode=0o700)
            (folder / each / "x.db").touch()
        (folder / "a").chmod(0o755)
        os.seteuid(65534)
        try:
            found = look(f"{folder}/*/*.db")
        finally:
            os.seteuid(0)
    assert [match.path for match in found.found] == [f"{folder}/a/x.db"]
    assert found.unlisted == {f"{folder}/b": "Permission denied"}


def test_each_folder_in_which_a_match_may_appear_is_watched(tree: Path) -> None:
    """The folder of the pattern, and every folder that its pattern matches."""
    assert watched(f"{tree}/*/x.db") == {tree, tree / "a", tree / "c", tree / "[d]", tree / "aa"}
    assert watched(f"{tree}/*.db") == {tree}
    assert watched(f"{tree}/**/x.db") == {tree, tree / "a", tree / "a/b", tree / "c", tree / "[d]", tree / "aa"}


@pytest.mark.parametrize(
    ("pattern", "folder", "wanted", "unwanted"),
    [
        ("*/data.db", "", [("new", True)], [("new", False), ("data.db", False), (".new", True)]),
        ("*/data.db", "a", [("data.db", False)], [("tmp-1", False), ("data.db-new", False), ("tmp", True)]),
        ("*.db", "", [("x.db", False), ("x.db", True)], [("etilqs_1", False), ("x.db.tmp", False)]),
        ("**/x.db", "a", [("any", True), ("x.db", False)], [("any", False)]),
        ("**", "a", [("any", True), ("any", False)], [(".any", False)]),
    ],
)
def test_new_names_that_matter(
    tree: Path, pattern: str, folder: str, wanted: list[tuple[str, bool]], unwanted: list[tuple[str, bool]]
) -> None:
    """A storm of temporary files does not wake the daemon."""
    here = [each for each in look(f"{tree}/{pattern}").watched if Path(each.folder) == tree / folder]

    def wants(name: str, *, is_folder: bool) -> bool:
        return any(each.wants(name, is_folder=is_folder) for each in here)

    assert all(wants(name, is_folder=is_folder) for name, is_folder in wanted)
    assert not any(wants(name, is_folder=is_folder) for name, is_folder in unwanted)


def test_new_names_that_are_excluded_do_not_matter() -> None:
    """New names in an excluded folder do not matter either."""
    new = NewNames("/srv/dbs", frozenset({"*"}), exclude=("/srv/dbs/*.tmp", "/srv/dbs/old"))
    assert new.wants("a.db", is_folder=False)
    assert not new.wants("a.tmp", is_folder=False)
    assert not new.wants("old", is_folder=True)


@pytest.mark.parametrize(
    ("path", "pattern", "excluded"),
    [
        ("/srv/test-1/a.db", "/srv/test-*/*", True),
        ("/srv/test-1/a.db", "/srv/test-*", True),
        ("/srv/test-1/deep/a.db", "/srv/test-*/*", True),
        ("/srv/prod/a.db", "/srv/test-*/*", False),
        ("/srv/a.db", "/srv/a.db", True),
        ("/srv/a.db2", "/srv/a.db", False),
        ("/srv/x/y/cache/a.db", "/srv/**/cache", True),
        ("/srv/cache/a.db", "/srv/**/cache", True),
        ("/srv/cached/a.db", "/srv/**/cache", False),
        ("/srv/.git/a.db", "/srv/*/*", True),
    ],
)
def test_exclusion(path: str, pattern: str, *, excluded: bool) -> None:
    """A pattern excludes what it matches and all that is in it, hidden names too."""
    assert is_excluded(path, [pattern]) is excluded


def test_patterns_and_their_fixed_part() -> None:
    """The fixed part ends before the first part with a wildcard."""
    assert is_pattern("/srv/*/a.db")
    assert not is_pattern("/srv/a.db")
    assert fixed_part("/srv/tenants/*/data.db") == "/srv/tenants"
    assert fixed_part("/*.db") == "/"
    assert matches_part("a.db", "*.db")
    assert not matches_part(".a.db", "*.db")
