"""Makes the man pages and the shell completions from what the program says of itself.

``python packaging/generate.py [FOLDER]`` writes ``man/`` and ``completions/`` into the folder, this one by default. The
command line is the one of ``walsyncd.cli``; the configuration's keys are those of ``config.example.toml``, with the
comments above them; the pages of section 7 are Markdown beside them, which people read on the web. What is committed
has to be what this makes: a test compares.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import shtab

from walsyncd import __version__
from walsyncd.cli import COMMANDS, build_parser

PACKAGING = Path(__file__).parent
EXAMPLE = PACKAGING.parent / "config.example.toml"
KEY = re.compile(r"^(?:# )?([a-z0-9_]+) = (.+)$")
RELOAD = """.TP
.B SIGHUP
Read the configuration again; if the new one is wrong, the log says why, and the old one stays in force."""


def main(folder: Path) -> None:
    """Write everything below ``folder``."""
    parsers = {name: _command_parser(name) for name in COMMANDS}
    values = {
        "VERSION": __version__,
        "COMMANDS": "\n".join(line for name in COMMANDS for line in _command(name, parsers[name])),
        "EXIT_CODES": "\n".join(_exit_codes(parsers["run"])),
        "SIGNALS": RELOAD if "reload" in COMMANDS else "",
        "KEYS": "\n".join(_keys(EXAMPLE.read_text())),
    }
    for template in sorted((PACKAGING / "man").glob("*.in")):
        page = re.sub("@([A-Z_]+)@", lambda found: values[found[1]], template.read_text())
        _write(folder / "man" / template.stem, re.sub("\n\n+", "\n", page) if "EXAMPLE" not in page else page)
    for page in sorted((PACKAGING / "man").glob("*.7.md")):
        _write(folder / "man" / page.stem, "\n".join(_page(page.read_text())))
    whole = build_parser(*COMMANDS)
    _complete_files(whole)
    _write(folder / "completions" / "walsyncd.bash", shtab.complete(whole, "bash"))
    _write(folder / "completions" / "_walsyncd", shtab.complete(whole, "zsh"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n")


def _command_parser(name: str) -> argparse.ArgumentParser:
    return _subparsers(build_parser(name))[name]


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell the completions which values are names of files."""
    for action in parser._actions:
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    for command in _subparsers(parser).values():
        _complete_files(command)


# -- walsyncd(8) -----------------------------------------------------------------------------------------------------


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=10_000)
    usage = parser.format_usage().removeprefix("usage: ").strip().replace(" [-h]", "")
    yield f".SS {_roff(name)}"
    yield f".B {_roff(usage)}"
    yield ".PP"
    yield _text(parser.description or COMMANDS[name].summary)
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or action.dest.upper() if action.nargs != 0 else ""
        title = ", ".join(action.option_strings)
        yield ".TP"
        yield f".BI {_quoted(title + ' ')} {_quoted(str(value))}" if title else f".I {_roff(str(value))}"
        yield _text(action.help or "")


def _exit_codes(parser: argparse.ArgumentParser) -> Iterator[str]:
    for code, meaning in re.findall(r"^  (\d+)  (.+)$", parser.epilog or "", re.MULTILINE):
        yield ".TP"
        yield f".B {code}"
        yield _text(meaning)


# -- walsyncd.toml(5) ------------------------------------------------------------------------------------------------


@dataclass
class _Entry:
    """Keys that stand together below one comment; without keys it is a comment on all that follows."""

    section: str
    said: list[str] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)


def _keys(example: str) -> Iterator[str]:
    """Each section and key of the example, with the comment above it."""
    entries = [entry for entry in _entries(example) if entry.section]
    for section in dict.fromkeys(entry.section for entry in entries):
        own = [entry for entry in entries if entry.section == section]
        yield f".SH {_quoted(section)}"
        for entry in own:
            if entry.keys and not entry.said:
                continue  # an example of what was explained
            for number, (name, value) in enumerate(entry.keys):
                yield ".TQ" if number else ".TP"
                yield f".BR {_quoted(name)} {_quoted(' = ' + value)}"
            if not entry.keys:
                yield ".PP"
            yield _text(" ".join(entry.said))


def _entries(example: str) -> Iterator[_Entry]:
    entry = _Entry("")
    for line in (*example.splitlines(), ""):
        found = KEY.match(line)
        if found:
            entry.keys.append((found[1], found[2]))
            continue
        if (not line or entry.keys) and (entry.keys or entry.said):
            yield entry
            entry = _Entry(entry.section)
        if line.startswith("["):
            entry = _Entry(line)
        elif line:
            entry.said.append(line.removeprefix("#").strip())


# -- section 7, from Markdown ------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"^(\d+)\. ")


def _page(text: str) -> Iterator[str]:
    """A page in roff. It knows headings, paragraphs, fenced blocks, lists, tables, and what stands inside a line."""
    title, _, body = text.partition("\n")
    name, subject = re.match(r"# (\S+)\(7\): (.*)", title).groups()  # type: ignore[union-attr]
    yield f'.TH {name.upper()} 7 "" "walsyncd {__version__}" "Miscellaneous"'
    yield ".SH NAME"
    yield f"{name} \\- {_roff(subject)}"
    if not body.lstrip().startswith("## "):
        yield ".SH DESCRIPTION"
    for block in re.findall(r"```\w*\n.*?^```$|(?:^(?!```)[^\n]+\n?)+", body, re.MULTILINE | re.DOTALL):
        yield from _block(block.rstrip("\n"))
    yield ".SH SEE ALSO"
    yield ".BR walsyncd (8),"
    yield ".BR walsyncd.toml (5)"


def _block(block: str) -> Iterator[str]:
    lines = block.splitlines()
    if block.startswith("```"):
        yield from (".PP", ".RS", ".EX")
        yield from (line if not line.startswith((".", "'")) else f"\\&{line}" for line in map(_roff, lines[1:-1]))
        yield from (".EE", ".RE")
    elif block.startswith("#"):
        level, _, heading = block.partition(" ")
        yield f"{'.SH' if level == '##' else '.SS'} {_quoted(heading)}"
    elif block.startswith("|"):
        rows = [[_inside(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
        for row in rows[2:]:
            yield ".TP"
            yield _line(row[0])
            yield _line("; ".join(f"{head}: {cell}" for head, cell in zip(rows[0][1:], row[1:], strict=True) if cell))
    elif block.startswith("- ") or _NUMBER.match(block):
        for item in re.split(r"\n(?=- |\d+\. )", block):
            number = _NUMBER.match(item)
            yield f'.IP "{number[1]}." 4' if number else ".IP \\(bu 2"
            yield _line(_inside(" ".join(item[number.end() if number else 2 :].split())))
    else:
        yield ".PP"
        yield _line(_inside(" ".join(lines)))


def _inside(text: str) -> str:
    """Bold and code as fonts; a link is its text."""
    text = _roff(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text))
    text = re.sub(r"\*\*(.+?)\*\*", r"\\fB\1\\fR", text)
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text)


def _line(text: str) -> str:
    return f"\\&{text}" if text[:1] in {".", "'"} else text


# -- roff ------------------------------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def _quoted(text: str) -> str:
    return '"' + _roff(text).replace('"', "\\(dq") + '"'


def _text(text: str) -> str:
    """A paragraph; a line that begins with a dot or a quote would be a request."""
    line = _roff(text.replace("%%", "%").replace("`", "")).strip()
    return "\\&" + line if line[:1] in {".", "'"} else line


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGING)
