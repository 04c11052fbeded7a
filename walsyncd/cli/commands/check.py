"""``walsyncd check``: examines configuration, databases, state directory and storage, and reports every problem.

============  ==================================================================  ====
line          meaning                                                             exit
============  ==================================================================  ====
``ok``        as it should be
``note``      works, but perhaps not as intended
``problem``   replication will not work like this                                 1
============  ==================================================================  ====
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from walsyncd.adapters.system import clock
from walsyncd.cli import settings_from
from walsyncd.cli.bounded import READ_STATE, asked, in_folder, looked, searched
from walsyncd.cli.configured_storage import FOLDERS_FILE, answering_storage
from walsyncd.cli.table import counted, say
from walsyncd.errors import UnresponsiveError, WalsyncdError
from walsyncd.file_calls import FileCall

if TYPE_CHECKING:
    from walsyncd.adapters.files.source import OpenFile
    from walsyncd.config import DatabaseSpec, Settings, StorageSettings

# The smallest page of SQLite. A database file is a whole number of pages, even if the file is encrypted.
_PAGE_SIZE_MIN = 512

ANSWER_TIMEOUT_S = 15.0  # the wait for a daemon's answer; without an answer the daemon's facts are left out

# By default SQLite copies the WAL back at every commit that leaves 1,000 pages in it, which are 4 MiB. A large
# transaction is copied back by its own commit. So a WAL of 16 times 4 MiB is not just between two checkpoints.
UNCOPIED_BYTES_MAX = 64 << 20

STATE_BYTES_MIN = 64 << 10  # with less free space the journal can't grow
STEADY_S = 10.0  # a file that was written so recently may be written all the time
WAL_ADVICE = (
    "`PRAGMA journal_mode=WAL` has every commit shipped at once. It is set once and stays in the file, -wal and -shm"
    " files appear beside it and belong to it, readers and a writer do not wait for each other, and it needs a local"
    " file system"
)
# Bytes 18 and 19 of SQLite's header are 1 for a rollback journal and 2 for WAL. No other value is defined.
_FORMAT_VERSION_MAX = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result: what was examined, and what was found."""

    kind: Literal["ok", "note", "problem"]
    subject: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" (hint: {self.hint})" if self.hint else ""
        return f"{self.kind:8}{self.subject}: {self.text}{hint}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments besides ``--config``."""
    parser.description = (
        f"{parser.description}\n\n"
        "Each line begins with ok, with note (it works, but perhaps not as meant: no\n"
        "database is configured, a pattern matches nothing, a WAL never restarts), or\n"
        "with problem (replication will not work like this: exit 1)."
    )


def run(args: argparse.Namespace) -> int:
    """Print a line for everything examined. Returns 1 if any line is a problem."""
    settings = settings_from(args)
    has_problem = False
    for finding in _findings(settings):
        say(str(finding))
        has_problem |= finding.kind == "problem"
    return 1 if has_problem else 0


def _findings(settings: Settings) -> Iterator[Finding]:
    from walsyncd.adapters.files.match_examination import examine_match  # noqa: PLC0415  a command is light until it runs
    from walsyncd.config import find_databases  # noqa: PLC0415

    found = searched(lambda: find_databases(settings, examine=examine_match))
    specs = found.checked(settings)
    subject = f"configuration {settings.file}"
    if settings.databases:
        yield Finding("ok", subject, counted(len(specs), "database"))
    else:  # the daemon runs even without a database, and waits for a reload
        yield Finding("note", subject, "no databases are configured", 'add a [[database]] with its path = "/…"')
    yield from _secret_findings(settings.file)
    yield from _entry_findings(settings, specs)
    for each in found.suspended:
        yield Finding("problem", f"{each.entry} {each.path}", f"{each.cause}: it is suspended", each.remedy)
    faulty: set[str] = set()
    for spec in specs:
        of_files = _bounded_findings(spec)
        faulty.update(finding.subject for finding in of_files if finding.kind == "problem")
        yield from of_files
        yield from _price_findings(spec)
    yield from _daemon_findings(settings, faulty)
    yield from _kernel_findings()
    yield from _notify_findings(settings)
    yield _bounded_state_finding(settings.daemon.state_dir)
    for storage in settings.storages:
        yield from _storage_findings(settings, storage)


def _bounded_findings(spec: DatabaseSpec) -> list[Finding]:
    """Report on one database's files, within a limited time."""

    def look() -> list[Finding]:
        return [*database_findings(spec.path, own_only=spec.is_match), *_other_path_findings(spec)]

    try:
        return looked(look)
    except UnresponsiveError as error:
        return [Finding("problem", f"database {spec.path}", error.message, error.hint)]


def _secret_findings(file: Path) -> Iterator[Finding]:
    """Report secrets that every user of this machine can read."""
    from walsyncd.config import secrets_in  # noqa: PLC0415

    mode = stat.S_IMODE(file.stat().st_mode)
    secrets = secrets_in(file) if mode & stat.S_IROTH else []
    if secrets:
        text = f"everybody can read it (mode {mode:04o}), and it holds {secrets[0]}"
        yield Finding("problem", f"configuration {file}", text, f"chmod 0640 {file}, or LoadCredential= in the unit")


def _entry_findings(settings: Settings, specs: list[DatabaseSpec]) -> Iterator[Finding]:
    found = {spec.entry for spec in specs}
    for entry in settings.databases:
        if entry.key not in found:
            yield Finding("note", f"{entry.key} {entry.path}", "nothing matches at present")


def _kernel_findings() -> Iterator[Finding]:
    from walsyncd.adapters.files.file_lock import NO_OFD_LOCKS, has_ofd_locks  # noqa: PLC0415

    if not has_ofd_locks():
        yield Finding("problem", "kernel", *NO_OFD_LOCKS)


def _notify_findings(settings: Settings) -> Iterator[Finding]:
    """Report who is notified. Nothing is sent, since a heartbeat would mean that a daemon runs."""
    from walsyncd.adapters.system.web_hook import shown  # noqa: PLC0415

    notify = settings.notify
    if notify.heartbeat_url is not None:
        often = f"every {notify.heartbeat_interval_s:.0f} s while nothing is wrong"
        yield Finding("ok", "notify.heartbeat_url", f"{shown(notify.heartbeat_url)} is asked {often}")
    if notify.problem_url is not None:
        yield Finding("ok", "notify.problem_url", f"{shown(notify.problem_url)} gets a report of each problem")


def _price_findings(spec: DatabaseSpec) -> Iterator[Finding]:
    """Report the price of presence and of backpressure, if they are configured."""
    from walsyncd.core.follow import backpressure_decision, presence_decision  # noqa: PLC0415

    if spec.presence:
        yield Finding("note", f"database {spec.path}", f"presence is on: {presence_decision.PRICE}")
    if spec.backpressure:
        yield Finding("note", f"database {spec.path}", f"backpressure is on: {backpressure_decision.PRICE}")


def _daemon_findings(settings: Settings, faulty: set[str]) -> Iterator[Finding]:
    """Report what only a running daemon knows: bases that have waited long, and files that its user can't access.

    ``faulty`` are the subjects for which a problem was reported already.
    """
    from walsyncd.core.follow.database_state import DatabaseState  # noqa: PLC0415
    from walsyncd.engine.daemon.database_status import RESTART_REMEDY, parse_status  # noqa: PLC0415

    state_dir = settings.daemon.state_dir
    with suppress(WalsyncdError):  # if no daemon answers, that is not a problem of the configuration
        answer = asked(state_dir, {"op": "status"}, timeout_s=ANSWER_TIMEOUT_S) or {}
        for row in map(parse_status, answer.get("databases", [])):
            if row.waiting_base:
                text = f"the daemon says: {row.waiting_base.removesuffix(f' ({RESTART_REMEDY})')}"
                yield Finding("problem", f"database {row.path}", text, RESTART_REMEDY)
            if row.state in {DatabaseState.REFUSED, DatabaseState.FAILING} and f"database {row.path}" not in faulty:
                text = f"the daemon says: {row.state}: {row.cause}"
                yield Finding("problem", f"database {row.path}", text, row.remedy)
        if answer.get("storage"):
            yield Finding("problem", "daemon", str(answer["storage"]))


def _other_path_findings(spec: DatabaseSpec) -> Iterator[Finding]:
    """Report if an application uses the database by another path. If there is a sign of this, this takes seconds."""
    from walsyncd.adapters.files.other_path_sign import other_path_sign  # noqa: PLC0415
    from walsyncd.core.follow.other_path import APART_MS, OtherPath  # noqa: PLC0415

    found = OtherPath()
    while not found.is_certain:
        try:
            sign = other_path_sign(spec.path, own_only=spec.is_match)
        except WalsyncdError:  # another finding reports this error
            return
        if not sign.is_bare or not sign.is_locked:
            return
        found = found.seen(clock.monotonic_ms())
        time.sleep(APART_MS / 1000 + 0.01)
    yield Finding("problem", f"database {spec.path}", found.cause, found.remedy)


def database_findings(path: Path, *, own_only: bool = False) -> Iterator[Finding]:
    """Report on one database file and the files beside it: a single ``ok`` if there is nothing to report."""
    from walsyncd.adapters.files import source  # noqa: PLC0415

    subject = f"database {path}"
    try:
        file = source.open_file(path, own_only=own_only)
        if file is None:
            hint = "is the path right? replication starts when it appears"
            yield Finding("problem", subject, "does not exist", hint)
            return
        with file:
            findings = [*_content_findings(subject, file)]
        findings += _companion_findings(subject, path, own_only=own_only)
        findings += _wal_findings(subject, path, own_only=own_only)
    except WalsyncdError as error:
        findings = [Finding("problem", subject, error.message, error.hint)]
    yield from findings or [Finding("ok", subject, "a SQLite database in WAL mode")]


def _content_findings(subject: str, file: OpenFile) -> Iterator[Finding]:
    from walsyncd.adapters.files.source import Role, read_header, side_path  # noqa: PLC0415

    size, header = file.size(), read_header(file)
    with FileCall(file.path, "look beside"):
        has_wal = side_path(file.path, Role.WAL).exists()
    if size == 0:
        yield Finding("note", subject, "is empty: nothing was committed, or all of it is still in the WAL")
    elif size < _PAGE_SIZE_MIN or header is None:
        yield Finding("problem", subject, f"is not a SQLite database: {size} bytes are less than a page")
    elif not header.magic_ok and size % _PAGE_SIZE_MIN:
        text = f"is not a SQLite database: {size} bytes are not a whole number of pages"
        yield Finding("problem", subject, text)
    elif not header.magic_ok:
        yield Finding("note", subject, "header is not SQLite's: encrypted, or not a database")
    elif header.page_size is None:
        yield Finding("problem", subject, "has an impossible page size in its header", "`PRAGMA integrity_check`")
    elif max(header.write_version, header.read_version) > _FORMAT_VERSION_MAX:
        version = f"{header.write_version}/{header.read_version}"
        yield Finding("problem", subject, f"has file format version {version}: only 1 and 2 are known")
    elif not header.wal_mode and not has_wal:
        yield _rollback_finding(subject, file)


def _rollback_finding(subject: str, file: OpenFile) -> Finding:
    """Report how a database in rollback mode is followed, and advise WAL mode where that may not suffice."""
    from walsyncd.config import format_size  # noqa: PLC0415
    from walsyncd.core.send.scan_pace import SMALL_BYTES  # noqa: PLC0415

    identity = file.identity()
    if identity.size <= SMALL_BYTES:
        text = "is in rollback mode: after each change its pages are compared, and what differs is shipped"
        return Finding("note", subject, text, "`PRAGMA journal_mode=WAL` has every commit shipped by itself")
    text = f"is in rollback mode: what changed in its {format_size(identity.size)} is shipped once the file is quiet"
    age_s = max(0.0, clock.wall_ms() / 1000 - identity.mtime_ns / 1e9)
    if age_s < STEADY_S:
        text += f", and it was written {age_s:.0f} s ago: if that goes on, nothing is shipped before a pause"
    return Finding("note", subject, text, WAL_ADVICE)


def _companion_findings(subject: str, path: Path, *, own_only: bool) -> Iterator[Finding]:
    """Report an existing -wal or -shm file, or a folder to be watched, that can't be read."""
    from walsyncd.adapters.files.source import Role, open_file, side_path  # noqa: PLC0415

    for role in (Role.WAL, Role.SHM):
        file = open_file(side_path(path, role), own_only=own_only)
        if file is not None:
            file.close()
    with FileCall(path.parent, "look at"):
        is_open = os.access(path.parent, os.R_OK | os.X_OK)
    if not is_open:
        text = f"its folder {path.parent} can't be read"
        yield Finding("problem", subject, text, "inotify needs read permission there")


def _wal_findings(subject: str, path: Path, *, own_only: bool) -> Iterator[Finding]:
    """Report if the application's checkpoints do not keep up. A WAL that is not copied back whole never restarts.

    A WAL that a killed process left is not reported, because the next process that opens the database recovers it.
    """
    from walsyncd.adapters.files.source import Liveness, Role, liveness, open_file, side_path  # noqa: PLC0415
    from walsyncd.config import format_size  # noqa: PLC0415
    from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE  # noqa: PLC0415
    from walsyncd.core.sqlite.walindex import WALINDEX_READ_SIZE, parse_index_header  # noqa: PLC0415
    from walsyncd.engine.daemon.database_status import RESTART_REMEDY  # noqa: PLC0415

    shm = open_file(side_path(path, Role.SHM), own_only=own_only)
    if shm is None:
        return
    with shm:
        index = parse_index_header(shm.pread(0, WALINDEX_READ_SIZE))
        if index is None or liveness(shm) is not Liveness.LIVE:
            return
    size = (index.max_frame - index.backfilled) * (index.page_size + FRAME_HEADER_SIZE)
    if size >= UNCOPIED_BYTES_MAX:
        text = f"no checkpoint has copied the last {format_size(size)} of its WAL back: it does not restart like this,"
        yield Finding("note", subject, f"{text} it grows on, and each base stores its pages again", RESTART_REMEDY)


def _bounded_state_finding(state_dir: Path) -> Finding:
    try:
        return in_folder(state_dir, "use", lambda: state_dir_finding(state_dir))
    except UnresponsiveError as error:
        return Finding("problem", f"state directory {state_dir}", "its file system does not answer", error.hint)


def state_dir_finding(state_dir: Path) -> Finding:
    """Report whether the journal and the spool can be written."""
    subject = f"state directory {state_dir}"
    nearest = next(folder for folder in (state_dir, *state_dir.parents) if folder.exists())
    hint = f"make it a folder that this user (uid {os.geteuid()}) may write to"
    if nearest != state_dir:
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        text = "does not exist" + (": the daemon makes it" if writable else ", and can't be made")
        return Finding("note", subject, text) if writable else Finding("problem", subject, text, hint)
    try:
        with tempfile.TemporaryFile(dir=state_dir) as file:
            file.write(bytes(STATE_BYTES_MIN))
            file.flush()
            return Finding("ok", subject, "can be written")
    except OSError as error:
        hint = "make room on its file system" if error.errno in {errno.ENOSPC, errno.EDQUOT} else hint
        return Finding("problem", subject, f"can't be written: {error.strerror}", hint)


def _storage_findings(settings: Settings, how: StorageSettings) -> Iterator[Finding]:
    """Report whether a storage can be used, and whether any database uses it."""
    from walsyncd.adapters.storage.probe import probe, rules  # noqa: PLC0415

    subject = f"storage {how.url}"
    if how.name and all(entry.storage != how.name for entry in settings.databases):
        hint = f'storage = "{how.name}" in a [[database]] selects it'
        yield Finding("note", f"[{how.section}]", "no database selects it", hint)
    state_dir = settings.daemon.state_dir
    try:
        storage = answering_storage(how, state_dir=state_dir if _has_run(state_dir) else None)
        remarks = probe(storage, deletes=how.delete)
        if not any(remark.is_problem for remark in remarks):
            remarks += rules(storage, deletes=how.delete, expire_after_s=how.expire_after_s)
    except WalsyncdError as error:
        yield Finding("problem", subject, error.message, error.hint)
        return
    for remark in remarks:
        text = remark.text if remark.text.startswith(f"{remark.step} ") else f"{remark.step}: {remark.text}"
        yield Finding("problem" if remark.is_problem else "note", subject, text, remark.hint)
    if not any(remark.is_problem for remark in remarks):
        yield Finding("ok", subject, "can be reached, written and read")


def _has_run(state_dir: Path) -> bool:
    """Whether a daemon has stored its list of folders there. The check must not be the first to store such a list."""
    try:
        return in_folder(state_dir, READ_STATE, (state_dir / FOLDERS_FILE).exists)
    except UnresponsiveError:  # another line reports this
        return False
