"""Tests of the Debian package: built by its one command, and lived with on a machine with a real systemd."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme import blocks
from tests.systemd_box import Box, skip_unless_possible

ROOT = Path(__file__).parents[2]
SIZE_MAX = 40_000_000  # what somebody downloads for a daemon
CONFIG = "/etc/walsyncd/config.toml"
DATABASE = "/srv/app/app.db"

BUILD, INSTALL = next(block.text.splitlines() for block in blocks("sh") if block.text.startswith("packaging/build-deb"))

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built as README says."""
    skip_unless_possible()
    if shutil.which("dh") is None:
        pytest.skip("needs debhelper")
    folder = tmp_path_factory.mktemp("deb")
    command = BUILD.replace(" dist", f" {folder}")
    built = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def box(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A machine on which it is installed."""
    with Box(tmp_path_factory.mktemp("box"), {package.parent: "/srv/package"}) as machine:
        machine.do("sh", "-c", INSTALL.replace("./dist/", "/srv/package/"))
        yield machine


def test_the_package_is_sound(package: Path) -> None:
    """Lintian has no error to report (the build fails by one); it holds wheels for every Python that it names."""
    listing = subprocess.run(["dpkg-deb", "-c", str(package)], capture_output=True, text=True, check=True).stdout
    for python in ("311", "312", "313"):
        for module in ("numpy/_core/_multiarray_umath", "pydantic_core/_pydantic_core", "backports/zstd/_zstd"):
            assert f"{module}.cpython-{python}-" in listing
    for name in (
        "man8/walsyncd.8.gz",
        "man5/walsyncd.toml.5.gz",
        "completions/walsyncd",
        "vendor-completions/_walsyncd",
    ):
        assert f"{name}\n" in listing
    assert package.stat().st_size < SIZE_MAX


def test_it_runs_as_soon_as_it_is_installed(box: Box) -> None:
    """With no database configured it waits for one, as a user of its own, which may read the configuration."""
    assert box.do("systemctl", "is-active", "walsyncd").strip() == "active"
    assert box.do("systemctl", "is-enabled", "walsyncd").strip() == "enabled"
    assert box.do("stat", "-c", "%a %U %G", CONFIG).split() == ["640", "root", "walsyncd"]
    assert box.do(
        "ps", "-o", "user=", "-p", box.do("systemctl", "show", "-P", "MainPID", "walsyncd").strip()
    ).split() == ["walsyncd"]


def test_a_database_lives_through_upgrade_removal_and_purge(box: Box, package: Path) -> None:
    """An upgrade goes on in the same generation, a removal keeps the state, a purge keeps only the replica."""
    box.do("mkdir", "-p", "/srv/app")
    box.do("sqlite3", DATABASE, "PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    box.do("sh", "-c", f"printf '\\n[[database]]\\npath = \"{DATABASE}\"\\n' >> {CONFIG}")
    box.do("walsyncd", "check")
    box.do("systemctl", "restart", "walsyncd")
    generation = box.wait_for("walsyncd", "sync").split()[1].split("/")[0]

    box.do("dpkg", "-i", f"/srv/package/{package.name}")
    assert box.wait_for("walsyncd", "sync").split()[1].split("/")[0] == generation
    box.do("sqlite3", DATABASE, "INSERT INTO t VALUES (2)")
    box.wait_for("walsyncd", "sync")
    box.do("walsyncd", "restore", "srv/app/app.db", "-o", "/srv/restored.db")
    assert box.do("sqlite3", "/srv/restored.db", "SELECT sum(x) FROM t").strip() == "3"

    box.do("dpkg", "--remove", "walsyncd")
    assert "journal.db" in box.do("ls", "/var/lib/walsyncd").split()
    assert box.run("ls", "/usr/lib/walsyncd").returncode != 0
    box.do("dpkg", "--purge", "walsyncd")
    assert box.do("ls", "/var/lib/walsyncd").split() == ["replica"]
    assert box.run("ls", CONFIG).returncode != 0
