"""Tests that errors say what to do next."""

from __future__ import annotations

import sys

import pytest

from walsyncd import errors
from walsyncd.errors import WalsyncdError, forget_locals, one_line, printable


def test_the_text_has_the_way_out() -> None:
    """The text has the message, and then the hint, if there is one."""
    assert str(WalsyncdError("open x: gone", hint="look elsewhere")) == "open x: gone (hint: look elsewhere)"
    assert str(WalsyncdError("open x: gone")) == "open x: gone"


def test_every_error_ends_a_command_with_a_code_of_the_contract() -> None:
    """The codes are 1 failed, 2 usage, 3 nothing to restore, 4 target out of reach."""
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, WalsyncdError)]
    assert {cls.exit_code for cls in classes} == {1, 2, 3, 4}
    assert errors.UsageError.exit_code == 2
    assert errors.NothingToRestoreError.exit_code == 3
    assert errors.TargetError.exit_code == 4


def test_an_error_that_is_kept_holds_nothing_of_what_failed() -> None:
    """It holds nothing in its own frames, nor in those of the errors that caused it."""

    def failing(buffer: bytes) -> None:
        try:
            raise ValueError(len(buffer))
        except ValueError as error:
            raise WalsyncdError("it failed") from error

    buffer = bytes(1000)
    held = sys.getrefcount(buffer)
    with pytest.raises(WalsyncdError) as caught:
        failing(buffer)
    assert sys.getrefcount(buffer) > held
    forget_locals(caught.value)
    assert sys.getrefcount(buffer) == held


def test_text_of_others_is_fit_for_a_terminal() -> None:
    """Line feeds stay in a text and are escaped in a line. The escapes are Python's."""
    assert printable("a\tb\x1b[0m\nc\x7f") == "a\\tb\\x1b[0m\nc\\x7f"
    assert one_line("a\nb") == "a\\nb"
    assert printable("naïve 文字 ✓") == "naïve 文字 ✓"


def test_an_error_that_is_behind_itself_has_an_end() -> None:
    """One instance is raised again while the error that it caused is handled."""
    inner, outer = ValueError("inner"), WalsyncdError("outer")
    outer.__cause__, inner.__context__ = inner, outer
    forget_locals(outer)
