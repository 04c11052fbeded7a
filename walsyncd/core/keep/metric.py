"""One number that a daemon reports about itself, for each value of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``values`` has a number for each combination of label values, in the order of ``labels``.

    ``text`` describes the metric. If ``counts`` is set, the values only grow while a daemon runs.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]
    counts: bool = False
