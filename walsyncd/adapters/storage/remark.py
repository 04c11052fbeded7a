"""A finding about a storage that is checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remark:
    """A finding of one step. ``is_problem`` means that the storage can't be used like this."""

    step: str
    text: str
    hint: str = ""
    is_problem: bool = True
