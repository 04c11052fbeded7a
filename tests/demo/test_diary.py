from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.demo.diary import Entry, counter_at, format_entry, parse_diary, read_diary

ENTRIES = st.lists(st.builds(Entry, st.integers(0, 2**63), st.integers(0, 2**45)))


@given(ENTRIES)
def test_format_and_parse_are_inverse(entries: list[Entry]) -> None:
    """This holds line by line, and for all lines together."""
    assert parse_diary("".join(map(format_entry, entries))) == entries


@given(ENTRIES.filter(bool), st.data())
def test_a_line_that_is_being_written_does_not_count(entries: list[Entry], data: st.DataObject) -> None:
    """The diary may be cut anywhere within the last line, and the others are read."""
    text = "".join(map(format_entry, entries))
    cut = data.draw(st.integers(len(text) - len(format_entry(entries[-1])), len(text) - 1))
    assert parse_diary(text[:cut]) == entries[:-1]


@pytest.mark.parametrize(("time_ms", "counter"), [(99, 0), (100, 1), (150, 1), (200, 3), (10**6, 4)])
def test_a_moment_has_the_last_commit_at_or_before_it(time_ms: int, counter: int) -> None:
    """Of several commits in one millisecond the last one counts. Before the first commit the result is 0."""
    entries = [Entry(1, 100), Entry(2, 200), Entry(3, 200), Entry(4, 300)]
    assert counter_at(entries, time_ms) == counter


def test_a_diary_not_yet_begun_is_empty(tmp_path: Path) -> None:
    """The application may not have committed anything yet."""
    assert read_diary(tmp_path / "absent.txt") == []
    (tmp_path / "diary.txt").write_text(format_entry(Entry(1, 2)))
    assert read_diary(tmp_path / "diary.txt") == [Entry(1, 2)]
