"""Tests of the whole story, which is played faster than for people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from walsyncd.demo import story
from walsyncd.demo.page_comparison import Comparison, settled_copy
from walsyncd.demo.stage import Stage
from walsyncd.demo.story import Outcome, play

EQUAL = Comparison("head", 10, (), 7, 7, "ok")


class _Listener:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, bool]] = []
        self._title = ""

    def begin(self, title: str) -> None:
        assert self._title == "", "a phase began within a phase"
        self._title = title

    def end(self, result: str, *, is_good: bool = True) -> None:
        self.told.append((self._title, result, is_good))
        self._title = ""


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "SHORT_S", 0.2)
    monkeypatch.setattr(story, "LONG_S", 0.3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_quickly")
def test_every_commit_comes_back_and_a_wrong_restore_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two kills. The three restored moments differ, and each is compared with what it must be.

    One page of the expected content of one of them is changed, and exactly that comparison fails. That all three are
    equal without that is what ``tests/cli/commands/test_demo.py`` tries with the whole program.
    """

    def damaged_copy(database: Path, target: Path) -> Path:
        copy = settled_copy(database, target)
        if copy.name == "expected-moment.db":
            content = bytearray(copy.read_bytes())
            content[-1] ^= 1
            copy.write_bytes(content)
        return copy

    monkeypatch.setattr(story, "settled_copy", damaged_copy)
    stage, listener = Stage(tmp_path), _Listener()
    outcome = play(stage, listener)
    assert not outcome.is_good
    assert [comparison.is_equal for comparison in outcome.comparisons] == [True, False, True]
    assert [result.split(": ")[0] for _, result, is_good in listener.told if not is_good] == ["restored to that moment"]
    counters = [comparison.counter for comparison in outcome.comparisons]
    assert counters == sorted(set(counters))
    assert counters[-1] == outcome.commits == len(stage.diary())
    assert (outcome.kills, stage.kills, stage.equal) == (2, 2, 2)
    assert all(outcome.generations)
    assert all(title and result for title, result, _ in listener.told)


def test_the_outcome_is_good_only_if_every_comparison_held() -> None:
    """One comparison that fails is enough to change it."""
    outcome = Outcome(7, 2, 3, 4, ("first generation",), (EQUAL, EQUAL))
    assert outcome.is_good
    assert not replace(outcome, comparisons=(EQUAL, replace(EQUAL, counter=6))).is_good
