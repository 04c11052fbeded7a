"""The freelist of a SQLite database file (sqlite.org/fileformat2.html, section 1.5), big-endian.

| where | offset | bytes | what |
|---|---|---|---|
| page 1 | 32 | 4 | number of the first trunk page, 0 if there is none |
| page 1 | 36 | 4 | free pages in all |
| trunk | 0 | 4 | number of the next trunk page, 0 if there is none |
| trunk | 4 | 4 | how many leaves follow |
| trunk | 8 | 4 each | numbers of free leaves |

SQLite does not write the content of a leaf, so the bytes that a file has there mean nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable


def free_leaves(page: Callable[[int], bytes], page_count: int) -> frozenset[int]:
    """Return the numbers of all leaves. ``page`` returns a page by its number.

    If the list is damaged, only the leaves before the damage are returned.
    """
    if not page_count:
        return frozenset()
    (trunk,) = struct.unpack_from(">I", page(1), 32)
    leaves: set[int] = set()
    seen: set[int] = set()
    while 0 < trunk <= page_count and trunk not in seen:
        seen.add(trunk)
        content = page(trunk)
        trunk, count = struct.unpack_from(">2I", content)
        if count > len(content) // 4 - 2:
            break
        leaves.update(struct.unpack_from(f">{count}I", content, 8))
    return frozenset(leaves)
