"""One number that is told about a daemon, for each value of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """``values`` has a number for the values of ``labels``, in their order; ``text`` says what it is.

    One that ``counts`` only grows while a daemon runs.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]
    counts: bool = False
