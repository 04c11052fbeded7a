"""Whether a file may be followed as a database although it only matches a pattern, and nobody named it.

**Who owns it.** Anybody can give somebody else's file a second name (a hard link) in a folder of their own. So a file
with more than one name is accepted only if its owner is its folder's owner. An administrator's ``cp -al`` passes that.

**What it is.** A SQLite file begins with "SQLite format 3" and a zero byte, unless it is encrypted. An encrypted file
is a whole number of pages of random bytes, and a page has at least 512 bytes. Half of random bytes have their highest
bit set. Fewer than 192 of the first 512 bytes have it set in one of 10^8 encrypted files. An archive's header has
almost no such bytes, and text is valid UTF-8.
"""

from __future__ import annotations

from walsyncd.core.sqlite.dbheader import MAGIC

PAGE_SIZE_MIN = 512
_HIGH_BITS_MIN = 192

FOREIGN = "it has several names (hard links), and its owner is not its folder's owner"
FOREIGN_HINT = (
    "it may be somebody else's file: remove the other name, give the file to its folder's owner, "
    "or name it in a [[database]] of its own"
)


def is_foreign(*, links: int, owner: int, folder_owner: int) -> bool:
    """Whether the file may be a hard link to somebody else's file."""
    return links > 1 and owner != folder_owner


def is_no_database(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins with ``head`` (its first 512 bytes) can't be a SQLite database.

    An empty file may become a database.
    """
    if not size or head.startswith(MAGIC):
        return False
    if size % PAGE_SIZE_MIN or len(head) < PAGE_SIZE_MIN:
        return True
    return _is_text(head[:PAGE_SIZE_MIN]) or sum(byte >= 0x80 for byte in head[:PAGE_SIZE_MIN]) < _HIGH_BITS_MIN


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # only the last character is cut off
    return True
