"""What there is to say about a storage when it is checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remark:
    """What a step has shown; ``is_problem``: the storage can't be used like this."""

    step: str
    text: str
    hint: str = ""
    is_problem: bool = True
