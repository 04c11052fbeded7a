"""Keys: format and parse are inverse, foreign names are left alone, and text sorts like positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.layout import (
    BaseKey,
    Key,
    ManifestKey,
    PrunedKey,
    SegmentKey,
    WholeKey,
    before_epoch,
    check_name,
    default_name,
    folder_key,
    format_key,
    parse_key,
    wal_folder,
)
from walsyncd.errors import UsageError

G = "20261122T105600Z-3f9c1a2b"

u32 = st.integers(0, 2**32 - 1)
times = st.integers(0, 10**13 - 1)
epochs = st.integers(1, 2**32 - 1)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    epoch, time_ms = draw(epochs), draw(times)
    first, last = sorted([draw(st.integers(1, 2**32 - 1)), draw(st.integers(1, 2**32 - 1))])
    previous = draw(u32) if epoch > 1 else 0
    base = BaseKey(G, epoch, draw(u32), f"{draw(u32):08x}")
    kinds: list[Key] = [
        SegmentKey(G, epoch, first, last, time_ms, previous if first == 1 else None),
        SegmentKey(G, epoch, 1, last, time_ms, previous, draw(st.booleans())),
        WholeKey(G, epoch, last, time_ms, previous, draw(st.booleans())),
        base,
        ManifestKey(base, epoch, max(base.frame, last), time_ms),
        PrunedKey(G, first, last, time_ms),
    ]
    return draw(st.sampled_from(kinds))


@given(keys())
def test_parse_is_the_inverse_of_format(key: Key) -> None:
    """Every key comes back from its text."""
    assert parse_key(format_key(key)) == key


@given(keys(), st.integers(0, 300), st.characters(min_codepoint=32, max_codepoint=126))
def test_a_changed_letter_is_another_key_or_none(key: Key, at: int, letter: str) -> None:
    """No changed text is read as a key, unless it is how that key is written."""
    text = format_key(key)
    changed = text[: at % len(text)] + letter + text[at % len(text) + 1 :]
    parsed = parse_key(changed)
    assert parsed is None or format_key(parsed) == changed


def test_texts_are_those_of_the_design() -> None:
    """The names are documented, and tools and people rely on them."""
    base = BaseKey(G, 7, 0x2A, "0badcafe")
    texts: dict[Key, str] = {
        SegmentKey(
            G, 7, 1, 0x200, 1795344960000, 0x1FF
        ): "wal/00000007/00000001-00000200.1795344960000.000001ff.wal.zst",
        SegmentKey(G, 7, 2, 0x200, 1795344960000): "wal/00000007/00000002-00000200.1795344960000.wal.zst",
        WholeKey(G, 7, 0x200, 1795344960000, 0x1FF): "whole/00000007-00000200.1795344960000.000001ff.wal.zst",
        SegmentKey(
            G, 7, 1, 0x200, 1795344960000, 0x1FF, bridge=True
        ): "wal/00000007/00000001-00000200.1795344960000.000001ff.bridge.wal.zst",
        WholeKey(
            G, 7, 0x200, 1795344960000, 0x1FF, bridge=True
        ): "whole/00000007-00000200.1795344960000.000001ff.bridge.wal.zst",
        base: "base/00000007-0000002a-0badcafe.db.zst",
        ManifestKey(base, 7, 0x2B, 1795344960000): (
            "base/00000007-0000002a-0badcafe.00000007-0000002b.1795344960000.json.zst"
        ),
        PrunedKey(G, 1, 6, 1795344960000): "pruned/00000001-00000006.1795344960000.json",
    }
    assert {key: f"{G}/{text}" for key, text in texts.items()} == {key: format_key(key) for key in texts}


@pytest.mark.parametrize(
    "text",
    [
        "owner.json",
        "",
        f"{G}/wal/00000000/00000001-00000002.1795344960000.00000000.wal.zst",
        f"{G}/wal/00000001/00000001-00000002.1795344960000.00000001.wal.zst",
        f"{G}/wal/00000002/00000001-00000002.1795344960000.wal.zst",
        f"{G}/wal/00000002/00000002-00000003.1795344960000.00000001.wal.zst",
        f"{G}/wal/00000002/00000003-00000002.1795344960000.wal.zst",
        f"{G}/wal/00000002/00000002-0000000A.1795344960000.wal.zst",
        f"{G}/wal/00000002/00000002-0000000a.1795344960000.wal.zst\n",
        f"{G}/wal/00000002/00000002-0000000a.1795344960000.bridge.wal.zst",
        f"{G}/wal/00000002/00000001-0000000a.1795344960000.bridge.wal.zst",
        f"{G}/wal/00000002/00000001-0000000a.1795344960000.00000001.wal.zst.bridge",
        f"{G}/wal/00000002/00000001-0000000a.1795344960000.00000001.bridge.bridge.wal.zst",
        f"{G}/base/00000002-00000002-00000000.00000002-00000001.1795344960000.json.zst",
        f"{G}/whole/00000001-00000002.1795344960000.00000001.wal.zst",
        f"{G}/pruned/00000002-00000001.1795344960000.json",
        f"srv/{G}/base/00000002-00000002-00000000.db.zst",
    ],
)
def test_what_does_not_fit_is_foreign(text: str) -> None:
    """A key that breaks a rule of the grammar is foreign."""
    assert parse_key(text) is None


@given(st.lists(st.tuples(epochs, st.integers(1, 2**32 - 1)), min_size=2, max_size=2))
def test_segments_sort_like_positions(pairs: list[tuple[int, int]]) -> None:
    """A LIST of ``wal/`` comes in the order of epoch and frame."""
    texts = [format_key(SegmentKey(G, epoch, first, 2**32 - 1, 0, 0 if first == 1 else None)) for epoch, first in pairs]
    assert (texts[0] < texts[1]) == (pairs[0] < pairs[1])


@given(epochs, epochs)
def test_listing_after_begins_with_the_epoch(epoch: int, other: int) -> None:
    """A listing after ``before_epoch`` has that epoch and later ones, and no earlier one."""
    folder = wal_folder(G)
    text = format_key(SegmentKey(G, other, 2, 3, 0))
    assert (text > before_epoch(folder, epoch)) == (other >= epoch)


@pytest.mark.parametrize("name", ["app", "srv/app.db", "a" * 255, "ä/ö", "a b/c.d"])
def test_good_names_pass(name: str) -> None:
    """Any ordinary path is a good name."""
    check_name(name, "hosts/web-1")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "empty path segment"),
        ("/app", "empty path segment"),
        ("app/", "empty path segment"),
        ("a//b", "empty path segment"),
        ("a/../b", r"'\.\.'"),
        ("./b", r"'\.'"),
        ("ä" * 128, "more than 255 bytes"),
        (f"app/{G}", "means something else"),
        ("app/owner.json", "means something else"),
        ("home/.walsyncd/app.db", "keeps for itself"),
        ("a\nb", "control character"),
        ("\udcff", "not UTF-8"),
        ("/".join(["a" * 99] * 9), "takes 902 bytes"),
    ],
)
def test_bad_names_are_refused_with_the_reason(name: str, fault: str) -> None:
    """A name that can't be a folder of a replica is a usage error that gives the reason."""
    with pytest.raises(UsageError, match=fault):
        check_name(name, "pr" if len(name) > 800 else "")


def test_default_name_is_the_path_without_its_slash() -> None:
    """A database without a configured name is named by its path."""
    assert default_name("/var/lib/app/app.db") == "var/lib/app/app.db"


def test_keys_lie_in_the_databases_folder() -> None:
    """Keys lie in the database's folder, or in the storage's root if that is the folder."""
    assert folder_key("a/b", "owner.json") == "a/b/owner.json"
    assert folder_key("", "owner.json") == "owner.json"
    assert (folder_key("a", ""), folder_key("", "")) == ("a/", "")
