"""Odd names, keys and positions: a parser has an answer for each, and none of them controls a terminal."""

from __future__ import annotations

import random
import string
from contextlib import suppress
from pathlib import Path

from walsyncd.core.stored.layout import check_name, default_name, format_key, parse_key
from walsyncd.core.stored.position import is_generation, parse_position
from walsyncd.errors import UsageError, one_line, printable

CASES = 100  # the number of cases for one seed: each takes microseconds
SAMPLES = (
    "20261122T105600Z-3f9c1a2b/base/00000001-0000002a-0badcafe.db.zst",
    "20261122T105600Z-3f9c1a2b/base/00000001-0000002a-0badcafe.00000001-0000002b.1763809000000.json.zst",
    "20261122T105600Z-3f9c1a2b/wal/00000001/00000001-0000002a.1763809000000.00000000.wal.zst",
    "20261122T105600Z-3f9c1a2b/whole/00000001-0000002a.1763809000000.00000000.wal.zst",
    "20261122T105600Z-3f9c1a2b/00000001/0000002a",
    "srv/tenants/app.db",
)
ALPHABETS = (
    string.printable,
    string.hexdigits + "-./TZ",
    "".join(map(chr, range(256))),
    "\u202e\u2028\ud800\udcff\U0010ffff\x00\x1b\x9b/.",
)


def name(rng: random.Random) -> str:
    """Return a name that is almost one of ours, or none at all."""
    if rng.random() < 0.3:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randrange(1200)))
    letters = list(rng.choice(SAMPLES))
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(letters))
        match rng.randrange(3):
            case 0:
                letters[place] = rng.choice(rng.choice(ALPHABETS))
            case 1:
                letters.insert(place, rng.choice(rng.choice(ALPHABETS)))
            case _:
                letters[place : place + rng.randrange(1, 9)] = ["0"]
    return "".join(letters)


def fuzz(seed: int, _folder: Path) -> None:
    """Give ``CASES`` names to every parser of names, and to the function that makes text safe for a terminal."""
    rng = random.Random(seed)
    for _ in range(CASES):
        text = name(rng)
        for check in (check_key, check_position, check_database_name, check_terminal):
            check(text)


def check_key(text: str) -> None:
    """Assert that a key is parsed to what formats to the same text, or refused."""
    key = parse_key(text)
    assert key is None or format_key(key) == text


def check_position(text: str) -> None:
    """Assert that a position is parsed, or refused by UsageError alone."""
    is_generation(text)
    with suppress(UsageError):
        assert str(parse_position(text)) == text


def check_database_name(text: str) -> None:
    """Assert that an accepted name is a folder within the prefix."""
    with suppress(UsageError):
        check_name(text, "hosts/web-1/")
        assert not {"", ".", ".."} & set(text.split("/"))
        assert len(text.encode()) <= 900
    default_name(f"/{text}")


def check_terminal(text: str) -> None:
    """Assert that every text can be printed, and then holds no control character but line feeds."""
    assert all(each.isprintable() or each == "\n" for each in printable(text))
    assert one_line(text).isprintable()
    printable(text).encode()
