"""``walsyncd verify``: reads a whole replica and checks every object and chain, up to the head, and the head's content.

To check the content, the head is restored into a temporary folder ($TMPDIR). The output has a line for each problem and
note, then what the problems mean for a restore, and a summary. The exit code is 1 if there is a problem, and 3 if the
replica is empty.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from walsyncd.adapters.system.allocator import reuse_blocks
from walsyncd.cli.replica_argument import is_url, replica_from
from walsyncd.cli.table import counted, json_text, say
from walsyncd.errors import NewerFormatError, TransientError

if TYPE_CHECKING:
    from walsyncd.engine.restore.replica import Replica
    from walsyncd.engine.restore.verifier import Verification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the replica, and how thoroughly to check it."""
    parser.add_argument("replica", metavar="NAME|URL", help="a database's name, or the URL of its folder")
    parser.add_argument("--quick", action="store_true", help="only what listings and HEAD say: reads no object")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what is wrong. Returns 1 if anything is."""
    from walsyncd.engine.restore.verifier import verify  # noqa: PLC0415  a command is light until it runs

    reuse_blocks()
    replica = replica_from(args)
    with tempfile.TemporaryDirectory(prefix="walsyncd-verify-") as folder:
        result = verify(replica, quick=args.quick, scratch=Path(folder) / "head.db")
    if not result.problems and not args.quick and not is_url(args.replica):
        _tell_daemon(args, replica.name)
    if args.json:
        facts = asdict(result) | {"salvage": [each.as_json() for each in result.damage_report]}
        print(json_text({"url": replica.url, "quick": args.quick} | facts))
    else:
        _print(replica, result, quick=args.quick)
    return 1 if result.problems else 0


def _print(replica: Replica, result: Verification, *, quick: bool) -> None:
    consequences = [line for each in result.damage_report for line in each.lines()]
    for kind, lines in (("problem", result.problems), ("so", consequences), ("note", result.notes)):
        for line in lines:
            say(f"{kind:8}{line}")
    what = "listed" if quick else counted(result.transactions, "transaction")
    what += f", {counted(result.bridges, 'bridge')}" if result.bridges else ""
    read = f"{counted(result.objects, 'object')}, {result.size} bytes, {what}"
    sound = "nothing is missing" if quick else "all of it is sound"
    verdict = counted(len(result.problems), "problem") if result.problems else sound
    say(f"verified {replica.url}: {read} in {counted(result.generations, 'generation')}: {verdict}")


def _tell_daemon(args: argparse.Namespace, name: str) -> None:
    """Have a running daemon note that its replica was found sound. `status` and the metrics show the time of it."""
    from walsyncd.cli import settings_from  # noqa: PLC0415  a command is light until it runs
    from walsyncd.cli.bounded import asked  # noqa: PLC0415

    with suppress(TransientError, NewerFormatError):
        asked(settings_from(args).daemon.state_dir, {"op": "verified", "name": name}, timeout_s=5.0)
