"""``walsyncd sync``: ships what is committed now, and waits until it is stored."""

from __future__ import annotations

import argparse
import sys

from walsyncd.cli.table import counted, say

DEFAULT_TIMEOUT = "60s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME… and --timeout."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="databases (default: all)")
    parser.add_argument(
        "--timeout",
        default=DEFAULT_TIMEOUT,
        metavar="TIME",
        help=f"give up after this long (default: {DEFAULT_TIMEOUT})",
    )


def run(args: argparse.Namespace) -> int:
    """Print each database's position once it is stored with a base. Returns 1 if one was not stored in time."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli.daemon_client import Deadline, call  # noqa: PLC0415
    from walsyncd.config import parse_duration  # noqa: PLC0415

    state_dir = settings_from(args).daemon.state_dir
    deadline = Deadline(parse_duration(args.timeout))
    reached = call(state_dir, {"op": "sync", "names": args.names})
    asked = dict(reached["databases"])
    waiting = dict.fromkeys(asked, "")
    while waiting:
        answer = call(state_dir, {"op": "stored", "databases": {name: asked[name] for name in waiting}})
        waiting = {name: why for name, why in answer["waiting"].items() if why}
        for name in sorted(answer["waiting"].keys() - waiting.keys()):
            say(f"{name} {asked[name]['position']}")
        if waiting and not deadline.pause():
            break
        if answer["again"]:
            asked.update(call(state_dir, {"op": "sync", "names": answer["again"]})["databases"])
    for name, why in sorted(waiting.items()):
        say(f"walsyncd: {name} is not stored after {args.timeout}: {why}", file=sys.stderr)
    if suspended := reached.get("suspended"):
        text = f"{counted(suspended, 'configured file')} can't be replicated: `walsyncd status` says which, and why"
        say(f"walsyncd: {text}", file=sys.stderr)
    return 1 if waiting else 0
