import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import asdict, replace
from io import FileIO
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from walsyncd.cli import main
from walsyncd.cli.commands import check
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.engine.daemon.database_status import unseen


def _database(file: Path, *, mode: str = "wal", page_size: int = 4096) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t (x)")
    return file


def _config(folder: Path, *databases: Path | str, storage: str = "") -> Path:
    """Write a configuration with everything below ``folder``, its state directory and replica apart."""
    (folder / "state").mkdir(exist_ok=True)
    (folder / "replica").mkdir(exist_ok=True)
    url = storage or f"file://{folder}/replica"
    entries = "".join(f'[[database]]\npath = "{path}"\n' for path in databases)
    file = folder / "config.toml"
    file.write_text(f'[storage]\nurl = "{url}"\n[daemon]\nstate_dir = "{folder}/state"\n{entries}')
    file.chmod(0o600)
    return file


def _check(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main(["check", "--config", str(config)])
    return code, capsys.readouterr().out.splitlines()


def _texts(path: Path) -> list[str]:
    return [str(finding).replace(f" database {path}:", "") for finding in check.database_findings(path)]


def test_all_well_is_a_line_for_each_thing_and_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is a line for the configuration, each database, the state directory and storage."""
    file = _database(tmp_path / "app" / "app.db")
    code, lines = _check(_config(tmp_path, file), capsys)
    assert code == 0
    assert lines == [
        f"ok      configuration {tmp_path}/config.toml: 1 database",
        f"ok      database {file}: a SQLite database in WAL mode",
        f"ok      state directory {tmp_path}/state: can be written",
        f"ok      storage file://{tmp_path}/replica: can be reached, written and read",
    ]
    assert list((tmp_path / "state").iterdir()) == []


def test_no_database_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A package installs such a configuration.

    The service runs and waits for the first database, so nothing is wrong.
    """
    code, lines = _check(_config(tmp_path), capsys)
    assert code == 0
    hint = 'add a [[database]] with its path = "/…"'
    assert f"note    configuration {tmp_path}/config.toml: no databases are configured (hint: {hint})" in lines
    assert not any("0 databases" in line for line in lines)


def test_presence_has_its_price_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note says what is left in the -wal, and what is refused. It is no problem."""
    config = _config(tmp_path, _database(tmp_path / "app" / "app.db"))
    config.write_text(config.read_text() + "presence = true\n")
    code, lines = _check(config, capsys)
    assert code == 0
    (note,) = [line for line in lines if line.startswith("note")]
    assert "its last transactions stay in the -wal, so copying or replacing the bare .db file then loses" in note
    assert "journal_mode=DELETE and locking_mode=EXCLUSIVE are refused" in note


def test_backpressure_has_its_price_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note says which checkpoints are busy, and how far the WAL may grow. It is no problem."""
    config = _config(tmp_path, _database(tmp_path / "app" / "app.db"))
    config.write_text(config.read_text() + "backpressure = true\n")
    code, lines = _check(config, capsys)
    assert code == 0
    (note,) = [line for line in lines if line.startswith("note")]
    assert "backpressure is on: RESTART and TRUNCATE checkpoints of the application are busy or wait" in note
    assert "up to wal_bytes_max" in note


def test_every_problem_is_said_before_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first problem does not hide the others."""
    absent, folder = tmp_path / "a" / "absent.db", tmp_path / "b"
    (folder / "folder.db").mkdir(parents=True)
    config = _config(tmp_path, absent, folder / "folder.db", storage="s3://bucket")
    config.write_text(
        config.read_text().replace(
            'url = "s3://bucket"',
            'url = "s3://bucket"\nendpoint_url = "http://127.0.0.1:9"\naccess_key_id = "i"\nsecret_access_key = "s"',
        )
    )
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    code, lines = _check(config, capsys)
    assert code == 1
    problems = [line for line in lines if line.startswith("problem")]
    assert [line.split(":")[0] for line in problems] == [
        f"problem database {absent}",
        f"problem database {folder}/folder.db",
        f"problem state directory {tmp_path}/state",
        "problem storage s3",
    ]


def test_a_wrong_configuration_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends before anything is looked at, and prints nothing on stdout."""
    assert main(["check", "--config", str(tmp_path / "absent.toml")]) == 2
    file = _database(tmp_path / "app" / "app.db")
    assert main(["check", "--config", str(_config(tmp_path, file, file))]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "is the same file as database[1]" in captured.err


def test_a_pattern_may_wait_for_its_first_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This is also a note."""
    code, lines = _check(_config(tmp_path, f"{tmp_path}/tenants/*.db"), capsys)
    assert (code, lines[1]) == (0, f"note    database[1] {tmp_path}/tenants/*.db: nothing matches at present")


def test_an_absent_file_is_a_problem(tmp_path: Path) -> None:
    """Most often the path is wrong. The hint says what happens if it is right."""
    (text,) = _texts(tmp_path / "absent.db")
    assert text.startswith("problem does not exist (hint: is the path right?")


def test_a_folder_is_a_problem(tmp_path: Path) -> None:
    """The configuration must name the file itself."""
    (text,) = _texts(tmp_path)
    assert text.startswith("problem")
    assert "not a regular file" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    """The daemon needs read permission, on the -wal too."""
    file = _database(tmp_path / "app.db")
    file.chmod(0)
    (text,) = _texts(file)
    assert "permission denied" in text


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_database_of_any_page_size_is_fine(tmp_path: Path, page_size: int) -> None:
    """Sizes go from 512 to 65536, which the header writes as 1."""
    file = _database(tmp_path / "app.db", page_size=page_size)
    assert _texts(file) == ["ok      a SQLite database in WAL mode"]


def test_rollback_mode_is_a_note(tmp_path: Path) -> None:
    """The database is replicated, but not commit by commit.

    There is no note if a -wal shows that the mode is changing.
    """
    file = _database(tmp_path / "app.db", mode="delete")
    (text,) = _texts(file)
    assert text.startswith("note    is in rollback mode")
    assert "journal_mode=WAL" in text
    with file.open("r+b") as large:
        large.truncate(8 << 20)
    (text,) = _texts(file)
    assert "8.0 MiB is shipped once the file is quiet" in text
    assert "it was written 0 s ago" in text
    assert "-wal and -shm files appear beside it" in text
    (tmp_path / "app.db-wal").touch()
    assert _texts(file) == ["ok      a SQLite database in WAL mode"]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "note    is empty"),
        (b"x" * 100, "problem is not a SQLite database: 100 bytes are less than a page"),
        (b"SQLite format 3\0", "problem is not a SQLite database: 16 bytes are less than a page"),
        (b"x" * 1000, "problem is not a SQLite database: 1000 bytes are not a whole number of pages"),
        (b"\x9c" * 4096, "note    header is not SQLite's: encrypted, or not a database"),
    ],
)
def test_files_that_are_no_plain_database(tmp_path: Path, content: bytes, finding: str) -> None:
    """Encrypted databases have random headers, but whole pages. A file with anything else is a problem."""
    file = tmp_path / "app.db"
    file.write_bytes(content)
    (text,) = _texts(file)
    assert text.startswith(finding)


@pytest.mark.parametrize(
    ("offset", "value", "finding"),
    [
        (16, b"\x10\x01", "problem has an impossible page size"),
        (16, b"\x00\x00", "problem has an impossible page size"),
        (18, b"\x03", "problem has file format version 3/2"),
        (19, b"\x09", "problem has file format version 2/9"),
    ],
)
def test_headers_that_sqlite_would_refuse(tmp_path: Path, offset: int, value: bytes, finding: str) -> None:
    """A page size is a power of two from 512 on. Versions beyond 2 belong to a future SQLite."""
    file = _database(tmp_path / "app.db")
    content = bytearray(file.read_bytes())
    content[offset : offset + len(value)] = value
    file.write_bytes(content)
    (text,) = _texts(file)
    assert text.startswith(finding)


def test_check_changes_nothing(tmp_path: Path) -> None:
    """Content and times of the database stay as they are, and no file appears beside it."""
    file = _database(tmp_path / "app.db")
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir()))
    _texts(file)
    assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


def test_what_is_refused_to_the_daemon_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check as root may read what the daemon's user may not. What the check has found itself is not said twice."""
    readable, missing = _database(tmp_path / "app" / "app.db"), tmp_path / "app" / "none.db"
    config = _config(tmp_path, readable, missing)
    rows = [
        asdict(replace(unseen(path.name, str(path)), state=state, cause="permission denied", remedy="chmod"))
        for path, state in ((readable, DatabaseState.REFUSED), (missing, DatabaseState.FAILING))
    ]
    answer = {"databases": rows, "storage": "storage refuses: put object: permission denied"}
    monkeypatch.setattr(check, "asked", lambda *_arguments, **_options: answer)
    code, lines = _check(config, capsys)
    assert code == 1
    assert [line for line in lines if line.startswith("problem")] == [
        f"problem database {missing}: does not exist (hint: is the path right? replication starts when it appears)",
        f"problem database {readable}: the daemon says: refused: permission denied (hint: chmod)",
        "problem daemon: storage refuses: put object: permission denied",
    ]


def test_a_state_directory_may_be_missing(tmp_path: Path) -> None:
    """The daemon makes it, if the parent folder permits that."""
    assert check.state_dir_finding(tmp_path / "a" / "b").kind == "note"
    (tmp_path / "file").touch()
    finding = check.state_dir_finding(tmp_path / "file" / "b")
    assert (finding.kind, finding.text) == ("problem", "does not exist, and can't be made")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everything")
def test_a_state_directory_must_be_writable(tmp_path: Path) -> None:
    """The message names the user who tried."""
    tmp_path.chmod(0o500)
    finding = check.state_dir_finding(tmp_path)
    assert finding.kind == "problem"
    assert str(os.geteuid()) in finding.hint


def test_a_state_directory_must_have_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file can be made on a full disk. Nothing can be noted there."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_where: FileIO("/dev/full", "wb"))
    finding = check.state_dir_finding(tmp_path)
    assert (finding.kind, finding.hint) == ("problem", "make room on its file system")


def test_a_secret_that_everybody_can_read_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret in a file that others can't read is no problem, and neither is an open file without a secret."""
    folder = (tmp_path / "replica").as_uri()
    keys = 'access_key_id = "k"\nsecret_access_key = "s"\n'
    file = tmp_path / "secret.toml"
    file.write_text(f'[storage]\nurl = "{folder}"\n{keys}[daemon]\nstate_dir = "{tmp_path}/state"\n')
    for mode, expected in ((0o644, True), (0o640, False)):
        file.chmod(mode)
        main(["check", "--config", str(file)])
        out = capsys.readouterr().out
        assert ("everybody can read it" in out) == expected
        assert "secret_access_key" not in out or expected
    file.write_text(file.read_text().replace(keys, ""))
    file.chmod(0o644)
    main(["check", "--config", str(file)])
    assert "everybody can read it" not in capsys.readouterr().out


def test_who_is_told_is_shown_without_the_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line has the host of each URL, and nothing is sent there."""
    file = tmp_path / "config.toml"
    file.write_text(
        f'[storage]\nurl = "{(tmp_path / "replica").as_uri()}"\n[daemon]\nstate_dir = "{tmp_path}/state"\n'
        '[notify]\nheartbeat_url = "https://hc-ping.invalid/geheim"\nproblem_url = "https://ntfy.invalid/geheim"\n'
    )
    file.chmod(0o600)
    main(["check", "--config", str(file)])
    out = capsys.readouterr().out
    assert "ok      notify.heartbeat_url: https://hc-ping.invalid/… is asked every 60 s" in out
    assert "ok      notify.problem_url: https://ntfy.invalid/… gets a report" in out
    assert "geheim" not in out
    file.chmod(0o644)
    main(["check", "--config", str(file)])
    assert "it holds heartbeat_url" in capsys.readouterr().out


@pytest.mark.parametrize("is_reader_open", [False, True])
def test_a_wal_that_never_restarts_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reader_open: bool
) -> None:
    """The cause is wal_autocheckpoint=0, or a reader that stays open.

    The note has the remedy, and disappears after a checkpoint.
    """
    monkeypatch.setattr(check, "UNCOPIED_BYTES_MAX", 1 << 20)
    file = _database(tmp_path / "app.db")
    with SqliteProcess(file) as reader, SqliteProcess(file) as writer:
        if is_reader_open:
            reader.execute("begin", "select * from t")
        else:
            writer.execute("pragma wal_autocheckpoint = 0")
        writer.execute("insert into t values (zeroblob(500000))")
        assert _texts(file) == ["ok      a SQLite database in WAL mode"]
        writer.execute("insert into t values (zeroblob(5000000))", "insert into t values (1)")
        (note,) = _texts(file)
        assert note.startswith("note    no checkpoint has copied the last 5.")
        assert "PRAGMA wal_checkpoint(TRUNCATE)" in note
        if is_reader_open:
            reader.execute("commit")
        writer.execute("pragma wal_checkpoint(passive)")
        assert _texts(file) == ["ok      a SQLite database in WAL mode"]


def test_a_wal_that_a_killed_process_left_is_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process that opens the database recovers it first, so these counts are void."""
    monkeypatch.setattr(check, "UNCOPIED_BYTES_MAX", 1 << 20)
    file = _database(tmp_path / "app.db")
    with SqliteProcess(file) as writer:
        writer.execute("pragma wal_autocheckpoint = 0", "insert into t values (zeroblob(5000000))")
        writer.kill()
    assert _texts(file) == ["ok      a SQLite database in WAL mode"]
