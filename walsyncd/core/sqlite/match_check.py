"""Whether a file that nobody named, a match of a pattern, may be taken for a database.

**Whose it is.** Anybody may give somebody else's file a second name in a folder of his (a hard link). So a file with
more than one name counts only if its owner is its folder's owner. An administrator's ``cp -al`` passes that.

**What it is.** A SQLite file begins with "SQLite format 3" and a zero byte, unless it is encrypted. An encrypted file
is a whole number of pages, at least 512 bytes each, of random bytes. Half of those have their highest bit set: among
512, fewer than 192 by chance once in 10^8 files. An archive's header has next to none, and text is valid UTF-8.
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
    """Whether the file may be somebody else's, under another name."""
    return links > 1 and owner != folder_owner


def is_no_database(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins with ``head`` (its first 512 bytes) is none of SQLite's for sure.

    An empty file may become one.
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
