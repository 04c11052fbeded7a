"""``walsyncd scrub``: compare live files with what their replicas hold, now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from walsyncd.cli.table import counted, json_text, say

DEFAULT_TIMEOUT = "24h"
POLL_FACTOR = 10  # times the usual pause, because a comparison takes seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME…, --timeout and --json."""
    parser.description = (
        f"{parser.description}\n\n"
        "The daemon reads each database file, at 64 MiB a second at most, and compares\n"
        "every page with a hash of what a restore would give. Storage is not read. Pages\n"
        "that differ are shipped as they are now, and positions since the last\n"
        "comparison that found nothing are suspect. In a database without a WAL a page\n"
        "counts as different only at a moment when nobody writes and all that was\n"
        "committed is shipped."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="databases (default: all)")
    parser.add_argument(
        "--timeout", default=DEFAULT_TIMEOUT, metavar="TIME", help=f"wait no longer (default: {DEFAULT_TIMEOUT})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print what was compared and found. Returns 1 if anything differed, or was not compared in time."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli.daemon_client import Deadline, call  # noqa: PLC0415
    from walsyncd.config import parse_duration  # noqa: PLC0415

    state_dir = settings_from(args).daemon.state_dir
    deadline = Deadline(parse_duration(args.timeout))
    waiting = dict(call(state_dir, {"op": "scrub", "names": args.names})["databases"])
    done: dict[str, Mapping[str, Any]] = {}
    while True:
        ended = call(state_dir, {"op": "scrubbed", "databases": waiting})["done"]
        for name in sorted(ended):
            done[name] = ended[name]
            del waiting[name]
            if not args.json:
                say(f"{name}: {_words(ended[name])}")
        if not waiting or not all(deadline.pause() for _ in range(POLL_FACTOR)):
            break
    if args.json:
        databases = [{"name": name, **done[name]} for name in sorted(done)]
        print(json_text({"databases": databases, "waiting": sorted(waiting)}))
    for name in sorted(waiting):
        say(f"walsyncd: {name} is not compared after {args.timeout}; it goes on, and the log says", file=sys.stderr)
    return 1 if waiting or any(each["differing"] for each in done.values()) else 0


def _words(result: Mapping[str, Any]) -> str:
    if result["skipped"]:
        return f"skipped: {result['skipped']}"
    compared = counted(result["pages"], "page")
    if not result["differing"]:
        return f"{compared} compared, none differs"
    return f"{compared} compared, {result['differing']} differ; the log says which, and they are shipped again"
