"""Blocks that are freed are used again, or given back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK_BYTES = 8, 8, 6 << 20

PROGRAM = f"""
import resource, sys
from walsyncd.adapters import allocator
for setting in sys.argv[1:]:
    getattr(allocator, setting)()
def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before_bytes = held()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    [b"x" * {BLOCK_BYTES} for _ in range({BLOCKS})]
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
blocks = [b"x" * {BLOCK_BYTES} for _ in range({BLOCKS})]
last = [b"x" * 100_000 for _ in range(20)]
del blocks
print(faults, held() - before_bytes)
"""


def use_blocks(*settings: str) -> tuple[int, int]:
    """Page faults of a process that takes and frees some blocks several times, and bytes that it then holds."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *settings], capture_output=True, text=True, check=True)
    faults, held = map(int, done.stdout.split())
    return faults, held


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_a_freed_block_is_not_mapped_anew() -> None:
    """The kernel clears its pages once, not every time."""
    assert use_blocks("reuse_blocks")[0] < use_blocks()[0] / (ROUNDS / 4)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_a_freed_block_is_given_back() -> None:
    """Even if something is in use behind it."""
    assert use_blocks("return_blocks")[1] < BLOCK_BYTES < use_blocks()[1]
