"""Object names: which objects are where in a database's folder of the bucket.

Keys are relative to the folder of one database; ``<g>`` is a generation's id (see ``position``)::

    owner.json                                                    who writes here
    <g>/base/<epoch>-<frame>-<random>.db.zst                      BaseKey: a base that starts at S
    <g>/base/<epoch>-<frame>-<random>.<epoch>-<frame>.<time>.json.zst   ManifestKey: S and N of a base
    <g>/pruned/<first>-<last>.<time>.json                         PrunedKey: epochs that retention removed
    <g>/wal/<epoch>/<first>-<last>.<time>.wal.zst                 SegmentKey
    <g>/wal/<epoch>/00000001-<last>.<time>.<previous>.wal.zst     the first SegmentKey of an epoch
    <g>/wal/<epoch>/00000001-<last>.<time>.<previous>.bridge.wal.zst  the same for a bridge, which closes a gap
    <g>/whole/<epoch>-<last>.<time>.<previous>.wal.zst            WholeKey: a closed epoch
    <g>/whole/<epoch>-<last>.<time>.<previous>.bridge.wal.zst     the same if the first transaction is a bridge

=============  =====================  ==================================================================
field          text                   rule
=============  =====================  ==================================================================
epoch          8 lower-case hex       from 1
frame          8 lower-case hex       from 0 (0: before the first frame of the epoch)
first, last    8 lower-case hex       frames (in ``pruned``: epochs), 1 ≤ first ≤ last
previous       8 lower-case hex       last frame of the epoch before; 0 in epoch 1
random         8 lower-case hex       gives every attempt at a base its own key
time           13 decimal digits      ms since 1970 when the last commit was seen; see below
=============  =====================  ==================================================================

The times of an epoch's objects never decrease. From one epoch to the next, times go back only where a clock had been
ahead and was set right (``core.restore.clock_doubt``).

Text of fixed width sorts as its numbers do, so a LIST of ``wal/`` is in the order of positions. A key that does not
match this grammar exactly is foreign: ``parse_key`` returns None and the object is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from walsyncd.core.stored.position import GENERATION_PATTERN, is_generation
from walsyncd.errors import UsageError

OWNER_KEY = "owner.json"
HIDDEN_FOLDER = ".walsyncd"  # where a folder that is a storage keeps its own files beside the objects
ID_METADATA = "walsyncd-id"  # this field of an object's metadata proves that the object is ours and has our bytes

NAME_BYTES_MAX = 900  # S3 allows keys of 1,024 bytes; the longest key below a database has 101 bytes
SEGMENT_BYTES_MAX = 255  # file systems limit one path segment to this (DirectoryStorage)

TIME_MS_MAX = 9_999_999_999_999  # 13 digits, in the year 2286

_HEX = r"([0-9a-f]{8})"
_TIME = r"([0-9]{13})"
_GENERATION = rf"({GENERATION_PATTERN.pattern})"


@dataclass(frozen=True, slots=True, order=True)
class SegmentKey:
    """Frames ``first`` to ``last`` of an epoch. ``previous`` is set only if ``first`` is 1.

    ``bridge`` says that the frames are one transaction that closes a gap. It is the first transaction of its epoch.
    """

    generation: str
    epoch: int
    first: int
    last: int
    time_ms: int
    previous: int | None = None
    bridge: bool = False


@dataclass(frozen=True, slots=True, order=True)
class WholeKey:
    """A closed epoch in one object, which is all its segments concatenated. ``bridge``: the first one is a bridge."""

    generation: str
    epoch: int
    last: int
    time_ms: int
    previous: int
    bridge: bool = False

    @property
    def first(self) -> int:
        """The first frame. A segment's key has the same attribute."""
        return 1


@dataclass(frozen=True, slots=True, order=True)
class BaseKey:
    """The fuzzy copy of a database file; ``epoch`` and ``frame`` are its start S."""

    generation: str
    epoch: int
    frame: int
    random: str


@dataclass(frozen=True, slots=True, order=True)
class ManifestKey:
    """The manifest that makes a base valid. The base is consistent from ``epoch`` and ``frame`` (N) on."""

    base: BaseKey
    epoch: int
    frame: int
    time_ms: int

    @property
    def generation(self) -> str:
        """The generation that the base belongs to."""
        return self.base.generation


@dataclass(frozen=True, slots=True, order=True)
class PrunedKey:
    """A statement, made beforehand, that retention removes epochs ``first`` to ``last``. The key holds all of it."""

    generation: str
    first: int
    last: int
    time_ms: int


Key = SegmentKey | WholeKey | BaseKey | ManifestKey | PrunedKey


def format_key(key: Key) -> str:
    """Return the object's name, relative to the database's folder."""
    match key:
        case SegmentKey():
            tail = "" if key.previous is None else f".{key.previous:08x}"
            name = f"{key.first:08x}-{key.last:08x}.{key.time_ms:013d}{tail}{_mark(key)}.wal.zst"
            return f"{wal_folder(key.generation)}{key.epoch:08x}/{name}"
        case WholeKey():
            name = f"{key.epoch:08x}-{key.last:08x}.{key.time_ms:013d}.{key.previous:08x}{_mark(key)}.wal.zst"
            return f"{whole_folder(key.generation)}{name}"
        case BaseKey():
            return f"{_base_stem(key)}.db.zst"
        case ManifestKey():
            return f"{_base_stem(key.base)}.{key.epoch:08x}-{key.frame:08x}.{key.time_ms:013d}.json.zst"
        case PrunedKey():
            return f"{pruned_folder(key.generation)}{key.first:08x}-{key.last:08x}.{key.time_ms:013d}.json"


def _mark(key: SegmentKey | WholeKey) -> str:
    return ".bridge" if key.bridge else ""


def _base_stem(key: BaseKey) -> str:
    return f"{base_folder(key.generation)}{key.epoch:08x}-{key.frame:08x}-{key.random}"


def parse_key(text: str) -> Key | None:
    """Inverse of ``format_key``. Returns None for a key that is not ours, and for ``owner.json``."""
    for pattern, build in _GRAMMAR:
        match = pattern.fullmatch(text)
        if match is not None:
            return build(match) if is_generation(match[1]) else None
    return None


# Every pattern begins with the generation, which takes groups 1 to 3.
def _segment(match: re.Match[str]) -> SegmentKey | None:
    epoch, first, last = (int(match[group], 16) for group in (4, 5, 6))
    previous = None if match[8] is None else int(match[8], 16)
    if not _frames_fit(epoch, first, last) or (previous is None) != (first > 1):
        return None
    if epoch == 1 and previous not in (None, 0):
        return None
    bridge = match[9] is not None
    if bridge and first > 1:
        return None
    return SegmentKey(match[1], epoch, first, last, int(match[7]), previous, bridge)


def _whole(match: re.Match[str]) -> WholeKey | None:
    epoch, last, previous = int(match[4], 16), int(match[5], 16), int(match[7], 16)
    if not _frames_fit(epoch, 1, last) or (epoch == 1 and previous):
        return None
    return WholeKey(match[1], epoch, last, int(match[6]), previous, match[8] is not None)


def _base(match: re.Match[str]) -> BaseKey | None:
    epoch = int(match[4], 16)
    return BaseKey(match[1], epoch, int(match[5], 16), match[6]) if epoch else None


def _manifest(match: re.Match[str]) -> ManifestKey | None:
    base = _base(match)
    if base is None:
        return None
    epoch, frame = int(match[7], 16), int(match[8], 16)
    if (epoch, frame) < (base.epoch, base.frame):
        return None
    return ManifestKey(base, epoch, frame, int(match[9]))


def _pruned(match: re.Match[str]) -> PrunedKey | None:
    first, last = int(match[4], 16), int(match[5], 16)
    return PrunedKey(match[1], first, last, int(match[6])) if 1 <= first <= last else None


def _frames_fit(epoch: int, first: int, last: int) -> bool:
    return epoch >= 1 and 1 <= first <= last


_GRAMMAR = (
    (re.compile(rf"{_GENERATION}/wal/{_HEX}/{_HEX}-{_HEX}\.{_TIME}(?:\.{_HEX})?(\.bridge)?\.wal\.zst"), _segment),
    (re.compile(rf"{_GENERATION}/whole/{_HEX}-{_HEX}\.{_TIME}\.{_HEX}(\.bridge)?\.wal\.zst"), _whole),
    (re.compile(rf"{_GENERATION}/base/{_HEX}-{_HEX}-{_HEX}\.db\.zst"), _base),
    (re.compile(rf"{_GENERATION}/base/{_HEX}-{_HEX}-{_HEX}\.{_HEX}-{_HEX}\.{_TIME}\.json\.zst"), _manifest),
    (re.compile(rf"{_GENERATION}/pruned/{_HEX}-{_HEX}\.{_TIME}\.json"), _pruned),
)


def base_folder(generation: str) -> str:
    """Return the prefix of bases and their manifests."""
    return f"{generation}/base/"


def wal_folder(generation: str) -> str:
    """Return the prefix of segments."""
    return f"{generation}/wal/"


def whole_folder(generation: str) -> str:
    """Return the prefix of closed epochs."""
    return f"{generation}/whole/"


def pruned_folder(generation: str) -> str:
    """Return the prefix of retention's statements."""
    return f"{generation}/pruned/"


def before_epoch(folder: str, epoch: int) -> str:
    """Return the key after which a LIST of ``wal/`` or ``whole/`` shows ``epoch`` and all later ones.

    The returned key sorts after all keys of the epoch before. It is never the name of a "folder", because on SeaweedFS
    a LIST after ``wal/00000001`` leaves out everything in that folder.
    """
    return f"{folder}{epoch - 1:08x}~"


def check_name(name: str, prefix: str) -> None:
    """Raise UsageError, with the reason, if a database's name can't be the folder of a replica."""
    try:
        size = len(f"{prefix}/{name}".encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"database name {name!r} is not UTF-8", hint="give the database a `name`") from error
    if size > NAME_BYTES_MAX:
        raise UsageError(
            f"database name {name!r} with prefix {prefix!r} takes {size} bytes, more than {NAME_BYTES_MAX}",
            hint="give the database a shorter `name`",
        )
    for segment in name.split("/"):
        fault = _segment_fault(segment)
        if fault:
            raise UsageError(f"database name {name!r} {fault}", hint="give the database another `name`")


def _segment_fault(segment: str) -> str:
    if not segment:
        return "has an empty path segment"
    if segment in (".", ".."):
        return f"has the path segment {segment!r}"
    if len(segment.encode()) > SEGMENT_BYTES_MAX:
        return f"has a path segment of more than {SEGMENT_BYTES_MAX} bytes"
    if segment == HIDDEN_FOLDER:
        return f"has the path segment {segment!r}, which a folder as storage keeps for itself"
    if is_generation(segment) or segment == OWNER_KEY:
        return f"has the path segment {segment!r}, which means something else in a replica"
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in segment):
        return "has a control character"
    return ""


def default_name(path: str) -> str:
    """Return the name of a database that has no configured name: its absolute path without the leading slash."""
    return path.lstrip("/")


def folder_key(name: str, key: str) -> str:
    """Return the storage's key for a key of a database's folder. ``name`` is "" for the storage's root."""
    return f"{name}/{key}" if name else key
