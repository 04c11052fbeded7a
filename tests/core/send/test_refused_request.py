"""Tests of refused requests, which are sent again after a time that depends on their purpose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.refused_request import Refused, refused_wait_s


def test_an_object_waits_a_second_and_then_half_a_minute_at_most() -> None:
    """A refusal that passes by itself costs a second. After that the wait doubles up to its limit and stays there."""
    waits = [refused_wait_s(Refused.OBJECT, earlier) for earlier in (0, 1, 4, 5, 10_000)]
    assert waits == [1.0, 2.0, 16.0, 30.0, 30.0]


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_half_of_the_wait_is_random(earlier: int, fraction: float) -> None:
    """Databases that were refused together are spread over the second half of the wait."""
    longest = refused_wait_s(Refused.OBJECT, earlier)
    assert longest / 2 <= refused_wait_s(Refused.OBJECT, earlier, fraction=fraction) <= longest


@pytest.mark.parametrize(("refused", "wait_s"), [(Refused.BASE, 30.0), (Refused.DELETION, 3600.0)])
def test_bases_and_deletions_wait_as_long_each_time(refused: Refused, wait_s: float) -> None:
    """A person has to change something first, and nothing waits for a deletion."""
    assert [refused_wait_s(refused, earlier) for earlier in (0, 1, 50)] == [wait_s] * 3
