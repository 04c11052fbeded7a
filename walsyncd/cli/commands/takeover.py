"""``walsyncd takeover``: takes back databases that another daemon writes to now."""

from __future__ import annotations

import argparse

from walsyncd.cli.table import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a database")


def run(args: argparse.Namespace) -> int:
    """Print which databases begin a new generation. Databases that no other daemon took over do not change."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli.daemon_client import call  # noqa: PLC0415

    answer = call(settings_from(args).daemon.state_dir, {"op": "takeover", "names": args.names})
    for name in args.names:
        say(f"{name}: {'a new generation begins here' if name in answer['taken'] else 'this daemon writes it already'}")
    return 0
