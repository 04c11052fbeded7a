"""Tables and sizes for people."""

from __future__ import annotations

import pytest

from walsyncd.cli.table import _rich_lines, counted, format_bytes, print_table


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their longest cell, and no line ends in spaces."""
    print_table(("NAME", "STATE"), [("a" * 200, "ok"), ("b", "")])
    assert capsys.readouterr().out.splitlines() == ["NAME" + " " * 198 + "STATE", "a" * 200 + "  ok", "b"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 50, "3072.0 TiB")]
)
def test_sizes_are_told_in_the_largest_unit_that_they_fill(size: int, text: str) -> None:
    """As every other tool of the system does."""
    assert format_bytes(size) == text


def test_one_is_not_many() -> None:
    """As people write it."""
    assert [counted(count, "object") for count in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]


def test_a_name_is_never_markup() -> None:
    """A table on a terminal shows names as they are."""
    assert "[red]" in "".join(_rich_lines(("NAME",), [("[red]a[/]",)]))
