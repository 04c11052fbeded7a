"""Tests of walsyncd.config.links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from walsyncd.config.links import resolve


@pytest.mark.parametrize(
    ("path", "links"),
    [
        ("real/app.db", []),
        ("current/app.db", ["current", "alias"]),
        ("real/../current/app.db", ["current", "alias"]),
        ("current/../app.db", ["current", "alias"]),
        ("real/link.db", ["real/link.db"]),
        ("absolute/app.db", ["absolute"]),
        ("dangling/app.db", ["dangling"]),
        ("nothing/at/all.db", []),
        ("real//./app.db", []),
    ],
)
def test_a_path_is_resolved_as_the_kernel_does_it(tmp_path: Path, path: str, links: list[str]) -> None:
    """And each link on the way is named by its own resolved path."""
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "current").symlink_to("alias")
    (tmp_path / "real" / "link.db").symlink_to("../elsewhere.db")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    found = resolve(f"{tmp_path}/{path}")
    assert found.path == Path(os.path.realpath(tmp_path / path))
    assert found.links == tuple(tmp_path / link for link in links)


def test_a_circle_leads_nowhere(tmp_path: Path) -> None:
    """It ends, and its links are watched: one of them may be mended."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    found = resolve(f"{tmp_path}/a/app.db")
    assert found.path in {tmp_path / "a" / "app.db", tmp_path / "b" / "app.db"}
    assert set(found.links) == {tmp_path / "a", tmp_path / "b"}


def test_the_root() -> None:
    """Nothing is above it."""
    assert resolve("/").path == Path("/")
    assert resolve("/../..").path == Path("/")
