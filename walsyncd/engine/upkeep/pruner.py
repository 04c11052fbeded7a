"""The pruner: removes objects that ``core.keep.retention`` allows to be removed, and checks that they are gone.

Statements are written first, then the steps follow in order. Each step's objects are listed again before the next step
begins, since some stores report success and keep the object. Objects that a batch has left are deleted one by one. If
an object is there even then, the pruning stops and reports this. A folder is listed when its pruning is due, at most
once a day. The next time follows from the last listing and from what was stored since. Objects that are not ours by
name are reported and never touched.

Names prove nothing: a base that was planted, or that is damaged, must not cause good bases to be deleted. So before
anything is deleted, the bases that stay are examined (``base_examination``). A base with a fault counts as absent, and
is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from walsyncd.adapters.journal.journal import DatabaseRow, Journal, JournalReader
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import DatabaseSpec
from walsyncd.core.keep.retention import DAY_MS, HeldObject, Policy, Pruning, decide
from walsyncd.core.stored.layout import (
    BaseKey,
    Key,
    ManifestKey,
    SegmentKey,
    WholeKey,
    folder_key,
    format_key,
    parse_key,
)
from walsyncd.core.stored.position import is_generation
from walsyncd.engine.restore.replica import OBJECTS_MAX, Replica
from walsyncd.engine.upkeep.base_examination import BaseExamination
from walsyncd.engine.upkeep.deletion import KEPT_HINT, Pruned, Removals, remove
from walsyncd.errors import RefusedError

DELETE_BATCH_MAX = 1000  # keys in one request of S3
STATEMENT = b"{}\n"  # a statement's key has all of its information

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Folder:
    """What a database's folder holds: our objects, and the keys of foreign ones."""

    held: tuple[HeldObject, ...]
    foreign: tuple[str, ...]


def policy_of(spec: DatabaseSpec) -> Policy:
    """Return the policy that a database's configuration sets."""
    keep = spec.keep
    return Policy(round(1000 * spec.retention_s), keep.daily, keep.weekly, keep.monthly)


def list_folder(storage: Storage, name: str) -> Folder:
    """List all generations of a database. Other folders in its folder may be other databases, and are not listed."""
    cut = len(folder_key(name, ""))
    held: list[HeldObject] = []
    foreign: list[str] = []
    for generation in filter(is_generation, storage.folders(folder_key(name, ""))):
        for info in storage.list(folder_key(name, f"{generation}/")):
            key = parse_key(info.key[cut:])
            if key is None:
                foreign.append(info.key)
            else:
                held.append(HeldObject(key, info.modified_ms, info.size))
            if len(held) + len(foreign) > OBJECTS_MAX:
                raise RefusedError(f"list {name}: its folder holds more than {OBJECTS_MAX} objects")
    return Folder(tuple(held), tuple(foreign))


def what_may_go(
    folder: Folder, policy: Policy, *, now_ms: int, journal: JournalReader | Journal | None, row: DatabaseRow | None
) -> Pruning:
    """Return what may be deleted, given the journal's proven base and its bases under way."""
    proven = parse_key(row.proven_key) if row is not None and row.proven_key else None
    bases = journal.bases(row.id) if journal is not None and row is not None else []
    under_way = {key for base in bases if isinstance(key := parse_key(base.row.key), BaseKey)}
    passed = {proven} if isinstance(proven, ManifestKey) else set()
    return decide(folder.held, policy, now_ms=now_ms, proven=passed, under_way=under_way)


@dataclass(frozen=True, slots=True)
class TrustworthyPruning:
    """A decision based on bases that were read. ``doubted`` has the bases that do not count, and what is wrong."""

    told: Pruning
    doubted: Mapping[ManifestKey, str]


def trustworthy_pruning(
    storage: Storage,
    folder: Folder,
    policy: Policy,
    *,
    now_ms: int,
    journal: JournalReader | Journal | None,
    row: DatabaseRow | None,
    name: str,
    examination: BaseExamination,
) -> TrustworthyPruning:
    """Decide, examine the bases that the decision relies on, and decide again without those that are faulty.

    Nothing is deleted if no sound base would remain. Raises what the storage raises.
    """
    replica = Replica(storage, name)
    read: set[ManifestKey] = set()
    doubted: dict[ManifestKey, str] = {}
    while True:
        apart = {*doubted, *(manifest.base for manifest in doubted)}  # doubted bases stay, for a person to examine
        counted = replace(folder, held=tuple(each for each in folder.held if each.key not in apart))
        told = what_may_go(counted, policy, now_ms=now_ms, journal=journal, row=row)
        if not told.steps:
            return TrustworthyPruning(told, doubted)
        if not told.relied:
            return TrustworthyPruning(replace(told, statements=(), steps=(), going=()), doubted)
        unread = [base for base in told.relied if base not in read]
        faults = examination.faults(replica, folder.held, unread, row)
        read.update(base for base in unread if base not in faults)
        doubted |= faults
        if not faults:
            examination.keep_only(name, told.relied)
            return TrustworthyPruning(told, doubted)


class Pruner:
    """Prunes replicas. ``may_delete`` raises if a database's objects may not be deleted now.

    ``store_ms`` returns the time of the store's clock.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        *,
        may_delete: Callable[[int], None],
        store_ms: Callable[[], int],
        removals: Removals,
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._removals = removals
        self._may_delete = may_delete
        self._store_ms = store_ms
        self._examination = BaseExamination()

    def prune(self, database_id: int, policy: Policy) -> Pruned:
        """List, decide, remove, and note the result. Raises what the storage and ``may_delete`` raise."""
        row = self._journal.database_by_id(database_id)
        folder = list_folder(self._storage, row.name)
        if folder.foreign:
            _log.warning(
                "foreign_objects_found", database=row.name, objects=len(folder.foreign), first=folder.foreign[0]
            )
        now_ms = self._store_ms()
        decided = trustworthy_pruning(
            self._storage,
            folder,
            policy,
            now_ms=now_ms,
            journal=self._journal,
            row=row,
            name=row.name,
            examination=self._examination,
        )
        told = decided.told
        if decided.doubted:
            fault = next(iter(decided.doubted.values()))
            _log.error("bases_doubted", database=row.name, bases=len(decided.doubted), first=fault)
        leftover = self._replaced(row, folder)
        left: set[str] = set()
        if told.statements or told.steps or leftover:
            self._may_delete(database_id)
            left = self._carry_out(row.name, told, leftover)
        gone = {each.held.key for each in told.going} | set(leftover)
        rest = [each for each in folder.held if each.key not in gone]
        due_ms = now_ms + DAY_MS if left else told.next_ms
        stated = [key for key in told.statements if not any(key in step for step in told.steps)]
        sizes = [*(each.size for each in rest), *(len(STATEMENT) for _ in stated)]
        self._journal.note_pruned(database_id, now_ms, due_ms, objects=len(sizes), size=sum(sizes))
        return self._tell(row, gone={each.key: each.size for each in folder.held if each.key in gone}, left=left)

    def _tell(self, row: DatabaseRow, *, gone: Mapping[Key, int], left: Collection[str]) -> Pruned:
        if left:
            self._removals.failed("pruning")
            _log.error("objects_not_deleted", database=row.name, objects=len(left), first=min(left), remedy=KEPT_HINT)
            return Pruned(0, 0, tuple(sorted(left)))
        pruned = Pruned(len(gone), sum(gone.values()))
        if gone:
            self._removals.removed(row.id, pruned.objects, pruned.size)
            _log.info("pruned", database=row.name, objects=pruned.objects, bytes=pruned.size)
        return pruned

    def _replaced(self, row: DatabaseRow, folder: Folder) -> list[Key]:
        """Return segments that are there although a compaction deleted them. Forget epochs without such segments.

        Segments stay if the object that replaced them is not there as it was written.
        """
        segments = [each.key for each in folder.held if isinstance(each.key, SegmentKey)]
        sizes = {format_key(each.key): each.size for each in folder.held if isinstance(each.key, WholeKey)}
        found: list[Key] = []
        for whole in self._journal.wholes(row.id):
            if whole.state == "replaced" and sizes.get(whole.key, whole.size) == whole.size:
                epoch = whole.epoch
                own = [key for key in segments if (key.generation, key.epoch) == (epoch.generation, epoch.epoch)]
                found += own if whole.key in sizes else []
                if not own:
                    self._journal.epoch_forgotten(epoch)
        return found

    def _carry_out(self, name: str, told: Pruning, leftover: Sequence[Key]) -> set[str]:
        """Carry out the steps.

        Returns the keys that the store kept although they were deleted. If there are any, later steps are skipped.
        """
        for statement in told.statements:
            self._storage.put(folder_key(name, format_key(statement)), STATEMENT, metadata={})
        for step in (tuple(leftover), *told.steps):
            left = self._delete(name, step)
            if left:
                return left
        return set()

    def _delete(self, name: str, keys: Sequence[Key]) -> set[str]:
        names = [folder_key(name, format_key(key)) for key in keys]
        for start in range(0, len(names), DELETE_BATCH_MAX):
            remove(self._storage, names[start : start + DELETE_BATCH_MAX])
        left = self._still_there(names)
        for key in sorted(left, reverse=True):
            remove(self._storage, [key])
        return self._still_there(left) if left else left

    def _still_there(self, names: Collection[str]) -> set[str]:
        folders = {"/".join(name.split("/")[: -_depth(name)]) + "/" for name in names}
        present = {info.key for folder in sorted(folders) for info in self._storage.list(folder)}
        return present.intersection(names)


def _depth(name: str) -> int:
    """Return how many path segments a key has below ``base``, ``pruned``, ``wal`` or ``whole``."""
    return 2 if name.split("/")[-3] == "wal" else 1
