"""Tests of walsyncd.core.content.comparison: what a block of the file says against the map."""

from __future__ import annotations

import numpy as np
import pytest

from walsyncd.core.content.comparison import Cipher, PageTally, cipher_of, unexplained
from walsyncd.core.content.page_entry import ABSENT, lock_page

FRAME, FILE = 9, 8  # The first entry comes from a frame, the second is the same content read from the file.
OTHER = 20

PLAIN = b"SQLite format 3\x00" + (4096).to_bytes(2, "big") + bytes([2, 2, 0, 64, 32, 32]) + bytes(76)
RESERVED = PLAIN[:20] + b"\x08" + PLAIN[21:]
ENCRYPTED = bytes(range(100))


def entries(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, np.uint64)


def test_what_differs() -> None:
    """A page differs if the map has another content or none for it. Where an entry came from makes no difference."""
    expected, found = entries(FRAME, FILE, FRAME, ABSENT), entries(FILE, OTHER, OTHER, FILE)
    assert unexplained(expected, found, 5, 4096, Cipher.UNKNOWN).tolist() == [6, 7, 8]


def test_the_lock_page_is_never_different() -> None:
    """The lock page never differs, whatever it holds."""
    number = lock_page(65536)
    assert unexplained(entries(ABSENT, ABSENT), entries(FILE, FILE), number, 65536, Cipher.UNKNOWN).tolist() == [
        number + 1
    ]


def test_a_cipher_that_encrypts_anew() -> None:
    """If a cipher encrypts each page again, a scan can't judge pages that came with frames."""
    expected, found = entries(FRAME, FILE, FRAME, FILE), entries(OTHER, FILE, FILE, OTHER)
    assert unexplained(expected, found, 1, 4096, Cipher.ANEW).tolist() == [4]
    assert unexplained(expected, found, 1, 4096, Cipher.STABLE).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("tally", "page_1", "cipher"),
    [
        (PageTally(frame_other=9, file_same=9), ENCRYPTED, Cipher.ANEW),
        (PageTally(frame_other=9, file_same=9), RESERVED, Cipher.ANEW),
        (PageTally(frame_other=9, file_same=9), PLAIN, Cipher.STABLE),
        (PageTally(frame_other=9, frame_same=1), ENCRYPTED, Cipher.STABLE),
        (PageTally(frame_other=9, file_other=1), ENCRYPTED, Cipher.UNKNOWN),
        (PageTally(file_same=9), ENCRYPTED, Cipher.UNKNOWN),
    ],
)
def test_it_is_known_by_what_it_does(tally: PageTally, page_1: bytes, cipher: Cipher) -> None:
    """A cipher that encrypts pages again is recognised if all pages from frames differ, no page from the file differs,
    and pages have room for a nonce.
    """
    assert cipher_of(Cipher.UNKNOWN, tally, page_1) is cipher
    assert cipher_of(Cipher.STABLE, tally, page_1) is Cipher.STABLE
    assert cipher_of(Cipher.ANEW, tally, page_1) is Cipher.ANEW


def test_what_was_restored_is_no_evidence() -> None:
    """After a restore the file holds the frames' bytes as they are, because no checkpoint has copied them."""
    assert cipher_of(Cipher.RESTORED, PageTally(frame_same=9), ENCRYPTED) is Cipher.RESTORED
    assert cipher_of(Cipher.RESTORED, PageTally(frame_same=9, frame_other=1), ENCRYPTED) is Cipher.ANEW
    assert cipher_of(Cipher.RESTORED, PageTally(frame_same=9), PLAIN) is Cipher.STABLE


def test_tallies_add_up() -> None:
    """The tallies of two blocks add up to the tally of both."""
    assert PageTally(1, 2, 3, 4) + PageTally(10, 20, 30, 40) == PageTally(11, 22, 33, 44)
