"""Tests of rehearsed restores by the real daemon: killed within one, with damage in storage, and seen in status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.e2e.workload import create
from tests.stores import Store
from walsyncd.engine.upkeep.drill_runner import FOLDER

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def test_drills_pass_fail_and_survive_kills(tmp_path: Path) -> None:
    """A kill leaves a file, which the next run removes.

    Damage is reported as an error, and a new generation passes again.
    """
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


def test_drills_on_s3(tmp_path: Path, seaweedfs: Store) -> None:
    """The next drill finds damage in a bucket and names it, and the next generation is sound."""
    bucket = seaweedfs.make_bucket()
    storage = s3_section(seaweedfs, bucket)
    with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage, defaults={"verify_interval": "1s"}) as daemon:
        create(daemon.data / "app.db", rows=200)
        daemon.start().sync()
        passed = daemon.wait_for("drill_passed", database="app")
        assert "pages compared with the live file" in passed["detail"]
        assert passed["detail"].endswith("integrity_check: ok")
        client = seaweedfs.client()
        (base,) = (key for key in keys(client, bucket) if key.endswith(".db.zst"))
        client.put_object(
            Bucket=bucket, Key=base, Body=flipped(client.get_object(Bucket=bucket, Key=base)["Body"].read())
        )
        failed = daemon.wait_for("drill_failed", database="app")
        assert base.endswith(failed["reason"].partition(":")[0])
        began = daemon.wait_for("generation_began", reason=f"a rehearsed restore failed: {failed['reason']}")
        wait_until(
            lambda: [line for line in daemon.lines("drill_passed") if began["generation"] in line["position"]],
            "a drill of the new generation passes",
        )
        assert daemon.stop() == 0
        client.close()


def test_drills_of_an_encrypted_database(tmp_path: Path) -> None:
    """SQLite can't check a file for which it has no key. The pages are compared with the live file anyway."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"], defaults={"verify_interval": "1s"}) as daemon:
        with SqliteProcess(daemon.data / "app.db", module="sqlcipher3") as app:
            app.execute("PRAGMA key = 'correct horse'", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)")
            app.execute("INSERT INTO t SELECT randomblob(3000) FROM (VALUES (1), (2), (3), (4), (5))")
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            daemon.start().sync()
            passed = daemon.wait_for("drill_passed", database="app")
            compared, _, checked = passed["detail"].partition("; integrity_check: ")
            assert int(compared.split()[0]) > 0
            assert "pages compared with the live file" in compared
            assert "encrypted" in checked
            damage(daemon.replica)
            failed = daemon.wait_for("drill_failed", database="app")
            assert ".db.zst" in failed["reason"]
            app.execute("INSERT INTO t VALUES (1)")
            wait_until(
                lambda: daemon.status("app")["last_drill"].startswith("passed: "), "a drill of the new base passes"
            )
        assert daemon.stop() == 0


def keys(client: S3Client, bucket: str) -> list[str]:
    """Return the keys of a few objects."""
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def damage(replica: Path) -> None:
    """Flip one bit of every base."""
    for base in replica.rglob("*.db.zst"):
        base.write_bytes(flipped(base.read_bytes()))


def flipped(body: bytes) -> bytes:
    """Return ``body`` with one bit flipped."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
