"""The command line: one module for each command, imported only when that command is run.

A command's module has two functions and is cheap to import (what the engine needs is imported in ``run``)::

    def add_arguments(parser: argparse.ArgumentParser) -> None: ...
    def run(args: argparse.Namespace) -> int: ...          # the exit code

Results go to stdout, everything else to stderr. This is the only place where an error ends a command.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from walsyncd import __version__
from walsyncd.errors import UsageError, WalsyncdError, printable

if TYPE_CHECKING:  # importing pydantic takes as long as all other imports here together
    from walsyncd.config import Settings

EXIT_CODES = """exit codes:
  0  done
  1  failed
  2  usage or configuration
  3  nothing to restore
  4  the target can't be reached"""

INTERRUPTED = 130  # 128 + SIGINT, as in shells
GARBAGE_AFTER = 100_000  # new objects; most of them stay, and collecting earlier takes a tenth of a command's time


@dataclass(frozen=True, slots=True)
class Command:
    """The line of a command in the help. If ``reads_config`` is set, the command has the option ``--config``."""

    summary: str
    example: str
    reads_config: bool = True


COMMANDS = {
    "run": Command("replicate, in the foreground", "walsyncd run --config /etc/walsyncd/config.toml"),
    "exec": Command(
        "restore what is missing, then run a command with the daemon beside it",
        "walsyncd exec -- myapp",
    ),
    "check": Command("check configuration, files and storage, and report every problem", "walsyncd check"),
    "status": Command("show each database: state, position, lag, spool, last error", "walsyncd status --json"),
    "reload": Command("have the daemon read its configuration again", "walsyncd reload"),
    "sync": Command("ship what is committed now, and wait until it is stored", "walsyncd sync srv/app.db"),
    "snapshot": Command("make a new base now", "walsyncd snapshot srv/app.db"),
    "scrub": Command("compare live files with what the replicas hold, now", "walsyncd scrub srv/app.db"),
    "takeover": Command(
        "write again, in a new generation, to databases that another daemon has taken over",
        "walsyncd takeover srv/app.db",
    ),
    "ls": Command("list databases, generations, bases, covered time, sizes", "walsyncd ls srv/app.db"),
    "restore": Command(
        "write a database as it was at any commit",
        'walsyncd restore srv/app.db -o /srv/restored/app.db --at "2026-11-22 10:56:00"',
    ),
    "verify": Command("read a whole replica and check every object and chain", "walsyncd verify srv/app.db"),
    "prune": Command("remove what retention does not keep, or show what would be removed", "walsyncd prune --dry-run"),
    "forget": Command(
        "delete the whole replica of a database that is no longer followed", "walsyncd forget srv/tenants/gone/data.db"
    ),
    "demo": Command("show everything on this machine, with a folder as storage", "walsyncd demo", reads_config=False),
}


class CommandModule(Protocol):
    """A module of this package that implements a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's own arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit code."""


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in the form of all other errors."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` shows what it takes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (without the program's name) and return the exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except WalsyncdError as error:
        _say(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe of our stdout. Python flushes stdout again at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def settings_from(args: argparse.Namespace) -> Settings:
    """Return the configuration that ``--config`` names. Raises UsageError, which says what is wrong in the file."""
    from walsyncd.config import load  # noqa: PLC0415  see above

    config: Path | None = args.config
    return load(config)


def build_parser(*chosen: str) -> argparse.ArgumentParser:
    """Return the parser of all commands. Only the commands in ``chosen`` are imported and have their arguments."""
    parser = _Parser(
        prog="walsyncd",
        description="Replicates SQLite databases to object storage: every commit accounted for.",
        epilog=f"example:\n  walsyncd check --config ./config.toml\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"walsyncd {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in chosen:
            _add_arguments(own, name)
    return parser


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    module = _module(name)
    if COMMANDS[name].reads_config:
        parser.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="the configuration (default: $WALSYNCD_CONFIG, else /etc/walsyncd/config.toml)",
        )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _run(argv: Sequence[str]) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen != "run":
        gc.set_threshold(GARBAGE_AFTER)
    try:
        args = build_parser(*([chosen] if chosen in COMMANDS else [])).parse_args(argv)
    except SystemExit as stop:  # --help and --version have been printed
        return int(stop.code or 0)
    code: int = args.run(args)
    return code


def _module(name: str) -> CommandModule:
    return cast("CommandModule", importlib.import_module(f"{__name__}.commands.{name}"))


def _say(error: WalsyncdError) -> None:
    lines = [f"walsyncd: {error.message}", *([f"  hint: {error.hint}"] if error.hint else [])]
    print(printable("\n".join(lines)), file=sys.stderr)
