"""Tests of ``walsyncd ls``, which lists what is stored, for people and for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.text import Text

from tests.replicas import GENERATION, make_replica
from walsyncd.cli import main
from walsyncd.core.stored.manifest import format_manifest, parse_manifest


def test_plain_table_elsewhere_than_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has one row for each generation, below the names of the columns."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        assert main(["ls", f"file://{maker.root}"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "DATABASE"
    assert row.split()[:2] == ["srv/app.db", GENERATION]
    assert "2026-11-22T10:56:00.000Z  2026-11-22T10:56:02.000Z" in row


def test_json_of_a_named_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has points, bases and sizes as values."""
    file = tmp_path / "config.toml"
    with make_replica(tmp_path) as maker:
        file.write_text(
            f'[storage]\nurl = "file://{maker.root}"\n[daemon]\nstate_dir = "{tmp_path}/state"\n'
            '[[database]]\npath = "/srv/app.db"\n'
        )
        maker.base()
        maker.commit(2)
        maker.ship()
    assert main(["ls", "--config", str(file), "srv/app.db", "--json"]) == 0
    (database,) = json.loads(capsys.readouterr().out)["databases"]
    (generation,) = database["generations"]
    assert database["name"] == "srv/app.db"
    assert database["objects"] == generation["objects"] == 3
    assert database["size"] == generation["size"] > 0
    assert generation["last"]["position"] == str(maker.history[-1].position)
    assert [base["time_ms"] for base in generation["bases"]] == [generation["first"]["time_ms"]]


def test_empty_storage_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no error if nothing is stored."""
    assert main(["ls", f"file://{tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"databases": []}


def test_holes_are_seen_and_commits_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lost segment between two bases appears as a gap in the picture, in words, and in the spans."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(20)
        keys = maker.ship(every=4)
        maker.remove(keys[2])
        maker.base()
        maker.commit(10)
        maker.ship(every=3)
        assert main(["ls", f"file://{maker.root}", "--timeline", "--commits"]) == 0
        told = capsys.readouterr().out
        assert main(["ls", f"file://{maker.root}", "--json", "--commits"]) == 0
    (generation,) = json.loads(capsys.readouterr().out)["databases"][0]["generations"]
    picture = next(line for line in told.splitlines() if "█" in line)
    assert "·" in picture.strip()
    assert "1 gap(s) in it" in told
    assert "gap of 12 s: nothing after 2026-11-22T10:56:08.000Z before 2026-11-22T10:56:20.000Z" in told
    assert [span["last"]["time"] for span in generation["spans"]] == [
        "2026-11-22T10:56:08.000Z",
        "2026-11-22T10:56:30.000Z",
    ]
    assert generation["commits"] == 18


@pytest.mark.parametrize("columns", [80, 120, 300])
def test_on_a_terminal_no_number_is_folded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """A wide terminal shows a table, and a narrow one the same in lines.

    Names, times and counts can be copied from both.
    """
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3)
        maker.ship(every=1)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["ls", f"file://{maker.root}", "--commits"]) == 0
    told = Text.from_ansi(capsys.readouterr().out).plain + "\n"  # colour codes take no columns
    assert max(map(len, told.splitlines())) <= columns
    assert ("GENERATION" in told) == (columns == 300)
    for text in ("srv/app.db", GENERATION, "the first one", "2026-11-22T10:56:00.000Z", "2026-11-22T10:56:03.000Z"):
        assert text in told
    if columns < 300:
        assert "    1 base, 5 objects, " in told
        assert ", 3 commits\n" in told


def test_long_reasons_are_wrapped_between_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason is a sentence."""
    monkeypatch.setenv("COLUMNS", "80")
    reason = "3 transactions after epoch 7 frame 512 were overwritten before they were read, so it had to begin anew"
    with make_replica(tmp_path) as maker:
        key = maker.base()
        path = maker.object_path(key)
        manifest = replace(parse_manifest(path.read_bytes()), predecessor_end=reason)
        path.write_bytes(format_manifest(manifest))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert main(["ls", f"file://{maker.root}"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    assert reason in " ".join(told.split())


def test_bridges_and_what_is_suspect_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has both ends, the span, the reason, and which positions a scrub made suspect. JSON has them, too."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        maker.bridge(lost=3)
        maker.heal(since=maker.history[-1], pages=2)
        assert main(["ls", f"file://{maker.root}"]) == 0
        told = capsys.readouterr().out
        assert main(["ls", f"file://{maker.root}", "--json"]) == 0
    assert "2 bridges; some positions are suspect" in told
    assert f"{maker.history[1].position} to {maker.history[2].position}" in told
    assert "in which commits can't be told apart (the daemon was stopped)" in told
    assert "a scrub found 2 wrong pages, which are right again at" in told
    (generation,) = json.loads(capsys.readouterr().out)["databases"][0]["generations"]
    gap, healed = generation["bridges"]
    assert gap["before"] == str(maker.history[1].position)
    assert gap["after"]["position"] == str(maker.history[2].position)
    assert (gap["kind"], gap["proven_ms"], gap["suspect"]) == ("stopped", maker.history[1].time_ms + 250, None)
    assert healed["suspect"]["position"] == gap["after"]["position"]
    assert healed["suspect"]["pages"] == 2
    assert [span["until_ms"] for span in generation["spans"]] == [gap["proven_ms"], maker.history[-1].time_ms]


def test_names_and_patterns_choose_and_a_summary_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database without a base comes first, whatever its name."""
    file = tmp_path / "config.toml"
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        root = maker.root
    for name in ("srv/b.db", "var/c.db"):
        shutil.copytree(root / "srv/app.db", root / name)
    shutil.rmtree(next((root / "var/c.db").iterdir()) / "base")
    file.write_text(f'[storage]\nurl = "file://{root}"\n[daemon]\nstate_dir = "{tmp_path}/state"\n')

    def shown(*words: str) -> list[str]:
        assert main(["ls", "--config", str(file), "--json", *words]) == 0
        return [database["name"] for database in json.loads(capsys.readouterr().out)["databases"]]

    assert shown() == ["var/c.db", "srv/app.db", "srv/b.db"]
    assert shown("srv/*") == ["srv/app.db", "srv/b.db"]
    assert shown("srv/b.db", "var/*") == ["var/c.db", "srv/b.db"]
    assert main(["ls", "--config", str(file)]) == 0
    summary = capsys.readouterr().out.splitlines()[-1]
    assert summary.startswith("3 databases, ")
    assert summary.endswith("1 database with a hole, damage or no base yet")
    assert main(["ls", "--config", str(file), "other/*"]) == 2
    assert "no database matches 'other/*'" in capsys.readouterr().err
    assert main(["ls", f"file://{root}", "srv/b.db"]) == 2


def test_times_that_cannot_be_trusted_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has the begin and end of such a span, and how far the clock was ahead."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        key = maker.ship(every=1)[1]
        stored_ns = (key.time_ms - 7_200_000) * 1_000_000
        os.utime(maker.object_path(key), ns=(stored_ns, stored_ns))
        assert main(["ls", f"file://{maker.root}"]) == 0
        told = capsys.readouterr().out
        assert main(["ls", f"file://{maker.root}", "--json"]) == 0
    assert "times after 2026-11-22T10:56:01.000Z and before the next commit can't be trusted" in told
    assert "2 h ahead of the store's" in told
    (generation,) = json.loads(capsys.readouterr().out)["databases"][0]["generations"]
    assert generation["doubtful_times"] == [
        {"first_ms": maker.history[0].time_ms, "last_ms": None, "ahead_ms": 7_200_000}
    ]
