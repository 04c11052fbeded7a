"""Tests of a state directory on a slow disk: the follower waits for it, and the WALs are read meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.rig import daemon, folder_section
from tests.bench.sustain import check
from tests.bench.writer import writer
from tests.slow_fsync import can_compile, slow_fsync

FSYNC_MS = 20.0
RATE, SECONDS = 2000.0, 3.0  # the WAL restarts every 200 ms, and several fsyncs are made for each segment
RUNS_MAX = 5  # other work on the machine may keep every thread of the daemon from running for so long


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="there is no C compiler")
def test_a_slow_fsync_leaves_no_gap(tmp_path: Path) -> None:
    """Every fsync takes 20 ms longer, a writer makes 2,000 commits a second, and all of them are restored."""
    library = slow_fsync(tmp_path, FSYNC_MS)
    gaps = [_gaps(tmp_path / "run-0", library)]
    while gaps[-1] and len(gaps) < RUNS_MAX:
        gaps.append(_gaps(tmp_path / f"run-{len(gaps)}", library))
    assert not gaps[-1], gaps


def _gaps(place: Path, library: Path) -> list[str]:
    """Run a writer beside a daemon with a slow disk. Return the gaps. Without a gap, all rows must be restored."""
    database = place / "app" / "app.db"
    database.parent.mkdir(parents=True)
    with (
        writer(database, rate=RATE, seconds=SECONDS, row_bytes=1000) as application,
        daemon(place, folder_section(place / "bucket"), [database], preload=library) as follower,
    ):
        follower.wait_for_bases()
        written = application.write()
        found = [event["reason"] for name in ("generation_ended", "gap_found") for event in follower.events(name)]
        if not found:
            follower.wait_until_shipped()
            found = [event["reason"] for event in follower.events("generation_ended")]
    if not found:
        check(place, database, written.commits)
    return found
