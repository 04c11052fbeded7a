"""Tests of the reasons why a generation ends: a kind and facts, from which the text is built."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import walsyncd
from walsyncd.core.follow.gap import Gap, GapKind

PACKAGE = Path(walsyncd.__file__).parent
NO_FACTS = {"self", "remedy", "blocked"}


def test_a_reason_is_built_from_its_facts() -> None:
    """Code decides by the kind and the facts. Braces in a fact stay as they are."""
    gap = Gap.of(GapKind.OVERWRITTEN, "{lost} transactions of {name} were overwritten", lost=3, name="{app}")
    assert gap.reason == "3 transactions of {app} were overwritten"
    assert (gap.kind, dict(gap.facts)) == (GapKind.OVERWRITTEN, {"lost": 3, "name": "{app}"})
    assert gap == Gap.of(GapKind.OVERWRITTEN, "{lost} transactions of {name} were overwritten", name="{app}", lost=3)


def _reasons() -> Iterator[tuple[str, ast.Call, dict[str, str]]]:
    """Yield each place where a reason is made, with the texts that its function names."""
    for module in sorted(PACKAGE.rglob("*.py")):
        functions = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {"Gap.of", "gap_step"}:
                    before = sorted(
                        (each for each in assigned if each.lineno < node.lineno), key=lambda each: each.lineno
                    )
                    texts = {
                        ast.unparse(each.targets[0]): each.value.value
                        for each in before
                        if isinstance(each.value, ast.Constant) and isinstance(each.value.value, str)
                    }
                    yield f"{module.relative_to(PACKAGE)}:{node.lineno}", node, texts


@pytest.mark.parametrize(("place", "call", "texts"), [pytest.param(*each, id=each[0]) for each in _reasons()])
def test_every_reason_names_exactly_its_facts(place: str, call: ast.Call, texts: dict[str, str]) -> None:
    """A brace without a fact would end the follower, and a fact without a brace would be reported to nobody."""
    text = call.args[1]
    literal = text.value if isinstance(text, ast.Constant) else texts.get(ast.unparse(text), "")
    assert isinstance(literal, str)
    named = {name for _, name, _, _ in string.Formatter().parse(literal) if name is not None}
    given = {keyword.arg for keyword in call.keywords} - NO_FACTS
    assert named == given, place
