"""A store that lies. Each command ends without a traceback, in little time, and restores what was stored or nothing.

A case is a lie (``tests.lying_store``), the requests that it is about, and a command. The memory that endless answers
need has a test of its own (``tests/e2e/test_lying_store``).
"""

from __future__ import annotations

import atexit
import logging
import random
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

from tests.lying_store import LIES, LyingStore, endless, endless_pages, huge, run_lying_store
from tests.replicas import make_replica
from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, run_moto
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.cli import main
from walsyncd.engine.restore import replica
from walsyncd.errors import WalsyncdError

SLOW = {endless, huge, endless_pages}  # hundreds of megabytes
COMMANDS = ("ls", "ls app --commits", "verify app", "restore app -o {out}", "prune --dry-run", "check")
EXIT_CODES = {0, 1, 2, 3, 4}


class BrokenPromiseError(AssertionError):
    """A promise of walsyncd was broken, whatever the store answered."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A store with a replica in it, and the file that a restore gives."""

    lying: LyingStore
    bucket: str
    file: bytes


@cache
def stage() -> Stage:
    """Return one stage for the whole process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    stack = ExitStack()
    atexit.register(stack.close)
    moto = stack.enter_context(run_moto())
    lying = stack.enter_context(run_lying_store(moto))
    bucket = moto.make_bucket()
    with tempfile.TemporaryDirectory() as folder, make_replica(Path(folder), name="app") as maker:
        maker.base()
        maker.commit(5)
        maker.ship(every=2)
        maker.close_epoch()
        maker.compact()
        maker.commit(2)
        maker.ship()
        made, file = DirectoryStorage(maker.root), maker.file()
        storage = S3Storage(moto.settings(bucket))
        for info in list(made.list("")):
            storage.put(info.key, made.get(info.key), metadata={})
        storage.put("app/owner.json", b'{"host": "h", "machine_id": "m", "run_id": "r"}', metadata={})
        storage.close()
    return Stage(lying, bucket, file)


def write_config(folder: Path, there: Stage) -> Path:
    """Write a configuration that reaches the lying store."""
    (folder / "data").mkdir()
    path = folder / "config.toml"
    path.write_text(
        f"""
[storage]
url = "s3://{there.bucket}"
endpoint_url = "{there.lying.endpoint_url}"
region = "us-east-1"
access_key_id = "{ACCESS_KEY_ID}"
secret_access_key = "{SECRET_ACCESS_KEY}"
addressing_style = "path"
[daemon]
state_dir = "{folder / "state"}"
[[database]]
path = "{folder / "data" / "app.db"}"
name = "app"
""",
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


def fuzz(seed: int, folder: Path) -> None:
    """Run one command, with one kind of lie about some of its requests."""
    chance = random.Random(seed)
    there, out = stage(), folder / "out.db"
    lie = chance.choice([each for each in LIES if each not in SLOW])
    methods = chance.choice([("GET",), ("HEAD",), ("PUT", "POST"), ("GET", "HEAD"), ("GET", "HEAD", "PUT", "POST")])
    share = chance.choice([1.0, 1.0, 0.5, 0.2])
    words = chance.choice(COMMANDS).format(out=out).split()
    config = write_config(folder, there)
    there.lying.lie(lie, about=lambda request: request.startswith(methods) and chance.random() < share)
    try:
        with mock.patch.object(replica, "pause"):
            code = main([words[0], "--config", str(config), *words[1:]])
    except WalsyncdError as error:
        raise BrokenPromiseError(f"{words} ended with a traceback") from error
    finally:
        there.lying.lie(None)
    if code not in EXIT_CODES:
        raise BrokenPromiseError(f"{words} ended with {code}")
    if out.exists() and out.read_bytes() != there.file:
        raise BrokenPromiseError(f"{words}, with {lie.__name__}, restored what was never stored")
