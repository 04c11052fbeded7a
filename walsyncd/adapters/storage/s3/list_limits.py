"""Limits on what a store lists. A faulty store, or somebody who answers in its place, may list without end.

=======================  ==================  ====================================================================
what                     at most             where the number is from
=======================  ==================  ====================================================================
entries of a list        10,000,000          five times what the readers of one database's folder accept
folders of a folder      1,000,000           more databases than one daemon follows
pages without an entry   1,000 in a row      a store may skip a thousand delete markers in each
characters of a key      4,096               S3's own limit is 1,024 bytes; gateways to file systems have longer paths
=======================  ==================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from walsyncd.errors import RefusedError

ENTRIES_MAX = 10_000_000
FOLDERS_MAX = 1_000_000
EMPTY_PAGES_MAX = 1000
KEY_LENGTH_MAX = 4096

Page = TypeVar("Page", bound=Mapping[str, Any])


def limited(pages: Iterable[Page], about: str, *, entries_max: int = ENTRIES_MAX) -> Iterator[Page]:
    """Yield the same pages. Raises RefusedError, whose message begins with ``about``, if the pages exceed a limit."""
    empty = entries = 0
    for page in pages:
        held = sum(len(value) for value in page.values() if isinstance(value, list))
        empty = 0 if held else empty + 1
        entries += held
        if empty > EMPTY_PAGES_MAX or entries > entries_max:
            raise RefusedError(f"{about}: the store's list does not end")
        yield page


def checked_key(key: str) -> str:
    """Return the key. Raises ValueError if no store can have it."""
    if len(key) > KEY_LENGTH_MAX:
        raise ValueError(f"a key of {len(key)} characters")
    return key
