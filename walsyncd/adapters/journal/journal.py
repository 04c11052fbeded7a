"""walsyncd's own database: what is spooled, uploaded and in flight, and the state of each database.

The order is always: body → row → marked begun → S3 call → marked stored → body removed. Each step is durable before the
next. Bodies up to 64 KiB are in their row (one fsync, no file), larger bodies in the spool folder. After a crash the
journal may lack the note that an object was stored, for at most one object of each database. It has that object's key
and bytes, so it is never wrong, only late. Therefore, while transactions come often, a small segment is marked stored
in the next transaction (``deferred_changes``), at the latest in the one that begins the database's next object.

    <state_dir>/lock          held by the one daemon (flock)
    <state_dir>/journal.db    SQLite, WAL mode, synchronous=FULL
    <state_dir>/spool/        bodies
    <state_dir>/maps/         page maps (``page_map_file``)
    <state_dir>/drill/        the file that a drill is restoring
    <state_dir>/reserve       deleted when the disk is full (``state_disk``)
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from walsyncd.adapters.files.private_modes import tighten
from walsyncd.adapters.journal.base_table import BaseReads, BaseTable
from walsyncd.adapters.journal.database_table import DatabaseReads, DatabaseTable
from walsyncd.adapters.journal.drill_table import DrillReads, DrillTable
from walsyncd.adapters.journal.epoch_table import WholeReads, WholeTable
from walsyncd.adapters.journal.journal_schema import JOURNAL_NAME, connect
from walsyncd.adapters.journal.object_table import ObjectReads
from walsyncd.adapters.journal.page_map_table import PageMapReads, PageMapTable
from walsyncd.adapters.journal.read_only import connect_read_only
from walsyncd.adapters.journal.rows import (
    Advance,
    Base,
    DatabaseRow,
    GenerationBegun,
    GenerationContinued,
    GenerationRow,
    Leftover,
    NewObject,
    ObjectKind,
    ObjectRow,
    ObjectState,
    PartRow,
    StateNote,
    StoredBase,
)
from walsyncd.adapters.journal.scrub_table import ScrubReads, ScrubTable
from walsyncd.adapters.journal.spool import Spool, SpoolFile, SpoolWriter
from walsyncd.adapters.journal.state_disk import StateDisk
from walsyncd.adapters.journal.upload_table import UploadReads, UploadTable
from walsyncd.errors import CorruptStateError, UsageError

__all__ = [
    "Advance",
    "Base",
    "DatabaseRow",
    "GenerationBegun",
    "GenerationContinued",
    "GenerationRow",
    "Journal",
    "JournalReader",
    "Leftover",
    "NewObject",
    "ObjectKind",
    "ObjectRow",
    "ObjectState",
    "PartRow",
    "SpoolFile",
    "SpoolWriter",
    "StateLock",
    "StateNote",
    "StoredBase",
    "lock_state_dir",
    "reader",
]


class JournalReader(
    DatabaseReads, ObjectReads, UploadReads, BaseReads, WholeReads, DrillReads, PageMapReads, ScrubReads
):
    """A read-only view for the command line, which works with or without a running daemon."""


class Journal(DatabaseTable, WholeTable, UploadTable, BaseTable, DrillTable, PageMapTable, ScrubTable):
    """The daemon's journal. All methods may be called from any thread; each is one transaction."""

    disk: StateDisk
    """The disk of the state directory."""

    @property
    def folder(self) -> Path:
        """Return the state directory."""
        return self._path.parent

    @classmethod
    def open(cls, state_dir: Path, *, on_corrupt: Callable[[CorruptStateError], None] = lambda _error: None) -> Self:
        """Open or create the journal of a state directory.

        If a thread later finds the journal damaged, it calls ``on_corrupt`` before it raises the error.

        Raises CorruptStateError (with the remedy), StateError, and UsageError if the directory can't be used.
        """
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool = Spool(state_dir / "spool")
        except OSError as error:
            raise _unusable(state_dir, error) from error
        path = state_dir / JOURNAL_NAME
        _make_private(state_dir, path)
        journal = cls(connect(path), path, spool)
        journal.read_separately()
        journal.on_corrupt = on_corrupt
        journal.disk = StateDisk(state_dir)
        journal.disk.keep_reserve()
        journal.sweep_forgotten()
        return journal


def reader(state_dir: Path) -> JournalReader:
    """Return the journal of a state directory, read only. Raises MissingError if there is none."""
    path = state_dir / JOURNAL_NAME
    return JournalReader(connect_read_only(path), path)


class StateLock:
    """Excludes a second daemon from a state directory until it is closed or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_state_dir(state_dir: Path) -> StateLock:
    """Lock the state directory for this process. Raises UsageError, which names the process that has locked it."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(state_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise UsageError(
            f"lock state directory {state_dir}: process {holder} has it",
            hint="stop the other walsyncd, or give this one a state_dir of its own",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return StateLock(descriptor)


def _make_private(state_dir: Path, path: Path) -> None:
    """Allow only the owner and the group to read the files; SQLite gives -wal and -shm the journal's mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        tighten(state_dir)
    except OSError as error:
        raise _unusable(state_dir, error) from error


def _unusable(state_dir: Path, error: OSError) -> UsageError:
    return UsageError(
        f"open state directory {state_dir}: {error.strerror}",
        hint="state_dir must be a folder that this user may write",
    )
