"""Tests of the Debian package: one command builds it, and it is installed and used on a machine with a real systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme import blocks
from tests.service.writer import writing
from tests.systemd_box import Box, skip_unless_possible
from walsyncd import __version__

ROOT = Path(__file__).parents[2]
SIZE_MAX = 40_000_000  # the program that somebody downloads for a daemon
CONFIG = "/etc/walsyncd/config.toml"
DATABASE = "/srv/app/app.db"
# Which package has which library.
LIBC = ["libc.so.6", "libm.so.6", "libpthread.so.0", "librt.so.1", "libdl.so.2", "ld-linux-x86-64.so.2"]
LIBRARIES = {
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
    **dict.fromkeys(LIBC, "libc6"),
}

NEWER = f"{__version__}.1"

BUILD, INSTALL = next(block.text.splitlines() for block in blocks("sh") if block.text.startswith("packaging/build-deb"))

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package, built as the README says."""
    skip_unless_possible()
    if shutil.which("dh") is None:
        pytest.skip("needs debhelper")
    folder = tmp_path_factory.mktemp("deb")
    command = BUILD.replace(" dist", f" {folder}")
    built = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "XZ_LEVEL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package of the next version: the same program with another number."""
    tree = tmp_path_factory.mktemp("newer") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    for file in (tree / "DEBIAN" / "control", tree / "usr/lib/walsyncd/walsyncd/__init__.py"):
        file.write_text(file.read_text().replace(__version__, NEWER))
    upgrade = package.with_name(f"walsyncd_{NEWER}.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, upgrade], check=True)
    return upgrade


@pytest.fixture(scope="module")
def box(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a machine on which the package is installed."""
    with Box(tmp_path_factory.mktemp("box"), {package.parent: "/srv/package"}) as machine:
        machine.do("sh", "-c", INSTALL.replace("./dist/", "/srv/package/"))
        yield machine


def test_the_package_is_sound(package: Path) -> None:
    """Lintian reports no error (one would fail the build). The package has wheels for every Python that it names."""
    listing = subprocess.run(["dpkg-deb", "-c", str(package)], capture_output=True, text=True, check=True).stdout
    for python in ("311", "312", "313"):
        for module in ("numpy/_core/_multiarray_umath", "pydantic_core/_pydantic_core", "backports/zstd/_zstd"):
            assert f"{module}.cpython-{python}-" in listing
    for name in (
        "man8/walsyncd.8.gz",
        "man5/walsyncd.toml.5.gz",
        "man7/walsyncd-trust.7.gz",
        "completions/walsyncd",
        "vendor-completions/_walsyncd",
    ):
        assert f"{name}\n" in listing
    assert package.stat().st_size < SIZE_MAX


def test_the_package_depends_on_every_library_that_it_needs(package: Path, tmp_path: Path) -> None:
    """The machine has nothing else installed. Libraries in the wheels do not count."""
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    objects = [file for file in tmp_path.rglob("*.so*") if file.is_file()]
    dumped = subprocess.run(["readelf", "--dynamic", *objects], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\) +Shared library: \[(.*)\]", dumped)) - {file.name for file in objects}
    depends = subprocess.run(["dpkg-deb", "--field", package, "Depends"], capture_output=True, text=True, check=True)
    packages = set(re.findall(r"[a-z0-9.+-]+", re.sub(r"\(.*?\)", "", depends.stdout)))
    assert {LIBRARIES.get(library, library) for library in needed} <= packages


def test_it_runs_as_soon_as_it_is_installed(box: Box) -> None:
    """Without a configured database the daemon waits for one.

    It runs as a user of its own, which may read the configuration.
    """
    assert box.do("systemctl", "is-active", "walsyncd").strip() == "active"
    assert box.do("systemctl", "is-enabled", "walsyncd").strip() == "enabled"
    assert box.do("stat", "-c", "%a %U %G", CONFIG).split() == ["640", "root", "walsyncd"]
    assert box.do("ps", "-o", "user=", "-p", main_pid(box)).split() == ["walsyncd"]


def test_a_database_lives_through_upgrade_removal_and_purge(box: Box, newer: Path) -> None:
    """An upgrade under load loses no commit, a removal keeps the state, and a purge keeps only the replica."""
    box.do("mkdir", "-p", "/srv/app")
    with writing(box, DATABASE) as writer:
        box.do("sh", "-c", f"printf '\\n[[database]]\\npath = \"{DATABASE}\"\\n' >> {CONFIG}")
        box.do("walsyncd", "check")
        box.do("systemctl", "reload", "walsyncd")
        generation = synced_generation(box)
        pid = main_pid(box)
        box.do("dpkg", "-i", f"/srv/package/{newer.name}")
        assert box.do("walsyncd", "--version").strip() == f"walsyncd {NEWER}"
        assert main_pid(box) != pid
        committed = writer.stop()
    ended = box.do("journalctl", "--unit", "walsyncd", "--output", "cat", "EVENT=generation_ended").splitlines()
    assert synced_generation(box) == generation or ended, "a new generation says why"
    box.do("walsyncd", "restore", "srv/app/app.db", "-o", "/srv/restored.db")
    numbers = box.do("sqlite3", "/srv/restored.db", "SELECT x FROM t ORDER BY rowid").split()
    assert [int(x) for x in numbers] == list(range(committed))

    box.do("dpkg", "--remove", "walsyncd")
    assert "journal.db" in box.do("ls", "/var/lib/walsyncd").split()
    assert box.run("ls", "/usr/lib/walsyncd").returncode != 0
    box.do("dpkg", "--purge", "walsyncd")
    assert box.do("ls", "/var/lib/walsyncd").split() == ["replica"]
    assert box.run("ls", CONFIG).returncode != 0


def synced_generation(box: Box) -> str:
    """Sync, and return the generation in which everything committed is stored."""
    return box.do("walsyncd", "sync").split()[1].split("/")[0]


def main_pid(box: Box) -> str:
    """Return the pid of the daemon."""
    return box.do("systemctl", "show", "-P", "MainPID", "walsyncd").strip()
