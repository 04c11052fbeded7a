"""The problems of a configuration: the key, its value, what is wrong with it, and how to correct it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path

from pydantic_core import ErrorDetails

from walsyncd.config.schema import ENVIRONMENT_PREFIX, SECTIONS, DestinationSection
from walsyncd.errors import UsageError

_SECRETS = {"access_key_id", "secret_access_key", "session_token", "role_external_id", "heartbeat_url", "problem_url"}

_MISSING_HINTS = {
    "storage": 'add [storage] with url = "s3://bucket/prefix" or url = "file:///folder"',
    "url": 'add url = "s3://bucket/prefix" or url = "file:///folder" to [storage]',
    "path": "each [[database]] needs the path of a SQLite file",
}

# Messages and hints by pydantic's error type. The braces are filled from the error's context.
_MESSAGES = {
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


# Matches the user and password of a URL, which may lack its scheme. A password may contain "/" and "@".
_CREDENTIALS = re.compile(r"""(//|(?<=['"])(?=[^/]*:(?!//)))\S+@""")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``key`` is like ``database[2].path``; ``value`` is text, or "" if none is shown."""

    key: str
    value: str
    message: str
    hint: str

    def __str__(self) -> str:
        named = f"{self.key} = {self.value}" if self.value else self.key
        return f"{named}: {self.message}"


def error_of(file: Path, problems: Sequence[Problem]) -> UsageError:
    """Return all problems of ``file`` as one error. If there are several, the error's text includes their hints."""
    if len(problems) == 1:
        return UsageError(f"configuration {file}: {problems[0]}", hint=problems[0].hint)
    lines = [f"{problem} (hint: {problem.hint})" if problem.hint else str(problem) for problem in problems]
    return UsageError("\n  ".join([f"configuration {file} has {len(problems)} problems:", *lines]))


def problem_of(details: ErrorDetails) -> Problem:
    """Return the problem that describes a validation error in the words of this configuration."""
    location = details["loc"]
    message, hint = _explain(details)
    is_secret = not _SECRETS.isdisjoint(map(str, location)) or not _is_of_one_key(details)
    shows_value = not is_secret and not _is_unknown(details) and details["type"] != "missing"
    return Problem(name_key(location), format_value(details["input"]) if shows_value else "", message, hint)


def _is_of_one_key(details: ErrorDetails) -> bool:
    """Whether the error is about a single key. The value of a whole section may contain a secret."""
    value = details["input"]
    return len(details["loc"]) > 1 and all(map(_is_scalar, value if isinstance(value, list) else [value]))


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool | datetime | date | time)


def _is_unknown(details: ErrorDetails) -> bool:
    """Whether the key does not exist. An unknown key in [storage] is parsed as a [storage.NAME]."""
    location = details["loc"]
    in_storage = location[0] == "storage" and len(location) == 2 and location[1] not in DestinationSection.model_fields
    return details["type"] == "extra_forbidden" or (details["type"] == "model_type" and in_storage)


def _is_clash(details: ErrorDetails) -> bool:
    """Whether a [storage.NAME] has the name of a key."""
    location = details["loc"]
    in_storage = location[0] == "storage" and len(location) == 2 and location[1] in DestinationSection.model_fields
    return in_storage and details["type"] != "missing" and isinstance(details["input"], dict)


def format_value(value: object) -> str:
    """Return the value roughly as TOML writes it (single quotes are valid too), without the user part of a URL."""
    return str(value).lower() if isinstance(value, bool) else _CREDENTIALS.sub(r"\1…@", repr(value))


def unknown_variables() -> Iterator[Problem]:
    """Yield the variables that name no section, which pydantic-settings would ignore silently."""
    for variable in sorted(os.environ):
        section, nested, _ = variable.upper().removeprefix(ENVIRONMENT_PREFIX).partition("__")
        is_ours = variable.upper().startswith(ENVIRONMENT_PREFIX) and nested
        if is_ours and section.lower() not in SECTIONS:
            hint = _suggest(section.lower(), list(SECTIONS))
            yield Problem(f"environment {variable}", "", "there is no such section", hint)


def name_key(location: Sequence[int | str]) -> str:
    """Return the name of a key, ``database[2].path``, counted from 1, or the environment variable that set the key."""
    section = f"{ENVIRONMENT_PREFIX}{location[0]}"
    text = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location)[1:]
    for depth in range(len(location), 1, -1):
        if variable := _set_variable("__".join([section, *map(str, location[1:depth])])):
            return f"environment {variable}"
    variable = _set_variable(section)
    return f"environment {variable}: {text}" if variable else text


def _set_variable(name: str) -> str:
    """Return the variable's name in the case in which the variable is set, or "" if it is not set."""
    return next((known for known in os.environ if known.casefold() == name.casefold()), "")


def _explain(details: ErrorDetails) -> tuple[str, str]:
    """Return message and hint for one validation error."""
    kind, location, context = details["type"], details["loc"], details.get("ctx", {})
    if _is_clash(details):
        return "is a key of [storage], so that no storage can have this name", "choose another name"
    if kind == "walsyncd":
        return context["message"], context["hint"]
    if _is_unknown(details):
        return "there is no such key", _suggest_key(location)
    if kind == "missing":
        hint = _MISSING_HINTS.get(str(location[-1]), "")
        named = f"[storage.{location[1]}]" if len(location) > 2 else "[storage]"
        return "is missing", hint.replace("to [storage]", f"to {named}")
    if kind in {"list_type", "model_type"}:
        return _explain_shape(str(location[0]))
    return _MESSAGES[kind].format_map(context) if kind in _MESSAGES else details["msg"].lower(), ""


def _explain_shape(section: str) -> tuple[str, str]:
    if section == "database":
        return "must be a list of tables", "write [[database]], with two brackets (in the environment: JSON)"
    return "must be a section", f"write [{section}] on a line of its own, its keys below"


def _suggest_key(location: Sequence[int | str]) -> str:
    """Return a hint: a key with a similar spelling, or else the sections that have this key or a similar one."""
    key, section = str(location[-1]), SECTIONS.get(str(location[0]))
    own = list(section.model_fields if section and len(location) > 1 else SECTIONS)
    anywhere = {known for each in SECTIONS.values() for known in each.model_fields}
    meant = key if key in anywhere else next(iter(get_close_matches(key, sorted(anywhere), n=1)), None)
    if meant is None or get_close_matches(key, own, n=1):
        return _suggest(key, own)
    homes = (name for name, section in SECTIONS.items() if meant in section.model_fields)
    titles = " or ".join("[[database]]" if home == "database" else f"[{home}]" for home in homes)
    return f"it belongs in {titles}" if meant == key else f"did you mean {meant}, which belongs in {titles}?"


def _suggest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
