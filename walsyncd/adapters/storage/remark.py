"""A finding about a storage that is checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remark:
    """What a step has found; ``is_problem`` means that the storage can't be used like this."""

    step: str
    text: str
    hint: str = ""
    is_problem: bool = True
