"""The first 100 bytes of a SQLite database file (sqlite.org/fileformat2.html, section 1.3), big-endian.

| offset | bytes | what |
|---|---|---|
| 0 | 16 | ``SQLite format 3`` and a zero byte |
| 16 | 2 | page size; 1 means 65536 |
| 18 | 1 | write version: 1 rollback journal, 2 WAL |
| 19 | 1 | read version, likewise |
| 21 | 3 | payload fractions, always 64, 32, 32 |
| 24 | 4 | change counter (counts transactions in rollback mode only) |
| 28 | 4 | size in pages, valid only if the fields at 92 and 24 are equal |
| 92 | 4 | the change counter at which the size was written ("version valid for") |

An encrypted database has other bytes here. SQLCipher encrypts from offset 16 on and puts its salt before that. SEE
leaves bytes 16 to 23 unencrypted. So the page size is known if and only if the payload fractions are right, and every
other field is noise unless ``magic_ok``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEADER_SIZE = 100

MAGIC = b"SQLite format 3\x00"
_FRACTIONS = bytes((64, 32, 32))
_FIELDS = struct.Struct(">16sHBBB3sII60xI")
_PAGE_SIZES = frozenset(1 << shift for shift in range(9, 17))
_WAL_VERSION = 2


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """The fields of the header. ``page_size`` is in bytes, and None if it is not known."""

    page_size: int | None
    write_version: int
    read_version: int
    change_counter: int
    page_count: int
    version_valid_for: int
    magic_ok: bool

    @property
    def wal_mode(self) -> bool:
        """Whether the header says that the database is in WAL mode. An encrypted database's header never says so."""
        return self.magic_ok and self.write_version == self.read_version == _WAL_VERSION


def parse_database_header(data: bytes) -> DatabaseHeader | None:
    """Return the header at the start of ``data``, or None if ``data`` is shorter than 100 bytes (an empty database)."""
    if len(data) < HEADER_SIZE:
        return None
    magic, size, write, read, _, fractions, counter, pages, valid_for = _FIELDS.unpack_from(data)
    return DatabaseHeader(
        page_size=_page_size(size) if fractions == _FRACTIONS else None,
        write_version=write,
        read_version=read,
        change_counter=counter,
        page_count=pages,
        version_valid_for=valid_for,
        magic_ok=magic == MAGIC,
    )


def _page_size(stored: int) -> int | None:
    size = 65536 if stored == 1 else stored
    return size if size in _PAGE_SIZES else None
