"""Tests of walsyncd.core.follow.other_path."""

from __future__ import annotations

import pytest

from walsyncd.core.follow.other_path import FORGOTTEN_MS, OtherPath


def after(*moments_ms: int) -> OtherPath:
    found = OtherPath()
    for moment_ms in moments_ms:
        found = found.seen(moment_ms)
    return found


@pytest.mark.parametrize(
    ("moments_ms", "certain"),
    [
        ((), False),
        ((0,), False),
        ((0, 5_000), False),  # two are not enough, however far apart
        ((0, 1_000, 2_000), False),  # three that are too close
        ((0, 1_000, 2_000, 3_000), True),
        ((0, 1_500, 3_000), True),
        ((0, 100, 200, 300, 400, 3_000), False),  # one second has one sign
        ((0, 1_000, 1_999, 2_999), False),
        ((0, 1_000, 2_000, 2_000 + FORGOTTEN_MS + 1), False),
    ],
)
def test_how_many_signs_are_certain(moments_ms: tuple[int, ...], *, certain: bool) -> None:
    """At least three signs, a second apart, over at least three seconds are certain."""
    assert after(*moments_ms).is_certain is certain


def test_a_look_without_a_sign_says_nothing_for_a_while() -> None:
    """An application that opens and closes the database is seldom seen.

    After ten minutes without a sign the suspicion ends.
    """
    found = after(0, 1_500, 3_000)
    assert found.unseen(3_000 + FORGOTTEN_MS).is_certain
    assert found.unseen(3_001 + FORGOTTEN_MS) == OtherPath()
