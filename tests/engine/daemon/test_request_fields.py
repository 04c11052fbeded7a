"""Tests of the fields of requests, for everything that JSON can express."""

from __future__ import annotations

import pytest

from walsyncd.engine.daemon.request_fields import (
    fields_of,
    names_field,
    number_field,
    objects_field,
    optional_text,
    text_field,
)
from walsyncd.errors import UsageError


def test_fields_come_as_what_they_have_to_be() -> None:
    """Lists of names and objects of objects may be left out."""
    request = {"name": "app", "names": ["a", "b"], "databases": {"a": {"position": "x"}}}
    assert fields_of(request) == request
    assert text_field(request, "name") == "app"
    assert optional_text(request, "base_key") is None
    assert number_field({"ticket": 5}, "ticket") == 5
    assert names_field(request) == ["a", "b"]
    assert objects_field(request, "databases") == {"a": {"position": "x"}}
    assert names_field({}) == []
    assert objects_field({}, "databases") == {}


@pytest.mark.parametrize("request_", [[], None, 5, "op", True])
def test_a_request_is_an_object(request_: object) -> None:
    """Any other JSON is refused."""
    with pytest.raises(UsageError, match="a request is a JSON object"):
        fields_of(request_)


@pytest.mark.parametrize("value", [5, [], {}, "\ud800", "x\udcff", True])
def test_a_name_is_a_text(value: object) -> None:
    """A name has no surrogates, because the journal can't hold them."""
    with pytest.raises(UsageError, match="`name` of a request"):
        text_field({"name": value}, "name")


@pytest.mark.parametrize("value", [None, "5", -1, True, 1.5, []])
def test_a_number_is_whole(value: object) -> None:
    """A number must not be negative either."""
    with pytest.raises(UsageError, match="`ticket` of a request"):
        number_field({"ticket": value}, "ticket")


@pytest.mark.parametrize("value", [5, "app", {"app": 1}, [5], [["app"]], ["a"] * 100_001])
def test_names_are_a_list_of_texts(value: object) -> None:
    """Their length is limited. The error quotes only the beginning of a long value."""
    with pytest.raises(UsageError, match="`names` of a request") as caught:
        names_field({"names": value})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("value", [5, [], {"app": 5}, {"app": None}, "app"])
def test_databases_are_an_object_of_objects(value: object) -> None:
    """The keys are their names."""
    with pytest.raises(UsageError, match="`databases` of a request"):
        objects_field({"databases": value}, "databases")
