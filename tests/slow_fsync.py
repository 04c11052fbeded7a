"""A disk whose fsync is slow: a preloaded library that delays fsync(2) and fdatasync(2) in one process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void pause_first(void) {{
    struct timespec delay = {{{seconds}, {nanoseconds}}};
    nanosleep(&delay, 0);
}}

int fsync(int descriptor) {{
    static int (*next)(int);
    if (!next) next = dlsym(RTLD_NEXT, "fsync");
    pause_first();
    return next(descriptor);
}}

int fdatasync(int descriptor) {{
    static int (*next)(int);
    if (!next) next = dlsym(RTLD_NEXT, "fdatasync");
    pause_first();
    return next(descriptor);
}}
"""


def can_compile() -> bool:
    """Return whether there is a C compiler."""
    return shutil.which("cc") is not None


def slow_fsync(folder: Path, delay_ms: float) -> Path:
    """Return the library for ``LD_PRELOAD``, compiled in ``folder``."""
    delay_ns = int(delay_ms * 1_000_000)
    source, library = folder / "slow_fsync.c", folder / "slow_fsync.so"
    source.write_text(_SOURCE.format(seconds=delay_ns // 10**9, nanoseconds=delay_ns % 10**9))
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
