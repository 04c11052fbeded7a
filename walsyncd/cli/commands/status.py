"""``walsyncd status``: shows each database's state, from the daemon if one is running, else from the journal."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

from walsyncd.adapters.system import clock
from walsyncd.cli.bounded import READ_STATE, asked, in_folder, searched
from walsyncd.cli.selection import by_need, select, summary_of
from walsyncd.cli.table import counted, json_text, say, table_lines
from walsyncd.config.units import format_size
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.errors import one_line

if TYPE_CHECKING:
    from walsyncd.config import Settings
    from walsyncd.engine.daemon.database_status import DatabaseStatus
    from walsyncd.errors import WalsyncdError

HEADINGS = (
    "DATABASE",
    "STATE",
    "LAG",
    "SPOOL",
    "STORED",
    "LAST COMMIT",
    "LAST BASE",
    "VERIFIED",
    "SCRUBBED",
    "STORED POSITION",
)
SCRUBBED_WIDTH_MIN = 182  # columns: narrower terminals omit the time of the last scrub
POSITION_WIDTH_MIN = 160  # columns: narrower terminals omit the position, which --json has
WIDE_MIN = 120  # columns: narrower terminals show only a size and a day
WATCH_S = 2.0
ANSWER_TIMEOUT_S = 15.0  # later the journal is used; the status of ten thousand databases takes a second or two
UNSEEN_SHOWN_S = 1.0  # shorter delays of a look are normal
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colours and the like take no room


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The contents of the output: the daemon's pid, trouble with the storage, the databases.

    Ages are computed from ``now_ms``. It is the daemon's time, which the store's clock corrects, or this machine's
    time. If no daemon answered, ``pid`` is None, and ``silence`` says why a running daemon gave no answer.
    ``silence`` is empty if no daemon is running.
    """

    pid: int | None
    storage: str
    databases: Sequence[DatabaseStatus]
    now_ms: int
    silence: str = ""
    states: Sequence[str] = ()
    """The requested states. If none is requested, any state counts."""

    @property
    def daemon(self) -> str:
        """The daemon's state, in words."""
        if self.pid is not None:
            return f"running, pid {self.pid}"
        return f"unknown: {self.silence}" if self.silence else "not running"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME…, --state, --json, --watch, --max-lag."""
    parser.description = (
        f"{parser.description}\n\n"
        "The state of a database is one of these:\n"
        "  new             no look at it has ended yet\n"
        "  following       each of its commits goes to storage\n"
        "  copying base    the same, while a full copy is made\n"
        "  degraded        something was missed, or can't be shipped; see the cause\n"
        "  missing         there is no such file\n"
        "  refused         it may not be read; it is tried again\n"
        "  failing         it can't be read now; it is tried again\n"
        "  suspended       it matches a pattern and can't be a database: a link, a\n"
        "                  folder, no SQLite file\n"
        "  stopped         no daemon runs\n"
        "  not configured  the journal knows it from before\n\n"
        "LAG is the age of the oldest commit that is not stored, or the time for which\n"
        'a look has been overdue ("not looked at"), or, after "up to", the time for\n'
        "which the database has not been followed. Causes, remedies and a summary are\n"
        "below the table. Databases that need attention come first."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="databases, by name or pattern (default: all)")
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        choices=[state.value for state in DatabaseState],
        metavar="STATE",
        help="only databases in this state, as the table names it; can be given more than once",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--watch", action="store_true", help="keep the table on screen until Ctrl-C")
    parser.add_argument(
        "--max-lag",
        metavar="DURATION",
        help="exit 1 if a database is further behind than this, or no daemon runs: a monitoring check",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table or the JSON. Returns 0 for any states, unless ``--max-lag`` is exceeded."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - light until it runs
    from walsyncd.config import parse_duration  # noqa: PLC0415

    settings = settings_from(args)
    max_lag_s = parse_duration(args.max_lag) if args.max_lag else None
    if args.watch:
        _watch(args, settings)
        return 0
    report = _selected(_look(settings), args)
    if args.json:
        facts = {
            "daemon_pid": report.pid,
            "storage": report.storage,
            "summary": asdict(summary_of(report.databases, report.now_ms)),
            "databases": [asdict(database) for database in report.databases],
        }
        print(json_text(facts))
    else:
        print("\n".join(_lines(report, settings)))
    return 0 if max_lag_s is None else _verdict(report, max_lag_s, args.max_lag)


def _selected(report: StatusReport, args: argparse.Namespace) -> StatusReport:
    """Select the databases that the command is about, those that need attention first."""
    named = select(report.databases, args.names, name_of=lambda database: database.name)
    chosen = [database for database in named if not args.state or database.state in args.state]
    return replace(report, databases=by_need(chosen, report.now_ms), states=args.state)


def _look(settings: Settings) -> StatusReport:
    from walsyncd.cli.daemon_client import told  # noqa: PLC0415
    from walsyncd.engine.daemon.database_status import parse_status  # noqa: PLC0415
    from walsyncd.errors import WalsyncdError  # noqa: PLC0415

    state_dir = settings.daemon.state_dir
    try:
        answer = asked(state_dir, {"op": "status"}, timeout_s=ANSWER_TIMEOUT_S)
        if answer is None:
            return _from_journal(settings, None)
        told(answer, str(state_dir))
        databases = [parse_status(database) for database in answer["databases"]]
    except WalsyncdError as error:
        return _from_journal(settings, error)
    return StatusReport(answer["pid"], answer.get("storage", ""), databases, answer.get("now_ms") or clock.wall_ms())


def _from_journal(settings: Settings, refusal: WalsyncdError | None) -> StatusReport:
    """Return the status that follows from the journal alone.

    Before the first run there is no journal, and nothing is replicated yet.
    """
    from walsyncd.adapters.files.match_examination import examine_match  # noqa: PLC0415
    from walsyncd.adapters.journal.journal import reader  # noqa: PLC0415
    from walsyncd.config import find_databases  # noqa: PLC0415
    from walsyncd.engine.daemon.database_status import statuses, suspended_status, unseen  # noqa: PLC0415
    from walsyncd.errors import MissingError  # noqa: PLC0415

    now_ms, state_dir = clock.wall_ms(), settings.daemon.state_dir

    def followed() -> set[str]:
        with reader(state_dir) as journal:
            return {row.name for row in journal.databases() if row.generation is not None}

    def read() -> list[DatabaseStatus]:
        with reader(state_dir) as journal:
            return statuses(journal, now_ms=now_ms, suspended=suspended)

    try:
        known = in_folder(state_dir, READ_STATE, followed)
        suspended = searched(partial(find_databases, settings, examine=examine_match, followed=known)).suspended
        found = in_folder(state_dir, READ_STATE, read)
    except MissingError:
        if refusal is not None:
            raise refusal from None
        there = searched(lambda: find_databases(settings, examine=examine_match))
        found = [unseen(spec.name, str(spec.path)) for spec in there.checked(settings)]
        found += [suspended_status(each) for each in there.suspended]
        found.sort(key=lambda database: database.name)
    kept = [
        database for database in found if database.state is not DatabaseState.NOT_CONFIGURED or database.spool_objects
    ]
    return StatusReport(None, "", [database.without_daemon() for database in kept], now_ms, str(refusal or ""))


def _verdict(report: StatusReport, max_lag_s: float, limit: str) -> int:
    """Print a monitoring check's result on stderr and return its exit code."""
    late = {database.name: database.behind_s(report.now_ms) for database in report.databases}
    beyond = {name: lag_s for name, lag_s in late.items() if lag_s > max_lag_s}
    problems = [f"{name} is behind by {lag_s:.1f} s, more than {limit}" for name, lag_s in beyond.items()]
    if report.pid is None:
        problems.append(f"the daemon gave no answer: {report.silence}" if report.silence else "no daemon runs")
    for problem in problems:
        say(f"walsyncd: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _watch(args: argparse.Namespace, settings: Settings) -> None:
    try:
        while True:
            report = _selected(_look(settings), args)
            lines = [time.strftime("%H:%M:%S, every 2 s until Ctrl-C")]
            if sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")  # cursor home, clear the screen
                lines += _lines(report, settings, lines_max=shutil.get_terminal_size().lines - 2)
            else:
                lines += _lines(report, settings)
            print("\n".join(lines), flush=True)
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return


def _lines(report: StatusReport, settings: Settings, lines_max: int | None = None) -> list[str]:
    """Return the lines to print.

    With ``lines_max`` the table has only as many databases as fit on this many lines of the terminal.
    """
    lines = [one_line(f"daemon: {report.daemon}")]
    if report.storage:
        lines.append(one_line(report.storage))
    if not report.databases and report.states:
        return [*lines, f"no database is {' or '.join(report.states)}"]
    if not report.databases:
        why = "has no [[database]]" if not settings.databases else "has patterns, which nothing matches at present"
        return [*lines, f"no databases to replicate: {settings.file} {why}"]
    count = len(report.databases)
    if lines_max is not None:
        room = lines_max - len(lines) - 2  # for the summary, and for the number of databases not shown
        count = _count_that_fits(report.databases, report.now_ms, room)
    lines += _table(report.databases[:count], report.now_ms)
    if count < len(report.databases):
        lines.append(f"and {counted(len(report.databases) - count, 'database')} that need less attention")
    return [*lines, str(summary_of(report.databases, report.now_ms))]


def _count_that_fits(databases: Sequence[DatabaseStatus], now_ms: int, room: int) -> int:
    """Return how many of the first databases fit on ``room`` lines of the terminal, at least one."""
    columns = shutil.get_terminal_size().columns
    count = max(1, min(len(databases), room - 1))
    while count > 1:
        lines = _table(databases[:count], now_ms)
        used = sum(max(1, -(-len(_ESCAPE.sub("", line)) // columns)) for line in lines)
        if used <= room:
            break
        count = max(1, min(count - 1, count * room // used))
    return count


def _table(databases: Sequence[DatabaseStatus], now_ms: int) -> list[str]:
    """Return the table, and below it the remarks about single databases."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else SCRUBBED_WIDTH_MIN
    widths_min = {"SCRUBBED": SCRUBBED_WIDTH_MIN, "STORED POSITION": POSITION_WIDTH_MIN}
    shown = [columns >= widths_min.get(heading, 0) for heading in HEADINGS]
    headings = tuple(compress(HEADINGS, shown))
    rows = [tuple(compress(_cells(database, now_ms, is_wide=columns >= WIDE_MIN), shown)) for database in databases]
    return [*table_lines(headings, rows), *(line for database in databases for line in _remarks(database))]


def _remarks(database: DatabaseStatus) -> Iterator[str]:
    from walsyncd.core.follow.backpressure_decision import PRICE as PRICE_OF_BACKPRESSURE  # noqa: PLC0415
    from walsyncd.core.follow.presence_decision import PRICE  # noqa: PLC0415
    from walsyncd.engine.daemon.database_status import BY_WAL  # noqa: PLC0415

    if database.cause:
        yield one_line(f"{database.name}: {database.cause}" + (f" ({database.remedy})" if database.remedy else ""))
    if database.followed and database.followed != BY_WAL:
        yield one_line(f"{database.name}: followed {database.followed}")
    if database.reads_whole:
        yield one_line(f"{database.name}: {database.reads_whole}")
    if database.waiting_base:
        yield one_line(f"{database.name}: {database.waiting_base}")
    if database.growing_wal:
        yield one_line(f"{database.name}: {database.growing_wal}")
    if database.error:
        yield one_line(f"{database.name}: storage: {database.error}")
    if database.last_drill and not database.last_drill.startswith("passed"):
        yield one_line(f"{database.name}: drill of {_moment(database.last_drill_ms)} {database.last_drill}")
    if database.scrub_differing:
        words = f"the comparison of {_moment(database.last_scrub_ms)} with its replica: {database.last_scrub}"
        yield one_line(f"{database.name}: {words}; `walsyncd ls` shows which positions are suspect")
    if database.presence_hindrance:
        yield one_line(f"{database.name}: presence is not held: {database.presence_hindrance}")
    if database.presence != "off":
        yield one_line(f"{database.name}: presence is {database.presence}: {PRICE}")
    if database.backpressure_hindrance:
        yield one_line(f"{database.name}: backpressure has no effect: {database.backpressure_hindrance}")
    if database.backpressure != "off":
        yield one_line(f"{database.name}: backpressure is on: {PRICE_OF_BACKPRESSURE}")


def _cells(database: DatabaseStatus, now_ms: int, *, is_wide: bool) -> tuple[str, ...]:
    waits = database.spool_objects
    moment = _moment if is_wide else _day_or_time
    return (
        database.name,
        database.state,
        _lag(database, now_ms),
        _size(waits, database.spool_bytes, is_wide=is_wide) if waits else "empty",
        _size(database.bucket_objects, database.bucket_bytes, is_wide=is_wide),
        moment(database.last_commit_ms),
        moment(database.last_base_ms),
        moment(database.last_verified_ms),
        moment(database.last_scrub_ms),
        database.stored_position or "-",
    )


def _lag(database: DatabaseStatus, now_ms: int) -> str:
    """Return the age of the oldest pending commit, or how long ago the daemon last checked for new commits.

    ``--max-lag`` and the summary use the same value.
    """
    behind_s = database.behind_s(now_ms)
    if behind_s > max(database.lag_s, database.unseen_s, database.unbased_s, UNSEEN_SHOWN_S):
        return f"up to {behind_s:.1f} s"
    if database.unseen_s > max(database.lag_s, UNSEEN_SHOWN_S):
        return f"{database.unseen_s:.1f} s, not looked at"
    if database.unbased_s > max(database.lag_s, UNSEEN_SHOWN_S):
        return f"{database.unbased_s:.1f} s, in no base"
    return f"{database.lag_s:.1f} s, {format_size(database.lag_bytes)}" if database.spool_objects else "none"


def _size(objects: int, size: int, *, is_wide: bool) -> str:
    return f"{counted(objects, 'object')}, {format_size(size)}" if is_wide else format_size(size)


def _day_or_time(time_ms: int | None) -> str:
    day, _, hour = _moment(time_ms).partition(" ")
    return hour if day == time.strftime("%Y-%m-%d") else day


def _moment(time_ms: int | None) -> str:
    if time_ms is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
