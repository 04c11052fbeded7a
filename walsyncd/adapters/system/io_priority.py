"""The I/O priority of a thread (ioprio_set(2)). A thread in the idle class is served when nobody else uses the disk.

Only some of the kernel's I/O schedulers obey the priority, so it does not replace a limit of the read rate.
"""

from __future__ import annotations

import ctypes
import platform

_SYSCALL = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS = 1  # with an id of 0 this means the calling thread
_CLASS_IDLE = 3
_CLASS_SHIFT = 13


def lower_io_priority() -> bool:
    """Put the calling thread into the idle class. Returns False if that is not possible, which costs only speed."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    return int(call(number, _WHO_PROCESS, 0, _CLASS_IDLE << _CLASS_SHIFT)) == 0
