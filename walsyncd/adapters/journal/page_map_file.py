r"""The file of a page map: one entry of 8 bytes for each page of a database, in the state directory.

    offset       size
         0          8   b"WSPMAP1\\0"
         8         16   the random id of the file
        24          8   counter: how often the file was written since it was created
        32          4   page size
        36          4   CRC-32 of the bytes before
      4096  8 a page    the entries (``core.content.page_entry``), little-endian, of pages 1, 2, 3 …; 0 past the end

The file is written rarely: now and then it takes over the redo rows of stored segments. First entries and counter are
written and fsynced. Only then one transaction of the journal deletes the rows and notes the counter. So the entries
that a crash leaves half-written belong to rows that still exist, and applying the rows to the file gives the map. The
file's id must be the journal's. The file's counter must be the journal's counter, or one more. Otherwise the file
belongs to another history, and there is no map.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from walsyncd.adapters.files.durable_file import sync_folder
from walsyncd.core.content.page_entry import ABSENT, ENTRY_SIZE, Entries
from walsyncd.core.content.redo import Redo, apply
from walsyncd.core.sqlite.arrays import np
from walsyncd.errors import CorruptError, StateError

ENTRIES_AT = 4096
_HEAD = struct.Struct("<8s16sQI")
_MAGIC = b"WSPMAP1\0"
_BLOCK = 512  # entries written at once: 4 KiB


class PageMapFile:
    """An open map, to be closed with ``close``. Errors of the disk raise StateError."""

    def __init__(self, path: Path, descriptor: int, map_id: str, counter: int, page_size: int) -> None:
        self.path = path
        self.map_id = map_id
        self.counter = counter
        self.page_size = page_size
        self._descriptor = descriptor

    def read(self, first: int, count: int) -> Entries:
        """Return the entries of ``count`` pages from number ``first`` on."""
        with _translated(f"read page map {self.path}"):
            return _read(self._descriptor, first, count)

    def pages(self) -> int:
        """The number of pages that have an entry."""
        with _translated(f"read page map {self.path}"):
            return max(0, os.fstat(self._descriptor).st_size - ENTRIES_AT) // ENTRY_SIZE

    def take_over(self, redo: Redo, counter: int) -> None:
        """Make ``redo`` part of the file, durably, and set its counter. After that the journal's rows may be deleted.

        ``counter`` is one more than the counter in the journal. The file may already have this counter, if its last
        write was not noted in the journal.
        """
        with _translated(f"write page map {self.path}"):
            if redo.size_min < self.pages():
                os.ftruncate(self._descriptor, ENTRIES_AT + redo.size_min * ENTRY_SIZE)
            for block in np.unique((redo.pages - 1) // _BLOCK).tolist():
                first = block * _BLOCK + 1
                changed = apply(redo, self.read(first, _BLOCK), first)
                last = int(np.flatnonzero(changed)[-1]) + 1 if changed.any() else 0
                self._write(changed[:last].astype("<u8").tobytes(), ENTRIES_AT + block * _BLOCK * ENTRY_SIZE)
            self.counter = counter
            self._write(_head(self.map_id, self.counter, self.page_size), 0)
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor. It can be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, data: bytes, offset: int) -> None:
        _pwrite(self._descriptor, data, offset)


class PageMapWriter:
    """Writes a map from entries that come in order. Leaving the context without ``finish`` removes the file."""

    def __init__(self, path: Path, page_size: int, *, suffix: str = ".part") -> None:
        self.map_id = secrets.token_hex(16)
        self._path = path
        self._unfinished = path.with_name(path.name + suffix)
        self._is_finished = False
        self._is_tried = False
        self._at = ENTRIES_AT
        with _translated(f"write page map {path}"):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self._unfinished, flags, 0o600)
            _pwrite(self._descriptor, _head(self.map_id, 0, page_size), 0)

    def add(self, entries: Entries) -> None:
        """Append the entries of the next pages."""
        data = entries.astype("<u8").tobytes()
        with _translated(f"write page map {self._path}"):
            _pwrite(self._descriptor, data, self._at)
        self._at += len(data)

    def read(self, first: int, count: int) -> Entries:
        """Return the entries of ``count`` pages from number ``first`` on. A page that was not added is ABSENT."""
        with _translated(f"read page map {self._path}"):
            return _read(self._descriptor, first, count)

    @property
    def folder(self) -> Path:
        """The folder of the map's file."""
        return self._path.parent

    def finish(self, size: int | None) -> None:
        """Make the map of a database of ``size`` pages durable under the map's name, with the counter 0.

        If ``size`` is None, every entry that was added counts.
        """
        self.put_in_place(size)
        make_names_durable({self.folder})

    def put_in_place(self, size: int | None) -> None:
        """Do what ``finish`` does, except that the name is not durable yet. This method can be called twice.

        Once it has failed, every further call fails too: the kernel reports bytes that it could not write only once, so
        a second fsync would succeed without these bytes.
        """
        if self._is_finished:
            return
        with _translated(f"write page map {self._path}"):
            if self._is_tried:
                raise OSError(errno.EIO, "an earlier attempt to make it durable failed")
            self._is_tried = True
            if size is not None and (end := ENTRIES_AT + size * ENTRY_SIZE) < self._at:
                os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
            self._unfinished.rename(self._path)
            self._is_finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and remove it if it was not finished. It can be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        if not self._is_finished:
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)


def make_names_durable(folders: Iterable[Path]) -> None:
    """Make durable the names of maps that were put in place in these folders."""
    for folder in folders:
        with _translated(f"write page maps in {folder}"):
            sync_folder(folder)


def open_page_map(path: Path) -> PageMapFile | None:
    """Open the map at ``path``, or return None if there is none. Raises CorruptError if it is not a map."""
    with _translated(f"open page map {path}"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            head = os.pread(descriptor, _HEAD.size + 4, 0)
        except OSError:
            os.close(descriptor)
            raise
    sound = len(head) == _HEAD.size + 4 and zlib.crc32(head[: _HEAD.size]) == int.from_bytes(head[-4:], "little")
    if not sound or head[:8] != _MAGIC:
        os.close(descriptor)
        raise CorruptError(f"open page map {path}: its header is damaged", hint="it is made again from the database")
    _, map_id, counter, page_size = _HEAD.unpack(head[: _HEAD.size])
    return PageMapFile(path, descriptor, map_id.hex(), counter, page_size)


def _read(descriptor: int, first: int, count: int) -> Entries:
    data = os.pread(descriptor, count * ENTRY_SIZE, ENTRIES_AT + (first - 1) * ENTRY_SIZE)
    whole = len(data) // ENTRY_SIZE
    entries = np.full(count, ABSENT, np.uint64)
    entries[:whole] = np.frombuffer(data, "<u8", whole)
    return entries


def _head(map_id: str, counter: int, page_size: int) -> bytes:
    head = _HEAD.pack(_MAGIC, bytes.fromhex(map_id), counter, page_size)
    return head + struct.pack("<I", zlib.crc32(head))


def _pwrite(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"{action}: {error.strerror}", hint="check the state directory: room, permissions") from error
