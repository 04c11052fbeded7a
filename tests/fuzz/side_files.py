"""The owner of one database writes odd side files, while another database is followed.

No kind or content of a -wal, -shm or -journal stops the other database, ends the daemon, or causes an unexpected
exception. The parsers get many more of the same bytes without a daemon.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.running import Place, running
from walsyncd.core.sqlite.checksum import checksum
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.sqlite.rollback_journal import parse_kept_journal, parse_rollback_journal, super_journal_name
from walsyncd.core.sqlite.wal import PAGE_SIZES, is_unknown_wal, parse_wal_header, read_frames
from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header, parse_read_marks

CASES = 60  # the number of cases for the parsers, each of which takes microseconds
ACTS = 12  # the number of acts for one start of a daemon
ANSWER_S_MAX = 5.0  # after it the owner is assumed to hang, in a FIFO for example
SIDES = ("-wal", "-shm", "-journal")
NUMBERS = (0, 1, 2, 511, 512, 4096, 65536, 65537, 2**31 - 1, 2**31, 2**32 - 1)
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def fuzz(seed: int, folder: Path) -> None:
    """Parse ``CASES`` odd files, then let a daemon meet ``ACTS`` of them."""
    chance = random.Random(seed)
    samples = _samples(folder / "samples")
    for _ in range(CASES):
        parse(chance, changed(chance, chance.choice(samples)))
    place = Place(folder)
    with (
        capture_logs() as log,
        wal_database(place.database("app")) as honest,
        Owner(place.database("odd")) as owner,
        running(place.settings("app", "odd")) as daemon,
    ):
        for number in range(ACTS):
            act(chance, place, owner)
            honest.execute(f"insert into t values ({number + 1})")
            if chance.random() < 0.3:  # otherwise several acts may happen before anybody looks
                place.sync("app")
        place.sync("app")
        assert place.ask(op="status")["databases"]
        assert daemon.crash is None
    faults = [line for line in log if line["event"] == "work_failed"]
    assert not faults, faults


class Owner:
    """SQLite of the odd database's owner. SIGBUS kills it, or it hangs, if its side files are odd enough."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = wal_database(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()

    def execute(self, statement: str) -> None:
        """Run a statement, whatever happens. The next statement has a process that lives."""
        try:
            self._process.begin(statement)
            if self._process.answer(ANSWER_S_MAX):
                return
        except BrokenPipeError:
            pass
        self._process.kill()
        self._process = SqliteProcess(self._path)


# -- what the owner does ----------------------------------------------------------------------------------------------


def act(chance: random.Random, place: Place, owner: Owner) -> None:
    """Let the owner of ``odd`` do something to its side files, or write to it normally."""
    database = place.database("odd")
    side = database.with_name(database.name + chance.choice(SIDES))
    deed = chance.choice(DEEDS)
    if side.is_symlink() and deed in {overwrite, change_length, forbid}:
        return  # these would change what the link leads to, which does not belong to the owner
    with suppress(OSError):
        deed(chance, side, owner)


def write_honestly(chance: random.Random, _side: Path, owner: Owner) -> None:
    """Make a commit, a checkpoint or a change of the mode."""
    owner.execute(
        chance.choice(
            (
                "insert into t values (randomblob(5000))",
                "pragma wal_checkpoint(truncate)",
                "pragma journal_mode=delete",
                "pragma journal_mode=persist",
                "pragma journal_mode=wal",
            )
        )
    )


def overwrite(chance: random.Random, side: Path, _owner: Owner) -> None:
    """Overwrite some bytes in place."""
    size = side.stat().st_size
    with side.open("r+b") as file:
        for _ in range(chance.choice((1, 1, 4))):
            file.seek(chance.randrange(max(1, min(size, chance.choice((200, size + 1))))))
            file.write(chance.choice((chance.randbytes(4), struct.pack(">I", chance.choice(NUMBERS)))))


def replace(chance: random.Random, side: Path, _owner: Owner) -> None:
    """Replace the file by another one, made of the old content."""
    body = changed(chance, _beginning(side))
    _remove(side)
    side.write_bytes(body)


def change_length(chance: random.Random, side: Path, _owner: Owner) -> None:
    """Cut the file, or make it grow by a hole of up to exabytes."""
    os.truncate(side, chance.choice((0, 1, 31, 32, 100, 135, 32768, 1 << 30, 1 << 43, (1 << 63) - 1)))


def put_something_else(chance: random.Random, side: Path, _owner: Owner) -> None:
    """Replace the file by something that is no file."""
    _remove(side)
    kind = chance.choice(("folder", "fifo", "itself", "dangling", "zero", "database", "socketless"))
    match kind:
        case "folder":
            side.mkdir()
        case "fifo":
            os.mkfifo(side)
        case "itself":
            side.symlink_to(side)
        case "dangling":
            side.symlink_to(side.with_name("nowhere"))
        case "zero":
            side.symlink_to("/dev/zero")
        case "database":
            side.symlink_to(side.parent.parent / "app" / "app.db")
        case _:
            side.write_bytes(b"")


def take_away(_chance: random.Random, side: Path, _owner: Owner) -> None:
    """Remove it, whatever it is."""
    _remove(side)


def forbid(chance: random.Random, side: Path, _owner: Owner) -> None:
    """Let nobody read it, or everybody."""
    side.chmod(chance.choice((0, 0o7777)))


DEEDS: list[Callable[[random.Random, Path, Owner], None]] = [
    write_honestly,
    write_honestly,
    overwrite,
    replace,
    change_length,
    put_something_else,
    take_away,
    forbid,
]


def _beginning(path: Path) -> bytes:
    """Return the first MiB of what may be a hole of exabytes, or no file at all."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(1 << 20)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# -- bytes ------------------------------------------------------------------------------------------------------------


def _samples(folder: Path) -> list[bytes]:
    """Return a real -wal, -shm and -journal, and a journal's header alone."""
    folder.mkdir(parents=True)
    with wal_database(folder / "wal.db") as writer:
        writer.execute("insert into t values (randomblob(9000))")
        wal, shm = (folder / "wal.db-wal").read_bytes(), (folder / "wal.db-shm").read_bytes()[:512]
    with SqliteProcess(folder / "journal.db") as writer:
        writer.execute("pragma journal_mode=persist", "create table t (x)", "insert into t values (randomblob(9000))")
        writer.execute("begin immediate", "update t set x = randomblob(8000)")
        writer.execute("pragma cache_spill=1", "commit")
        journal = (folder / "journal.db-journal").read_bytes()
        database = (folder / "journal.db").read_bytes()[:4096]
    head = JOURNAL_MAGIC + struct.pack(">5I", 2**32 - 1, 7, 3, 512, 4096)
    return [wal, shm, journal, database, head.ljust(512, b"\0") + journal[512:]]


def changed(chance: random.Random, body: bytes) -> bytes:
    """Return the bytes with some changes. In some cases the checksums of the headers fit."""
    odd = bytearray(body)
    for _ in range(chance.choice((0, 1, 1, 2, 9))):
        if not odd:
            break
        at = chance.randrange(min(len(odd), chance.choice((136, len(odd)))))
        match chance.randrange(4):
            case 0:
                odd[at] ^= 1 << chance.randrange(8)
            case 1:
                odd[at & ~3 : (at & ~3) + 4] = struct.pack(chance.choice(("<I", ">I")), chance.choice(NUMBERS))
            case 2:
                del odd[at : at + chance.choice((1, 24, 4096))]
            case _:
                odd[at:at] = chance.randbytes(chance.choice((1, 24, 4120)))
    _seal(chance, odd)
    return bytes(odd[: chance.randrange(len(odd) + 1)] if chance.random() < 0.2 else odd)


def _seal(chance: random.Random, odd: bytearray) -> None:
    """Correct the checksums of a WAL's or a wal-index's header, so that its odd fields are believed."""
    if chance.random() < 0.5 and len(odd) >= 32:
        struct.pack_into(">2I", odd, 24, *checksum(bytes(odd[:24]), (0, 0), big_endian=bool(odd[3] & 1)))
    if chance.random() < 0.5 and len(odd) >= WALINDEX_READ_SIZE:
        struct.pack_into("=2I", odd, 40, *checksum(bytes(odd[:40]), (0, 0), big_endian=False))
        odd[48:96] = odd[:48]


def parse(chance: random.Random, body: bytes) -> None:
    """Assert that every parser of side files has an answer."""
    header = parse_wal_header(body)
    if header is not None:
        frames = read_frames(body[32:], header, first=1, start=header.chain)
        assert frames.count == len(frames.data) // header.frame_size
    index = parse_index_header(body)
    assert index is None or index.page_size in (0, *PAGE_SIZES)
    parse_read_marks(body)
    is_unknown_wal(body)
    parse_database_header(body)
    read = reader_of(body)
    page_size = chance.choice(PAGE_SIZES)
    parse_rollback_journal(read, page_size)
    parse_kept_journal(read, len(body), page_size)
    super_journal_name(read, len(body))


def reader_of(body: bytes) -> Callable[[int, int], bytes]:
    """Return a function that reads at an offset, as from a file."""
    return lambda offset, length: body[offset : offset + length]
