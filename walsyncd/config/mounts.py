"""Finds network file systems in the kernel's mount table (``/proc/self/mountinfo``, man 5 proc).

A database on a network file system can't be followed. The wal-index is memory shared within one machine, and inotify
reports only the changes that this machine makes.
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
    """Return the present mounts: the kind of file system by the folder where it is mounted."""
    return parse_mounts(MOUNTS_FILE.read_text(encoding="utf-8", errors="surrogateescape"))


def parse_mounts(text: str) -> dict[Path, str]:
    """Return the mounts in the text of a mount table: the kind of file system by the folder.

    Field 5 is the folder. The first field after a lone ``-`` is the kind. Of several mounts on one folder, the last
    one is visible.
    """
    mounts = {}
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        folder = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place.split()[4])
        mounts[Path(folder)] = kind.split()[0]
    return mounts


def mount_of(path: Path) -> Path:
    """Return the folder where the file system of an absolute path is mounted. Only the mount table is read."""
    mounts = read_mounts()
    return next((folder for folder in (path, *path.parents) if folder in mounts), Path("/"))


def network_mount(path: Path, mounts: Mapping[Path, str]) -> str:
    """Return the network file system of ``path`` (resolved), like ``nfs4 at /mnt``, or "" if ``path`` is on none."""
    folder = next((folder for folder in (path, *path.parents) if folder in mounts), None)
    return f"{mounts[folder]} at {folder}" if folder and mounts[folder] in _NETWORK_TYPES else ""
