"""When a database file is compared with its replica after no daemon has watched the file for a while.

What the WAL proves stays proven while no daemon runs. But another process may have written to the file other than by a
checkpoint, and a later checkpoint may hide that write. So the file is compared soon. A small file is compared at once.
A larger one is compared within an hour, after a delay that follows from the database's name. So the scans of many
databases do not all fall into the first minutes.
"""

from __future__ import annotations

import hashlib

AT_ONCE_BYTES = 16 << 20  # a quarter of a second of the scans' pace
WITHIN_S = 3600.0


def scan_delay_s(name: str, size: int) -> float:
    """Return after how many seconds the file of ``size`` bytes is compared."""
    if size <= AT_ONCE_BYTES:
        return 0.0
    fraction = int.from_bytes(hashlib.sha256(f"scan of {name}".encode()).digest()[:8]) / 2**64
    return fraction * WITHIN_S
