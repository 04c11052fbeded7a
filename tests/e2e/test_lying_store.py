"""Tests of a store whose answers do not end, and of one that lies about one database.

Other lies are in ``tests.fuzz``.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.e2e.daemon import Daemon, s3_section, wait_until
from tests.fuzz.store import stage, write_config
from tests.lying_store import Lie, LyingStore, endless, huge, run_lying_store
from tests.stores import Store
from walsyncd.cli import main
from walsyncd.engine.restore import replica

MEMORY_BYTES_MAX = 150 << 20
SENT_BYTES_MAX = 200 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("lie", "words"), [(endless, "ls"), (endless, "restore app -o out.db"), (huge, "ls")])
def test_what_has_no_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: Lie, words: str) -> None:
    """The store can't make a command use any amount of memory or time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replica, "pause", lambda _attempt: None)
    there, (command, *more) = stage(), words.split()
    config, there.lying.sent = write_config(tmp_path, there), 0
    there.lying.lie(lie, about=lambda request: request.startswith("GET"))
    tracemalloc.start()
    try:
        code = main([command, "--config", str(config), *more])
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        there.lying.lie(None)
    assert code in {0, 1, 4}
    assert memory < MEMORY_BYTES_MAX
    assert there.lying.sent < SENT_BYTES_MAX
    assert not Path("out.db").exists() or Path("out.db").read_bytes() == there.file


@pytest.fixture(scope="module")
def lying(moto: Store) -> Iterator[LyingStore]:
    with run_lying_store(moto) as store:
        yield store


@pytest.mark.slow
@pytest.mark.parametrize("lie", [endless])
def test_a_lie_about_one_database_costs_no_other(tmp_path: Path, lying: LyingStore, lie: Lie) -> None:
    """This holds whatever is requested. Once the store tells the truth again, the database is followed as before."""
    storage = {**s3_section(lying.real, lying.real.make_bucket()), "endpoint_url": lying.endpoint_url}
    paths = [tmp_path / "data" / "good.db", tmp_path / "data" / "bad.db"]
    paths[0].parent.mkdir()
    databases = [{"path": str(path), "name": path.stem} for path in paths]
    with (
        wal_database(paths[0]) as good,
        wal_database(paths[1]) as bad,
        Daemon(tmp_path, databases, storage=storage).start() as daemon,
    ):
        daemon.sync()
        lying.lie(lie, about=lambda request: "/bad/" in request or "prefix=bad" in request)
        for number in range(3):
            bad.execute(f"INSERT INTO t VALUES ({number})")
            good.execute(f"INSERT INTO t VALUES ({number})")
            daemon.sync("good")
        assert daemon.walsyncd("snapshot", "bad", "--timeout", "3s").code in {0, 1}
        good.execute("INSERT INTO t VALUES (3)")
        daemon.sync("good")
        lying.lie(None)
        bad.execute("INSERT INTO t VALUES (3)")
        wait_until(lambda: daemon.walsyncd("sync", "bad", "--timeout", "5s").code == 0, "it is stored")
        daemon.done("verify", "good")
        daemon.done("verify", "bad")
        assert daemon.stop() == 0
