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

_TRUNK_HEADER = struct.Struct(">2I")


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


def all_free_pages(
    page: Callable[[int], bytes], *, first_trunk: int, count: int, page_count: int
) -> frozenset[int] | None:
    """Return the numbers of all trunks and leaves, or None if they are not exactly ``count`` pages of the database."""
    free: set[int] = set()
    trunk, found = first_trunk, 0
    while trunk:
        content = page(trunk) if 1 < trunk <= page_count and found < count else b""
        if len(content) < _TRUNK_HEADER.size:
            return None
        next_trunk, leaf_count = _TRUNK_HEADER.unpack_from(content)
        found += 1 + leaf_count
        if found > count or leaf_count > len(content) // 4 - 2:
            return None
        free.add(trunk)
        free.update(struct.unpack_from(f">{leaf_count}I", content, _TRUNK_HEADER.size))
        trunk = next_trunk
    is_whole = found == len(free) == count
    return frozenset(free) if is_whole and (not free or (min(free) > 1 and max(free) <= page_count)) else None
