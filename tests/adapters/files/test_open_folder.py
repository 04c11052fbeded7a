"""Tests that no folder is opened through a link that somebody else can change, and which owner new files get."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from walsyncd.adapters.files.open_folder import open_folder
from walsyncd.errors import RefusedError

TENANT = 12345
OTHER = 12346

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def make(path: Path, *, owner: int = 0, mode: int = 0o755) -> Path:
    path.mkdir()
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


def opened_path(path: Path) -> Path:
    with open_folder(path) as folder:
        return folder.path


def test_own_links_are_followed_and_the_path_has_none(tmp_path: Path) -> None:
    """Absolute and relative links are followed, and several links in a row.

    ``..`` is the parent of the folder, not of the link.
    """
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real/below")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    assert opened_path(tmp_path / "absolute") == tmp_path / "real" / "below"
    assert opened_path(tmp_path / "absolute" / "..") == tmp_path / "real"


def test_relative_path_begins_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path begins in the working directory, as for any program."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert opened_path(Path()) == tmp_path / "below"
    assert opened_path(Path("../below")) == tmp_path / "below"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """Links in a circle give the system's own error."""
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links"):
        open_folder(tmp_path / "one")


def test_file_on_the_way_is_an_error(tmp_path: Path) -> None:
    """A file in the place of a folder is an error."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        open_folder(tmp_path / "file" / "below", create=True)


def test_names_are_those_of_the_folder_that_was_opened(tmp_path: Path) -> None:
    """Another folder that takes its place is not touched, and a link in the place of a name is not followed."""
    (tmp_path / "here").mkdir()
    with open_folder(tmp_path / "here") as folder:
        (tmp_path / "here").rename(tmp_path / "moved")
        (tmp_path / "here").mkdir()
        os.close(folder.open("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        folder.rename("new", "renamed")
        assert folder.names() == ["renamed"]
        assert list((tmp_path / "here").iterdir()) == []
        (tmp_path / "moved" / "link").symlink_to(tmp_path / "victim")
        with pytest.raises(OSError, match="symbolic links"):
            folder.open("link", os.O_WRONLY | os.O_CREAT)
        status = folder.status("link")
        assert status is not None
        assert stat.S_ISLNK(status.st_mode)
        folder.unlink("link")
        assert folder.status("link") is None
        folder.sync()
    assert not (tmp_path / "victim").exists()


def test_file_is_written_in_one_step(tmp_path: Path) -> None:
    """A file that a killed process left, or a link of that name, does not block the write, and is not followed."""
    (tmp_path / ".note.new").symlink_to(tmp_path / "victim")
    (tmp_path / "note").symlink_to(tmp_path / "victim")
    with open_folder(tmp_path) as folder:
        for content in (b"one", b"two"):
            folder.write("note", content)
            assert (tmp_path / "note").read_bytes() == content
        assert folder.names() == ["note"]


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "link_owner", "is_followed"),
    [
        (0, 0o755, 0, True),
        (0, 0o755, TENANT, True),  # root made it for the tenant, so only root can change it
        (0, 0o775, 0, False),
        (0, 0o1777, 0, True),
        (0, 0o1777, TENANT, False),
        (TENANT, 0o755, TENANT, False),
        (TENANT, 0o755, 0, False),
        (TENANT, 0o1755, 0, False),
    ],
)
def test_link_is_followed_only_where_nobody_else_can_change_it(
    tmp_path: Path, owner: int, mode: int, link_owner: int, *, is_followed: bool
) -> None:
    """The folder that holds the link decides. In a sticky folder its owner does, too."""
    goal = make(tmp_path / "goal")
    holder = make(tmp_path / "holder", owner=owner, mode=mode)
    (holder / "link").symlink_to(goal)
    os.chown(holder / "link", link_owner, link_owner, follow_symlinks=False)
    if is_followed:
        assert opened_path(holder / "link") == goal
    else:
        with pytest.raises(RefusedError, match="holder/link is a symbolic link that others can change"):
            open_folder(holder / "link")


@pytest.mark.root
@needs_root
def test_heir_is_an_owner_whom_root_chose(tmp_path: Path) -> None:
    """A folder has no heir if a stranger may have made it where everybody, or a group, can write."""
    tenant = make(tmp_path / "tenant", owner=TENANT)
    make(tenant / "below", owner=TENANT)
    make(tenant / "everybody", owner=TENANT, mode=0o777)
    make(tenant / "sticky", owner=TENANT, mode=0o1755)
    shared = make(tmp_path / "shared", mode=0o1777)
    taken = make(shared / "taken", owner=TENANT)
    make(taken / "below", owner=TENANT)
    kept = make(shared / "kept")
    make(kept / "tenant", owner=TENANT)
    group = make(tmp_path / "group", owner=TENANT, mode=0o2775)
    make(group / "member", owner=OTHER)
    make(group / "own", owner=TENANT)
    heirs = {
        "tenant": TENANT,
        "tenant/below": TENANT,
        "tenant/everybody": None,
        "tenant/sticky": None,
        "shared": None,
        "shared/taken": None,
        "shared/taken/below": None,
        "shared/taken/../kept": 0,
        "shared/kept/tenant": TENANT,
        "group": TENANT,
        "group/member": None,
        "group/own": TENANT,
    }
    for name, owner in heirs.items():
        with open_folder(tmp_path / name) as folder:
            assert (folder.heir and folder.heir[0]) == owner, name


@pytest.mark.root
@needs_root
def test_new_folders_are_like_their_parents(tmp_path: Path) -> None:
    """New folders get the parent's owner and no more rights than it.

    In one that everybody can write to they stay root's.
    """
    make(tmp_path / "tenant", owner=TENANT, mode=0o2750)
    make(tmp_path / "shared", mode=0o1777)
    for name, owner, mode in (("tenant", TENANT, 0o750), ("shared", 0, 0o700)):
        path = tmp_path / name / "new" / "below"
        with open_folder(path, create=True) as folder:
            assert folder.path == path
        for made in (path, path.parent):
            status = made.stat()
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & ~0o2000) == (owner, owner, mode)
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "nowhere")
