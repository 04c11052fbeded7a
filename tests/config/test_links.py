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


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("where", ["file", "folder", "through a link of root's"])
def test_a_strangers_link_leads_to_files_of_his_own_only(tmp_path: Path, where: str) -> None:
    """Otherwise he would have a file of root's, or of another user, copied to his replica."""
    tenant, other = tmp_path / "tenant", tmp_path / "other"
    for folder, user in ((tenant, 12345), (other, 12346)):
        (folder / "real").mkdir(parents=True)
        (folder / "real" / "app.db").touch()
        os.chown(folder / "real" / "app.db", user, user)
    link, path = {
        "file": (tenant / "app.db", tenant / "app.db"),
        "folder": (tenant / "data", tenant / "data" / "app.db"),
        "through a link of root's": (tenant / "app.db", tmp_path / "current" / "app.db"),
    }[where]
    (tmp_path / "current").symlink_to(tenant)

    def leads(goal: Path) -> Path:
        link.unlink(missing_ok=True)
        link.symlink_to(goal.parent if where == "folder" else goal)
        os.lchown(link, 12345, 12345)
        found = resolve(str(path))
        assert link in found.links
        return found.path

    unfollowed = link / "app.db" if where == "folder" else link
    assert leads(tenant / "real" / "app.db") == tenant / "real" / "app.db"
    assert leads(other / "real" / "app.db") == unfollowed
    assert leads(tmp_path / "nothing" / "app.db") == unfollowed
    (tmp_path / "app.db").touch()
    assert leads(tmp_path / "app.db") == unfollowed
