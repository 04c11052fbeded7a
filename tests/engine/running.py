"""A whole daemon inside the test's process, with real files, a real journal, and storage in a folder."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.own_connections import followed_here
from walsyncd.adapters.journal.journal import DatabaseRow, JournalReader, reader
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system.control_socket import ask, socket_path
from walsyncd.config import Settings
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, StorageSettings
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.restore.plan import Head
from walsyncd.engine.daemon.daemon import Daemon
from walsyncd.engine.daemon.destinations import OpenStorage
from walsyncd.engine.daemon.sync_progress import missing, parse_sync_point
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore

WAIT_S_MAX = float(os.environ.get("WALSYNCD_TESTS_WAIT_S", "120"))  # seconds, generous because machines are busy

# The one storage of a test, or several by url. None means that folders are opened.
Given: TypeAlias = Storage | Mapping[str, Storage] | None
Source: TypeAlias = Callable[[], tuple[Settings, Given]]


def opening(storage: Given) -> OpenStorage:
    """Return how the daemon opens the storages of its configuration."""

    def open_storage(how: StorageSettings) -> Storage:
        if isinstance(storage, Mapping):
            return storage[how.url]
        return storage or DirectoryStorage(Path(how.url.removeprefix("file://")))

    return open_storage


@dataclass
class Place:
    """The folders of a test."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def replica(self) -> Path:
        return self.folder / "replica"

    def database(self, name: str = "app") -> Path:
        path = self.folder / "data" / name / "app.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def settings(self, *names: str, patterns: tuple[str, ...] = (), spool_bytes_max: int = 1 << 30) -> Settings:
        """Return settings with databases by name, each in a folder of its own, and patterns."""
        paths = [(str(self.database(name)), name) for name in names] + [(pattern, None) for pattern in patterns]
        entries = tuple(
            DatabaseEntry(f"database[{number}]", path, name, 0.05, 86400.0, 86400.0, presence=False)
            for number, (path, name) in enumerate(paths, 1)
        )
        return Settings(
            self.folder / "config.toml",
            StorageSettings(self.replica.as_uri()),
            DaemonSettings(self.state, spool_bytes_max, 2, "debug"),
            entries,
        )

    def config(self) -> list[str]:
        """Write ``--config FILE`` for the command line. The file names the database ``app``."""
        file = self.folder / "config.toml"
        file.write_text(
            f'[storage]\nurl = "{self.replica.as_uri()}"\n[daemon]\nstate_dir = "{self.state}"\n'
            f'[[database]]\nname = "app"\npath = "{self.database()}"\n'
        )
        return ["--config", str(file)]

    def ask(self, **request: Any) -> Mapping[str, Any]:
        """Return what the daemon answers on its socket."""
        answer = ask(socket_path(self.state), request, timeout_s=WAIT_S_MAX)
        assert answer is not None
        return answer

    @contextmanager
    def journal(self) -> Iterator[JournalReader]:
        with reader(self.state) as journal:
            yield journal

    def row(self, name: str = "app") -> DatabaseRow:
        with self.journal() as journal:
            return next(row for row in journal.databases() if row.name == name)

    def sync(self, name: str = "app") -> str:
        """Wait until all that is committed now is stored, with a base. Return the position."""
        asked: dict[str, Any] = {}

        def is_stored() -> bool:
            asked.clear()
            asked.update(self.ask(op="sync", names=[name])["databases"][name])
            with self.journal() as journal:
                row = next(row for row in journal.databases() if row.name == name)
                return not missing(journal, row, parse_sync_point(asked))

        wait_for(is_stored)
        return str(asked["position"])


@contextmanager
def serving(
    settings: Settings, storage: Given = None, source: Source | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Daemon]:
    """Run like ``running``, with a thread that takes reloads, as the main thread does."""
    with running(settings, storage, source, limits) as daemon:
        thread = threading.Thread(target=daemon.serve)
        thread.start()
        try:
            yield daemon
        finally:
            daemon.call("stop")
            thread.join()


@contextmanager
def running(
    settings: Settings, storage: Given = None, source: Source | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Daemon]:
    """Run a daemon that is stopped in good order at the end. A crash of one of its threads fails the test."""

    def read() -> tuple[Settings, OpenStorage]:
        given, opened = (source or (lambda: (settings, storage)))()
        return given, opening(opened)

    with followed_here(*(str(each.path) for each in settings.databases)):
        daemon = Daemon(settings, opening(storage), read, limits=limits)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop(10.0)
        crash = daemon.crash
        if crash is not None:
            raise crash


def change(limits: Limits, **values: float) -> None:
    """Change the limits of a daemon that runs. All of its parts share this value, and do not change it."""
    assert limits is not DEFAULT_LIMITS
    for name, value in values.items():
        object.__setattr__(limits, name, value)


def wait_for(fact: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not fact():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def restored_values(place: Place) -> list[int]:
    """Return what the table of ``app`` holds when its head is restored."""
    replica, out = Replica(DirectoryStorage(place.replica), "app"), place.folder / "restored.db"
    restore(replica, find_plan(replica, Head()), out, force=True)
    with closing(sqlite3.connect(out)) as connection:
        return [x for (x,) in connection.execute("select x from t order by x")]
