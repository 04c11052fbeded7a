"""Tests of what a person or a bucket can get wrong: the message names it, the exit code tells the kind, nothing is
harmed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.comparison import counter_of
from tests.e2e.daemon import Daemon, Result, run_walsyncd, s3_section
from tests.e2e.workload import counted, create
from tests.stores import Store

COMMITS = 5


@dataclass(frozen=True, slots=True)
class Replica:
    """A finished replica in a folder: a base, then segments of one commit each."""

    folder: Path
    first: str
    last: str

    def restore(self, *arguments: str | Path) -> Result:
        """Restore by its URL to ``out.db`` beside its folder."""
        return run_walsyncd("restore", self.folder.as_uri(), "-o", self.out, *arguments)

    @property
    def out(self) -> Path:
        """The file that ``restore`` writes."""
        return self.folder.parent / "out.db"

    def object(self, pattern: str) -> Path:
        """Return the first object that matches."""
        return min(self.folder.rglob(pattern))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Replica:
    """Return the replica, which is made once. Tests work on copies."""
    root = tmp_path_factory.mktemp("replica")
    with Daemon(root, [root / "data/app.db"]) as daemon:
        file = create(daemon.data / "app.db", rows=200)
        daemon.start().sync()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for _ in range(COMMITS):
                for statement in counted():
                    connection.execute(statement)
                position = daemon.sync()["app"]
        (database,) = json.loads(daemon.done("ls", "app", "--json"))["databases"]
        daemon.stop()
    (generation,) = database["generations"]
    return Replica(daemon.replica / "app", generation["first"]["position"], position)


@pytest.fixture
def replica(made: Replica, tmp_path: Path) -> Replica:
    """Return a copy to damage."""
    shutil.copytree(made.folder, tmp_path / "app")
    return Replica(tmp_path / "app", made.first, made.last)


# -- the configuration ----------------------------------------------------------------------------------------------


def test_no_configuration(tmp_path: Path) -> None:
    """The error says what to do, and is the same for every command."""
    for command in ("run", "check", "status"):
        result = run_walsyncd(command, "--config", tmp_path / "none.toml")
        assert (result.code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"walsyncd: configuration {tmp_path}/none.toml does not exist\n  hint: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[storage]\nurl = "file:///replica"\n[daemon\n', "is not TOML: Expected ']' at the end of a table"),
        ('[storage]\nurl = "file:///replica"\n[daemon\n', "(at line 3, column 8)"),
        ('[storage]\nurl = "file:///replica"\nregoin = "x"\n', "storage.regoin: there is no such key"),
        ('[storage]\nurl = "file:///replica"\nregoin = "x"\n', "hint: did you mean region?"),
        ("", "storage: is missing"),
    ],
)
def test_a_wrong_configuration(tmp_path: Path, text: str, message: str) -> None:
    """The daemon does not start, and says where to look."""
    config = tmp_path / "config.toml"
    config.write_text(text)
    result = run_walsyncd("run", "--config", config)
    assert (result.code, result.stdout) == (2, "")
    assert message in result.stderr


def test_one_file_under_two_paths(tmp_path: Path) -> None:
    """For example one is a link. Both entries are named."""
    link = tmp_path / "link.db"
    daemon = Daemon(tmp_path, [tmp_path / "data/app.db", link])
    link.symlink_to(create(daemon.data / "app.db"))
    result = daemon.walsyncd("run")
    assert result.code == 2
    assert f"database[2].path = '{link}': is the same file as database[1] ({daemon.data}/app.db)" in result.stderr


def test_unknown_names(made: Replica) -> None:
    """The error of a command lists the known names."""
    config = made.folder.parents[1] / "config.toml"
    result = run_walsyncd("restore", "--config", config, "ap", "-o", made.out)
    assert result.code == 2
    assert "no database 'ap'; known: app" in result.stderr
    assert run_walsyncd("sync", "--config", config).stderr.startswith("walsyncd: no daemon runs on state directory")


# -- the storage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "s3://no-such-bucket/hosts"}, "bucket no-such-bucket does not exist (hint: create the bucket"),
        ({"secret_access_key": "wrong"}, "the secret key is wrong"),
        ({"access_key_id": "nobody"}, "the store does not know this access key"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "(connection refused)"),
    ],
)
def test_storage_that_can_not_be_used(tmp_path: Path, seaweedfs: Store, change: dict[str, str], message: str) -> None:
    """Check says whether bucket, credentials or address is wrong. A restore does, too."""
    storage = s3_section(seaweedfs, seaweedfs.make_bucket()) | change
    daemon = Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage)
    create(daemon.data / "app.db")
    checked = daemon.walsyncd("check")
    (problem,) = [line for line in checked.stdout.splitlines() if line.startswith("problem")]
    assert checked.code == 1
    assert problem.startswith(f"problem storage {storage['url']}: ")
    assert message in problem
    restored = daemon.walsyncd("restore", "app", "-o", tmp_path / "out.db")
    assert restored.code == 1
    assert message.partition(" (hint")[0] in restored.stderr
    assert not (tmp_path / "out.db").exists()


# -- a restore ------------------------------------------------------------------------------------------------------


def test_an_existing_file_is_not_overwritten(replica: Replica) -> None:
    """It is not even looked into. With --force it is replaced."""
    replica.out.write_text("precious")
    result = replica.restore()
    assert result.code == 2
    assert str(replica.out) in result.stderr
    assert "--force" in result.stderr
    assert replica.out.read_text() == "precious"
    assert replica.restore("--force").code == 0
    assert counter_of(replica.out) == COMMITS


def test_an_empty_replica(tmp_path: Path) -> None:
    """There is nothing to restore, which has an exit code of its own."""
    daemon = Daemon(tmp_path, [tmp_path / "data/app.db"])
    result = daemon.walsyncd("restore", "app", "-o", tmp_path / "out.db")
    assert (result.code, result.stdout) == (3, "")
    assert "the replica is empty" in result.stderr


def test_targets_that_are_not_covered(replica: Replica) -> None:
    """A target before the first or after the last position is refused with the nearest positions, and no
    file appears.
    """
    generation = replica.last.partition("/")[0]
    targets = [
        ("--position", f"{generation}/00000009/00000001", replica.last),
        ("--at", "2020-01-01T00:00:00Z", replica.first),
        ("--at", "2100-01-01T00:00:00Z", replica.last),
        ("--position", "20200101T000000Z-00000000/00000001/00000001", ""),
    ]
    for option, target, nearest in targets:
        result = replica.restore(option, target)
        assert (result.code, result.stdout) == (4, ""), (option, target, result)
        assert nearest in result.stderr
    assert not replica.out.exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BASE, MANIFEST, SEGMENT = "*.db.zst", "*.json.zst", "0000000[2-9]-*.wal.zst"


@pytest.mark.parametrize("damage", [_truncate, _flip])
@pytest.mark.parametrize("pattern", [BASE, MANIFEST, SEGMENT])
def test_a_damaged_object(replica: Replica, damage: Callable[[Path], None], pattern: str) -> None:
    """A base, manifest or segment that is truncated or has a flipped bit is named, and nothing is left behind."""
    path = replica.object(pattern)
    damage(path)
    result = replica.restore()
    assert (result.code, result.stdout) == (1, "")
    assert path.name in result.stderr
    _assert_nothing_left(replica)


@pytest.mark.parametrize("pattern", [BASE, SEGMENT])
def test_a_missing_object(replica: Replica, pattern: str) -> None:
    """A missing base is named, and of a segment its frames. No restore silently ends earlier."""
    path = replica.object(pattern)
    path.unlink()
    result = replica.restore()
    assert (result.code, result.stdout) == (4, "")
    assert (path.name if pattern == BASE else "frames 3 to 4 are missing in epoch 1") in result.stderr
    _assert_nothing_left(replica)


def _assert_nothing_left(replica: Replica) -> None:
    assert [each.name for each in replica.folder.parent.iterdir()] == ["app"]
    verified = run_walsyncd("verify", replica.folder.as_uri())
    assert verified.code == 1
    assert "all of it is sound" not in verified.stdout


def test_a_base_without_its_manifest(replica: Replica) -> None:
    """For all that can be known the base was never finished, so there is nothing to restore. Verify notes it."""
    replica.object("*.json.zst").unlink()
    result = replica.restore()
    assert (result.code, result.stdout) == (3, "")
    assert f"no generation has a finished base yet ({replica.last.partition('/')[0]})" in result.stderr
    verified = run_walsyncd("verify", replica.folder.as_uri())
    assert "nothing can be restored from it, it has no finished base" in verified.stdout
