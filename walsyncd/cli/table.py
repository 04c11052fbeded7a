"""Prints for people and programs: tables by rich on a terminal, plain columns of full width in a pipe, and JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from walsyncd.errors import one_line, printable


def say(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a line for people. Foreign text (names, paths, a store's messages) can't control the terminal."""
    print(printable(text), file=file, flush=flush)


def json_text(facts: object, *, indent: int | None = 2) -> str:
    """Return facts as JSON. Letters are not escaped, but characters that could control a terminal are JSON escapes.

    A program that parses the JSON gets the original text.
    """
    lines = json.dumps(facts, indent=indent, ensure_ascii=False).split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_json_letter, line)) for line in lines)


def _json_letter(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, like ``1 object`` or ``2 objects``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def is_too_wide(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether cells would have to be folded on this terminal. In a pipe the length of lines is not limited."""
    wanted = sum(_widths(headings, rows)) + 2 * (len(headings) - 1)
    return sys.stdout.isatty() and wanted > shutil.get_terminal_size().columns


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(headings, *rows, strict=True)]


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their headings. In a pipe nothing is cut or wrapped."""
    print("\n".join(table_lines(headings, rows)))


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines that ``print_table`` prints. Foreign text in a cell can't control the terminal."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        return _rich_lines(headings, rows)
    widths = _widths(headings, rows)
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def _rich_lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.console import Console  # noqa: PLC0415 - a command is light until it runs
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a name may contain characters that rich would interpret as markup
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()
