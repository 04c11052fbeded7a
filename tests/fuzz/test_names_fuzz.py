"""Names, keys and positions that others chose: a parser has an answer for each, and no terminal is steered by one."""

from __future__ import annotations

import random
import string
from contextlib import suppress

from tests.fuzz.seeds import fuzz
from walsyncd.core.stored.layout import check_name, default_name, format_key, parse_key
from walsyncd.core.stored.position import is_generation, parse_position
from walsyncd.errors import UsageError, one_line, printable

CASES = 3000
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
    """A name that is nearly one of ours, or is none at all."""
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


def test_a_key_is_parsed_to_what_formats_to_it_or_is_none() -> None:
    """A name in the bucket is a claim."""

    def case(rng: random.Random) -> None:
        text = name(rng)
        key = parse_key(text)
        assert key is None or format_key(key) == text

    fuzz(case, cases=CASES)


def test_a_position_is_parsed_or_refused() -> None:
    """By UsageError alone."""

    def case(rng: random.Random) -> None:
        text = name(rng)
        is_generation(text)
        with suppress(UsageError):
            assert str(parse_position(text)) == text

    fuzz(case, cases=CASES)


def test_a_database_s_name_is_taken_or_refused() -> None:
    """What is taken is a folder within the prefix."""

    def case(rng: random.Random) -> None:
        text = name(rng)
        with suppress(UsageError):
            check_name(text, "hosts/web-1/")
            assert not {"", ".", ".."} & set(text.split("/"))
            assert len(text.encode()) <= 900
        default_name(f"/{text}")

    fuzz(case, cases=CASES)


def test_no_text_steers_a_terminal() -> None:
    """Whatever it is, it can be printed, and holds no control character but line feeds."""

    def case(rng: random.Random) -> None:
        text = name(rng)
        assert all(each.isprintable() or each == "\n" for each in printable(text))
        assert one_line(text).isprintable()
        printable(text).encode()

    fuzz(case, cases=CASES)
