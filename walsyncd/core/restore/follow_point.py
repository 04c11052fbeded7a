"""How far a copy that follows a replica has come: a JSON file beside it, ``NAME-follow``.

``applied``   a position that the copy has reached; the copy may also hold some of the frames up to ``intended``
``intended``  the position of the transaction that is, or was, being applied
``time_ms``   when the commit at ``intended`` was seen
``file``      which file the copy is (inode number and, where known, time of birth): another file of that name may
              hold anything. Files that an older walsyncd wrote lack this field
``stopped``   why the copy is not updated until somebody restores it again: another process has written to the copy

The file is written before each transaction. If the frames after ``applied`` are applied again in one transaction, up to
``intended`` or later, they give the same pages, whether or not some of them had been applied. So the file does not have
to be written again after the transaction.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from walsyncd.core.stored.position import Position, parse_position
from walsyncd.errors import CorruptError, UsageError

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FollowPoint:
    """The fields of the file (see the module). ``replica`` is the URL of the folder that is followed."""

    replica: str
    applied: Position
    intended: Position
    time_ms: int
    file: str = ""
    stopped: str = ""


def format_follow_point(point: FollowPoint) -> bytes:
    """Return the content of the file."""
    fields = {
        "format": FORMAT_VERSION,
        "replica": point.replica,
        "applied": str(point.applied),
        "intended": str(point.intended),
        "time_ms": point.time_ms,
        "file": point.file,
        "stopped": point.stopped,
    }
    return json.dumps(fields, indent=1).encode() + b"\n"


def parse_follow_point(data: bytes) -> FollowPoint:
    """Inverse of ``format_follow_point``. Raises CorruptError."""
    try:
        fields = json.loads(data)
        if fields["format"] != FORMAT_VERSION:
            raise ValueError(f"format {fields['format']}")
        positions = parse_position(fields["applied"]), parse_position(fields["intended"])
        return FollowPoint(
            str(fields["replica"]),
            *positions,
            int(fields["time_ms"]),
            str(fields.get("file", "")),
            str(fields.get("stopped", "")),
        )
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise CorruptError(f"read how far the copy has come: {error}", hint="restore it again with --force") from error
