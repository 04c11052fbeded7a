"""The spool folder, which has a file for each body that is too large for its row of the journal.

Order: temporary name → bytes → fsync → rename → fsync of the folder. Only then may a row name the file. So a file with
the suffix ``.body`` is complete, and a ``.part`` file is never read. ``sweep`` removes files of both kinds that no row
names, since a crash has left them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from walsyncd.adapters.files.durable_file import sync_folder
from walsyncd.errors import CorruptError, StateError

_WHOLE, _UNFINISHED = ".body", ".part"
_READ_ONCE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A durable body: ``size`` in bytes, ``md5`` and ``token`` (SHA-256) in hex."""

    path: Path
    size: int
    md5: str
    token: str


class SpoolWriter:
    """Writes one body of any size block by block. Leaving the context without ``finish`` removes the file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{secrets.token_hex(8)}{_WHOLE}"
        self._unfinished = self._path.with_suffix(_UNFINISHED)
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        with _writing(folder):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._unfinished, flags, 0o600), "wb")

    def write(self, block: bytes) -> None:
        """Append ``block``. Raises StateError if the disk has no room."""
        self._size += len(block)
        self._md5.update(block)
        self._sha256.update(block)
        with _writing(self._path.parent):
            self._file.write(block)

    def finish(self) -> SpoolFile:
        """Make the body durable under its final name."""
        with _writing(self._path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._unfinished.rename(self._path)
            sync_folder(self._path.parent)
        return SpoolFile(self._path, self._size, self._md5.hexdigest(), self._sha256.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _writing(self._path.parent):
            try:
                self._file.close()
            finally:
                self._unfinished.unlink(missing_ok=True)


class Spool:
    """The folder itself. Files are known by their bare name, so that the state directory can be moved."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder

    def writer(self) -> SpoolWriter:
        """Return a context that writes a body in blocks."""
        return SpoolWriter(self.folder)

    def write(self, body: bytes) -> SpoolFile:
        """Store ``body`` whole."""
        with self.writer() as writer:
            writer.write(body)
            return writer.finish()

    def read(self, name: str, *, offset: int = 0, length: int = -1) -> bytes:
        """Return ``length`` bytes from ``offset`` on, or fewer at the end. A ``length`` of -1 means all bytes.

        Raises CorruptError if the file can't be read.
        """
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise CorruptError(f"read spool file {name}: {error.strerror}") from error

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a body in blocks of bounded size."""
        offset = 0
        while block := self.read(name, offset=offset, length=_READ_ONCE):
            yield block
            offset += len(block)

    def remove(self, names: Collection[str]) -> None:
        """Remove bodies whose rows are gone. What can't be removed is left for the next ``sweep``."""
        for name in names:
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str]) -> int:
        """Remove everything but ``keep``. Returns the number of files removed."""
        with _writing(self.folder):
            unnamed = [path for path in self.folder.iterdir() if path.name not in keep]
            for path in unnamed:
                path.unlink(missing_ok=True)
        return len(unnamed)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"write to the spool {folder}: {error.strerror}", hint="make room in the state directory"
        ) from error
