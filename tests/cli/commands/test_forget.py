"""Tests of ``walsyncd forget``, which deletes a whole replica after a question, and never one that is in use."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, serving
from tests.replicas import make_replica
from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Store
from walsyncd.adapters.journal.journal import DatabaseRow
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.cli import main
from walsyncd.config import load


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def replicated(place: Place) -> list[str]:
    """Return ``--config`` for a configuration whose storage has the replica of ``app``, which is no longer followed."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
    config = place.config()
    file = Path(config[1])
    file.write_text(file.read_text().partition("[[database]]")[0])
    return config


def stored(place: Place) -> list[str]:
    return [info.key for info in DirectoryStorage(place.replica).list("")]


@pytest.mark.parametrize("text", ["y\n", "yes\n", "app\n"])
def test_it_shows_and_asks_and_deletes(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Every object and every row of the journal is deleted."""
    config = replicated(place)
    answer(monkeypatch, text)
    assert main(["forget", "app", *config]) == 0
    out, err = capsys.readouterr()
    assert "1 generation, 4 objects" in err
    assert "can be restored then. [y/N]" in err
    assert out.startswith("app: 4 objects deleted")
    assert stored(place) == []
    with place.journal() as journal:
        assert journal.databases() == []


@pytest.mark.parametrize("text", ["", "\n", "n\n", "ap\n"])
def test_every_other_answer_deletes_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """No answer at all deletes nothing either, as in a script that did not expect the question."""
    config = replicated(place)
    before = stored(place)
    answer(monkeypatch, text)
    assert main(["forget", "app", *config]) == 1
    assert "nothing was deleted" in capsys.readouterr().err
    assert stored(place) == before
    assert place.row().generation is not None


def test_a_database_that_is_configured_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused by its name or by its URL, with a daemon or without. The message says what to do first."""
    replicated(place)
    config = place.config()
    for replica in ("app", f"{place.replica.as_uri()}/app"):
        assert main(["forget", replica, "--yes", *config]) == 2
        err = capsys.readouterr().err
        assert "config.toml has it" in err
        assert "walsyncd reload" in err
    assert len(stored(place)) == 4


def test_a_database_that_a_daemon_follows_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The database was removed from the configuration, and the daemon has not read that yet."""
    config = place.config()
    file = Path(config[1])
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        file.write_text(file.read_text().partition("[[database]]")[0])
        assert main(["forget", "app", "--yes", *config]) == 2
    assert "the daemon follows it" in capsys.readouterr().err
    assert len(stored(place)) == 4


def test_with_a_daemon_that_follows_it_no_more(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """After a reload it can be forgotten. The same name can be followed again later, and starts from nothing."""
    config = place.config()
    file = Path(config[1])
    whole = file.read_text()

    def source() -> tuple[object, DirectoryStorage]:
        return load(file), DirectoryStorage(place.replica)

    with wal_database(place.database()), serving(load(file), source=source):  # type: ignore[arg-type]
        first = place.sync()
        file.write_text(whole.partition("[[database]]")[0])
        assert main(["reload", *config]) == 0
        assert main(["forget", "app", "--yes", *config]) == 0
        assert stored(place) == []
        assert [row.name for row in _databases(place)] == ["/forgotten/1"]
        assert main(["status", *config, "--json"]) == 0
        out = capsys.readouterr().out
        assert json.loads(out[out.index("{") :])["databases"] == []
        file.write_text(whole)
        assert main(["reload", *config]) == 0
        second = place.sync()
        assert second.split("/")[0] != first.split("/")[0]
        assert main(["verify", "app", *config]) == 0
    with running(load(file)):
        assert [row.name for row in _databases(place)] == ["app"]


def _databases(place: Place) -> list[DatabaseRow]:
    with place.journal() as journal:
        return list(journal.databases())


def test_a_url_needs_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other replicas stay. A folder that is no database's is refused, and the error lists what is below it."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        root = maker.root
    (root / "srv/note").write_text("mine")
    assert main(["forget", f"{root.as_uri()}/srv", "--yes"]) == 3
    assert "below it are 1 database, first app.db" in capsys.readouterr().err
    assert main(["forget", f"{root.as_uri()}/srv/app.db", "--yes"]) == 0
    assert (root / "srv/note").read_text() == "mine"
    assert list(DirectoryStorage(root).list("srv/app.db/")) == []
    assert main(["forget", f"{root.as_uri()}/srv/app.db", "--yes"]) == 3
    assert "there is no replica" in capsys.readouterr().err


def test_versions_in_a_bucket_go_too(moto: Store, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A bucket that keeps versions has none of it afterwards."""
    bucket = moto.make_bucket()
    with closing(moto.client()) as client:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        with closing(S3Storage(moto.settings(bucket, "hosts"))) as storage:
            with wal_database(place.database()), running(place.settings("app"), storage):
                place.sync()
            storage.put("app/owner.json", b"again", metadata={})
        file = place.folder / "s3.toml"
        file.write_text(
            f'[storage]\nurl = "s3://{bucket}/hosts"\nendpoint_url = "{moto.endpoint_url}"\nregion = "us-east-1"\n'
            f'access_key_id = "{ACCESS_KEY_ID}"\nsecret_access_key = "{SECRET_ACCESS_KEY}"\n'
            f'addressing_style = "path"\n[daemon]\nstate_dir = "{place.folder}/other"\n'
        )
        assert main(["forget", f"s3://{bucket}/hosts/app", "--yes", "--config", str(file)]) == 0
        assert "versions and delete markers in all" in capsys.readouterr().err
        left = client.list_object_versions(Bucket=bucket)
        assert (left.get("Versions", []), left.get("DeleteMarkers", [])) == ([], [])
