"""Tests of ``walsyncd verify``: it ends with 0 if all is sound, and with 1 and a line for each problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.replicas import counter_in, make_replica
from walsyncd.cli import main
from walsyncd.core.stored.layout import format_key


def test_sound_then_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary counts what was read. A damaged object is named, and the exit code is 1."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        (key,) = maker.ship()
        url = f"file://{maker.root}/{maker.name}"
        assert main(["verify", url]) == 0
        assert capsys.readouterr().out.endswith("4 transactions in 1 generation: all of it is sound\n")
        maker.object_path(key).write_bytes(b"damaged")
        assert main(["verify", url]) == 1
        assert f"problem {format_key(key)}" in capsys.readouterr().out
        assert main(["verify", url, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert (len(found["problems"]), len(found["salvage"])) == (1, 1)


def test_damaged_whole_is_named_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its segments hold the same frames.

    So verify fails, and restore has every commit and names what it did not use.
    """
    out = tmp_path / "restored.db"
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        maker.ship(every=2)
        maker.close_epoch()
        path = maker.object_path(maker.compact())
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 0x10
        path.write_bytes(body)
        url = f"file://{maker.root}/{maker.name}"
        assert main(["verify", url]) == 1
        said = capsys.readouterr().out
        assert main(["restore", url, "-o", str(out)]) == 0
    assert path.name in said
    assert f"still good: {maker.generation}/00000001/00000000" in said
    assert f"to {maker.history[-1].position}" in said
    assert "lost:" not in said
    assert f"note: damaged, and not used: {maker.generation}/whole/{path.name}" in capsys.readouterr().err
    assert counter_in(out) == 4


def test_quick_says_what_a_missing_object_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output says which positions are lost and which are still good."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3)
        keys = maker.ship(every=1)
        url = f"file://{maker.root}/{maker.name}"
        assert main(["verify", "--quick", url]) == 0
        assert capsys.readouterr().out.endswith("nothing is missing\n")
        maker.remove(keys[1])
        assert main(["verify", "--quick", url]) == 1
        said = capsys.readouterr().out
    assert f"so      lost: what came after {maker.history[0].position}" in said
    assert f"up to {maker.history[2].position}" in said


def test_empty_replica_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty replica has nothing that could be sound."""
    assert main(["verify", f"file://{tmp_path}"]) == 3
    assert "empty" in capsys.readouterr().err


def test_bridges_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bridges are sound. Positions that a scrub made suspect are a note."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        maker.bridge()
        maker.heal(since=maker.history[0])
        assert main(["verify", f"file://{maker.root}/{maker.name}"]) == 0
    said = capsys.readouterr().out
    assert f"note    what came before {maker.position} is suspect: a scrub found 2 wrong pages" in said
    assert said.endswith("5 transactions, 2 bridges in 1 generation: all of it is sound\n")
