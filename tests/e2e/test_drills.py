"""Rehearsed restores by the real daemon: killed within one, with damage in storage, and seen in status."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.daemon import Daemon, wait_until
from tests.e2e.workload import create
from walsyncd.engine.driller import FOLDER


def test_drills_pass_fail_and_survive_kills(tmp_path: Path) -> None:
    """A kill leaves a file, which the next run removes; damage is shouted, a new generation passes again."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"], defaults={"verify_interval": "1s"}) as daemon:
        create(daemon.data / "app.db", rows=200)
        daemon.start()
        daemon.sync()
        daemon.wait_for("drill_passed", database="app")
        assert daemon.status("app")["last_drill"].startswith("passed: ")
        daemon.kill()
        left = daemon.state / FOLDER / "left.db"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(bytes(100))
        damage(daemon.replica)
        daemon.start()
        failed = daemon.wait_for("drill_failed", database="app")
        assert ".db.zst" in failed["reason"]
        wait_until(lambda: daemon.status("app")["last_drill"].startswith("passed: "), "a drill of the new base passes")
        assert daemon.stop() == 0
        assert not left.exists()


def damage(replica: Path) -> None:
    """One bit of every base."""
    for base in replica.rglob("*.db.zst"):
        raw = bytearray(base.read_bytes())
        raw[len(raw) // 2] ^= 1
        base.write_bytes(raw)
