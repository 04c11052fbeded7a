"""Messages on the control socket: a header, then one JSON document.

======  ====  =============================================
offset  size  content
======  ====  =============================================
0       4     ``WSY1``: the version of this framing
4       4     length of the document, big-endian
8       n     the document, JSON in ASCII
8 + n   1     a newline
======  ====  =============================================

The newline is for older daemons without these frames, which read a line and answer with a line.
"""

from __future__ import annotations

import json
import struct

HEADER = struct.Struct(">4sI")
MAGIC = b"WSY1"


class NoMessageError(ValueError):
    """The bytes are not, and will not become, a message of this framing."""


def format_message(document: object) -> bytes:
    """Return the message that carries ``document``, which JSON can express."""
    body = json.dumps(document).encode("ascii")
    return HEADER.pack(MAGIC, len(body)) + body + b"\n"


def message_size(held: bytes | bytearray, *, size_max: int) -> int | None:
    """Return the length of the message that begins with ``held``, or None if more bytes are needed to know it.

    Raises NoMessageError if the bytes are not a message, or if its document is longer than ``size_max``.
    """
    if held[: len(MAGIC)] != MAGIC[: len(held)]:
        raise NoMessageError("it does not begin like a message")
    if len(held) < HEADER.size:
        return None
    size: int = HEADER.unpack_from(held)[1]
    if size > size_max:
        raise NoMessageError(f"it has {size} bytes, {size_max} are allowed")
    return HEADER.size + size + 1


def parse_message(message: bytes | bytearray) -> object:
    """Return the document of a whole message. Raises NoMessageError if the document is not JSON."""
    try:
        return json.loads(bytes(message[HEADER.size :]))
    except (ValueError, RecursionError) as error:
        raise NoMessageError(f"it is not JSON: {error}") from error
