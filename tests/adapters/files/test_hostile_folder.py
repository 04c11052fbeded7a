"""Tests of root's restores into a folder whose owner attacks with links, owners, modes, and names that change."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from walsyncd.adapters.files.target import Access, Target
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.folder_tree import FolderTree
from walsyncd.errors import RefusedError, UsageError, WalsyncdError

TENANT = 12345
TAG = "0123abcd"
ROUNDS = 300

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can be deceived")]

# This swaps each pair of names for ever, as fast as it can, as the tenant. The second of a pair is a link.
SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
pairs = [tuple(map(os.fsencode, pair.split("|"))) for pair in sys.argv[2:]]
swap = lambda one, other: libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE
assert [swap(*pair) for pair in pairs] == [0] * len(pairs)
print("ready", flush=True)
while True:
    for pair in pairs:
        swap(*pair)
"""

# This replaces every name in a folder, as soon as it appears, by a link to the victim.
REPLACER = """
import os, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
folder, victim = sys.argv[2:]
os.chdir(folder)
os.symlink(victim, "link")
print("ready", flush=True)
while True:
    for name in os.listdir("."):
        if name != "link" and name != "away":
            try:
                os.rename(name, "away")
                os.rename("link", name)
                os.symlink(victim, "link")
            except OSError:
                pass
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder of root's that everybody can enter, unlike the one that pytest gives."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def victim(place: Path) -> Path:
    """Return a file of root's that nobody else may read."""
    folder = place / "root"
    folder.mkdir(mode=0o755)
    path = folder / "secret"
    path.write_bytes(b"root's")
    path.chmod(0o600)
    return path


@pytest.fixture
def tenant(place: Path) -> Path:
    """Return a folder of the tenant's."""
    folder = place / "tenant"
    folder.mkdir(mode=0o755)
    os.chown(folder, TENANT, TENANT)
    return folder


def is_untouched(victim: Path) -> bool:
    status = victim.stat()
    names = [path.name for path in victim.parent.iterdir()]
    owner = status.st_uid, stat.S_IMODE(status.st_mode)
    return (victim.read_bytes(), owner, names) == (b"root's", (0, 0o600), ["secret"])


def build(path: Path, *, force: bool = True, access: Access | None = None) -> list[Path]:
    with Target(path) as target:
        target.check(force=force)
        with target.building(TAG) as descriptor:
            os.write(descriptor, b"restored")
            return target.publish(descriptor, stamp="x", access=access or Access())


@contextmanager
def attacked_by(script: str, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-c", script, str(TENANT), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("goal", ["secret", "not-there"])
def test_target_that_is_a_link_is_refused(victim: Path, tenant: Path, goal: str) -> None:
    """A dangling link is refused as well, with and without force. The error says what to do."""
    (tenant / "app.db").symlink_to(victim.parent / goal)
    for force in (True, False):
        with pytest.raises(RefusedError, match="symbolic link") as caught:
            build(tenant / "app.db", force=force)
        assert "remove the link" in caught.value.hint
    assert is_untouched(victim)


def test_folder_that_is_a_link_is_refused(victim: Path, tenant: Path) -> None:
    """A link is refused as the last component and on the way."""
    (tenant / "data").symlink_to(victim.parent)
    for path in (tenant / "data" / "app.db", tenant / "data" / "below" / "app.db"):
        with pytest.raises(RefusedError, match="tenant/data is a symbolic link"):
            Target(path, create_folder=True)
    assert is_untouched(victim)


def test_side_files_and_partial_files_that_are_links(victim: Path, tenant: Path) -> None:
    """Files that must be opened are refused if they are links. The other links are moved aside as links."""
    path = tenant / "app.db"
    for name in ("app.db-shm", f".app.db.{TAG}.partial"):
        (tenant / name).symlink_to(victim)
        with pytest.raises(RefusedError):
            build(path)
        (tenant / name).unlink()
    for name in ("app.db-wal", "app.db-journal", "app.db-follow", ".app.db.other.partial"):
        (tenant / name).symlink_to(victim)
    assert len(build(path)) == 3
    assert path.read_bytes() == b"restored"
    assert is_untouched(victim)


def test_special_bits_are_not_set(tenant: Path) -> None:
    """The old file's owner may have set these bits, and nobody may get a program that runs as somebody else."""
    path = tenant / "app.db"
    path.touch()
    os.chown(path, TENANT, TENANT)
    path.chmod(0o6751)
    build(path)
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (TENANT, 0o751)
    build(path, access=Access(mode=0o4755))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_nothing_is_given_to_who_came_first(place: Path) -> None:
    """The restored file stays root's in a folder that everybody can write to, and in a folder that a stranger made
    there.
    """
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    taken = shared / "taken"
    taken.mkdir(mode=0o777)
    os.chown(taken, TENANT, TENANT)
    for folder in (shared, taken):
        path = folder / "app.db"
        path.touch()
        os.chown(path, TENANT, TENANT)
        path.chmod(0o666)
        build(path)
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600)


def test_new_folder_is_not_made_through_a_link(victim: Path, tenant: Path) -> None:
    """The first restore makes the folder. A link that leads nowhere is not a folder."""
    (tenant / "data").symlink_to(victim.parent / "new")
    with pytest.raises((RefusedError, UsageError)):
        Target(tenant / "data" / "app.db", create_folder=True)
    assert is_untouched(victim)


@pytest.mark.slow
def test_names_that_change_all_the_time_reach_nothing_of_roots(victim: Path, tenant: Path) -> None:
    """The tenant swaps the folder, the target, the partial file and a side file with links, as fast as it can."""
    data, way = tenant / "data", tenant / "way"
    for folder in (data, way):
        folder.mkdir()
        os.chown(folder, TENANT, TENANT)
    (tenant / "link").symlink_to(victim.parent)
    pairs = [(way, tenant / "link")]
    for name in ("app.db", f".app.db.{TAG}.partial", "app.db-wal"):
        (data / name).touch()
        (data / f"link-{name}").symlink_to(victim)
        pairs.append((data / name, data / f"link-{name}"))
    for path in tenant.rglob("*"):
        os.chown(path, TENANT, TENANT, follow_symlinks=False)
    with attacked_by(SWAPPER, *(f"{one}|{other}" for one, other in pairs)):
        for _ in range(ROUNDS):
            with suppress(RefusedError, UsageError):
                build(data / "app.db")
            with suppress(RefusedError, UsageError):
                build(way / "app.db")
            with suppress(RefusedError, UsageError), Target(way / "new" / "app.db", create_folder=True):
                pass
    assert is_untouched(victim)


@pytest.mark.slow
def test_new_files_that_are_replaced_by_links_give_nothing_away(victim: Path, tenant: Path) -> None:
    """What root creates in somebody's folder is given to its owner by its descriptor, never by its name."""
    for name in ("attacked", "quiet"):
        (tenant / name).mkdir()
        os.chown(tenant / name, TENANT, TENANT)
    tree = FolderTree(tenant)
    with attacked_by(REPLACER, str(tenant / "attacked"), str(victim)):
        for number in range(ROUNDS):
            with suppress(OSError):
                tree.publish(tree.write("attacked", lambda file: file.write(b"x")), "quiet/file")
            with suppress(OSError), tree.folder(f"attacked/{number}", create=True):
                pass
    assert is_untouched(victim)


@pytest.mark.slow
def test_storage_whose_folders_change_into_links(victim: Path, tenant: Path) -> None:
    """A user who may write to a ``file:

    `` storage can't make anybody read, write or delete outside of it.
    """
    storage = DirectoryStorage(tenant / "store")
    storage.put("db/secret", b"ours", metadata={})
    for path in (tenant / "store", tenant / "store" / "db"):
        os.chown(path, TENANT, TENANT)
    (tenant / "store" / "link").symlink_to(victim.parent)
    seen = set()
    with attacked_by(SWAPPER, f"{tenant}/store/db|{tenant}/store/link"):
        for _ in range(ROUNDS):
            with suppress(WalsyncdError):
                seen.add(storage.get("db/secret"))
            with suppress(WalsyncdError):
                storage.delete(["db/secret"])
            with suppress(WalsyncdError):
                storage.put("db/secret", b"ours", metadata={})
            with suppress(WalsyncdError):
                storage.put_if("db/new", b"ours", etag=None)
    assert seen == {b"ours"}
    assert is_untouched(victim)
    assert [path.name for path in victim.parent.iterdir()] == [victim.name]
