"""What can go wrong, named for the choice that the caller has.

A message is lower case and says what was being done and with which value; ``hint`` says the way out.
Expected outcomes ("nothing new", "no such object") are values, not exceptions.
"""

import traceback


class WalsyncdError(Exception):
    """Base of all errors of walsyncd; ``exit_code`` is what a command ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(WalsyncdError):
    """The command line or the configuration is wrong: the operator must change it."""

    exit_code = 2


class TransientError(WalsyncdError):
    """The other side is away or overloaded: try the same again later, for ever."""


class StateError(TransientError):
    """Our own files can't be written or read now: somebody must make room; the storage is not away."""


class UnresponsiveError(TransientError):
    """A file system does not answer: nothing there is tried until it does."""


class CorruptStateError(WalsyncdError):
    """Our own journal is damaged: no database and no object is at fault, and the process ends."""


class RefusedError(WalsyncdError):
    """The other side says no (permission, credentials, missing bucket): retry slowly and say so."""


class ImpossibleError(WalsyncdError):
    """The other side will never take this very object: give the object up, say which."""


class FaultError(WalsyncdError):
    """Something failed that nobody foresaw: one thing is suspended by it, and tried again with a growing delay."""


class MissingError(WalsyncdError):
    """A named thing (object, upload, file) is not there."""


class CorruptError(WalsyncdError):
    """Bytes are not what they must be."""


class VanishedError(CorruptError):
    """An object that a listing showed is not there any more: list again."""


class NewerFormatError(CorruptError):
    """Written by a newer walsyncd, in a form that this one can't read: nothing is wrong with it."""


class ForkError(CorruptError):
    """Two histories hold the same frames, and nothing shows which of them is the database's."""


class NothingToRestoreError(WalsyncdError):
    """The replica is empty or has no finished base."""

    exit_code = 3


class TargetError(WalsyncdError):
    """The target of a restore can't be reached; the message names the nearest positions."""

    exit_code = 4


class SuspectError(TargetError):
    """What a restore would give is there, but it may be wrong: the message says since when and what is known."""


STATE_ERRORS = (StateError, CorruptStateError)  # our own state is at fault, never the database or object in hand


def printable(text: str) -> str:
    """``text`` fit for a terminal: line feeds stay, other control characters and lone surrogates become escapes.

    Otherwise a name that somebody else chose could move the cursor, change colours or overwrite lines.
    """
    return "".join(each if each in _PRINTED or each.isprintable() else _escape(each) for each in text)


def one_line(text: str) -> str:
    """``printable``, with line feeds as escapes too: for what has one line, as a name in a table."""
    return printable(text).replace("\n", "\\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_PRINTED = {" ", "\n"}


def forget_locals(error: BaseException) -> None:
    """Empty the finished frames of its traceback, and of those behind it: they hold the buffers of what has failed."""
    chained: BaseException | None = error
    seen: set[int] = set()  # an error that is raised again may be its own cause
    while chained is not None and id(chained) not in seen:
        seen.add(id(chained))
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
