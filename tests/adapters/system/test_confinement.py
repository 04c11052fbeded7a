"""Tests that a confined process writes only below its folders, and reads everywhere."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

CONFINED = """
import os, sys, threading
from walsyncd.adapters.system.confinement import confine_writes
inside, outside = sys.argv[1:]
folder = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
assert confine_writes([folder])

def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        print(action.__name__, type(error).__name__)
    else:
        print(action.__name__, "done")

def write(path):
    with open(path, "w") as file:
        file.write("x")

def everything():
    attempt(write, f"{inside}/new")
    attempt(os.mkdir, f"{inside}/below")
    attempt(write, f"{inside}/below/new")
    attempt(os.rename, f"{inside}/new", f"{inside}/renamed")
    attempt(os.unlink, f"{inside}/renamed")
    attempt(os.symlink, f"{outside}/old", f"{inside}/link")
    attempt(write, f"{outside}/new")
    attempt(write, f"{outside}/old")
    attempt(os.unlink, f"{outside}/old")
    attempt(os.rename, f"{inside}/below/new", f"{outside}/moved")
    attempt(os.listdir, outside)

thread = threading.Thread(target=everything)
thread.start()
thread.join()
"""


def test_confined_process_writes_below_its_folders_only(tmp_path: Path) -> None:
    """A thread that the process starts later is confined, too.

    The process may write to what it makes in its folders.
    """
    if ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1) < 1:
        pytest.skip("this kernel has no Landlock")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
    (outside / "old").write_text("old")
    command = [sys.executable, "-c", CONFINED, str(inside), str(outside)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "write done",
        "mkdir done",
        "write done",
        "rename done",
        "unlink done",
        "symlink PermissionError",
        "write PermissionError",
        "write PermissionError",
        "unlink PermissionError",
        "rename PermissionError",
        "listdir done",
    ]
    assert [path.name for path in outside.iterdir()] == ["old"]
    assert (outside / "old").read_text() == "old"
