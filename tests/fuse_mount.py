"""A file system that can be made to hang: ``python -m tests.fuse_mount FOLDER MOUNT`` serves FOLDER at MOUNT by FUSE.

It speaks the kernel's protocol itself (linux/fuse.h), as far as SQLite and walsyncd need it, in one thread. After
SIGHUP it stops itself, between two requests, until SIGCONT: no call on a file there returns meanwhile, and the
callers can be killed. After SIGUSR1 it takes requests and answers none, so that the callers can't even be killed,
until SIGUSR2. When the process ends, every call fails with ENOTCONN.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MNT_DETACH = 2
STOP_S_MAX = 60.0
MESSAGE_BYTES_MAX = (1 << 20) + 4096
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_ATTR = "<QQQQQQIIIIIIIIII"
_libc = ctypes.CDLL(None, use_errno=True)


class Served:
    """A mounted folder. ``files`` is the mount."""

    def __init__(self, process: subprocess.Popen[bytes], files: Path) -> None:
        self._process = process
        self.files = files

    def hang(self) -> None:
        """Answer nothing from now on, and take no request."""
        self._process.send_signal(signal.SIGHUP)
        until_s = time.monotonic() + STOP_S_MAX
        while not self._is_stopped():
            assert time.monotonic() < until_s, "it does not stop"
            time.sleep(0.01)

    def _is_stopped(self) -> bool:
        status = Path(f"/proc/{self._process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    def swallow(self) -> None:
        """Answer nothing from now on, but take every request."""
        self._process.send_signal(signal.SIGUSR1)

    def answer(self) -> None:
        """Answer again, also what was requested meanwhile."""
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGUSR2)


@contextmanager
def fuse_mount(folder: Path, name: str = "mount") -> Iterator[Served]:
    """Serve a new folder inside ``folder``. The test is skipped where there is no FUSE."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs root and /dev/fuse")
    backing, mount = folder / f"{name}-backing", folder / name
    backing.mkdir()
    mount.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "tests.fuse_mount", str(backing), str(mount)])
    try:
        until_s = time.monotonic() + 30
        while not mount.is_mount():
            if process.poll() is not None or time.monotonic() > until_s:
                pytest.skip("FUSE can't be mounted here")
            time.sleep(0.01)
        yield Served(process, mount)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        _libc.umount2(os.fsencode(mount), MNT_DETACH)


class Server:
    """Answers requests. A node's number is its inode in the backing folder."""

    def __init__(self, backing: str, channel: int) -> None:
        self._backing = backing
        self._channel = channel
        self._paths = {1: backing}
        self._handles: dict[int, int] = {}
        self._swallowed: list[bytes] = []
        self.is_swallowing = self.is_stopping = False
        os.set_blocking(channel, False)
        self._signalled, written = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the file system is unmounted."""
        while True:
            if self.is_stopping:  # a request that was taken before would keep its caller from being killed
                self.is_stopping = False
                os.kill(os.getpid(), signal.SIGSTOP)
            ready, _, _ = select.select([self._channel, self._signalled], [], [])
            if self._signalled in ready:
                os.read(self._signalled, MESSAGE_BYTES_MAX)
                continue
            try:
                request = os.read(self._channel, MESSAGE_BYTES_MAX)
            except (InterruptedError, BlockingIOError):
                continue
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            if self.is_swallowing:
                self._swallowed.append(request)
            else:
                self._serve(request)

    def answer_swallowed(self) -> None:
        """Answer the requests that were taken and not answered."""
        self.is_swallowing = False
        while self._swallowed:
            self._serve(self._swallowed.pop(0))

    def _serve(self, request: bytes) -> None:
        _, code, unique, node, *_ = _IN.unpack_from(request)
        handle = _HANDLERS.get(code)
        if code in {2, 36, 42}:  # FORGET, INTERRUPT, BATCH_FORGET have no answer
            return
        body, number = b"", -errno.ENOSYS
        if handle is not None:
            try:
                body, number = handle(self, node, request[_IN.size :]), 0
            except OSError as error:
                body, number = b"", -(error.errno or errno.EIO)
        os.write(self._channel, _OUT.pack(_OUT.size + len(body), number, unique) + body)

    def _at(self, node: int, body: bytes) -> str:
        return f"{self._paths[node]}/{os.fsdecode(body.rstrip(bytes(1)))}"

    def _status(self, node: int) -> os.stat_result:
        """Return the status of a node. An open handle may still have it when its name is gone, or is another file's."""
        handle = next((handle for handle, owner in self._handles.items() if owner == node), None)
        return os.lstat(self._paths[node]) if handle is None else os.fstat(handle)

    def _attributes(self, status: os.stat_result, node: int) -> bytes:
        times = [status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns]
        return struct.pack(
            _ATTR,
            node,
            status.st_size,
            status.st_blocks,
            *(each // 10**9 for each in times),
            *(each % 10**9 for each in times),
            status.st_mode,
            status.st_nlink,
            status.st_uid,
            status.st_gid,
            0,
            4096,
            0,
        )

    def _entry(self, path: str) -> bytes:
        status = os.lstat(path)
        self._paths[status.st_ino] = path
        return struct.pack("<QQQQII", status.st_ino, 0, 0, 0, 0, 0) + self._attributes(status, status.st_ino)

    def init(self, _node: int, body: bytes) -> bytes:
        major, minor, readahead, _flags = struct.unpack_from("<IIII", body)
        flags = 1 << 3 | 1 << 5  # ATOMIC_O_TRUNC, BIG_WRITES
        return struct.pack("<IIIIHHIIHHI28x", major, min(minor, 31), readahead, flags, 16, 12, 1 << 17, 1, 32, 0, 0)

    def lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._at(node, body))

    def getattr(self, node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._status(node), node)

    def setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, *_ = struct.unpack_from("<IIQQ", body)
        if valid & 1 << 3:
            os.truncate(self._paths[node], size)
        return self.getattr(node, b"")

    def mknod(self, node: int, body: bytes) -> bytes:
        mode, device, *_ = struct.unpack_from("<IIII", body)
        path = self._at(node, body[16:])
        os.mknod(path, mode, device)
        return self._entry(path)

    def mkdir(self, node: int, body: bytes) -> bytes:
        path = self._at(node, body[8:])
        Path(path).mkdir()
        return self._entry(path)

    def rename(self, node: int, body: bytes) -> bytes:
        (folder,) = struct.unpack_from("<Q", body)
        source, target, _ = body[8:].split(bytes(1))
        path = self._at(folder, target)
        Path(self._at(node, source)).rename(path)
        self._entry(path)
        return b""

    def rmdir(self, node: int, body: bytes) -> bytes:
        Path(self._at(node, body)).rmdir()
        return b""

    def unlink(self, node: int, body: bytes) -> bytes:
        Path(self._at(node, body)).unlink()
        return b""

    def open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        handle = os.open(self._paths[node], flags & ~os.O_NOFOLLOW & ~os.O_NOATIME)
        self._handles[handle] = node
        return struct.pack("<QII", handle, 0, 0)

    def create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        path = self._at(node, body[16:])
        handle = os.open(path, flags & ~os.O_NOFOLLOW | os.O_CREAT, mode & 0o777)
        self._handles[handle] = os.fstat(handle).st_ino
        return self._entry(path) + struct.pack("<QII", handle, 0, 0)

    def read(self, _node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(handle, size, offset)

    def write(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        data = body[40 : 40 + size]
        try:
            written = os.pwrite(handle, data, offset)
        except OSError:  # a page of a mapping that another handle wrote
            with Path(self._paths[node]).open("r+b") as file:
                written = os.pwrite(file.fileno(), data, offset)
        return struct.pack("<II", written, 0)

    def release(self, _node: int, body: bytes) -> bytes:
        (handle,) = struct.unpack_from("<Q", body)
        del self._handles[handle]
        os.close(handle)
        return b""

    def nothing(self, _node: int, _body: bytes) -> bytes:
        return b""

    def opendir(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        found = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node])), 1):  # noqa: PTH208
            text = os.fsencode(name)
            entry = struct.pack("<QQII", number, number, len(text), 0) + text
            entry += bytes(-len(entry) % 8)
            if number > offset and len(found) + len(entry) <= size:
                found += entry
        return found

    def statfs(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1000, 900, 4096, 255, 4096, 0)


_HANDLERS: dict[int, Callable[[Server, int, bytes], bytes]] = {
    1: Server.lookup,
    3: Server.getattr,
    4: Server.setattr,
    8: Server.mknod,
    9: Server.mkdir,
    10: Server.unlink,
    11: Server.rmdir,
    12: Server.rename,
    14: Server.open,
    15: Server.read,
    16: Server.write,
    17: Server.statfs,
    18: Server.release,
    20: Server.nothing,  # fsync
    25: Server.nothing,  # flush
    26: Server.init,
    27: Server.opendir,
    28: Server.readdir,
    29: Server.nothing,  # releasedir
    30: Server.nothing,  # fsyncdir
    35: Server.create,
}


def main(backing: str, mount: str) -> None:
    """Mount and serve."""
    channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={channel},rootmode=40000,user_id=0,group_id=0,allow_other"
    if _libc.mount(b"hanging", os.fsencode(mount), b"fuse.hanging", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    server = Server(backing, channel)

    def swallow(_number: int, _frame: object) -> None:
        server.is_swallowing = True

    def stop(_number: int, _frame: object) -> None:
        server.is_stopping = True

    signal.signal(signal.SIGHUP, stop)
    signal.signal(signal.SIGUSR1, swallow)
    signal.signal(signal.SIGUSR2, lambda _number, _frame: server.answer_swallowed())
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
