"""Tests of requests that land after their object was deleted: what comes back is not mistaken for the replica."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import Daemon
from tests.e2e.workload import Writer, create


def test_objects_that_come_back_after_their_generation_was_deleted(tmp_path: Path) -> None:
    """Segments alone, a base without its manifest, and a manifest without its base do not change the head."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=50)
        daemon.start().sync()
        with Writer("module", file, seed=5, count=10, calm=daemon.control) as writer:
            writer.finish()
            daemon.sync()
            daemon.kill()  # after an orderly stop the replica would be released to the next daemon
            (old,) = (folder for folder in (daemon.replica / "app").iterdir() if folder.is_dir())
            for path in daemon.state.iterdir():  # this is like a new machine: a new generation begins
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert not daemon.start().sync()["app"].startswith(old.name)
            sent = {path.relative_to(old): path.read_bytes() for path in old.rglob("*") if path.is_file()}
            kinds = {"segment": ".wal.zst", "base": ".db.zst", "manifest": ".json.zst"}
            for suffix in kinds.values():
                shutil.rmtree(old)
                for name in (name for name in sent if str(name).endswith(suffix)):
                    (old / name).parent.mkdir(parents=True, exist_ok=True)
                    (old / name).write_bytes(sent[name])
                assert_same(daemon.restore("app"), file)
                assert daemon.walsyncd("ls", "app").code == 0
            writer.close()
