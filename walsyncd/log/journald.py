r"""systemd's journal in its native protocol: an entry is a datagram of fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).

====================================  ==================================================================
field                                 in the datagram
====================================  ==================================================================
without a line feed                   ``NAME=value\n``
with a line feed                      ``NAME\\n``, its size (64 bit, little-endian), the value, ``\n``
====================================  ==================================================================

``MESSAGE`` is the JSON object that stderr would get. Each fact in it is also a field of its own (``DATABASE=``,
``GENERATION=`` …). Events that operators should know more about have a ``MESSAGE_ID``. Its entry in
``systemd/walsyncd.catalog`` is shown by ``journalctl -x``.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
VALUE_BYTES_MAX = 32 << 10  # a datagram has to fit into the socket's buffer; journalctl shows less of a field anyway

MESSAGE_IDS = {
    "database_suspended": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c801",
    "database_taken": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c802",
    "generation_ended": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c803",
    "left_in_spool": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c804",
    "reload_refused": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c805",
    "spool_dropped": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c806",
    "storage_refused": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c807",
    "storage_went_away": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c808",
    "worker_hung": "6c1f2e0b7a2d4f4b9a3c5de0f1a7c809",
}


def is_stderr(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stderr is the journal's stream, whose device and inode ``$JOURNAL_STREAM`` names (systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def entry(message: str, priority: int, facts: Mapping[str, object]) -> bytes:
    """Return the datagram of one entry. ``facts`` includes ``event``."""
    event = str(facts["event"])
    fields = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "walsyncd"}
    if event in MESSAGE_IDS:
        fields["MESSAGE_ID"] = MESSAGE_IDS[event]
    fields |= {_name(key): str(value) for key, value in facts.items() if key not in {"level", "time"}}
    return b"".join(_field(name, value) for name, value in fields.items())


def send(datagram: bytes) -> None:
    """Send an entry to the journal, and wait while the journal does not read. Raises OSError if there is no journal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(datagram, SOCKET)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:VALUE_BYTES_MAX]
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _name(key: str) -> str:
    """Return a field's name: capitals, digits and underscores, with a capital first."""
    return re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64] or "FACT"
