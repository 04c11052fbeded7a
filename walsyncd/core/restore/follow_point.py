"""Where a copy that follows a replica stands: a JSON file beside it, ``NAME-follow``.

``applied``   a position that it has reached, or passed by some of the frames up to ``intended``
``intended``  the position of the transaction that is, or was, being put into it
``time_ms``   when the commit at ``intended`` was seen
``file``      which file the copy is (inode number and, where known, time of birth): another one of the same name may
              hold anything. Notes that an older walsyncd wrote do not have it
``stopped``   why it is followed no more until somebody restores it again: another process has written to it

Written before each transaction. Applied again from ``applied`` on, to ``intended`` or any later position and in one
transaction, frames give the same pages whatever part of them was there: so no second write is needed after it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from walsyncd.core.stored.position import Position, parse_position
from walsyncd.errors import CorruptError, UsageError

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FollowPoint:
    """See the module; ``replica`` is the URL of the folder that it follows."""

    replica: str
    applied: Position
    intended: Position
    time_ms: int
    file: str = ""
    stopped: str = ""


def format_follow_point(point: FollowPoint) -> bytes:
    """The file's content."""
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
    """Inverse of ``format_follow_point``; CorruptError."""
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
        raise CorruptError(f"read where the copy stands: {error}", hint="restore it anew with --force") from error
