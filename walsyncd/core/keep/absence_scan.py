"""When a database file is compared with its replica after nobody has watched it for a while.

What the WAL proves is proven across an absence, but a write to the file that is no checkpoint may have been hidden by
a later checkpoint. So the file is compared soon. A small file is compared at once. A larger one is compared within an
hour, at a moment of the database's own, so that the scans of many do not all fall into the first minutes.
"""

from __future__ import annotations

import hashlib

AT_ONCE_BYTES = 16 << 20  # a quarter of a second of the scans' pace
WITHIN_S = 3600.0


def scan_delay_s(name: str, size: int) -> float:
    """Return in how many seconds the file of ``size`` bytes is to be compared."""
    if size <= AT_ONCE_BYTES:
        return 0.0
    fraction = int.from_bytes(hashlib.sha256(f"scan of {name}".encode()).digest()[:8]) / 2**64
    return fraction * WITHIN_S
