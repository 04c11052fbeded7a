"""Which file systems are network file systems, by the kernel's mount table (``/proc/self/mountinfo``, man 5 proc).

A database on one can't be followed: the wal-index is memory shared on one machine, and inotify sees only the changes
of this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MOUNTS_FILE = Path("/proc/self/mountinfo")

NETWORK_HINT = "wal-index shared memory and inotify do not work there; run walsyncd where the disk is"

# File systems whose other side is another machine, by their names in the kernel's mount table.
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


def read_mounts() -> dict[Path, str]:
    """Where which kind of file system is mounted now."""
    return parse_mounts(MOUNTS_FILE.read_text(encoding="utf-8", errors="surrogateescape"))


def parse_mounts(text: str) -> dict[Path, str]:
    """Where which kind of file system is mounted, by the text of the mount table.

    Field 5 is where, the first one after a lone ``-`` the kind; the last mount over a folder is the one seen.
    """
    mounts = {}
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        folder = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place.split()[4])
        mounts[Path(folder)] = kind.split()[0]
    return mounts


def mount_of(path: Path) -> Path:
    """Where the file system is mounted that an absolute path is on. This reads the mount table alone."""
    mounts = read_mounts()
    return next((folder for folder in (path, *path.parents) if folder in mounts), Path("/"))


def network_mount(path: Path, mounts: Mapping[Path, str]) -> str:
    """The network file system that ``path`` (resolved) is on, as ``nfs4 at /mnt``, or ""."""
    folder = next((folder for folder in (path, *path.parents) if folder in mounts), None)
    return f"{mounts[folder]} at {folder}" if folder and mounts[folder] in _NETWORK_TYPES else ""
