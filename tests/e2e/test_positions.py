"""Tests that a restore to a position or a time holds exactly the transactions up to then."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.comparison import ask, counter_of
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Writer, create
from walsyncd.core.stored.layout import SegmentKey, WholeKey, parse_key
from walsyncd.core.stored.moment import format_moment
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Commit, Trailer, decode_body

SAMPLES = 3


def commits(folder: Path, generation: str) -> Iterator[tuple[Position, Commit]]:
    """Return every commit of a generation in a database's folder, in order, as the trailers list them."""
    for path in sorted((folder / generation / "wal").rglob("*.wal.zst")):
        key = parse_key(str(path.relative_to(folder)))
        assert isinstance(key, SegmentKey | WholeKey)
        for part in decode_body([path.read_bytes()]):
            if isinstance(part, Trailer):
                yield from ((Position(generation, key.epoch, commit.frame), commit) for commit in part.commits)


@pytest.mark.slow
def test_each_commit_is_a_target(tmp_path: Path) -> None:
    """Every commit adds 1 to a counter, so the restored counter identifies the commit of a position and a time."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db")
        daemon.start().sync()
        with Writer("apsw", file, seed=5, count=80, only_counted=True, calm=daemon.control) as writer:
            writer.finish()
            writer.close()
        newest = daemon.sync()["app"].partition("/")[0]
        (database,) = json.loads(daemon.done("ls", "app", "--json"))["databases"]
        first = next(each for each in database["generations"] if each["generation"] == newest)["first"]["position"]
        stored = list(commits(daemon.replica / "app", newest))
        head = counter_of(daemon.restore("app"))
        assert head == ask(file, "SELECT n FROM counter")
        counters = {position: head - behind for behind, (position, _) in enumerate(reversed(stored))}
        within = [(position, commit) for position, commit in stored if str(position) > first]
        assert len(within) > SAMPLES
        chance = random.Random(1)
        for position, commit in chance.sample(within, SAMPLES):
            assert counter_of(daemon.restore("app", "--position", str(position))) == counters[position]
            together = [each for each, other in stored if other.time_ms <= commit.time_ms]
            at = daemon.restore("app", "--at", format_moment(commit.time_ms))
            assert counter_of(at) == counters[max(together)]
