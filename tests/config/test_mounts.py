"""Tests of walsyncd.config.mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.config.mounts import mount_of, network_mount, parse_mounts, read_mounts

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/files rw,relatime shared:5 master:1 - nfs4 server:/files rw
31 27 0:41 / /mnt/my\040files rw - fuse.sshfs me@server: rw
32 30 254:1 / /mnt/files/local rw - xfs /dev/vdb rw
33 27 0:42 / /mnt/over rw - cifs //server/share rw
34 33 254:2 / /mnt/over rw - ext4 /dev/vdc rw
""".strip()


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/srv/app.db", ""),
        ("/mnt/files/app.db", "nfs4 at /mnt/files"),
        ("/mnt/files-too/app.db", ""),
        ("/mnt/my files/app.db", "fuse.sshfs at /mnt/my files"),
        ("/mnt/files/local/app.db", ""),
        ("/mnt/over/app.db", ""),
    ],
)
def test_the_nearest_and_last_mount_decides(path: str, mount: str) -> None:
    """Spaces are escaped. A local disk may be mounted in a network folder or over it."""
    assert network_mount(Path(path), parse_mounts(MOUNTS)) == mount


def test_the_kernels_table_can_be_read() -> None:
    """Whatever is mounted here, the root is in the table."""
    assert Path("/") in read_mounts()


def test_the_mount_of_a_path() -> None:
    """The mount is the one with the longest path above. A path always has that of the root."""
    assert mount_of(Path("/proc/self/status")) == Path("/proc")
    assert mount_of(Path("/no/such/file")) == Path("/")
