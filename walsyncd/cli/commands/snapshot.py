"""``walsyncd snapshot``: takes a new base now."""

from __future__ import annotations

import argparse
import sys

from walsyncd.cli.table import say

DEFAULT_TIMEOUT = "1h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME and --timeout."""
    parser.add_argument("name", metavar="NAME", help="the database")
    parser.add_argument(
        "--timeout",
        default=DEFAULT_TIMEOUT,
        metavar="TIME",
        help=f"give up after this long (default: {DEFAULT_TIMEOUT})",
    )


def run(args: argparse.Namespace) -> int:
    """Print the manifest of the new base once it is stored. Returns 1 if that took too long."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli.daemon_client import Deadline, call  # noqa: PLC0415
    from walsyncd.config import parse_duration  # noqa: PLC0415

    state_dir = settings_from(args).daemon.state_dir
    deadline = Deadline(parse_duration(args.timeout))
    before = call(state_dir, {"op": "snapshot", "name": args.name})["base_key"]
    while True:
        answer = call(state_dir, {"op": "base", "name": args.name, "base_key": before})
        if answer["base_key"] is not None:
            say(f"{args.name} {answer['base_key']}")
            return 0
        if not deadline.pause():
            break
    say(f"walsyncd: the base of {args.name} is not stored after {args.timeout}: {answer['why']}", file=sys.stderr)
    return 1
