"""``walsyncd ls``: lists databases, generations, bases, covered time, sizes.

The output has one entry for each generation. On a wide terminal the output is a table, on a narrow terminal a few lines
for each generation, elsewhere plain columns, or JSON. A generation can be restored between the times ``FROM`` and
``TO``, which have the form that ``restore --at`` takes. Bridges and suspect positions are listed below the table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from walsyncd.cli import settings_from
from walsyncd.cli.replica_argument import is_url, replica_from, storage_from_url, storages_from
from walsyncd.cli.selection import is_pattern, select
from walsyncd.cli.table import counted, is_too_wide, json_text, print_table, say
from walsyncd.config.units import format_size
from walsyncd.core.restore.timeline import BASE, Span, gaps, merged, picture
from walsyncd.core.stored.moment import format_moment, format_span
from walsyncd.errors import UsageError, WalsyncdError

if TYPE_CHECKING:
    from walsyncd.core.restore.bridge_points import StoredBridge
    from walsyncd.core.restore.plan import Point
    from walsyncd.engine.restore.inventory import GenerationSurvey
    from walsyncd.engine.restore.replica import Replica

HEADINGS = ("DATABASE", "GENERATION", "BEGAN BECAUSE", "BASES", "FROM", "TO", "COMMITS", "OBJECTS", "SIZE", "REMARK")


PICTURE_WIDTH_MAX = 100  # a wider picture is not easier to read
BRIDGES_SHOWN_MAX = 10
GAPS_SHOWN_MAX = 10  # gaps described one by one; there may be many, and the drawn line shows them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the databases and the forms of output."""
    parser.add_argument(
        "replicas",
        nargs="*",
        metavar="NAME|URL",
        help="databases, by name or pattern, or a URL (default: all below the configured storages)",
    )
    parser.add_argument(
        "--commits",
        action="store_true",
        help="count the commits, with bridges and what was stored again for a base; "
        "reads the ends of segments, and compacted epochs whole",
    )
    parser.add_argument("--timeline", action="store_true", help="draw covered time, as on a terminal")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(args: argparse.Namespace) -> int:
    """List what exists. An empty storage is an empty list."""
    from walsyncd.engine.restore.inventory import inventory  # noqa: PLC0415  a command is light until it runs

    failures: list[WalsyncdError] = []
    found = [(replica, inventory(replica, count_commits=args.commits)) for replica in _replicas(args, failures)]
    found.sort(key=lambda each: (not _needs_attention(each[1]), each[0].name))
    if args.json:
        databases = [_database(replica, generations) for replica, generations in found]
        print(json_text({"databases": databases}))
    else:
        rows = [row for replica, generations in found for row in _rows(replica, generations)]
        if is_too_wide(HEADINGS, rows):
            for replica, generations in found:
                _print_lines(replica, generations)
        else:
            print_table(HEADINGS, rows)
        for replica, generations in found:
            _print_bridges(replica, generations)
            _print_doubtful(replica, generations)
        if args.timeline or sys.stdout.isatty():
            for replica, generations in found:
                _draw(replica, generations)
        if not found and not failures:
            say("walsyncd: note: nothing is stored there", file=sys.stderr)
        if len(found) > 1:
            print(_summary([generations for _, generations in found]))
    if failures:
        raise failures[0]  # the other storages' output is printed already
    return 0


def _replicas(args: argparse.Namespace, failures: list[WalsyncdError]) -> list[Replica]:
    """Return the replicas that are given by name, pattern or URL, or all replicas if none is given."""
    words: list[str] = args.replicas
    urls = [word for word in words if is_url(word)]
    if urls and len(words) > 1:
        raise UsageError("ls: one URL alone, or any number of names", hint=f"`walsyncd ls {urls[0]}`")
    if not words or urls or (len(words) == 1 and not is_pattern(words[0])):
        args.replica = words[0] if words else None
        return replicas_from(args, failures)
    args.replica = None
    return select(
        replicas_from(args, failures), [word.strip("/") for word in words], name_of=lambda replica: replica.name
    )


def _needs_attention(generations: Sequence[GenerationSurvey]) -> bool:
    """Whether the newest generation has no base, a hole or damage."""
    newest = generations[-1] if generations else None
    return newest is None or not newest.bases or bool(newest.fault) or len(newest.spans) > 1


def _summary(found: Sequence[Sequence[GenerationSurvey]]) -> str:
    every = [generation for generations in found for generation in generations]
    objects, size = sum(each.objects for each in every), sum(each.size for each in every)
    ill = sum(map(_needs_attention, found))
    what = f"{counted(ill, 'database')} with a hole, damage or no base yet" if ill else "nothing is missing"
    return f"{counted(len(found), 'database')}, {counted(objects, 'object')}, {format_size(size)}; {what}"


def replicas_from(args: argparse.Namespace, failures: list[WalsyncdError] | None = None) -> list[Replica]:
    """Return the named replica, or all replicas of every storage, or all replicas below the folder of a URL.

    If there are several storages and ``failures`` is given, a storage may fail. Its error is added to ``failures``.
    """
    from walsyncd.engine.restore.replica import Replica, find_replicas  # noqa: PLC0415

    if args.replica and not is_url(args.replica):
        return [replica_from(args)]
    storages = [storage_from_url(args)] if args.replica else storages_from(settings_from(args))
    replicas: list[Replica] = []
    for storage in storages:
        try:
            replicas += [Replica(storage, name) for name in find_replicas(storage)]
        except WalsyncdError as error:
            if failures is None or len(storages) == 1:
                raise
            failures.append(error)
    return replicas


def _draw(replica: Replica, generations: Sequence[GenerationSurvey]) -> None:
    """Draw the covered time from left to right, the bases below it, and describe each gap."""
    spans = merged(Span(s.first.time_ms, max(s.first.time_ms, s.end_ms)) for each in generations for s in each.spans)
    if not spans:
        return
    bases = [base.point.time_ms for each in generations for base in each.bases]
    width = min(PICTURE_WIDTH_MAX, shutil.get_terminal_size().columns - 2)
    line, marks = picture(spans, bases, width)
    first, last = format_moment(spans[0].first_ms), format_moment(spans[-1].last_ms)
    say(f"\n{replica.name or replica.url}: {first} to {last}")
    say(f"  {line}\n  {marks}".rstrip() + f"  ({BASE} base)")
    between = gaps(spans)
    for gap in between[-GAPS_SHOWN_MAX:]:
        span = format_span(gap.last_ms - gap.first_ms)
        say(f"  gap of {span}: nothing after {format_moment(gap.first_ms)} before {format_moment(gap.last_ms)}")
    if len(between) > GAPS_SHOWN_MAX:
        say(f"  and {len(between) - GAPS_SHOWN_MAX} gaps before these")


def _print_bridges(replica: Replica, generations: Sequence[GenerationSurvey]) -> None:
    """Describe each bridge, and which positions a scrub made suspect."""
    bridges = [bridge for each in generations for bridge in each.bridges]
    if not bridges:
        return
    say(f"\n{replica.name or replica.url}: {counted(len(bridges), 'bridge')}")
    if len(bridges) > BRIDGES_SHOWN_MAX:
        print(f"  {len(bridges) - BRIDGES_SHOWN_MAX} earlier ones (--json has them all)")
    for bridge in bridges[-BRIDGES_SHOWN_MAX:]:
        say(f"  {bridge.before} to {bridge.after.position}")
        if bridge.is_gap:
            say(f"    {bridge.gap_text()}")
        if bridge.suspect_from is not None:
            say(f"    what came before it is suspect: {bridge.suspect_text()}")


def _print_doubtful(replica: Replica, generations: Sequence[GenerationSurvey]) -> None:
    """Print the times that ``--at`` refuses because a clock was wrong."""
    for each in generations:
        for span in each.doubtful:
            print(f"\n{replica.name or replica.url}: {each.generation}: {span}")


def _rows(replica: Replica, generations: Sequence[GenerationSurvey]) -> list[tuple[str, ...]]:
    name = replica.name or replica.url
    if not generations:
        return [(name, *["-"] * 8, "nothing stored yet")]
    return [(name, *_columns(each)) for each in generations]


def _print_lines(replica: Replica, generations: Sequence[GenerationSurvey]) -> None:
    """Print the facts of the table on a narrow terminal, where text to be copied stays on one line."""
    say(replica.name or replica.url)
    if not generations:
        say("  nothing stored yet")
    for each in generations:
        generation, reason, _, first, last, *_, remark = _columns(each)
        counts = [counted(len(each.bases), "base"), counted(each.objects, "object"), format_size(each.size)]
        counts += [] if each.commits is None else [counted(each.commits, "commit")]
        say(f"  {generation}")
        width = shutil.get_terminal_size().columns
        for text in filter(None, (f"began because: {reason}", f"{first} to {last}", ", ".join(counts), remark)):
            say(textwrap.fill(text, width, initial_indent=" " * 4, subsequent_indent=" " * 6))


def _columns(each: GenerationSurvey) -> tuple[str, ...]:
    times = [format_moment(point.time_ms) if point else "-" for point in (each.first, each.last)]
    commits = "-" if each.commits is None else str(each.commits)
    counts = str(len(each.bases)), *times, commits, str(each.objects), format_size(each.size)
    return each.generation, each.reason or "-", *counts, "; ".join(_remarks(each))


def _remarks(each: GenerationSurvey) -> list[str]:
    """Describe briefly what is wrong or missing in a generation."""
    is_suspect = any(bridge.span.suspect is not None for bridge in each.bridges)
    remarks = [each.fault] if each.fault else []
    remarks += [f"{each.holes} gap(s) in it"] if each.holes and not each.fault else []
    remarks += [counted(len(each.bridges), "bridge")] if each.bridges else []
    remarks += ["some times can't be trusted"] if each.doubtful else []
    return remarks + (["some positions are suspect"] if is_suspect else [])


def _database(replica: Replica, generations: Sequence[GenerationSurvey]) -> dict[str, object]:
    return {
        "name": replica.name,
        "url": replica.url,
        "objects": sum(each.objects for each in generations),
        "size": sum(each.size for each in generations),
        "generations": [_generation(each) for each in generations],
    }


def _generation(each: GenerationSurvey) -> dict[str, object]:
    return {
        "generation": each.generation,
        "reason": each.reason,
        "predecessor": each.predecessor,
        "first": _point(each.first),
        "last": _point(each.last),
        "spans": [
            {"first": _point(span.first), "last": _point(span.last), "until_ms": span.end_ms} for span in each.spans
        ],
        "bridges": [_bridge(bridge) for bridge in each.bridges],
        "doubtful_times": [
            {"first_ms": span.first_ms, "last_ms": span.last_ms, "ahead_ms": span.ahead_ms} for span in each.doubtful
        ],
        "commits": each.commits,
        "fault": each.fault,
        "objects": each.objects,
        "size": each.size,
        "bases": [{**(_point(base.point) or {}), "size": base.size} for base in each.bases],
    }


def _bridge(bridge: StoredBridge) -> dict[str, object]:
    suspect = bridge.span.suspect
    return {
        "before": str(bridge.before),
        "proven": format_moment(bridge.span.proven_ms),
        "proven_ms": bridge.span.proven_ms,
        "after": _point(bridge.after),
        "kind": bridge.span.kind,
        "reason": bridge.span.reason,
        "suspect": {**(_point(bridge.suspect_from) or {}), "pages": suspect.pages} if suspect else None,
    }


def _point(point: Point | None) -> dict[str, object] | None:
    if point is None:
        return None
    return {"position": str(point.position), "time": format_moment(point.time_ms), "time_ms": point.time_ms}
