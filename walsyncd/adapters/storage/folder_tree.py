"""Files below one folder, each reached by descriptors from that folder on, and never through a symbolic link.

As with a bucket, others may be able to write to a storage folder, so its content is not trusted. If somebody puts a
link, a FIFO or a device in the place of a file or a folder, it must not be followed or opened, even if it appears
between two system calls. The root is opened by the rules of ``open_folder``. Each component below it is opened relative
to the one above with O_NOFOLLOW. Files that root creates are given to the heir of their folder.

Names are relative to the root, with slashes. The caller ensures that no component is empty, ``.`` or ``..``. Methods
raise OSError, with ELOOP for a link. They raise RefusedError for a link on the way to the root that others can change.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeAlias

from walsyncd.adapters.files.open_folder import OpenFolder, is_shared_by_itself, open_folder
from walsyncd.adapters.files.private_modes import NEW_FILE_MODE, NEW_FOLDER_MODE
from walsyncd.adapters.files.safe_open import folder_descriptor

RENAME_ATTEMPTS_MAX = 10  # a folder vanishes before a rename only if another process then deletes its last file
_CODES = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

MayReplace: TypeAlias = Callable[[OpenFolder, str], AbstractContextManager[bool]]
"""Yields whether a file may be renamed to a name in a folder. This stays true until the context ends."""


class FolderTree:
    """The files below ``root``.

    Each call opens the root again, since its disk may have been mounted or moved meanwhile.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def folder(self, name: str = "", *, create: bool = False) -> Iterator[OpenFolder]:
        """Open a folder, or the root if the name is empty. ``create`` creates missing folders durably."""
        opened = self._open_at_once(name, create=create, with_heir=create and os.geteuid() == 0)
        opened = opened or self._open_by_steps(name, create=create)
        try:
            yield opened
        finally:
            opened.close()

    def _open_at_once(self, name: str, *, create: bool, with_heir: bool) -> OpenFolder | None:
        """Open a folder by one system call. With ``create`` missing folders at the end of its path are created.

        Returns None if the caller has to walk step by step: there is a link on the way, or the heir is needed
        (``with_heir``) and depends on the folders above.
        """
        try:
            descriptor = folder_descriptor(f"{self._root}/{name}", os.O_RDONLY)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return None
            if error.errno == errno.ENOENT and create:
                return self._create(name)
            raise
        try:
            is_shared = is_shared_by_itself(os.fstat(descriptor)) if with_heir else True
        except BaseException:
            os.close(descriptor)
            raise
        if is_shared is None:
            os.close(descriptor)
            return None
        return OpenFolder(self._root / name, descriptor, is_shared=is_shared)

    def _create(self, name: str) -> OpenFolder | None:
        """Create a folder and missing folders above it. Returns None for the root, and when ``_open_at_once`` does."""
        above, _, last = name.rpartition("/")
        here = self._open_at_once(above, create=True, with_heir=True) if name else None
        if here is None:
            return None
        with here:
            return here.make(last, NEW_FOLDER_MODE)

    def _open_by_steps(self, name: str, *, create: bool) -> OpenFolder:
        here = open_folder(self._root, create=create, mode=NEW_FOLDER_MODE)
        try:
            for component in filter(None, name.split("/")):
                above, here = here, here.enter(component, create=create, mode=NEW_FOLDER_MODE)
                above.close()
        except BaseException:
            here.close()
            raise
        return here

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[BufferedReader, os.stat_result]]:
        """Open a regular file for reading. Yield the file and its status."""
        above, _, last = name.rpartition("/")
        with self.folder(above) as folder, os.fdopen(_open_regular(folder, last), "rb") as file:
            yield file, os.fstat(file.fileno())

    def write(self, folder_name: str, fill: Callable[[BinaryIO], object]) -> str:
        """Write a durable new file with ``fill``, under a random name in a folder that is created if it is missing."""
        name = secrets.token_hex(16)
        with self.folder(folder_name, create=True) as folder:
            try:
                with create(folder, name) as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:  # the source that ``fill`` reads may raise any error
                with suppress(FileNotFoundError):
                    folder.unlink(name)
                raise
        return f"{folder_name}/{name}".removeprefix("/")

    def put(
        self,
        folder_name: str,
        body: bytes,
        name: str,
        *,
        may_replace: MayReplace = lambda _to, _name: nullcontext(True),
    ) -> os.stat_result | None:
        """Write a durable new file and rename it to ``name``, as ``write`` and ``publish`` do. Returns its status.

        The rename happens within the context that ``may_replace`` returns for the folder and the name. If that context
        yields False, nothing is changed and None is returned.
        """
        above, _, last = name.rpartition("/")
        with self.folder(folder_name, create=True) as source:
            temporary, status = _write_new(source, body)
            is_renamed = False
            try:
                for attempts_left in reversed(range(RENAME_ATTEMPTS_MAX)):
                    with suppress(*[FileNotFoundError] * bool(attempts_left)), self.folder(above, create=True) as to:
                        with may_replace(to, last) as may:
                            if not may:
                                return None
                            os.rename(temporary, last, src_dir_fd=source.descriptor, dst_dir_fd=to.descriptor)
                            is_renamed = True
                        to.sync()
                        break
            finally:
                if not is_renamed:
                    with suppress(OSError):
                        source.unlink(temporary)
        return status

    def publish(self, temporary: str, name: str) -> None:
        """Rename a file durably, in one step. Missing folders on the way are created.

        If the rename fails, the temporary file is deleted.
        """
        try:
            for attempts_left in reversed(range(RENAME_ATTEMPTS_MAX)):
                try:
                    self.rename(temporary, name, create=True)
                except FileNotFoundError:
                    if not attempts_left or self.status(temporary) is None:
                        raise
                else:
                    return
        except OSError:
            with suppress(OSError):
                self.unlink(temporary)
            raise

    def rename(self, name: str, new_name: str, *, create: bool = False) -> None:
        """Rename a file or a folder, and make the new name durable. ``create`` creates the folder of the new name."""
        old_above, _, old = name.rpartition("/")
        new_above, _, new = new_name.rpartition("/")
        with self.folder(old_above) as source, self.folder(new_above, create=create) as target:
            os.rename(old, new, src_dir_fd=source.descriptor, dst_dir_fd=target.descriptor)
            target.sync()

    def sync(self, name: str) -> None:
        """Make a file and its name durable."""
        with self.open(name) as (file, _), self.folder(name.rpartition("/")[0]) as folder:
            os.fsync(file.fileno())
            folder.sync()

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a name, or None if it does not exist. A link has a status of its own."""
        above, _, last = name.rpartition("/")
        try:
            with self.folder(above) as folder:
                return folder.status(last)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def unlink(self, name: str) -> None:
        """Remove a file's name."""
        above, _, last = name.rpartition("/")
        with self.folder(above) as folder:
            folder.unlink(last)

    def sweep(self, folder_name: str, age_s_max: float) -> None:
        """Remove files older than ``age_s_max`` seconds from a folder. The folder is created if it is missing."""
        with self.folder(folder_name, create=True) as folder:
            for name in folder.names():
                status = folder.status(name)
                if status is None or status.st_mtime > time.time() - age_s_max:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    remove_tree(folder, name)
                else:
                    with suppress(FileNotFoundError):
                        folder.unlink(name)


def remove_tree(folder: OpenFolder, name: str) -> None:
    """Remove a folder and its content. Whatever can't be removed is left."""
    shutil.rmtree(name, ignore_errors=True, dir_fd=folder.descriptor)


def create(folder: OpenFolder, name: str) -> BinaryIO:
    """Create a file under an unused name, and return it open for writing.

    Whatever the umask is, only the file's owner and group may read it. Root gives the file to the folder's heir.
    """
    descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
    try:
        folder.leave_to_heir(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "wb")


def _write_new(folder: OpenFolder, body: bytes) -> tuple[str, os.stat_result]:
    """Write a durable new file under a random name. Returns the name and the file's status."""
    name = secrets.token_hex(16)
    descriptor = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, NEW_FILE_MODE)
    try:
        folder.leave_to_heir(descriptor)
        left = memoryview(body)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
        return name, os.fstat(descriptor)
    except BaseException:
        with suppress(FileNotFoundError):
            folder.unlink(name)
        raise
    finally:
        os.close(descriptor)


def copy_whole(source: BinaryIO, target: BinaryIO) -> None:
    """Append a whole open file to another one. The kernel copies the bytes."""
    left = os.fstat(source.fileno()).st_size
    while left:
        copied = os.sendfile(target.fileno(), source.fileno(), None, left)
        if not copied:
            raise OSError(errno.EIO, "file became shorter while it was copied")
        left -= copied


def _open_regular(folder: OpenFolder, name: str) -> int:
    """Open a file if it is a regular file. A device is not opened at all, since opening it can have an effect."""
    status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    _check_regular(folder, name, status)
    descriptor = folder.open(name, _READ_FLAGS)
    try:
        _check_regular(folder, name, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(folder: OpenFolder, name: str, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    code = _CODES.get(stat.S_IFMT(status.st_mode), errno.EINVAL)
    raise OSError(code, os.strerror(code), str(folder.path / name))
