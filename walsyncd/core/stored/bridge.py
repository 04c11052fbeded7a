"""What a bridge says about itself: which span of the history it covers, and why.

A bridge is the first transaction of an epoch. It holds every page that may have changed in a gap, so it leads from the
position before the gap (the old position) to the commit at which the bridge ends. The commits in between can't be
restored one by one. A bridge that repairs what a scrub found wrong has no gap before it. Such a bridge says from which
position on the replica may have been wrong.

The fields follow the commits in the trailer of the bridge's segment (`walsyncd.core.stored.segment`), little-endian:

    offset  size
       0     4   epoch of the old position
       4     4   frame of the old position
       8     8   time up to which the old position was proven to be the newest, ms since 1970
      16     4   epoch of the last good scan (0 if nothing is suspect)
      20     4   frame of the last good scan
      24     8   time of the last good scan, ms since 1970
      32     4   number of pages that were wrong
      36     2   length of the kind
      38     2   length of the reason
      40     …   the kind (a word, the label of the metric), the reason (a sentence), both UTF-8

The time of the bridge itself is the time of its one commit. Positions are of the bridge's generation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.errors import CorruptError

KIND_BYTES_MAX = 64
REASON_BYTES_MAX = 1024  # a reason is a sentence with some numbers; the longest so far takes 200 bytes

_HEAD = struct.Struct("<IIQIIQIHH")


@dataclass(frozen=True, slots=True)
class SuspectSpan:
    """The position ``epoch``/``frame`` of the last good scan. Later positions may be wrong in up to ``pages`` pages."""

    epoch: int
    frame: int
    time_ms: int
    pages: int


@dataclass(frozen=True, slots=True)
class BridgeSpan:
    """The old position, the time up to which it was proven to be the newest, and why the bridge was needed.

    ``suspect`` is set if the bridge repairs what a scrub found wrong.
    """

    epoch: int
    frame: int
    proven_ms: int
    kind: str
    reason: str
    suspect: SuspectSpan | None = None


def format_bridge(span: BridgeSpan) -> bytes:
    """Return the bytes that ``parse_bridge`` reads back.

    Texts that are too long are cut, and characters that can't be printed become question marks.
    """
    fault = fault_of_bridge(span)
    assert not fault, fault
    kind, reason = _cut(span.kind, KIND_BYTES_MAX), _cut(span.reason, REASON_BYTES_MAX)
    suspect = span.suspect or SuspectSpan(0, 0, 0, 0)
    numbers = (span.epoch, span.frame, span.proven_ms, suspect.epoch, suspect.frame, suspect.time_ms, suspect.pages)
    return _HEAD.pack(*numbers, len(kind), len(reason)) + kind + reason


def parse_bridge(data: bytes) -> BridgeSpan:
    """Inverse of ``format_bridge``. Raises CorruptError if the bytes are not exactly what ``format_bridge`` returns."""
    if len(data) < _HEAD.size:
        raise CorruptError(f"parse bridge: {len(data)} bytes are too few")
    epoch, frame, proven_ms, *suspect, kind_size, reason_size = _HEAD.unpack_from(data)
    if kind_size > KIND_BYTES_MAX or reason_size > REASON_BYTES_MAX:
        raise CorruptError(f"parse bridge: a kind of {kind_size} and a reason of {reason_size} bytes are too long")
    if len(data) != _HEAD.size + kind_size + reason_size:
        raise CorruptError(f"parse bridge: {len(data)} bytes do not hold texts of {kind_size} and {reason_size} bytes")
    try:
        kind = data[_HEAD.size : _HEAD.size + kind_size].decode()
        reason = data[_HEAD.size + kind_size :].decode()
    except UnicodeDecodeError as error:
        raise CorruptError(f"parse bridge: its texts are not UTF-8: {error}") from error
    if not (kind + reason).isprintable():
        raise CorruptError(f"parse bridge: its texts are not printable: {kind!r}, {reason!r}")
    if not suspect[0] and any(suspect):
        raise CorruptError(f"parse bridge: a suspect span without an epoch: {suspect}")
    span = BridgeSpan(epoch, frame, proven_ms, kind, reason, SuspectSpan(*suspect) if suspect[0] else None)
    if fault := fault_of_bridge(span):
        raise CorruptError(f"parse bridge: {fault}")
    return span


def fault_of_bridge(span: BridgeSpan) -> str:
    """Return what is contradictory in a span, or an empty text if nothing is."""
    if not span.epoch:
        return "the old position has no epoch"
    if span.proven_ms > TIME_MS_MAX:
        return f"the old position was proven until {span.proven_ms} ms, which is no time"
    suspect = span.suspect
    if suspect is None:
        return ""
    if not suspect.epoch or not suspect.pages:
        return f"{suspect.pages} suspect pages since epoch {suspect.epoch}"
    if (suspect.epoch, suspect.frame) > (span.epoch, span.frame):
        return f"suspect since {suspect.epoch}/{suspect.frame}, after the old position {span.epoch}/{span.frame}"
    if suspect.time_ms > TIME_MS_MAX:
        return f"suspect since {suspect.time_ms} ms, which is no time"
    return ""


def _cut(text: str, size_max: int) -> bytes:
    """Return the text in UTF-8, cut to at most ``size_max`` bytes of whole characters that a terminal can print."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.encode()[:size_max].decode(errors="ignore").encode()
