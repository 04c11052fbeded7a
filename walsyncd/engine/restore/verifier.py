"""Verifies a replica: every object is read, and every chain is followed up to the head of every generation.

==============  ==========================================================================================
manifest        it can be parsed, and its base is there and has the size that the manifest says
base            every range unpacks, and has the checksum that the manifest says
epoch           its objects in order continue one chain, and trailers agree with the frames
other objects   segments of a whole, and overlaps, end with the same chain as the objects of the row above
coverage        nothing is missing after any base, except what retention stated as removed
head            it is restored into a file of our own, and SQLite finds that sound; the restore reads the base,
                which is then not read again
bridges         they are counted; positions that they make suspect are a note, since the damage is healed
==============  ==========================================================================================

A hole is a problem only if a second listing shows it too. A base without a manifest, or a generation without a base,
is unfinished. Nothing can be restored from it, but this is not damage, so it is a note. If retention or a compaction
removes an object meanwhile, another listing shows that, and the generation is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

from walsyncd.adapters.files.integrity import check_integrity
from walsyncd.core.restore.bridge_points import bridges_after
from walsyncd.core.restore.coverage import End, FramesKey, GenerationListing, cover, cover_epoch, listing_of
from walsyncd.core.restore.plan import Head
from walsyncd.core.sqlite.checksum import Chain
from walsyncd.core.stored.layout import Key, ManifestKey, format_key
from walsyncd.core.stored.manifest import Manifest
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.base_fetch import fetch_base
from walsyncd.engine.restore.bridge_reader import read_bridges
from walsyncd.engine.restore.damage_report import DamageReport, damage_report
from walsyncd.engine.restore.epoch_reader import EpochReader
from walsyncd.engine.restore.planner import REPLANS_MAX, RestoreRequest
from walsyncd.engine.restore.replica import EMPTY_HINT, Replica
from walsyncd.engine.restore.restorer import restore_request
from walsyncd.errors import (
    CorruptError,
    NothingToRestoreError,
    RefusedError,
    TransientError,
    VanishedError,
    WalsyncdError,
)

HEADS = 8  # requests at a time, as many as `uploads_max` has by default


@dataclass(slots=True)
class Verification:
    """How many objects and stored bytes were read, and what is wrong. Each problem names the object that is wrong.

    ``damage_report`` says for each generation with problems what they mean for restoring.
    """

    generations: int = 0
    bases: int = 0
    objects: int = 0
    size: int = 0
    transactions: int = 0
    bridges: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damage_report: list[DamageReport] = field(default_factory=list)

    def add(self, other: Verification) -> None:
        """Add the result of another part of the replica."""
        for name in (each.name for each in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def verify(replica: Replica, *, quick: bool = False, scratch: Path | None = None) -> Verification:
    """Read all of a replica, or with ``quick`` only what LIST and HEAD say.

    With ``scratch`` the head is restored to that file, and SQLite checks the file. The file stays. ``quick`` does not
    restore the head. Raises NothingToRestoreError if the replica is empty.
    """
    result = Verification()
    head = _Head(replica, scratch) if scratch is not None and not quick else None
    for generation in replica.generations():
        result.add(_verify_with_retries(replica, generation, quick=quick, sound=head.base if head else None))
    if not result.generations:
        raise NothingToRestoreError(f"verify {replica.url}: the replica is empty", hint=EMPTY_HINT)
    if not result.bases:
        result.problems.append("nothing can be restored: no generation has a finished base")
    if head is not None and not result.problems:
        head.tell(result)
    return result


class _Head:
    """Verifies the head, which is restored to ``scratch``. ``base`` is the head's base if it was read and is sound."""

    def __init__(self, replica: Replica, scratch: Path) -> None:
        self._scratch = scratch
        self._failure: WalsyncdError | None = None
        self.base: ManifestKey | None = None
        try:
            plan = restore_request(replica, RestoreRequest(Head()), scratch).plan
        except TransientError:
            raise
        except WalsyncdError as error:
            self._failure = error
        else:
            self.base, self._reached = plan.base, plan.reached.position

    def tell(self, result: Verification) -> None:
        """Add to ``result`` what SQLite finds in the head, or why SQLite was not asked.

        This is not called if objects are damaged, since the problems of the objects say more about that.
        """
        if isinstance(self._failure, RefusedError):
            result.notes.append(f"the head was not restored: {self._failure}")
        elif self._failure is not None:
            result.problems.append(self._failure.message)
        else:
            found = check_integrity(self._scratch)
            result.problems += [f"integrity_check of {self._reached}: {problem}" for problem in found.problems]
            if found.unchecked:
                result.notes.append(f"integrity_check of {self._reached} was left out: {found.unchecked}")


def _verify_with_retries(replica: Replica, generation: str, *, quick: bool, sound: ManifestKey | None) -> Verification:
    """Verify a generation. If an object vanishes meanwhile, verify the generation again with another listing."""
    for _ in range(REPLANS_MAX):
        try:
            return _Generation(replica, generation, sound, believes_absence=False).verify(quick=quick)
        except VanishedError:
            continue
    return _Generation(replica, generation, sound, believes_absence=True).verify(quick=quick)


class _Generation:
    """One listing of a generation, and what is found in it.

    With ``believes_absence`` an object that is listed and absent is a problem. The base ``sound`` was read already.
    """

    def __init__(self, replica: Replica, generation: str, sound: ManifestKey | None, *, believes_absence: bool) -> None:
        self._replica = replica
        self._sound = sound
        self._believes_absence = believes_absence
        self._stored = list(replica.objects(generation))
        (self._part,) = listing_of((each.key for each in self._stored), [generation]).generations
        self._damaged: set[Key] = set()
        self._result = Verification(
            generations=1,
            bases=len(self._part.manifests),
            objects=len(self._stored),
            size=sum(each.size for each in self._stored),
        )

    def verify(self, *, quick: bool) -> Verification:
        """Verify the generation. Raises VanishedError if a listed object is absent, unless absence is believed."""
        part, result = self._part, self._result
        if quick:
            self._verify_heads()
        else:
            self._verify_contents()
            self._note_bridges()
        result.problems += _holes(self._replica, part)
        result.notes += _unfinished(part)
        if result.problems:
            result.damage_report.append(damage_report(part, self._damaged))
        return result

    def _verify_heads(self) -> None:
        """Check that HEAD gives each object the size that the listing said."""
        with ThreadPoolExecutor(HEADS) as pool:
            sizes = list(pool.map(self._replica.head_size, [each.key for each in self._stored]))
        for each, size in zip(self._stored, sizes, strict=True):
            if size is None:
                self._blame(each.key, VanishedError(f"{format_key(each.key)}: it is listed, but not there"))
            elif size != each.size:
                error = CorruptError(f"{format_key(each.key)}: it has {size} bytes, the listing says {each.size}")
                self._blame(each.key, error)
            elif not size:
                self._blame(each.key, CorruptError(f"{format_key(each.key)}: it is empty"))
        missing = [base for base in self._part.manifests if base.base not in self._part.bases]
        for base in missing:
            self._blame(base, CorruptError(f"{format_key(base.base)}: it is missing, its manifest is there"))

    def _verify_contents(self) -> None:
        page_sizes = {self._verify_base(base) for base in self._part.manifests} - {0}
        if len(page_sizes) > 1:
            generation = self._part.generation
            self._result.problems.append(f"generation {generation}: bases of different page sizes {sorted(page_sizes)}")
        for epoch in self._part.by_epoch:
            self._verify_epoch(epoch, max(page_sizes, default=None))

    def _note_bridges(self) -> None:
        """Count bridges, and note what they make suspect. Unreadable bridges were reported with their objects."""
        keys = bridges_after(self._part, Position(self._part.generation, 0, 0))
        bridges, _ = read_bridges(self._replica, keys)
        self._result.bridges = len(bridges)
        for bridge in bridges:
            if bridge.suspect_from is not None:
                before = f"what came before {bridge.after.position} is suspect"
                self._result.notes.append(f"{before}: {bridge.suspect_text()}")

    def _verify_base(self, base: ManifestKey) -> int:
        """Read a base, and return its page size, or 0 if the manifest can't be read."""
        sizes = {each.key: each.size for each in self._stored}
        manifest: Manifest | None = None
        try:
            manifest = self._replica.manifest(base)
            if sizes.get(base.base) != manifest.size:
                size = sizes.get(base.base, "no")
                raise CorruptError(f"{manifest.key}: it has {size} bytes, its manifest says {manifest.size}")
            if base != self._sound:
                fetch_base(self._replica, base, manifest, _discard)
        except CorruptError as error:
            self._blame(base, error)
        return manifest.page_size if manifest else 0

    def _verify_epoch(self, epoch: int, page_size: int | None) -> None:
        """Read every object of an epoch: first the objects that cover the epoch, then the others.

        The object after a damaged one can't continue the chain, and is read by itself.
        """
        run = cover_epoch(self._part, epoch)
        others = [key for key in self._part.by_epoch[epoch] if key not in run.objects]
        ends = {key.last for key in others}
        chains: dict[int, Chain] = {}
        reader = EpochReader(self._replica, epoch, page_size)
        for key in run.objects:
            try:
                self._result.transactions += _follow(reader, key, chains, ends)
            except CorruptError as error:
                self._blame(key, error)
                reader = EpochReader(self._replica, epoch, reader.page_size)
        for key in others:
            try:
                _compare(EpochReader(self._replica, epoch, reader.page_size), key, chains)
            except CorruptError as error:
                self._blame(key, error)

    def _blame(self, key: Key, error: CorruptError) -> None:
        if isinstance(error, VanishedError) and not self._believes_absence:
            raise error
        self._damaged.add(key)
        self._result.problems.append(error.message)


def _discard(_raw: bytes | memoryview, _offset: int) -> None:
    """Ignore the bytes, since reading them verifies them."""


def _follow(reader: EpochReader, key: FramesKey, chains: dict[int, Chain], ends: set[int]) -> int:
    """Read an object on the reader's chain and note the chain after certain frames. Returns its transactions."""
    transactions = last_commit = 0
    for frames in reader.read(key):
        transactions += len(frames.commits)
        last_commit = frames.commits[-1] if frames.commits else last_commit
        for frame in ends:
            if frames.first <= frame <= frames.last:
                chains[frame] = frames.chain_after(frame, (0, 0))
    if last_commit != key.last:
        raise CorruptError(f"{format_key(key)}: its last frame does not commit")
    return transactions


def _compare(reader: EpochReader, key: FramesKey, chains: dict[int, Chain]) -> None:
    """Read an object by itself. It must be whole, and end with the same chain as the other objects do."""
    for _ in reader.read(key):
        pass
    if chains.get(key.last, reader.chain) != reader.chain:
        raise CorruptError(f"{format_key(key)}: up to frame {key.last} it is another history than the other objects")


def _holes(replica: Replica, part: GenerationListing) -> list[str]:
    """Return the holes. A hole counts only if a second listing shows it too."""
    first = _hole_details(part)
    if not first:
        return []
    (again,) = listing_of((each.key for each in replica.objects(part.generation)), [part.generation]).generations
    second = _hole_details(again)
    return [f"generation {part.generation}: {detail}" for detail in first if detail in second]


def _hole_details(part: GenerationListing) -> list[str]:
    coverages = [cover(part, base) for base in part.finished]
    found = [coverage.detail for coverage in coverages if coverage.end in {End.HOLE, End.FORK}]
    return list(dict.fromkeys(found))


def _unfinished(part: GenerationListing) -> Iterator[str]:
    described = {manifest.base for manifest in part.manifests}
    for base in part.bases:
        if base not in described:
            yield f"{format_key(base)}: not finished, it has no manifest"
    if not part.finished:
        yield f"generation {part.generation}: nothing can be restored from it, it has no finished base"
