"""Which databases the entries of the configuration mean on this disk, at this moment.

An entry is a path or a pattern (``*``, ``?``, ``[…]``, ``**`` for folders of any depth). A path means its file whether
or not it exists, since it may be created later. A pattern means the regular files that match it, without SQLite's own
``-wal``, ``-shm`` and ``-journal``. SQLite finds these beside the *resolved* path, and so do we.

Three things are refused because they would go wrong silently: the same file twice (one replica would overwrite the
other's history), a state directory below a folder that we watch (our own writes would wake us), and network file
systems (the wal-index is memory shared on one machine, and inotify sees only this machine's changes).
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from walsyncd.config.problem import Problem, error_of
from walsyncd.config.settings import DatabaseEntry, Keep, Settings
from walsyncd.core.stored.layout import check_name, default_name
from walsyncd.errors import UsageError

MOUNTS_FILE = Path("/proc/self/mountinfo")

_COMPANIONS = ("-wal", "-shm", "-journal")

# File systems that other machines also write, by their names in the kernel's mount table.
_NETWORK_TYPES = {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb2",
    "smb3",
    "smbfs",
    "vboxsf",
    "fuse.ceph",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.juicefs",
    "fuse.moosefs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
}
_NETWORK_HINT = "wal-index shared memory and inotify do not work there; run walsyncd where the disk is"


@dataclass(frozen=True, slots=True)
class DatabaseSpec:
    """One database to replicate. ``path`` is resolved; ``configured_as`` is the path before that.

    ``name`` is the folder of the replica in ``storage`` (the name of a ``[storage.NAME]``, empty for ``[storage]``).
    ``entry`` is the name of the entry in messages (``database[2]``).
    """

    path: Path
    name: str
    configured_as: str
    entry: str
    upload_interval_s: float
    snapshot_interval_s: float
    retention_s: float
    presence: bool
    snapshot_wal_ratio: float = 1.0
    keep: Keep = field(default_factory=Keep)
    verify_interval_s: float | None = None
    is_match: bool = False
    """Whether a pattern matched it, so that nobody has named this very file."""
    storage: str = ""


def expand(settings: Settings) -> list[DatabaseSpec]:
    """Return the databases on this disk now, in the order of the entries, with a pattern's matches sorted.

    Raises UsageError, which names every entry that can't be replicated and why.
    """
    specs = [_spec(entry, path) for entry in settings.databases for path in _paths(entry)]
    mounts = parse_mounts(MOUNTS_FILE.read_text(encoding="utf-8", errors="surrogateescape"))
    problems = [
        *_name_problems(specs, settings),
        *_twin_problems(specs),
        *_state_dir_problems(settings.daemon.state_dir, specs),
        *_network_problems(settings.daemon.state_dir, specs, mounts),
    ]
    if problems:
        raise error_of(settings.file, problems)
    return specs


def parse_mounts(text: str) -> dict[Path, str]:
    """Return the kind of file system at each mount point, from ``/proc/self/mountinfo`` (man 5 proc).

    Field 5 is the mount point, and the first field after a lone ``-`` is the kind. The last mount over a folder is the
    visible one.
    """
    mounts = {}
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        folder = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place.split()[4])
        mounts[Path(folder)] = kind.split()[0]
    return mounts


def network_mount(path: Path, mounts: Mapping[Path, str]) -> str:
    """Return the network file system that ``path`` (resolved) is on, as ``nfs4 at /mnt``, or "" if it is on none."""
    folder = next((folder for folder in (path, *path.parents) if folder in mounts), None)
    return f"{mounts[folder]} at {folder}" if folder and mounts[folder] in _NETWORK_TYPES else ""


def _paths(entry: DatabaseEntry) -> list[str]:
    if not entry.is_pattern:
        return [entry.path]
    matches = sorted(glob.glob(entry.path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    return [path for path in matches if not path.endswith(_COMPANIONS) and _is_regular(path)]


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:  # deleted meanwhile, or a dangling link; the next expansion finds the file if it appears
        return False


def _spec(entry: DatabaseEntry, path: str) -> DatabaseSpec:
    return DatabaseSpec(
        path=Path(os.path.realpath(path)),
        name=entry.name if entry.name is not None else default_name(path),
        configured_as=path,
        entry=entry.key,
        upload_interval_s=entry.upload_interval_s,
        snapshot_interval_s=entry.snapshot_interval_s,
        retention_s=entry.retention_s,
        presence=entry.presence,
        snapshot_wal_ratio=entry.snapshot_wal_ratio,
        keep=entry.keep,
        verify_interval_s=entry.verify_interval_s,
        is_match=entry.is_pattern,
        storage=entry.storage,
    )


def _name_problems(specs: Sequence[DatabaseSpec], settings: Settings) -> Iterator[Problem]:
    """Yield the names that storage can't take, including those of a pattern's matches."""
    for spec in specs:
        try:
            check_name(spec.name, settings.storage_of(spec.storage).prefix)
        except UsageError as error:
            yield _problem(spec, error.message, error.hint)


def _twin_problems(specs: Sequence[DatabaseSpec]) -> Iterator[Problem]:
    """Yield each entry or match that has the file or the name of an earlier one."""
    seen: dict[object, DatabaseSpec] = {}
    for spec in specs:
        first = next((seen[identity] for identity in _identities(spec) if identity in seen), None)
        if first is None:
            seen |= dict.fromkeys(_identities(spec), spec)
            continue
        if spec.name == first.name and spec.path != first.path:
            message, hint = f"has the name {spec.name!r} of", "give one of the two another name"
        else:
            message, hint = "is the same file as", "remove one of the two, or narrow the pattern"
        yield _problem(spec, f"{message} {first.entry} ({first.configured_as})", hint)


def _identities(spec: DatabaseSpec) -> list[object]:
    """Return what no two databases may share: the resolved path, the replica's folder, and the file's inode."""
    try:
        status = spec.path.stat()
    except OSError:
        return [spec.path, spec.name]
    return [spec.path, spec.name, (status.st_dev, status.st_ino)]


def _state_dir_problems(state_dir: Path, specs: Sequence[DatabaseSpec]) -> Iterator[Problem]:
    watched = {spec.path.parent: spec for spec in specs}
    resolved = Path(os.path.realpath(state_dir))
    around = next((watched[folder] for folder in (resolved, *resolved.parents) if folder in watched), None)
    if around is not None:
        message = f"is inside {around.path.parent}, the folder of {around.entry} ({around.configured_as})"
        hint = "choose a folder that is in none that holds a database"
        yield Problem("daemon.state_dir", repr(str(state_dir)), message, hint)


def _network_problems(state_dir: Path, specs: Sequence[DatabaseSpec], mounts: Mapping[Path, str]) -> Iterator[Problem]:
    for spec in specs:
        mount = network_mount(spec.path, mounts)
        if mount:
            yield _problem(spec, f"is on a network file system ({mount})", _NETWORK_HINT)
    mount = network_mount(Path(os.path.realpath(state_dir)), mounts)
    if mount:
        message = f"is on a network file system ({mount})"
        yield Problem("daemon.state_dir", repr(str(state_dir)), message, "choose a folder on a local disk")


def _problem(spec: DatabaseSpec, message: str, hint: str) -> Problem:
    return Problem(f"{spec.entry}.path", repr(spec.configured_as), message, hint)
