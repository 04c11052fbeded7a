"""Tests of commands with several storages: the right one is found by a database's name."""

from __future__ import annotations

import json
import sqlite3
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import pytest

from tests.replicas import make_replica
from walsyncd.cli import main
from walsyncd.cli.replica_argument import replica_from
from walsyncd.errors import UsageError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Database ``here`` goes to [storage], ``there`` to [storage.eu]; [storage.spare] has none."""
    for name in ("here", "there"):
        path = tmp_path / f"data/{name}.db"
        path.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode=wal")
            connection.execute("create table t (x)")
    for name in ("default", "eu", "spare"):
        (tmp_path / name / "replica").mkdir(parents=True)
    file = tmp_path / "config.toml"
    file.write_text(
        f'[storage]\nurl = "file://{tmp_path}/default/replica"\n'
        f'[storage.eu]\nurl = "file://{tmp_path}/eu/replica"\n'
        f'[storage.spare]\nurl = "file://{tmp_path}/spare/replica"\n'
        f'[daemon]\nstate_dir = "{tmp_path}/state"\n'
        f'[[database]]\npath = "{tmp_path}/data/here.db"\nname = "here"\n'
        f'[[database]]\npath = "{tmp_path}/data/there.db"\nname = "there"\nstorage = "eu"\n'
    )
    return file


def store(tmp_path: Path, storage: str, name: str) -> None:
    with make_replica(tmp_path / storage, name=name) as maker:
        maker.base()


def test_a_name_finds_its_storage(tmp_path: Path, config: Path) -> None:
    """The database's entry selects it. Without an entry it is any storage that has the name."""
    store(tmp_path, "spare", "old")
    for name, storage in (("here", "default"), ("there", "eu"), ("old", "spare")):
        assert replica_from(Namespace(replica=name, config=config)).url == f"file://{tmp_path}/{storage}/replica/{name}"
    with pytest.raises(UsageError, match="known: here, old, there"):
        replica_from(Namespace(replica="nowhere", config=config))


def test_ls_shows_all_of_them(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is listed with the address of its folder."""
    store(tmp_path, "default", "here")
    store(tmp_path, "eu", "there")
    assert main(["ls", "--json", "--config", str(config)]) == 0
    found = {each["name"]: each["url"] for each in json.loads(capsys.readouterr().out)["databases"]}
    assert found == {
        "here": f"file://{tmp_path}/default/replica/here",
        "there": f"file://{tmp_path}/eu/replica/there",
    }


def test_ls_shows_what_it_can_and_ends_with_what_failed(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A storage that is out of reach does not hide the others."""
    store(tmp_path, "eu", "there")
    text = config.read_text().replace(f"file://{tmp_path}/spare/replica", "s3://spare")
    keys = 'endpoint_url = "http://127.0.0.1:9"\nregion = "r"\naccess_key_id = "a"\nsecret_access_key = "b"\n'
    config.write_text(text.replace("[daemon]", f"{keys}[daemon]"))
    assert main(["ls", "--config", str(config)]) == 1
    out, err = capsys.readouterr()
    assert "there" in out
    assert "s3://spare" in err
    assert main(["ls", "there", "--config", str(config)]) == 0


def test_prune_looks_into_the_right_one(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This works without a daemon, too."""
    store(tmp_path, "eu", "there")
    assert main(["prune", "--dry-run", "--json", "--config", str(config)]) == 0
    found = json.loads(capsys.readouterr().out)["databases"]
    assert [each["name"] for each in found] == ["here", "there"]


def test_check_tries_each_and_notes_one_without_a_database(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A storage without a database is no error."""
    assert main(["check", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.count("can be reached, written and read") == 3
    assert 'note    [storage.spare]: no database selects it (hint: storage = "spare" in a [[database]]' in out


def test_forget_finds_what_is_left_of_a_database(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All storages are searched. A database that has moved is found in the next one when the first is empty."""
    store(tmp_path, "eu", "old")
    store(tmp_path, "spare", "old")
    for left in ("spare", ""):
        assert main(["forget", "old", "--yes", "--config", str(config)]) == 0
        capsys.readouterr()
        have = [name for name in ("eu", "spare") if list((tmp_path / name / "replica").rglob("*.zst"))]
        assert have == ([left] if left else [])
