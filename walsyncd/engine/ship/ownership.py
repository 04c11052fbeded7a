"""Decides who may write to a database's folder: one daemon at a time, which is named in ``owner.json``.

Before its first write a run reads ``owner.json``, decides (``core.stored.owner``), and makes its run id durable in the
journal. Then it writes ``owner.json``, on the condition that the file has not changed since it was read. While the run
writes objects, it checks ``owner.json`` now and then. Where objects expire by age, the run writes ``owner.json`` again
before it expires.

At an orderly stop a generation is released in ``owner.json``, where the store honours conditions. Another daemon may
then take the generation over, on the condition that ``owner.json`` has not changed since that daemon read it. So of two
daemons that try, one succeeds.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from urllib.parse import unquote

import structlog

from walsyncd.adapters.files.source import boot_id, machine_id
from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.adapters.storage.interface import HasConditions, Storage
from walsyncd.config.mounts import network_mount, read_mounts
from walsyncd.core.stored.layout import OWNER_KEY, SegmentKey, folder_key, parse_key, wal_folder
from walsyncd.core.stored.owner import (
    OWNER_BYTES_MAX,
    Owner,
    format_owner,
    is_ours,
    lost_reason,
    may_be_continued,
    parse_owner,
)
from walsyncd.core.stored.position import is_generation
from walsyncd.errors import CorruptError, MissingError, TransientError

_RACES_MAX = 3  # two daemons that start at once need one round; if three are not enough, the store answers wrongly

_log = structlog.get_logger()


class Standing(Enum):
    """Our claim to a database's folder."""

    OURS = auto()
    LOST = auto()  # this generation can't be continued, but another one may be begun
    TAKEN = auto()  # another daemon writes here now: nothing more may be written


@dataclass(frozen=True, slots=True)
class Verdict:
    """A standing, and the reason if it is not OURS. ``is_new`` means that nothing of the database was stored before."""

    standing: Standing
    reason: str = ""
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """This daemon: ``run_id`` is new at every start, ``machine_id`` is /etc/machine-id.

    ``known_as`` has the machine ids that this journal has seen earlier since this machine's boot.
    """

    host: str
    machine_id: str
    run_id: str
    known_as: frozenset[str] = frozenset()

    @property
    def machine_ids(self) -> frozenset[str]:
        """Every id of this machine."""
        return self.known_as | {self.machine_id}


@dataclass(frozen=True, slots=True)
class Release:
    """An ``owner.json`` by which another daemon released its generation.

    Its ETag stays ``etag`` until a daemon takes the generation.
    """

    owner: Owner
    etag: str


_OURS = Verdict(Standing.OURS)


def new_run(journal: Journal) -> Identity:
    """Return the identity of a run that begins now, and note the run in the journal."""
    machine = machine_id()
    known_as = journal.note_machine(boot_id(), machine)
    run = Identity(socket.gethostname(), machine, secrets.token_hex(16), known_as)
    if not journal.begin_run(run.run_id):
        _log.warning("state_dir_was_copied", state_dir=str(journal.folder))
    return run


class Ownership:
    """Claims databases for this run and checks that they still are ours. Any thread may call.

    ``expire_s`` is the age at which the store removes objects; it is None if the store keeps them.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        identity: Identity,
        wall_ms: Callable[[], int],
        *,
        expire_s: float | None = None,
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._identity = identity
        self._wall_ms = wall_ms
        self._expire_s = expire_s
        self._lock = threading.Lock()
        self._began_empty: bool | None = None  # guarded by the lock; None until the first check

    def claim(self, database: DatabaseRow, generation: str) -> Verdict:
        """Claim ``generation`` of the database for writing, or return why it can't be continued.

        Raises TransientError and RefusedError of the storage.
        """
        if self._is_unwritten(database) and not self._stored_before(database.name):
            if self._write(database, None):
                return Verdict(Standing.OURS, is_new=True)
            database = self._journal.database_by_id(database.id)
        for _ in range(_RACES_MAX):
            info = self._storage.head(folder_key(database.name, OWNER_KEY))
            seen = self._seen(database.name) if info else None
            reason = self._lost_reason(database, generation, seen)
            if reason:
                return Verdict(Standing.LOST, reason)
            if seen is not None and seen.run_id == database.owner_next:
                # That run was killed after its write. It is noted now, because ``owner_next`` will name this run.
                self._journal.claimed(database.id, seen.run_id)
            if self._write(database, info.etag if info else None):
                return _OURS
            # Another writer was faster, or the change is our own: an HTTP client that repeats a request finds what its
            # first attempt wrote.
            database = self._journal.database_by_id(database.id)
        raise TransientError(f"claim {database.name}: its owner.json changes whenever it is read")

    def _is_unwritten(self, database: DatabaseRow) -> bool:
        """Whether neither an earlier run of this journal nor a claim of this run has written to the folder."""
        is_new = database.owner_run is None and database.stored_generation is None
        return is_new and database.owner_next in {None, self._identity.run_id}

    def _stored_before(self, name: str) -> bool:
        """Whether the folder may have a generation. Nothing is listed if the storage was empty at the first check.

        If the folder has none, another writer may still come. It writes ``owner.json`` first, and ours is then refused.
        """
        return not self._has_begun_empty() and bool(self._generations(name))

    def _has_begun_empty(self) -> bool:
        with self._lock:
            if self._began_empty is None:
                self._began_empty = next(iter(self._storage.list("")), None) is None
            return self._began_empty

    def released(self, database: DatabaseRow) -> Release | None:
        """Return the release of another daemon's generation that this one may continue, or None.

        Raises TransientError and RefusedError.
        """
        if self._has_begun_empty():
            return None
        info = self._storage.head(folder_key(database.name, OWNER_KEY))
        seen = self._seen(database.name) if info else None
        if info is None or seen is None or not seen.released:
            return None
        is_left = may_be_continued(
            seen,
            machine_ids=self._identity.machine_ids,
            runs=_runs(database),
            in_bucket=self._generations(database.name),
            is_known=bool(database.last_generation),
        )
        return Release(seen, info.etag) if is_left else None

    def take(self, database: DatabaseRow, release: Release) -> bool:
        """Become the owner of a released generation. Returns False if it may not be continued after all.

        Another daemon may have been faster, and a store that does not honour conditions can't show which one was.
        """
        return self._write(database, release.etag) and self.is_exclusive()

    def release(self, database: DatabaseRow, generation: str) -> bool:
        """Release ``generation``, so that another daemon may continue it. Returns False if the database is not ours.

        The caller has checked that the store ``is_exclusive``. Nothing may be written to the database's folder after
        this call has begun.
        """
        key = folder_key(database.name, OWNER_KEY)
        if database.owner_run != self._identity.run_id:
            return False
        info = self._storage.head(key)
        seen = self._seen(database.name)
        if info is None or seen is None or seen.run_id != self._identity.run_id:
            return False
        return self._storage.put_if(key, format_owner(self._me(released=generation)), etag=info.etag)

    def is_exclusive(self) -> bool:
        """Whether the store has shown that only one of two competing writers succeeds, even on two machines.

        In a network file system a lock does not show at once what another machine wrote.
        """
        if not isinstance(self._storage, HasConditions) or not self._storage.honours_conditions:
            return False
        scheme, _, folder = self._storage.url.partition("://")
        return scheme != "file" or not network_mount(Path(unquote(folder)).resolve(), read_mounts())

    def look(self, database: DatabaseRow, *, doubted: str | None = None) -> Verdict:
        """Check in the middle of a run whether the database is still ours.

        If ``doubted`` is a generation, its objects in the bucket are also compared with the journal.
        """
        seen = self._seen(database.name)
        if seen is None:
            return Verdict(Standing.LOST, "owner.json is gone from the bucket")
        if seen.run_id != self._identity.run_id:
            return Verdict(Standing.TAKEN, f"another daemon writes to this database now: {seen}")
        unknown = self._unknown_object(database, doubted) if doubted else ""
        if unknown:
            return Verdict(Standing.LOST, unknown)
        self._keep_young(database, seen)
        return _OURS

    def look_for_another(self, database: DatabaseRow, generation: str, *, after: str) -> Verdict:
        """Check whether segments after the key ``after`` hold the same frames twice, because two daemons wrote them."""
        cut, before = len(folder_key(database.name, "")), (0, 0)
        folder, start = wal_folder(generation), folder_key(database.name, after)
        for info in self._storage.list(folder_key(database.name, folder), start_after=start):
            key = parse_key(info.key[cut:])
            if not isinstance(key, SegmentKey):
                continue
            if (key.epoch, key.first) <= before:
                return Verdict(
                    Standing.LOST,
                    f"the bucket has {info.key} beside other objects with the same frames: a machine that is a copy of"
                    " this one wrote to the generation too",
                )
            before = (key.epoch, key.last)
        return _OURS

    def _keep_young(self, database: DatabaseRow, seen: Owner) -> None:
        """Write ``owner.json`` again at half of its maximum age. The next check detects a race."""
        if self._expire_s is None:
            return
        age_s = self._wall_ms() / 1000 - datetime.fromisoformat(seen.since).timestamp()
        if abs(age_s) >= self._expire_s / 2:
            info = self._storage.head(folder_key(database.name, OWNER_KEY))
            self._write(database, info.etag if info else None)

    def _seen(self, name: str) -> Owner | None:
        try:
            return parse_owner(self._storage.get(folder_key(name, OWNER_KEY), length=OWNER_BYTES_MAX + 1))
        except MissingError:
            return None
        except CorruptError:  # it was not written by us
            return Owner("unknown", "unknown", "unreadable", "unknown")

    def _lost_reason(self, database: DatabaseRow, generation: str, seen: Owner | None) -> str:
        runs = _runs(database)
        if is_ours(seen, machine_ids=self._identity.machine_ids, runs=runs):
            return self._unknown_object(database, generation)
        in_bucket = self._generations(database.name)
        reason = lost_reason(
            seen,
            machine_ids=self._identity.machine_ids,
            runs=runs,
            generation=generation,
            was_stored=database.stored_generation == generation,
            in_bucket=in_bucket,
        )
        if reason and in_bucket:
            self._journal.note_last_generation(database.id, max(in_bucket))
        return reason

    def _generations(self, name: str) -> list[str]:
        folders = self._storage.folders(folder_key(name, ""))
        return [folder for folder in folders if is_generation(folder)]

    def _unknown_object(self, database: DatabaseRow, generation: str) -> str:
        """Return a reason if the bucket is ahead of the journal: the journal or the machine was restored."""
        known = {row.key for row in self._journal.pending(database.id)}
        after = database.stored_key if database.stored_generation == generation else None
        start_after = folder_key(database.name, after) if after else ""
        cut = len(folder_key(database.name, ""))
        folder = folder_key(database.name, wal_folder(generation))
        for info in self._storage.list(folder, start_after=start_after):
            if info.key[cut:] not in known:
                return f"the bucket has {info.key}, which this journal does not know"
        return ""

    def _write(self, database: DatabaseRow, etag: str | None) -> bool:
        run_id = self._identity.run_id
        if database.owner_next != run_id:  # a base's row may have noted the run already
            self._journal.claim_begun(database.id, run_id)
        if not self._storage.put_if(folder_key(database.name, OWNER_KEY), format_owner(self._me()), etag=etag):
            return False
        self._journal.claimed_deferred(database.id, run_id)
        return True

    def _me(self, *, released: str = "") -> Owner:
        since = datetime.fromtimestamp(self._wall_ms() / 1000, UTC).isoformat(timespec="seconds")
        me = self._identity
        return Owner(me.host, me.machine_id, me.run_id, since, released)


def _runs(database: DatabaseRow) -> set[str]:
    """Return the runs that this journal wrote into ``owner.json`` last, or may have written."""
    return {run for run in (database.owner_run, database.owner_next) if run}
