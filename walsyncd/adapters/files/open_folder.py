"""A folder that is opened once and then used by its descriptor, so that no other folder can take its place.

Restores run as root in folders that belong to the owners of the databases. Between two uses of a path, such an owner
can rename a folder and put a symbolic link there. So the path is walked once, a component at a time, without following
links, and every name below the folder is used relative to its descriptor and with O_NOFOLLOW (openat(2)).

A link on the way is followed only where only root and this process's user can have created it:

==========================================================  =================
the folder that holds the link                              the link is
==========================================================  =================
belongs to root or to us; nobody else may write to it       followed
belongs to root or to us; sticky; root's link, or ours      followed
anything else                                               refused
==========================================================  =================

The ``heir`` of a folder is its owner, if root may give that owner the files that root creates there. A folder that
everybody can write to has no heir. A folder below such a folder has no heir either, unless root or this process's user
owns it, since any user can have been the first to create it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from walsyncd.errors import RefusedError

LINKS_MAX = 40  # as in path_resolution(7)
NEW_FOLDER_MODE = 0o755  # at most; a new folder admits nobody whom its parent excludes
_WALK_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK_HINT = "name the folder that it leads to, or have root make the link in a folder of root's"


class OpenFolder:
    """A folder that is used by its descriptor. ``path`` is the path where it was found; no component of it is a link.

    Names given to methods have no slash. Methods raise OSError unless stated otherwise.
    """

    def __init__(self, path: Path, descriptor: int, *, is_shared: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self._is_shared = is_shared

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. It can be called twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def heir(self) -> tuple[int, int] | None:
        """User and group to whom files created here may be given. It is None if the folder has no heir."""
        if self._is_shared:
            return None
        status = os.fstat(self.descriptor)
        return status.st_uid, status.st_gid

    @property
    def mode(self) -> int:
        """The folder's permission bits."""
        return stat.S_IMODE(os.fstat(self.descriptor).st_mode)

    def enter(self, name: str, *, create: bool = False, mode: int = NEW_FOLDER_MODE) -> OpenFolder:
        """Open a folder in this folder. A link is never followed (ELOOP). ``create`` is as in ``open_folder``."""
        try:
            descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=self.descriptor)
        except FileNotFoundError:
            if not create:
                raise
            return self.make(name, mode)
        except NotADirectoryError:  # Linux reports the same error for a link
            raise _not_entered(self, name) from None
        return self._below(name, descriptor)

    def make(self, name: str, mode: int = NEW_FOLDER_MODE) -> OpenFolder:
        """Create a folder in this folder, as ``enter`` does, and open it. If it exists by now, it is only opened."""
        try:
            descriptor = _make(self._place, name, mode, sync=os.fsync)
        except NotADirectoryError:
            raise _not_entered(self, name) from None
        return self._below(name, descriptor)

    def _below(self, name: str, descriptor: int) -> OpenFolder:
        try:
            is_shared = _is_shared(self._place, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return OpenFolder(self.path / name, descriptor, is_shared=is_shared)

    @property
    def _place(self) -> _Place:
        return _Place(self.descriptor, self.path, is_shared=self._is_shared)

    def leave_to_heir(self, descriptor: int) -> None:
        """If we are root, give the heir a file that we have just created in this folder and have open."""
        if os.geteuid() == 0 and (heir := self.heir) and heir != (0, os.getegid()):  # otherwise it is the heir's
            os.fchown(descriptor, *heir)

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open a file of this folder and return the descriptor. A link is never followed (ELOOP)."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of the name, or None if it does not exist. A link has a status of its own."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """The names in this folder, in order."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208  a descriptor has no Path

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file within this folder, in one step."""
        os.rename(name, new_name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def unlink(self, name: str) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=self.descriptor)

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place in one step, durably. Root gives the file to the folder's heir."""
        temporary = f".{name}.new"
        with suppress(FileNotFoundError):
            self.unlink(temporary)  # left by a killed process
        descriptor = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self.leave_to_heir(descriptor)
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
            self.rename(temporary, name)
        except OSError:
            with suppress(FileNotFoundError):
                self.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        self.sync()

    def sync(self) -> None:
        """Make changes to the names in this folder durable."""
        os.fsync(self.descriptor)


def open_folder(path: Path, *, create: bool = False, mode: int = NEW_FOLDER_MODE) -> OpenFolder:
    """Open a folder, by the rules of this module.

    With ``create`` missing folders are created durably. Each has the owner of its parent, and ``mode`` at most. Raises
    RefusedError for a link that is not followed, and OSError.
    """
    with _Walk(path) as walk:
        while walk.left:
            walk.step(create=create, mode=mode)
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=walk.place.descriptor)
        return OpenFolder(walk.place.path, descriptor, is_shared=walk.place.is_shared)


@dataclass(slots=True)
class _Place:
    """A folder on the way: its descriptor (O_PATH) and path.

    ``is_shared`` says that an arbitrary user may be its owner.
    """

    descriptor: int
    path: Path
    is_shared: bool


class _Walk:
    """The walk from the root, or from the working directory, to a folder."""

    def __init__(self, path: Path) -> None:
        self._whole = path
        self._links = 0
        self.place = _root()
        self.left = deque(path.absolute().parts[1:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self.place.descriptor)

    def step(self, *, create: bool, mode: int) -> None:
        """Enter the next component, or, if it is a link, replace it by the path that the link holds."""
        name = self.left.popleft()
        here = self.place
        if name == "..":
            self._begin_again(here.path.parent)
            return
        try:
            descriptor = _open_component(here, name)
        except FileNotFoundError:
            if not create:
                raise
            descriptor = _make(here, name, mode, sync=sync_descriptor)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISLNK(status.st_mode):
                self._follow(name, descriptor, status)
            elif stat.S_ISDIR(status.st_mode):
                place = _Place(os.dup(descriptor), here.path / name, is_shared=_is_shared(here, status))
                os.close(here.descriptor)
                self.place = place
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(here.path / name))
        finally:
            os.close(descriptor)

    def _begin_again(self, path: Path) -> None:
        """Return to the root, and walk to ``path``, which has no link in it, before the remaining components."""
        os.close(self.place.descriptor)
        self.place = _root()
        self.left.extendleft(reversed(path.parts[1:]))

    def _follow(self, name: str, link: int, status: os.stat_result) -> None:
        self._links += 1
        if self._links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self._whole))
        holder = os.fstat(self.place.descriptor)
        others_may_write = bool(holder.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        is_kept = bool(holder.st_mode & stat.S_ISVTX) and _is_ours(status.st_uid)
        if not _is_ours(holder.st_uid) or (others_may_write and not is_kept):
            raise RefusedError(
                f"open folder {self._whole}: {self.place.path / name} is a symbolic link that others can change",
                hint=_LINK_HINT,
            )
        goal = Path(os.readlink("", dir_fd=link))
        if goal.is_absolute():
            self._begin_again(Path("/"))
        self.left.extendleft(reversed(goal.parts[1:] if goal.is_absolute() else goal.parts))


def _not_entered(folder: OpenFolder, name: str) -> OSError:
    """Return the error for a name that is not a folder: ELOOP if it is a link, and else ENOTDIR."""
    status = folder.status(name)
    code = errno.ELOOP if status and stat.S_ISLNK(status.st_mode) else errno.ENOTDIR
    return OSError(code, os.strerror(code), str(folder.path / name))


def _open_component(parent: _Place, name: str) -> int:
    """Open a folder, or whatever else has the name.

    O_DIRECTORY makes the kernel mount a folder that is mounted on demand.
    """
    try:
        return os.open(name, _WALK_FLAGS | os.O_DIRECTORY, dir_fd=parent.descriptor)
    except NotADirectoryError:
        return os.open(name, _WALK_FLAGS, dir_fd=parent.descriptor)


def _root() -> _Place:
    return _Place(os.open("/", _WALK_FLAGS | os.O_DIRECTORY), Path("/"), is_shared=False)


def is_shared_by_itself(status: os.stat_result) -> bool | None:
    """Whether a folder has no heir, as its own status shows. Returns None if that depends on the folders above it."""
    if _is_open_to_all(status):
        return True
    return False if _is_ours(status.st_uid) else None


def _is_shared(parent: _Place, status: os.stat_result) -> bool:
    """Whether a folder is open to everybody, or may have been created by an arbitrary user."""
    if (known := is_shared_by_itself(status)) is not None:
        return known
    above = os.fstat(parent.descriptor)
    is_members = bool(above.st_mode & stat.S_IWGRP) and status.st_uid != above.st_uid
    return parent.is_shared or is_members


def _is_ours(uid: int) -> bool:
    return uid in {0, os.geteuid()}


def _is_open_to_all(status: os.stat_result) -> bool:
    return bool(status.st_mode & (stat.S_ISVTX | stat.S_IWOTH))


def _make(parent: _Place, name: str, mode: int, *, sync: Callable[[int], None]) -> int:
    """Create a folder that belongs to its parent's owner, and return its descriptor. ``sync`` fsyncs the parent."""
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent.descriptor)
    descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=parent.descriptor)
    try:
        give_new_folder(descriptor, parent.descriptor, is_shared=parent.is_shared)
        sync(parent.descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def give_new_folder(descriptor: int, parent: int, *, is_shared: bool) -> None:
    """Give an empty folder that we have just created to the owner of its parent, by descriptor.

    A folder that is not ours, or not empty, was created by another process and is left as it is.
    """
    status, above, uid = os.fstat(descriptor), os.fstat(parent), os.geteuid()
    has, mode = stat.S_IMODE(status.st_mode), 0o700 if is_shared else above.st_mode & NEW_FOLDER_MODE
    is_given = uid == 0 and not is_shared and (status.st_uid, status.st_gid) != (above.st_uid, above.st_gid)
    if not is_given and has & mode == has:
        return  # most folders are like this: nothing has to be changed
    if status.st_uid != uid or not is_empty_folder(descriptor):
        return
    if is_given:
        os.fchown(descriptor, above.st_uid, above.st_gid)
    os.fchmod(descriptor, has & mode)


def is_empty_folder(descriptor: int) -> bool:
    """Whether an open folder is empty."""
    return not os.listdir(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Make changes to the names in a folder durable. The descriptor may have been opened with O_PATH."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)
