"""What can go wrong, named for the choice that the caller has.

A message is lower case. It says what was being done and with which value. ``hint`` says what to do about the error.
Expected outcomes ("nothing new", "no such object") are values, not exceptions.
"""

import traceback


class WalsyncdError(Exception):
    """The base of all errors of walsyncd. ``exit_code`` is the exit code of a command that fails with the error."""

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
    """walsyncd's own files can't be written or read now. Somebody must make room. The storage is not at fault."""


class UnresponsiveError(TransientError):
    """A file system does not answer. No further call is made there until the file system answers again."""


class CorruptStateError(WalsyncdError):
    """walsyncd's own journal is damaged. No database and no object is at fault. The process ends."""


class RefusedError(WalsyncdError):
    """The other side refuses (permission, credentials, missing bucket). Retry slowly, and report the refusal."""


class ImpossibleError(WalsyncdError):
    """The other side will never accept this particular object. Give the object up, and report which one it is."""


class FaultError(WalsyncdError):
    """Something failed unexpectedly. The affected thing is suspended, and tried again with a growing delay."""


class MissingError(WalsyncdError):
    """A named thing (object, upload, file) is not there."""


class CorruptError(WalsyncdError):
    """Stored or local bytes are not what they must be."""


class VanishedError(CorruptError):
    """An object that a listing showed is not there any more. The caller must list again."""


class NewerFormatError(CorruptError):
    """An object is intact, but a newer walsyncd wrote it in a format that this version can't read."""


class ForkError(CorruptError):
    """Two histories hold the same frames, and nothing shows which of the two histories is the database's."""


class NothingToRestoreError(WalsyncdError):
    """The replica is empty or has no finished base."""

    exit_code = 3


class TargetError(WalsyncdError):
    """The target of a restore can't be reached. The message names the nearest positions."""

    exit_code = 4


class SuspectError(TargetError):
    """A restore is possible, but its result may be wrong. The message says since when, and what is known about it."""


STATE_ERRORS = (StateError, CorruptStateError)  # our own state is at fault, never the database or object in hand


def printable(text: str) -> str:
    """Return ``text`` fit for a terminal. Line feeds stay; other control characters and lone surrogates are escaped.

    Otherwise a name that somebody else chose could move the cursor, change colours or overwrite lines.
    """
    return "".join(each if each in _PRINTED or each.isprintable() else _escape(each) for each in text)


def one_line(text: str) -> str:
    """Return ``text`` as ``printable`` does, but escape line feeds too. For texts of one line, such as table cells."""
    return printable(text).replace("\n", "\\n")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_PRINTED = {" ", "\n"}


def forget_locals(error: BaseException) -> None:
    """Clear the locals in the tracebacks of ``error`` and of its causes, because they keep large buffers in memory."""
    chained: BaseException | None = error
    seen: set[int] = set()  # an error that is raised again may be its own cause
    while chained is not None and id(chained) not in seen:
        seen.add(id(chained))
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
