"""Tests of NAME|URL: which replica a command is about."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from tests.replicas import make_replica
from walsyncd.cli.replica_argument import configured_entry, is_url, replica_from
from walsyncd.config import load
from walsyncd.errors import UsageError


def config(folder: Path) -> Path:
    file = folder / "config.toml"
    file.write_text(
        f'[storage]\nurl = "file://{folder}/replica"\n[daemon]\nstate_dir = "{folder}/state"\n'
        '[[database]]\npath = "/srv/named.db"\nname = "named"\n[[database]]\npath = "/srv/*/data.db"\n'
    )
    return file


def test_url_is_told_from_a_name() -> None:
    """Only a scheme makes a URL."""
    assert is_url("s3://bucket/app")
    assert not is_url("srv/app.db")


def test_name_is_configured_or_stored(tmp_path: Path) -> None:
    """A name is accepted if an entry has it or storage knows it. Any other is refused with the list."""
    file = config(tmp_path)
    with make_replica(tmp_path, name="old/one.db") as maker:
        maker.base()
    for name in ("named", "srv/7/data.db", "old/one.db", "old/one.db/"):
        assert replica_from(Namespace(replica=name, config=file)).name == name.rstrip("/")
    with pytest.raises(UsageError, match=r"known: named, old/one\.db"):
        replica_from(Namespace(replica="srv/named.db", config=file))


def test_configured_names(tmp_path: Path) -> None:
    """An entry's own name replaces the path. A pattern stands for what it matches."""
    settings = load(config(tmp_path))
    names = ("named", "srv/named.db", "srv/a/data.db", "x")
    assert [name for name in names if configured_entry(settings, name)] == ["named", "srv/a/data.db"]
