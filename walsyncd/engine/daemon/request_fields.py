"""The fields of a request on the control socket, which may hold any JSON.

Each function returns a field in its required type, or raises UsageError with the field's name and what was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from walsyncd.errors import UsageError

SHOWN_MAX = 60  # characters of a wrong value, in the error
NAMES_MAX = 100_000  # databases in one request


def fields_of(request: object) -> Mapping[str, Any]:
    """Return the request itself, which must be an object."""
    if not isinstance(request, Mapping):
        raise UsageError(f"a request is a JSON object, not {_shown(request)}")
    return request


def text_field(request: Mapping[str, Any], field: str) -> str:
    """Return a required text."""
    return _text(request.get(field), field)


def optional_text(request: Mapping[str, Any], field: str) -> str | None:
    """Return a text, or None if there is none."""
    return None if request.get(field) is None else text_field(request, field)


def number_field(request: Mapping[str, Any], field: str) -> int:
    """Return a required whole number, which is not negative."""
    number = request.get(field)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise UsageError(f"`{field}` of a request is a number, not {_shown(number)}")
    return number


def names_field(request: Mapping[str, Any], field: str = "names") -> Sequence[str]:
    """Return a list of names, empty if there is none."""
    names = request.get(field)
    if names is None:
        return []
    if not isinstance(names, list) or len(names) > NAMES_MAX:
        raise UsageError(f"`{field}` of a request is a list of names, not {_shown(names)}")
    return [_text(name, field) for name in names]


def objects_field(request: Mapping[str, Any], field: str) -> Mapping[str, Mapping[str, Any]]:
    """Return an object of objects by name, empty if there is none."""
    objects = request.get(field)
    if objects is None:
        return {}
    if not isinstance(objects, Mapping) or not all(isinstance(each, Mapping) for each in objects.values()):
        raise UsageError(f"`{field}` of a request is an object of objects, not {_shown(objects)}")
    return objects


def _text(value: object, field: str) -> str:
    """Return a text that can be a name. Lone surrogates, which JSON allows, are in no name."""
    if not isinstance(value, str):
        raise UsageError(f"`{field}` of a request is a text, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"`{field}` of a request is not valid Unicode: {_shown(value)}") from error
    return value


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}…"
