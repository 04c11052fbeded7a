"""``walsyncd ls``: what is stored, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.replicas import GENERATION, make_replica
from walsyncd.cli import main


def test_plain_table_elsewhere_than_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row a generation, below the names of the columns."""
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
    """Points, bases and sizes as values."""
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
    assert generation["last"]["position"] == str(maker.history[-1].position)
    assert [base["time_ms"] for base in generation["bases"]] == [generation["first"]["time_ms"]]


def test_empty_storage_is_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stored is no error."""
    assert main(["ls", f"file://{tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"databases": []}


def test_holes_are_seen_and_commits_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lost segment between two bases is a gap in the picture, in words, and in the spans."""
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
