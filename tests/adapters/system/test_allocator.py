"""Tests that freed blocks of memory are used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK_BYTES = 8, 8, 6 << 20

PROGRAM = f"""
import resource, sys
from walsyncd.adapters.system import allocator
if "reuse" in sys.argv:
    allocator.reuse_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    [b"x" * {BLOCK_BYTES} for _ in range({BLOCKS})]
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults(*settings: str) -> int:
    """Return the page faults of a process that takes and frees some blocks several times."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *settings], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_a_freed_block_is_not_mapped_anew() -> None:
    """The kernel clears the block's pages once, and not every time."""
    assert faults("reuse") < faults() / (ROUNDS / 4)
