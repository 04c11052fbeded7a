"""Confines this process to writing below some folders, by Landlock (landlock(7), Linux 5.13 and later).

A restore may run as root in a folder that belongs to somebody who is not trusted. The confinement ensures that no
mistake of ours can create, change or remove a file outside these folders. Reading, sockets and open files are not
affected.

=======  ===========================================================
version  what it can deny beyond the version before
=======  ===========================================================
1        writing, creating and removing files of each kind
2        renames and links between folders, which are never allowed
3        truncating
=======  ===========================================================

The confinement holds for the calling thread and for every thread and process that it starts afterwards. It can't be
undone.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from enum import IntFlag

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PR_SET_NO_NEW_PRIVS = 38
_VERSION = 1  # landlock_create_ruleset: return the version
_RULE_PATH_BENEATH = 1
_TRUNCATE_SINCE = 3


class _Right(IntFlag):
    """The bits of LANDLOCK_ACCESS_FS_… for rights to change something."""

    WRITE_FILE = 1 << 1
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    TRUNCATE = 1 << 14


_ALLOWED = _Right.WRITE_FILE | _Right.REMOVE_FILE | _Right.MAKE_REG | _Right.MAKE_DIR | _Right.TRUNCATE


def confine_writes(folders: Sequence[int]) -> bool:
    """Let this thread, and the threads and processes that it starts, write below these open folders and nowhere else.

    Returns False, and changes nothing, if the kernel has no Landlock. Raises OSError for any other failure.
    """
    system = ctypes.CDLL(None, use_errno=True)
    version = system.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    handled = sum(right for right in _Right if right is not _Right.TRUNCATE or version >= _TRUNCATE_SINCE)
    attributes = struct.pack("=Q", handled)
    ruleset = _checked(system.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        for folder in folders:
            rule = struct.pack("=Qi", _ALLOWED & handled, folder)
            _checked(system.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
        _checked(system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(system.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
