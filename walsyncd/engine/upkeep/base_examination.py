"""Whether a base is what its name says: the manifest, the object, and the frames that make it consistent.

Anybody with a key of the bucket can choose names, sizes and times. Retention deletes older objects because of bases
that stay, so those bases are examined first:

- The base is not newer, by its name, than the newest base that this journal wrote.
- The manifest can be read and describes the base.
- The object has the manifest's size and ETag. If the ETag differs, the object is read.
- The frames after S, up to N, are read. Nothing else shows that a segment or a compacted epoch is what its name says.

A base that was read and is sound is remembered, with the ETag of its object and the listing's entries of its frames. So
a base is read once, and again after a restart or if one of its objects was written again. Only objects with frames
after S, up to N, are read. Where possible, the last of them is read only up to N. The frames from S to N were written
while the base was copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.core.keep.retention import HeldObject
from walsyncd.core.restore.coverage import FramesKey, GenerationListing, base_order, cover, listing_of
from walsyncd.core.sqlite.wal import Frames
from walsyncd.core.stored.layout import ManifestKey, format_key, parse_key
from walsyncd.core.stored.manifest import Manifest
from walsyncd.engine.restore.base_fetch import fetch_base
from walsyncd.engine.restore.epoch_reader import EpochReader
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError

Sound = tuple[ManifestKey, str | tuple[HeldObject, ...]]
"""A base, together with what was read and is sound: the ETag of its object, or the objects of its frames."""


class BaseExamination:
    """Examines bases of any database, and remembers the bases that were read and are sound."""

    def __init__(self) -> None:
        self._sound: dict[str, set[Sound]] = {}

    def faults(
        self, replica: Replica, held: Sequence[HeldObject], bases: Iterable[ManifestKey], row: DatabaseRow | None
    ) -> dict[ManifestKey, str]:
        """Return those of ``bases`` that can't be relied on, with what is wrong. ``held`` is the database's listing.

        Raises what the storage raises.
        """
        sound = self._sound.setdefault(replica.name, set())
        found = {base: _unknown(base, row) or self._damage(replica, held, base, sound) for base in bases}
        return {base: fault for base, fault in found.items() if fault}

    def keep_only(self, name: str, bases: Iterable[ManifestKey]) -> None:
        """Forget all other bases of this database that were read."""
        kept = set(bases)
        self._sound[name] = {sound for sound in self._sound.get(name, set()) if sound[0] in kept}

    def _damage(self, replica: Replica, held: Sequence[HeldObject], base: ManifestKey, sound: set[Sound]) -> str:
        """Return what is wrong with the objects of a base, or an empty text if nothing is wrong."""
        try:
            manifest = replica.manifest(base)
            info = replica.head(base.base)
            if info is None or info.size != manifest.size:
                size = "no" if info is None else info.size
                return f"{manifest.key}: it has {size} bytes, its manifest says {manifest.size}"
            if info.etag != manifest.etag and (base, info.etag) not in sound:
                fetch_base(replica, base, manifest, _discard)
                sound.add((base, info.etag))
            needed = _frames_of(held, base)
            objects = {each.key: each for each in held}
            seen = base, tuple(objects[key] for key in needed)
            if seen not in sound:
                _read_frames(replica, needed, base, manifest)
                sound.add(seen)
        except CorruptError as error:
            return error.message
        return ""


def _unknown(base: ManifestKey, row: DatabaseRow | None) -> str:
    """Return a text that says so if a base is newer than the newest base of this journal, or else an empty text."""
    newest = parse_key(row.base_key) if row is not None and row.base_key else None
    if isinstance(newest, ManifestKey) and _order(base) > _order(newest):
        return f"{format_key(base)}: it is newer than every base that this journal knows"
    return ""


def _order(base: ManifestKey) -> tuple[str, tuple[int, int, int]]:
    return base.generation, base_order(base)


def _discard(_raw: bytes | memoryview, _offset: int) -> None:
    """Ignore the bytes; only reading them matters."""


def needed_frames(part: GenerationListing, base: ManifestKey) -> tuple[FramesKey, ...]:
    """Return the objects that hold the frames after S, up to N, in order. A restore would read the same objects."""
    start, end = (base.base.epoch, base.base.frame), (base.epoch, base.frame)
    return tuple(
        key for key in cover(part, base).objects if (key.epoch, key.last) > start and (key.epoch, key.first) <= end
    )


def _frames_of(held: Sequence[HeldObject], base: ManifestKey) -> tuple[FramesKey, ...]:
    epochs = range(base.base.epoch, base.epoch + 1)  # never iterated, since a name may claim billions of epochs
    keys = [each.key for each in held if each.key.generation == base.generation]
    near = [key for key in keys if not isinstance(key, FramesKey) or key.epoch in epochs]
    (part,) = listing_of(near, [base.generation]).generations
    return needed_frames(part, base)


def _read_frames(replica: Replica, keys: Sequence[FramesKey], base: ManifestKey, manifest: Manifest) -> None:
    """Read the frames up to N. Raises CorruptError if they are not what the names say, or if N does not commit."""
    reader: EpochReader | None = None
    epoch = 0
    last: Frames | None = None
    for key in keys:
        if reader is None or key.epoch != epoch:
            reader, epoch = EpochReader(replica, key.epoch, manifest.page_size), key.epoch
        for frames in reader.read(key, upto=base.frame if epoch == base.epoch else None):
            last = frames
    if last is not None and not last.sizes[-1]:
        raise CorruptError(f"{format_key(keys[-1])}: frame {last.last} of epoch {epoch} does not commit")
