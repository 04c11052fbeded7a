"""Selects the databases that a command is about, by name or pattern, and sorts those first that need attention.

A word with ``*``, ``?`` or ``[`` is a pattern over whole names, in which ``*`` matches slashes too. Every other word is
a name. A word that matches nothing is an error, since a misspelt name must not look like a healthy database.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from walsyncd.cli.table import counted
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.errors import UsageError

if TYPE_CHECKING:
    from walsyncd.engine.daemon.database_status import DatabaseStatus

NAMES_SHOWN_MAX = 20  # an error shows no more names; `walsyncd status` and `walsyncd ls` show all

# The states that most need attention come first. States that are missing here sort after all of these.
_ORDER = (
    DatabaseState.REFUSED,
    DatabaseState.FAILING,
    DatabaseState.DEGRADED,
    DatabaseState.MISSING,
    DatabaseState.COPYING_BASE,
)

T = TypeVar("T")


def is_pattern(word: str) -> bool:
    """Whether a word is a pattern, which selects every name that matches it."""
    return any(character in word for character in "*?[")


def select(items: Iterable[T], words: Sequence[str], *, name_of: Callable[[T], str]) -> list[T]:
    """Return the items whose name equals or matches one of ``words``, or all items if there are no words.

    If a word matches nothing, raises UsageError with the word and the names that exist.
    """
    every = list(items)
    if not words:
        return every
    names = [name_of(item) for item in every]
    for word in words:
        if not fnmatch.filter(names, word) if is_pattern(word) else word not in names:
            shown = sorted(names)[:NAMES_SHOWN_MAX]
            more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            what = "no database matches" if is_pattern(word) else "there is no database"
            raise UsageError(f"{what} {word!r}", hint=f"known: {', '.join(shown) or 'none'}{more}")
    literal = {word for word in words if not is_pattern(word)}
    patterns = [word for word in words if is_pattern(word)]
    return [
        item
        for item, name in zip(every, names, strict=True)
        if name in literal or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def by_need(databases: Iterable[DatabaseStatus], now_ms: int) -> list[DatabaseStatus]:
    """Sort the databases that most need attention first: by state, by errors, by lag, then by name."""

    def need(database: DatabaseStatus) -> tuple[int, bool, float, str]:
        rank = _ORDER.index(database.state) if database.state in _ORDER else len(_ORDER)
        has_problem = bool(database.error or database.drill_failed)
        if has_problem:
            rank = min(rank, _ORDER.index(DatabaseState.MISSING))
        return rank, not has_problem, -database.behind_s(now_ms), database.name

    return sorted(databases, key=need)


@dataclass(frozen=True, slots=True)
class Summary:
    """The number of databases in each state, and ``worst``, the database with the greatest lag ("" without a lag)."""

    databases: int
    states: dict[str, int]
    worst_lag_s: float
    worst: str

    def __str__(self) -> str:
        words = [counted(self.databases, "database")]
        words += [f"{count} {state}" for state, count in self.states.items()]
        none = "what is behind is not known" if DatabaseState.STOPPED in self.states else "nothing is behind"
        lag = f"worst lag {self.worst_lag_s:.1f} s ({self.worst})" if self.worst else none
        return f"{words[0]}: {', '.join(words[1:])}; {lag}" if self.databases else words[0]


def summary_of(databases: Sequence[DatabaseStatus], now_ms: int) -> Summary:
    """Return the summary of these databases, the most frequent state first."""
    states = Counter(str(database.state) for database in databases)
    late = {database.name: database.behind_s(now_ms) for database in databases}
    worst = max(late, key=lambda name: late[name], default="")
    worst_s = late.get(worst, 0.0)
    return Summary(len(databases), dict(states.most_common()), worst_s, worst if worst_s > 0 else "")
