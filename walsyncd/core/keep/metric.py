"""One number that a daemon reports about itself, for each value of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``values`` has a number for each combination of values of ``labels``, in their order.

    ``text`` describes the metric. The values of a metric that ``counts`` only grow while a daemon runs.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]
    counts: bool = False
