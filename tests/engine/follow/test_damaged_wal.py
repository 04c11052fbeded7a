"""Tests of a damaged WAL while it is followed: a clear end or its valid part is stored, and never a wrong frame."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import insert
from tests.engine.keeping import Keeping

Damage = Callable[[bytearray, random.Random], None]


def flip(content: bytearray, chance: random.Random) -> None:
    """Flip one bit anywhere in the WAL."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def shorten(content: bytearray, chance: random.Random) -> None:
    """Cut the WAL at any byte."""
    del content[chance.randrange(len(content)) :]


def scribble(content: bytearray, chance: random.Random) -> None:
    """Write random bytes over some part of the WAL."""
    at = chance.randrange(len(content))
    content[at : at + 100] = chance.randbytes(len(content[at : at + 100]))


def replace(content: bytearray, chance: random.Random) -> None:
    """Replace the whole WAL by random bytes."""
    content[:] = chance.randbytes(len(content))


@pytest.mark.parametrize("damage", [flip, shorten, scribble, replace])
@pytest.mark.parametrize("side", ["-wal", "-shm"])
def test_damage_between_two_runs(tmp_path: Path, side: str, damage: Damage) -> None:
    """After a reboot, with no application, what is stored is what SQLite recovers, or there is a gap.

    No other error comes.
    """
    path = tmp_path / "app.db"
    for seed in range(6):
        chance = random.Random(seed)
        with wal_database(path) as app, Keeping(path, tmp_path / f"f{seed}") as keeping:
            keeping.note()
            assert not keeping.watch_over(app, insert(1), insert(2))
            for value in (3, 4):
                app.execute(insert(value))
                keeping.note()
            keeping.stop()
            app.kill()
            file = Path(f"{path}{side}")
            content = bytearray(file.read_bytes())
            damage(content, chance)
            file.write_bytes(content)
            keeping.note()
            keeping.reboot()
            keeping.start()
            keeping.keep_up()
            keeping.keep_up()
            with SqliteProcess(path) as other:
                other.execute("SELECT 1 FROM sqlite_master")
                keeping.note()
                keeping.keep_up()
                keeping.watch_over(other, "PRAGMA user_version=7")
                assert not keeping.watch_over(other, "PRAGMA user_version=8", "PRAGMA user_version=9")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
