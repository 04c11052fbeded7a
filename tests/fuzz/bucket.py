"""A bucket that a stranger has written to: names and bodies of every odd kind, beside those of a real replica.

Whatever the bucket holds, every command ends with an answer, and a restore to a position gives exactly what was stored
there. Retention deletes nothing because of an object that it can't read: what could be restored before can be restored
after.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.replicas import BEGAN_MS, NEXT_GENERATION, ReplicaMaker, make_replica
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.keep.retention import DAY_MS, Policy
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Target
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.owner import parse_owner
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.restore.inventory import inventory
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.replica import Replica, find_replicas
from walsyncd.engine.restore.restorer import restore_request
from walsyncd.engine.restore.verifier import verify
from walsyncd.engine.upkeep.base_examination import BaseExamination
from walsyncd.engine.upkeep.pruner import list_folder, trustworthy_pruning
from walsyncd.errors import WalsyncdError

NAME = "srv/app.db"
Bodies = dict[str, bytes]
GENERATIONS = [
    "20261322T105600Z-3f9c1a2b",
    "99991231T235959Z-ffffffff",
    "22851231T000000Z-ffffffff",
    "00000101T000000Z-00000000",
    "20261231T000000Z-00000000",
    "20261122T105600Z-00000000",
]


class BrokenPromiseError(AssertionError):
    """A promise of walsyncd was broken."""


@dataclass(frozen=True, slots=True)
class Original:
    """A replica before anybody touched it: its objects by name, and each position's file."""

    bodies: Bodies
    files: dict[Position, bytes]
    times: tuple[int, ...]


@cache
def original() -> Original:
    """Return two bases, three epochs, one of them whole, a bridge, and a second generation."""
    with tempfile.TemporaryDirectory() as folder, make_replica(Path(folder), name=NAME) as maker:
        files: dict[Position, bytes] = {}
        maker.base()
        _commits(maker, 3, files)
        maker.close_epoch()
        maker.compact()
        maker.bridge()
        files[maker.position] = maker.file()
        _commits(maker, 2, files)
        maker.base()
        _commits(maker, 2, files)
        maker.begin_generation(NEXT_GENERATION)
        maker.base()
        _commits(maker, 2, files)
        root = maker.root / NAME
        bodies = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        bodies["owner.json"] = b'{"host": "h", "machine_id": "m", "run_id": "r", "since": "2026-11-22T10:56:00+00:00"}'
        return Original(bodies, files, tuple(each.time_ms for each in maker.history))


def _commits(maker: ReplicaMaker, count: int, files: dict[Position, bytes]) -> None:
    files.setdefault(maker.position, maker.file())
    for _ in range(count):
        maker.commit(rows=2)
        maker.ship()
        files[maker.position] = maker.file()


def fuzz(seed: int, folder: Path) -> None:
    """Change one bucket in some places, then read, restore, verify and prune it."""
    chance = random.Random(seed)
    truth = original()
    bodies = dict(truth.bodies)
    for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
        chance.choice(CHANGES)(chance, bodies)
    root = folder / "bucket"
    for name, body in bodies.items():
        path = root / NAME / name
        with suppress(OSError):  # a folder has the file's path, or the name is too long
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    storage = DirectoryStorage(root)
    read_all(storage)
    before = restored(storage, truth, folder, chance)
    prune(storage, chance)
    after = _restore(Replica(storage, NAME), Head(), folder / "after.db", truth)
    if before is not None and after is None:
        raise BrokenPromiseError(f"the head could be restored before the pruning ({before}), and not after it")


def read_all(storage: DirectoryStorage) -> None:
    """Run everything that lists or reads. A WalsyncdError is an answer."""
    replica = Replica(storage, NAME)
    found = find_replicas(storage)
    if NAME not in found:
        raise BrokenPromiseError(f"{NAME} is not found among {found}")
    with suppress(WalsyncdError):
        inventory(replica, count_commits=True)
    with suppress(WalsyncdError):
        verify(replica)
    with suppress(WalsyncdError):
        parse_owner(storage.get(f"{NAME}/owner.json"))


def restored(storage: DirectoryStorage, truth: Original, folder: Path, chance: random.Random) -> Position | None:
    """Restore some targets. Return what the head was, if it could be restored."""
    targets: list[Target] = [AtPosition(chance.choice(list(truth.files))), AtTime(chance.choice(truth.times))]
    for number, target in enumerate(targets):
        _restore(Replica(storage, NAME), target, folder / f"{number}.db", truth)
    return _restore(Replica(storage, NAME), Head(), folder / "head.db", truth)


def _restore(replica: Replica, target: Target, out: Path, truth: Original) -> Position | None:
    try:
        reached = restore_request(replica, RestoreRequest(target), out).plan.reached.position
    except WalsyncdError:
        return None
    if reached not in truth.files or out.read_bytes() != truth.files[reached]:
        raise BrokenPromiseError(f"{target} became {reached}, and the file is not what was stored there")
    return reached


def prune(storage: DirectoryStorage, chance: random.Random) -> None:
    """Prune at a time at which all of it is old."""
    modified_ms = max((info.modified_ms for info in storage.list("")), default=BEGAN_MS)
    now_ms = modified_ms + chance.choice([0, DAY_MS, 40 * DAY_MS])
    try:
        folder = list_folder(storage, NAME)
        told = trustworthy_pruning(
            storage,
            folder,
            Policy(DAY_MS),
            now_ms=now_ms,
            journal=None,
            row=None,
            name=NAME,
            examination=BaseExamination(),
        ).told
    except WalsyncdError:
        return
    for step in told.steps:
        storage.delete([f"{NAME}/{format_key(key)}" for key in step])


# -- what a stranger does ---------------------------------------------------------------------------------------------


def _pick(chance: random.Random, bodies: Bodies) -> str:
    return chance.choice(sorted(bodies))


def flip(chance: random.Random, bodies: Bodies) -> None:
    """Flip some bits of an object."""
    name = _pick(chance, bodies)
    body = bytearray(bodies[name])
    for _ in range(chance.choice([1, 1, 9]) if body else 0):
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    bodies[name] = bytes(body)


def cut(chance: random.Random, bodies: Bodies) -> None:
    """Cut an object, or add bytes to it."""
    name = _pick(chance, bodies)
    body = bodies[name]
    bodies[name] = body[: chance.randrange(len(body) + 1)] if chance.random() < 0.7 else body + body[:99]


def lose(chance: random.Random, bodies: Bodies) -> None:
    """Delete an object."""
    bodies.pop(_pick(chance, bodies))
    bodies.setdefault("owner.json", b"")


def replace_body(chance: random.Random, bodies: Bodies) -> None:
    """Replace an object's whole content."""
    bodies[_pick(chance, bodies)] = chance.choice(list(odd_bodies(chance)))


def odd_bodies(chance: random.Random) -> Iterator[bytes]:
    """Yield bodies of every odd kind."""
    yield from (b"", b"{}", chance.randbytes(chance.randrange(300)), b"[" * 100_000, b"\xff\xfe" * 50)
    yield zstd.compress(b"[" * 200_000)
    yield zstd.compress(bytes(9 << 20))
    yield zstd.compress(b'{"format": 2, "ranges": ' + b"9" * 9000 + b"}")
    frame = zstd.compress(b"x", options={zstd.CompressionParameter.checksum_flag: 1})
    yield frame + b"\x5e\x2a\x4d\x18\xff\xff\xff\x03" + bytes(1000)
    yield frame + b"\x5e\x2a\x4d\x18\xff\xff\xff\xff"


def change_manifest(chance: random.Random, bodies: Bodies) -> None:
    """Change a field of a manifest."""
    names = [name for name in sorted(bodies) if name.endswith(".json.zst")]
    if not names:
        return
    name = chance.choice(names)
    try:
        fields = json.loads(zstd.decompress(bodies[name]))
    except (ValueError, RecursionError, zstd.ZstdError):
        return
    if not isinstance(fields, dict) or not fields:
        return
    odd: list[object] = [
        -1,
        0,
        1,
        1 << 40,
        1 << 70,
        1.5,
        None,
        [],
        {},
        "",
        "\ud800",
        "\x1b[2J",
        "x" * 5000,
        [[0, 0, 0, 0, ""]],
        True,
    ]
    fields[chance.choice(sorted(fields))] = chance.choice(odd)
    bodies[name] = zstd.compress(json.dumps(fields).encode(), options={zstd.CompressionParameter.checksum_flag: 1})


def rename(chance: random.Random, bodies: Bodies) -> None:
    """Give an object another name, or a second one."""
    name = _pick(chance, bodies)
    body = bodies[name] if chance.random() < 0.5 else bodies.pop(name)
    bodies[_other_name(chance, name)] = body
    bodies.setdefault("owner.json", b"")


def plant(chance: random.Random, bodies: Bodies) -> None:
    """Store garbage under a name of ours."""
    bodies[_other_name(chance, _pick(chance, bodies))] = chance.choice(list(odd_bodies(chance)))


def _other_name(chance: random.Random, name: str) -> str:
    """Return the name with another generation, or with some digits changed, or something that is no name of ours."""
    generation, _, rest = name.partition("/")
    digits = list(rest)
    for _ in range(chance.choice([1, 1, 2, 8])):
        places = [at for at, letter in enumerate(digits) if letter in "0123456789abcdef"]
        if places:
            digits[chance.choice(places)] = chance.choice("000001289abcdef")
    return chance.choice(
        [
            f"{chance.choice(GENERATIONS)}/{rest or 'x'}",
            f"{generation}/{''.join(digits) or 'x'}",
            f"{generation}/{''.join(digits) or 'x'}",
            f"{generation}/{rest.replace('.wal.zst', '.bridge.wal.zst') or 'x'}",
            f"{generation}/{rest.replace('.bridge', '') or 'x'}",
            f"{generation}/base/\udcff\x1b[2J\n",
            f"{chance.choice(GENERATIONS)}/{chance.choice(GENERATIONS)}/base/x",
            f"{generation}/pruned/00000001-{chance.choice(['00000001', '00000002', 'ffffffff'])}.1795344960000.json",
        ]
    )


CHANGES: list[Callable[[random.Random, Bodies], None]] = [
    flip,
    cut,
    lose,
    replace_body,
    change_manifest,
    rename,
    plant,
]
