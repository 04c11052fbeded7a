"""Tests of ``walsyncd restore --follow`` as a service runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replicas import counter_in, make_replica
from walsyncd.cli import main


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_copy_moves_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """Each move is a line with the copy's lag. A signal ends the command with 0, and the next one continues."""
    out = tmp_path / "copy.db"
    with make_replica(tmp_path) as maker:
        maker.base()
        for _ in range(2):
            arguments = [sys.executable, "-m", "walsyncd", "restore", f"file://{maker.root}/{maker.name}"]
            arguments += ["-o", str(out), "--follow", "--json", "--interval", "0.01"]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                assert "follows" in process.stderr.readline()
                maker.commit(3)
                maker.ship()
                moved = json.loads(process.stdout.readline())
                while moved["position"] != str(maker.history[-1].position):
                    moved = json.loads(process.stdout.readline())
                assert counter_in(out) == maker.history[-1].counter
                assert moved["lag_ms"] >= 0
                process.send_signal(number)
                assert process.wait(60) == 0
    assert not Path(f"{out}-wal").exists()


def test_what_is_not_the_head_is_refused(tmp_path: Path) -> None:
    """A copy follows the head, and is a file."""
    url = f"file://{tmp_path}/replica"
    for wrong in (["--at", "2026-11-22T10:56:00Z"], ["--all"], ["--interval", "0"]):
        assert main(["restore", url, "-o", str(tmp_path / "x"), "--follow", *wrong]) == 2
    assert main(["restore", url, "-o", "-", "--follow"]) == 2
