"""Tests of numpy's late import."""

from __future__ import annotations

import subprocess
import sys

import numpy

from walsyncd.core.sqlite.arrays import np


def test_it_is_numpy() -> None:
    """The attributes are those of numpy itself."""
    assert np.uint32 is numpy.uint32
    assert np.einsum is numpy.einsum


def test_numpy_comes_with_its_first_use() -> None:
    """Importing a module that computes with arrays does not load numpy. Computing does."""
    script = (
        "import sys\n"
        "from walsyncd.core.sqlite.checksum import frame_chains\n"
        "print('numpy' in sys.modules)\n"
        "frame_chains(bytes(536), 536, (0, 0), big_endian=False)\n"
        "print('numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
