"""Tests of walsyncd.core.content.scrub_pass: what explains a difference, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.content.test_comparison import ENCRYPTED, FILE, FRAME, OTHER, PLAIN, entries
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.content.page_entry import ABSENT, lock_page
from walsyncd.core.content.scrub_pass import ScrubPass, believed_size

NONE = np.empty(0, np.uint32)


def numbers(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(values, np.uint32)


@pytest.mark.parametrize(
    ("explained", "size", "found"),
    [
        (NONE, 9, [2, 3, 5]),
        (numbers(3), 9, [2, 5]),
        (NONE, 4, [2, 3]),
        (NONE, None, [2, 3]),  # nobody knows whether page 5 is in the database
    ],
)
def test_what_nothing_explains(
    explained: np.ndarray[tuple[int], np.dtype[np.uint32]], size: int | None, found: list[int]
) -> None:
    """Pages in frames and pages past the size are explained. All others that differ are not."""
    scrub = ScrubPass(4096)
    scrub.take(numbers(1, 2), entries(FRAME, FRAME), entries(FILE, OTHER))
    scrub.take(numbers(3, 4, 5), entries(FILE, FILE, ABSENT), entries(OTHER, FILE, FILE))
    finding = scrub.end(explained, size, Cipher.UNKNOWN, PLAIN)
    assert (finding.pages.tolist(), finding.compared, finding.cipher) == (found, 4, Cipher.STABLE)


def test_a_file_that_ends_too_soon_differs() -> None:
    """Pages past the file's end differ, except those that frames hold."""
    scrub = ScrubPass(4096)
    scrub.take(numbers(1), entries(FRAME), entries(FILE))
    scrub.lacks(numbers(2, 3))
    assert scrub.end(numbers(3), 3, Cipher.UNKNOWN, PLAIN).pages.tolist() == [2]


def test_the_lock_page_is_never_different() -> None:
    """The lock page never differs, whatever it holds."""
    scrub = ScrubPass(65536)
    number = lock_page(65536)
    scrub.take(numbers(number), entries(ABSENT), entries(FILE))
    assert scrub.end(NONE, number + 1, Cipher.UNKNOWN, PLAIN).pages.tolist() == []


def test_a_cipher_that_encrypts_again() -> None:
    """If a cipher encrypts pages again, pages that came with frames prove nothing.

    Pages that came from the file are still compared.
    """
    scrub = ScrubPass(4096)
    scrub.take(numbers(1, 2, 3), entries(FRAME, FRAME, FILE), entries(OTHER, OTHER, FILE))
    finding = scrub.end(NONE, None, Cipher.UNKNOWN, ENCRYPTED)
    assert (finding.pages.tolist(), finding.cipher) == ([], Cipher.ANEW)
    scrub.take(numbers(4), entries(FILE), entries(OTHER))
    assert scrub.end(NONE, None, Cipher.ANEW, ENCRYPTED).pages.tolist() == [4]


def test_the_size_is_believed_only_if_it_is_current() -> None:
    """Programs before SQLite 3.7.0 did not keep the size current, and in an encrypted page it can't be read."""
    counted = bytearray(PLAIN)
    counted[24:28] = counted[92:96] = (7).to_bytes(4, "big")
    counted[28:32] = (12).to_bytes(4, "big")
    assert believed_size(bytes(counted)) == 12
    counted[27] += 1
    assert believed_size(bytes(counted)) is None
    assert believed_size(ENCRYPTED) is None
