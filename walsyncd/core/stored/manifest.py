"""The manifest of a base: what the object holds, from which position on it is valid, and where its ranges are.

A manifest is a JSON object, compressed to one zstd frame with content checksum:

===============  ================================================================================
``format``       2; a reader refuses newer formats
``database``     name of the database
``generation``   id; ``predecessor`` is the id of the generation before it ("" for the first generation),
                 ``predecessor_end`` says why that one ended
``page_size``    512 … 65536
``file_size``    bytes of the raw database file
``object``       key of the base, relative to the database's folder; ``object_size`` in bytes, ``etag``
``start``        S as [epoch, frame]
``consistent``   N as [epoch, frame]
``time_ms``      when the commit at N was seen, ms since 1970
``ranges``       [[offset, length, object_offset, object_length, checksum], …]
===============  ================================================================================

Ranges follow one another from 0 to ``file_size`` without a hole. Each is one zstd frame of the object, and the bytes
between those frames are padding (zstd skippable frames). ``checksum`` is the raw range's XXH3-64 in hex, which is
computed as fast as memory is read. A checksum of 32 digits is the beginning of the raw range's SHA-256. All checksums
of format 1 are of this kind.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from typing import Any

from xxhash import xxh3_64, xxh3_64_hexdigest

from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.zstd import zstd
from walsyncd.errors import CorruptError, NewerFormatError

FORMAT_VERSION = 2
_SHA256_DIGITS = 32  # the first 16 bytes
MANIFEST_BYTES_MAX = 4 * 1024 * 1024  # 16,384 ranges take 1 MiB of JSON, and 2 MiB with ranges that fill up parts
_NUMBER_MAX = 1 << 62  # no file and no object is this large
_TEXT_MAX = 4096  # characters; keys, names and reasons are shorter
# This is a window of 8 MiB, which RFC 8878 recommends every decoder to support.
_DECOMPRESSION: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


@dataclass(frozen=True, slots=True)
class Range:
    """A piece of the raw file and the zstd frame that holds it; offsets and lengths in bytes."""

    offset: int
    length: int
    object_offset: int
    object_length: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished base. ``key``, ``size`` and ``etag`` describe the base's object."""

    database: str
    generation: str
    predecessor: str
    predecessor_end: str
    page_size: int
    file_size: int
    key: str
    size: int
    etag: str
    start: Position
    consistent_from: Position
    time_ms: int
    ranges: tuple[Range, ...]
    format_version: int = FORMAT_VERSION


def range_checksum(raw: bytes | memoryview) -> str:
    """Return the checksum of a raw range in the manifest's form, 16 hex digits."""
    return xxh3_64_hexdigest(raw)


class RangeDigest:
    """Compares a raw range, which is given in pieces, with its ``checksum``."""

    def __init__(self, checksum: str) -> None:
        self._checksum = checksum
        self._digest = hashlib.sha256() if len(checksum) == _SHA256_DIGITS else xxh3_64()

    def update(self, raw: bytes) -> None:
        """Add the next piece."""
        self._digest.update(raw)

    def fits(self) -> bool:
        """Whether the pieces are the whole range, unchanged."""
        return self._digest.hexdigest()[:_SHA256_DIGITS] == self._checksum


def format_manifest(manifest: Manifest) -> bytes:
    """Return the body of the manifest's object."""
    fields = {
        "format": manifest.format_version,
        "database": manifest.database,
        "generation": manifest.generation,
        "predecessor": manifest.predecessor,
        "predecessor_end": manifest.predecessor_end,
        "page_size": manifest.page_size,
        "file_size": manifest.file_size,
        "object": manifest.key,
        "object_size": manifest.size,
        "etag": manifest.etag,
        "start": [manifest.start.epoch, manifest.start.frame],
        "consistent": [manifest.consistent_from.epoch, manifest.consistent_from.frame],
        "time_ms": manifest.time_ms,
        "ranges": [astuple(part) for part in manifest.ranges],
    }
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return zstd.compress(text.encode(), options={zstd.CompressionParameter.checksum_flag: 1})


def parse_manifest(body: bytes) -> Manifest:
    """Inverse of ``format_manifest``.

    Raises CorruptError, which says what is wrong, or NewerFormatError if the manifest is of a newer format.
    """
    fields = _fields(body)
    version = fields.get("format")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"read base manifest: format {version} is newer than {FORMAT_VERSION}, the newest that is known here",
            hint="restore with the walsyncd that wrote it, or a later one",
        )
    try:
        manifest = _build(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"read base manifest: {type(error).__name__}: {str(error)[:200]}") from error
    fault = _fault(manifest)
    if fault:
        raise CorruptError(f"read base manifest: {fault}")
    return manifest


def _fields(body: bytes) -> dict[str, Any]:
    try:
        # This decompressor takes a limit (max_length), since a few bytes can claim to be gigabytes.
        decompressor = zstd.ZstdDecompressor(options=_DECOMPRESSION)
        text = decompressor.decompress(body, MANIFEST_BYTES_MAX)
        if not decompressor.eof or decompressor.unused_data:
            raise CorruptError(f"read base manifest: {len(body)} bytes are not one zstd frame")
        fields = json.loads(text)
    except (zstd.ZstdError, ValueError, RecursionError) as error:
        raise CorruptError(f"read base manifest: {error}") from error
    if not isinstance(fields, dict):
        raise CorruptError("read base manifest: not a JSON object")
    return fields


def _build(fields: dict[str, Any]) -> Manifest:
    generation = _text(fields["generation"])
    return Manifest(
        format_version=_number(fields["format"]),
        database=_printable(fields["database"]),
        generation=generation,
        predecessor=_printable(fields["predecessor"]),
        predecessor_end=_printable(fields["predecessor_end"]),
        page_size=_number(fields["page_size"]),
        file_size=_number(fields["file_size"]),
        key=_text(fields["object"]),
        size=_number(fields["object_size"]),
        etag=_printable(fields["etag"]),
        start=_position(generation, fields["start"]),
        consistent_from=_position(generation, fields["consistent"]),
        time_ms=_number(fields["time_ms"]),
        ranges=tuple(_range(*entry) for entry in fields["ranges"]),
    )


def _position(generation: str, pair: list[int]) -> Position:
    epoch, frame = pair
    return Position(generation, _number(epoch), _number(frame))


def _range(offset: int, length: int, object_offset: int, object_length: int, checksum: str) -> Range:
    place = _number(object_offset), _number(object_length)
    return Range(_number(offset), _number(length), *place, _text(checksum))


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _NUMBER_MAX:
        raise ValueError(f"{value!r:.99} is not a number from 0 that a size can be")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise TypeError(f"{value!r:.99} is not a text of at most {_TEXT_MAX} letters")
    return value


def _printable(value: object) -> str:
    """Return a text for people. Control characters, and characters that can't be shown, become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in _text(value))


def _fault(manifest: Manifest) -> str:
    size = manifest.page_size
    if not 512 <= size <= 65536 or size & (size - 1):
        return f"page size {size} is not a power of two from 512 to 65536"
    if manifest.time_ms > TIME_MS_MAX:
        return f"time {manifest.time_ms} ms is no time"
    if manifest.consistent_from < manifest.start:
        return f"consistent from {manifest.consistent_from}, before its start {manifest.start}"
    return _fault_of_ranges(manifest)


def _fault_of_ranges(manifest: Manifest) -> str:
    raw_end = object_end = 0
    for part in manifest.ranges:
        if part.offset != raw_end or not part.length:
            return f"range at {part.offset} does not follow the one that ends at {raw_end}"
        if part.object_offset < object_end or not part.object_length:
            return f"range at {part.offset} overlaps the one before it in the object"
        raw_end, object_end = raw_end + part.length, part.object_offset + part.object_length
    if raw_end != manifest.file_size:
        return f"ranges end at {raw_end}, the file at {manifest.file_size}"
    if object_end > manifest.size:
        return f"ranges end at {object_end} of an object of {manifest.size} bytes"
    return ""
