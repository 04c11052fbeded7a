"""Tests of the promise under torture: what is restored was committed, and after a sync it is the last commit."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.e2e.comparison import differing_pages, file_of
from tests.engine.following import insert
from tests.torture import __main__ as program
from tests.torture.ledger import create
from tests.torture.storm import Options, Report, torture
from tests.torture.victim import Victim


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "presence"), [(1, False), (2, True)])
def test_nothing_wrong_is_ever_restored(tmp_path: Path, seed: int, *, presence: bool) -> None:
    """Writers, checkpointers and the daemon are killed at any moment, and every restored position is right.

    This also holds when administrators change the database's files meanwhile.
    """
    report = torture(Options(seed, 7.0, presence=presence), tmp_path)
    print(report)
    assert report.wrong == []
    assert report.faults == []
    assert report.heads_compared or report.unsound_sources


def test_the_storms_that_are_asked_for() -> None:
    """There is one storm for each seed, all with the same options. ``clock`` is another seed each time."""
    storms = program.parse(["--seed", "7", "8", "clock", "--seconds", "2", "--presence"])
    assert [storm.seed for storm in storms[:2]] == [7, 8]
    assert storms[2].seed > 10**12
    assert {(storm.seconds, storm.presence) for storm in storms} == {(2.0, True)}


@pytest.mark.parametrize("presence", [True, False, None])
def test_a_storm_can_be_repeated(*, presence: bool | None) -> None:
    """The printed command starts the same storm."""
    options = Options(5, 3.5, databases=1, kills=0.5, presence=presence, administrators=0.5)
    assert program.parse(program.again(options).split()[3:]) == [options]


@pytest.mark.parametrize("end", ["wrong", "broken off", "right", "faulty"])
def test_how_storms_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, end: str
) -> None:
    """A seed is printed with the command to repeat it and its folder; the seeds after it have their turn."""

    def pretend(options: Options, folder: Path) -> Report:
        seeds.append(options.seed)
        if end == "broken off":
            raise AssertionError("not within 60 s")
        return Report(
            options.seed, wrong=["a page"] if end == "wrong" else [], faults=["a race"] if end == "faulty" else []
        )

    seeds: list[int] = []
    monkeypatch.setattr(program, "torture", pretend)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert program.main(["--seed", "41", "42"]) == {"wrong": 1, "broken off": 2}.get(end, 0)
    assert seeds == [41, 42]
    said = capsys.readouterr().err
    assert ("--seed 42 " in said) == (end in {"wrong", "broken off"})
    assert len(list(tmp_path.iterdir())) == (2 if end in {"wrong", "broken off"} else 0)
    counts = {name: 2 * (name == end) for name in ("right", "faulty", "wrong", "broken off")}
    right, faulty, wrong, broken = counts.values()
    last = f"2 storms: {right} right, {faulty} right with faults, {wrong} wrong, {broken} broke off"
    assert said.splitlines()[-1] == last


@pytest.mark.parametrize(("storms", "broken", "code"), [(1, 1, 2), (2, 1, 0), (19, 2, 2), (20, 2, 0), (20, 3, 2)])
def test_storms_without_a_verdict_do_not_count_as_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, storms: int, broken: int, code: int
) -> None:
    """One may break off, or a tenth of them, but not all."""

    def pretend(options: Options, folder: Path) -> Report:
        if options.seed <= broken:
            raise AssertionError("not within 60 s")
        return Report(options.seed)

    monkeypatch.setattr(program, "torture", pretend)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert program.main(["--seed", *map(str, range(1, storms + 1))]) == code


def test_an_error_beside_an_emptied_wal_is_excused_only_in_time(tmp_path: Path) -> None:
    """Somebody holds the wal-index of a WAL that was emptied. The error counts unless it came while it was excused."""
    path = tmp_path / "app.db"
    create(path, page_size=4096, filler_bytes=0)
    arguments = ("writer", str(path), str(tmp_path / "oracle"), "--kind", "module")
    victim = Victim(*arguments, file=path, seed="1", log=tmp_path / "log")
    with SqliteProcess(path) as holder:
        holder.execute("CREATE TABLE other (x)")
        os.truncate(f"{path}-wal", 0)
        try:
            with pytest.raises(AssertionError, match="disk I/O error"):
                victim.start().await_pause()
            victim.kill()
            victim.start().excused_until = math.inf
            victim.await_pause()
        finally:
            victim.kill()
    assert victim.excused == 1
    assert not victim.runs


def test_what_was_never_published_is_not_committed(tmp_path: Path) -> None:
    """A writer that is killed between WAL and wal-index leaves frames that nobody sees until all connections end and
    the WAL is recovered.
    """
    path = tmp_path / "app.db"
    count = "SELECT count(*) FROM t"
    with wal_database(path) as app, SqliteProcess(path) as reader:
        app.execute(insert(1))
        assert reader.execute(count) == [[2]]
        committed = file_of(path)
        with path.with_name("app.db-shm").open("r+b", buffering=0) as index:
            published = index.read(96)
            app.execute(insert(2))
            app.kill()
            index.seek(0)
            index.write(published)
        assert file_of(path) == committed
        assert reader.execute(count) == [[2]]
        reader.kill()
        assert file_of(path) != committed
    with SqliteProcess(path) as other:
        assert other.execute(count) == [[3]]


def test_what_comes_after_the_last_page_is_no_difference(tmp_path: Path) -> None:
    """A WAL that is deleted in the middle of a checkpoint leaves a file that is longer than its database."""
    path, longer = tmp_path / "app.db", tmp_path / "longer.db"
    with wal_database(path) as app:
        app.close()
    longer.write_bytes(path.read_bytes() + b"x" * 8192)
    assert differing_pages(path, longer) == differing_pages(longer, path) == []
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    longer.write_bytes(changed + b"x" * 8192)
    assert len(differing_pages(longer, path)) == 1
