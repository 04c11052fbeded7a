"""Tests of the journal's protocol, and of the catalogue of messages."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path

import pytest

from walsyncd.log import journald

CATALOG = Path(__file__).parents[2] / "systemd" / "walsyncd.catalog"


def test_an_entry_has_the_message_and_each_fact() -> None:
    """Names are in capitals. A value with a line feed has its size before it."""
    datagram = journald.entry("{}", 4, {"event": "generation_ended", "database": "app", "reason": "a\nb", "level": "x"})
    assert b"MESSAGE={}\nPRIORITY=4\nSYSLOG_IDENTIFIER=walsyncd\n" in datagram
    assert f"MESSAGE_ID={journald.MESSAGE_IDS['generation_ended']}\n".encode() in datagram
    assert b"DATABASE=app\n" in datagram
    assert b"REASON\n" + struct.pack("<Q", 3) + b"a\nb\n" in datagram
    assert b"LEVEL" not in datagram


def test_names_and_sizes_are_what_the_journal_takes() -> None:
    """A fact may have any name. A value that is too long is cut, and bytes that are no text are written as escapes."""
    datagram = journald.entry("{}", 6, {"event": "x", "_1 tür": "\udcff", "long": "y" * 100_000})
    assert b"T_R=\\udcff\n" in datagram
    assert len(datagram) < journald.VALUE_BYTES_MAX + 1000


def test_a_datagram_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a journal there is an error, which the log counts."""
    monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
    with pytest.raises(FileNotFoundError):
        journald.send(b"MESSAGE=x\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(journald.SOCKET)
        journald.send(b"MESSAGE=x\n")
        assert journal.recv(100) == b"MESSAGE=x\n"


def test_stderr_is_the_journal_s_only_if_the_environment_names_it() -> None:
    """A service whose stderr was redirected keeps its lines there."""
    status = os.fstat(2)
    assert journald.is_stderr({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not journald.is_stderr({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
    assert not journald.is_stderr({})


def test_the_catalogue_has_every_message_and_no_other() -> None:
    """Each id occurs once, and has a subject."""
    text = CATALOG.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})\nSubject: ", text, re.MULTILINE)) == sorted(
        journald.MESSAGE_IDS.values()
    )
