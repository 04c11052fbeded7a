"""Tests of the zstd module of this Python."""

from __future__ import annotations

import subprocess

from walsyncd.core.stored.zstd import zstd


def test_it_is_the_format_of_the_zstd_program() -> None:
    """The zstd program unpacks what the module packs, and the other way round."""
    content = bytes(range(256)) * 100
    unpacked = subprocess.run(["zstd", "-dc"], input=zstd.compress(content), capture_output=True, check=True)
    packed = subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True)
    assert unpacked.stdout == content
    assert zstd.decompress(packed.stdout) == content
