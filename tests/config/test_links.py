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
    """Each link on the way is returned with its own resolved path."""
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
    """The search ends, and its links are watched, because one of them may be corrected."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    found = resolve(f"{tmp_path}/a/app.db")
    assert found.path in {tmp_path / "a" / "app.db", tmp_path / "b" / "app.db"}
    assert set(found.links) == {tmp_path / "a", tmp_path / "b"}


def test_the_root() -> None:
    """The root has no folder above it."""
    assert resolve("/").path == Path("/")
    assert resolve("/../..").path == Path("/")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("where", ["file", "folder", "through a link of root's"])
def test_a_strangers_link_leads_to_files_of_his_own_only(tmp_path: Path, where: str) -> None:
    """Otherwise a user could have a file of root's, or of another user, copied to his replica."""
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


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_deploys_makes_the_links_and_the_application_the_database(tmp_path: Path) -> None:
    """The link's owner could rename anything in his folder to the link's place, so the link gives him nothing."""
    releases, shared = tmp_path / "releases" / "2", tmp_path / "shared"
    for folder in (releases, shared):
        folder.mkdir(parents=True)
    os.chown(shared, 12345, 12346)
    database, links = shared / "app.db", (tmp_path / "current", releases / "app.db")
    links[0].symlink_to("releases/2")
    links[1].symlink_to("../../shared/app.db")
    for link in links:
        os.lchown(link, 12345, 12345)
    assert resolve(str(tmp_path / "current" / "app.db")).path == database  # the application has not started yet
    database.touch()
    os.chown(database, 12346, 12346)
    assert resolve(str(tmp_path / "current" / "app.db")).path == database
    os.chown(shared, 12346, 12346)
    assert resolve(str(tmp_path / "current" / "app.db")).path == tmp_path / "current" / "app.db"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_is_exchanged_for_a_file_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of a folder may rename what root has made in it, also between two looks at the link."""
    link, roots, secret = tmp_path / "app.db", tmp_path / "roots", tmp_path / "secret"
    for file in (roots, secret):
        file.touch()
    link.symlink_to(secret)
    os.lchown(link, 12345, 12345)
    read = os.readlink

    def read_then_exchange(path: str | Path, *, dir_fd: int | None = None) -> str:
        target = read(path, dir_fd=dir_fd)
        if roots.exists():
            roots.rename(link)
        return target

    monkeypatch.setattr(os, "readlink", read_then_exchange)
    assert resolve(str(link)).path == link


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_is_exchanged_for_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's owner could have a link of root's read instead of his own, if another folder has one of the same
    name.
    """
    tenant, other = tmp_path / "tenant", tmp_path / "other"
    (tenant / "data").mkdir(parents=True)
    other.mkdir()
    (other / "app.db").symlink_to("/etc/shadow")
    link = tenant / "data" / "app.db"
    link.symlink_to("/etc/shadow")
    for each in (tenant, tenant / "data", link):
        os.chown(each, 12345, 12345, follow_symlinks=False)
    readlink = os.readlink

    def exchanging(path: str, *, dir_fd: int | None = None) -> str:
        target = readlink(path, dir_fd=dir_fd)
        if str(path) == str(link) and not (tenant / "data").is_symlink():
            (tenant / "data").rename(tenant / "before")
            (tenant / "data").symlink_to(other)
        return target

    monkeypatch.setattr(os, "readlink", exchanging)
    assert resolve(str(link)).path == link
