"""Tests of walsyncd.engine.daemon.silent_files. tests/e2e/test_hung_files.py has mounts that hang."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, serving, wait_for
from walsyncd.file_calls import FILE_CALLS, FileCall


def test_what_answers_again_is_followed_from_the_beginning(tmp_path: Path) -> None:
    """The database stays in the same generation, with what was committed meanwhile. Other databases are not touched."""
    place = Place(tmp_path)
    with (
        wal_database(place.database("far")) as far,
        wal_database(place.database("near")) as near,
        serving(place.settings("far", "near")) as daemon,
    ):
        place.sync("far")
        before = {tracked.name: tracked for tracked in daemon.databases}
        generation = place.row("far").generation
        begun, released = threading.Event(), threading.Event()

        def hang() -> None:
            with FileCall(place.database("far"), "read"):
                begun.set()
                released.wait(60)

        call_thread = daemon._supervisor.start("hanging", hang)
        begun.wait(60)
        call = next(call for call, thread in FILE_CALLS.lasting.items() if thread == call_thread.ident)
        FILE_CALLS.abandon(call)
        far.execute("INSERT INTO t VALUES (7)")
        near.execute("INSERT INTO t VALUES (7)")
        place.sync("near")
        assert "does not answer" in place.ask(op="sync", names=["far"])["databases"]["far"]["error"]
        released.set()
        wait_for(lambda: {each.name: each for each in daemon.databases}.get("far") not in (None, before["far"]))
        place.sync("far")
        assert place.row("far").generation == generation
        assert next(each for each in daemon.databases if each.name == "near") is before["near"]
