"""``walsyncd restore``: writes a database, or all of them, as of any commit.

For a service's ``ExecStartPre=``: ``walsyncd restore --if-missing --if-replica -o /var/lib/app/app.db NAME``

==============================================  =======  ================================================
what it finds                                   exit     what it does
==============================================  =======  ================================================
the file exists                                 0        neither configuration nor storage is read
it is missing, the replica has it               0        it is restored
it is missing, there is no replica              0        nothing: a first deploy
the same without ``--if-replica``               3        nothing: the caller decides
it is missing, no base of the replica is whole  3        nothing: commits may be stored that need one
the name is neither configured nor stored       2        nothing: it is probably a wrong name
anything else                                   1, 2, 4  no file appears
==============================================  =======  ================================================

A file of 0 bytes with nothing in its -wal counts as missing: SQLite creates one before the first commit.
"""

from __future__ import annotations

import argparse
import grp
import pwd
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from walsyncd.adapters.system import clock
from walsyncd.adapters.system.allocator import reuse_blocks
from walsyncd.cli.progress import showing_progress
from walsyncd.cli.replica_argument import replica_from
from walsyncd.cli.table import json_text, say
from walsyncd.config.units import format_size
from walsyncd.core.stored.moment import format_moment, moment_ms, parse_moment
from walsyncd.errors import CorruptError, TransientError, UsageError

if TYPE_CHECKING:
    from walsyncd.adapters.files.target import Access
    from walsyncd.core.restore.plan import Plan, Target
    from walsyncd.engine.restore.planner import RestoreRequest
    from walsyncd.engine.restore.replica import Replica
    from walsyncd.engine.restore.restorer import BuildPlan, Restored, RestoreOptions

STDOUT = Path("-")
_TERMINATED = 128 + signal.SIGTERM  # as in shells
_MODE = re.compile(r"0?[0-7]{3}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to restore, where to, as of when, and what to do with an existing file."""
    parser.add_argument("replica", nargs="?", metavar="NAME|URL", help="a database's name, or the URL of its folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write; - is standard output"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="restore all databases of the configured storage, or below the URL, into the folder FILE",
    )
    moment = parser.add_mutually_exclusive_group()
    moment.add_argument(
        "--at", metavar="TIME", help="restore the last commit by then: RFC 3339, or 'YYYY-MM-DD HH:MM:SS' in local time"
    )
    moment.add_argument("--position", metavar="GEN/EPOCH/FRAME", help="restore exactly this commit")
    parser.add_argument(
        "--generation", metavar="G", help="restore from this generation (default: the newest that fits)"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace FILE if it exists and nobody has it open")
    existing.add_argument(
        "--if-missing", action="store_true", help="do nothing, successfully, if FILE exists; otherwise make its folder"
    )
    parser.add_argument(
        "--if-replica",
        action="store_true",
        help="do nothing, successfully, if there is no replica yet (a first deploy); make FILE's folder",
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="take the nearest position before a target that is not covered",
    )
    parser.add_argument("--owner", metavar="USER[:GROUP]", help="owner of FILE (default: as before, or as its folder)")
    parser.add_argument("--mode", metavar="MODE", help="permissions of FILE, as in 0640 (default: as before, or 0600)")
    parser.add_argument(
        "--confine",
        action="store_true",
        help="have the kernel deny this process to write anywhere but in FILE's folder (Linux 5.13 and later)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="keep FILE up to date for readers until stopped; continues with a file that is there",
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="how often --follow looks (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be restored, and write nothing")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Restore, and print which position was restored."""
    _check(args)
    if args.if_missing and not args.all and not _is_missing(args.output):
        _print(args, {"restored": False, "path": str(args.output)}, f"kept {args.output}: it exists")
        return 0
    if args.confine:
        _confine(args)
    if not args.follow:
        reuse_blocks()
    with _sigterm_unwinds():
        if args.all:
            from walsyncd.cli.restore_all import restore_all  # noqa: PLC0415  a command is light until it runs

            return restore_all(args, _request(args), access_from(args))
        request = _request(args)
        replica = replica_from(args)
        if args.if_replica and not replica.generations():
            _say_no_replica(args, replica)
            return 0
        if args.follow:
            from walsyncd.cli.restore_follow import follow  # noqa: PLC0415

            return follow(args, replica, access_from(args))
        if args.dry_run:
            _plan(args, replica, request)
        elif args.output == STDOUT:
            _stream(args, replica, request)
        else:
            _say_result(args, _restore(args, replica, request, args.output))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.all and (args.position or args.generation or args.output == STDOUT):
        raise UsageError("--all restores every database: no --position, --generation or -o - with it")
    if args.follow and (args.all or args.at or args.position or args.generation or args.output == STDOUT):
        raise UsageError("--follow keeps one file at the head: no --all, --at, --position, --generation or -o -")
    if args.follow and (args.if_missing or args.if_replica or args.dry_run):
        raise UsageError("--follow goes on with the file that is there: no --if-missing, --if-replica or --dry-run")
    if args.if_replica and args.all:
        raise UsageError("--all restores what there is: no --if-replica with it")
    if args.confine and (args.all or args.output == STDOUT):
        raise UsageError("--confine is for one FILE: no --all and no -o - with it")
    if args.interval <= 0:
        raise UsageError(f"--interval {args.interval} is not more than 0")
    if not args.all and args.replica is None:
        raise UsageError("restore: no database given", hint="`walsyncd ls` shows them; --all restores every one")
    if args.output == STDOUT and args.json:
        raise UsageError("-o - and --json both want standard output")


def _is_missing(path: Path) -> bool:
    from walsyncd.adapters.files.target import is_missing  # noqa: PLC0415

    return is_missing(path)


def _confine(args: argparse.Namespace) -> None:
    from walsyncd.adapters.files.target import Target as TargetFile  # noqa: PLC0415
    from walsyncd.adapters.system.confinement import confine_writes  # noqa: PLC0415

    with TargetFile(args.output, create_folder=_how(args).create_folder) as target:
        if not confine_writes([target.folder.descriptor]):
            say("walsyncd: note: --confine: this kernel has no Landlock; continuing without it", file=sys.stderr)


def _say_no_replica(args: argparse.Namespace, replica: Replica) -> None:
    from walsyncd.engine.restore.restorer import check_target  # noqa: PLC0415

    if args.output != STDOUT and not args.dry_run:
        check_target(args.output, _how(args))
    facts = {"restored": False, "path": str(args.output)}
    _print(args, facts, f"nothing restored to {args.output}: there is no replica yet in {replica.url}")


def _how(args: argparse.Namespace) -> RestoreOptions:
    from walsyncd.engine.restore.restorer import RestoreOptions  # noqa: PLC0415

    makes_folder = (args.if_missing or args.if_replica) and not args.dry_run
    return RestoreOptions(args.force, args.if_missing, makes_folder, access_from(args))


def _plan(args: argparse.Namespace, replica: Replica, request: RestoreRequest) -> None:
    from walsyncd.engine.restore.planner import with_plan  # noqa: PLC0415
    from walsyncd.engine.restore.restorer import build_plan_of, check_target  # noqa: PLC0415

    is_made = (args.if_missing or args.if_replica) and not args.output.parent.is_dir()
    if args.output != STDOUT and not is_made:
        check_target(args.output, _how(args))
    draft = with_plan(replica, request, lambda prepared: build_plan_of(replica, prepared))
    _say_notes(draft.plan)
    fetched = sum(replica.size_of(key) for key in (draft.plan.base.base, *draft.plan.objects))
    facts = {"restored": False, "size": draft.size, "bytes": fetched, "limited_by": _limit(draft)}
    sentences = [
        f"would restore {args.output}: {_where(draft.plan)}, {draft.size} bytes",
        f"  base    {draft.manifest.key}, consistent from {draft.manifest.consistent_from}",
        f"  epochs  {_epochs(draft)}, {len(draft.plan.objects)} objects; {format_size(fetched)} to fetch in all",
        f"  limit   {_limit(draft)}",
    ]
    _print(args, _facts(args.output, draft.plan) | facts, "\n".join(sentences))


def _epochs(draft: BuildPlan) -> str:
    epochs = [piece.key.epoch for piece in draft.pieces]
    frames = sum(piece.frames for piece in draft.pieces)
    return f"{epochs[0]} to {epochs[-1]}, {frames} frames" if epochs else "none"


def _limit(draft: BuildPlan) -> str:
    """Return why the plan ends where it does."""
    from walsyncd.core.restore.plan import Head  # noqa: PLC0415

    if draft.plan.shortfall:
        return draft.plan.shortfall
    return "nothing is stored after that" if isinstance(draft.plan.target, Head) else f"asked for: {draft.plan.target}"


def _stream(args: argparse.Namespace, replica: Replica, request: RestoreRequest) -> None:
    """Restore to standard output through a temporary file, because pages are not written in order."""
    if sys.stdout.isatty():
        raise UsageError("-o -: standard output is a terminal", hint="redirect it: walsyncd restore … -o - > FILE")
    with tempfile.TemporaryDirectory(prefix="walsyncd-") as folder:
        restored = _restore(args, replica, request, Path(folder) / "restored.db")
        say(_sentence(restored).replace(str(restored.path), "to standard output"), file=sys.stderr)
        with restored.path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


def _restore(args: argparse.Namespace, replica: Replica, request: RestoreRequest, path: Path) -> Restored:
    from walsyncd.adapters.files.target import Target as TargetFile  # noqa: PLC0415
    from walsyncd.engine.restore.restorer import restore_request  # noqa: PLC0415

    try:
        with showing_progress() as progress:
            restored = restore_request(replica, request, path, replace(_how(args), progress=progress))
    except (KeyboardInterrupt, SystemExit, TransientError, CorruptError):
        with TargetFile(path) as target:
            for kept in target.partials():
                say(f"walsyncd: note: the same command continues from what was fetched: {kept}", file=sys.stderr)
        raise
    _say_notes(restored.plan)
    for moved in restored.moved:
        say(f"walsyncd: note: moved a stale file aside: {moved}", file=sys.stderr)
    return restored


def _say_result(args: argparse.Namespace, restored: Restored) -> None:
    _print(args, _facts(restored.path, restored.plan) | _results(restored), _sentence(restored))


def _say_notes(plan: Plan) -> None:
    for note in (*plan.notes, *([f"partial: {plan.shortfall}"] if plan.shortfall else [])):
        say(f"walsyncd: note: {note}", file=sys.stderr)


def access_from(args: argparse.Namespace) -> Access:
    """Return what ``--owner`` and ``--mode`` request. Raises UsageError if there is no such user, group or mode."""
    from walsyncd.adapters.files.target import Access  # noqa: PLC0415

    if args.mode is not None and not _MODE.fullmatch(args.mode):
        raise UsageError(f"--mode {args.mode!r} is no mode", hint="three octal digits, as in 0640")
    user, _, group = (args.owner or "").partition(":")
    try:
        uid = (int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid) if user else None
    except KeyError as error:
        raise UsageError(f"--owner {args.owner!r}: there is no user {user!r}", hint="a name, or a number") from error
    try:
        gid = (int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid) if group else None
    except KeyError as error:
        raise UsageError(f"--owner {args.owner!r}: there is no group {group!r}", hint="a name, or a number") from error
    return Access(uid, gid, int(args.mode, 8) if args.mode else None)


def _request(args: argparse.Namespace) -> RestoreRequest:
    from walsyncd.engine.restore.planner import RestoreRequest  # noqa: PLC0415

    return RestoreRequest(_target(args), args.generation, args.allow_partial)


def _target(args: argparse.Namespace) -> Target:
    from walsyncd.core.restore.plan import AtPosition, AtTime, Head  # noqa: PLC0415
    from walsyncd.core.stored.position import is_generation, parse_position  # noqa: PLC0415

    if args.generation is not None and not is_generation(args.generation):
        raise UsageError(f"{args.generation!r} is not a generation", hint="`walsyncd ls NAME` shows them")
    if args.at is not None:
        return AtTime(_moment_ms(args.at))
    if args.position is None:
        return Head()
    position = parse_position(args.position)
    if args.generation not in (None, position.generation):
        raise UsageError(f"position {position} is not of generation {args.generation}", hint="drop --generation")
    return AtPosition(position)


def _moment_ms(text: str) -> int:
    """Parse a moment that a user typed.

    A moment in the future is reported, because the day or the zone is probably wrong.
    """
    time_ms, now_ms = moment_ms(_zoned(parse_moment(text))), clock.wall_ms()
    if time_ms > now_ms:
        moment, now = format_moment(time_ms), format_moment(now_ms)
        say(f"walsyncd: note: --at {moment} is in the future: here it is {now}", file=sys.stderr)
    return time_ms


def _zoned(moment: datetime) -> datetime:
    """Take a naive moment as local time, which is ambiguous or does not exist at a clock change."""
    if moment.tzinfo is not None:
        return moment
    earlier, later = (moment.replace(fold=fold).astimezone() for fold in (0, 1))
    if earlier.utcoffset() != later.utcoffset():
        raise UsageError(
            f"time '{moment}' occurs twice or not at all, because local clocks are changed then",
            hint=f"say which: {earlier.isoformat()} or {later.isoformat()}",
        )
    return earlier


def _where(plan: Plan) -> str:
    return f"position {plan.reached.position}, time {format_moment(plan.reached.time_ms)}"


def _sentence(restored: Restored) -> str:
    counts = f"{restored.applied.transactions} transactions, {restored.size} bytes"
    return f"restored {restored.path}: {_where(restored.plan)}, {counts}"


def _facts(path: Path, plan: Plan) -> dict[str, object]:
    from walsyncd.core.stored.layout import format_key  # noqa: PLC0415

    position = plan.reached.position
    return {
        "path": str(path),
        "position": str(position),
        "generation": position.generation,
        "epoch": position.epoch,
        "frame": position.frame,
        "time": format_moment(plan.reached.time_ms),
        "time_ms": plan.reached.time_ms,
        "base": format_key(plan.base.base),
        "objects": [format_key(key) for key in plan.objects],
        "partial": plan.shortfall,
        "notes": list(plan.notes),
    }


def _results(restored: Restored) -> dict[str, object]:
    return {
        "restored": True,
        "transactions": restored.applied.transactions,
        "frames": restored.applied.frames,
        "size": restored.size,
        "moved": [str(path) for path in restored.moved],
    }


def _print(args: argparse.Namespace, facts: dict[str, object], sentence: str) -> None:
    if args.json:
        print(json_text(facts))
    else:
        say(sentence)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM remove the temporary file, as a failure does."""

    def unwind(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
