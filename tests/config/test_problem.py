from pathlib import Path

import pytest
from pydantic import ValidationError

from walsyncd.config.problem import Problem, error_of, format_value, name_key, problem_of, unknown_variables
from walsyncd.config.schema import ConfigFile

FILE = Path("/etc/walsyncd/config.toml")


def _problem(**content: object) -> Problem:
    with pytest.raises(ValidationError) as caught:
        ConfigFile(**{"storage": {"url": "s3://bucket"}, **content})  # type: ignore[arg-type]
    (details,) = caught.value.errors(include_url=False)
    return problem_of(details)


def test_one_problem_keeps_its_hint_apart() -> None:
    """So the command line can show the hint on a line of its own."""
    error = error_of(FILE, [Problem("storage.url", "'x'", "is wrong", "write another")])
    assert error.message == "configuration /etc/walsyncd/config.toml: storage.url = 'x': is wrong"
    assert error.hint == "write another"


def test_several_problems_stand_in_one_error() -> None:
    """Nobody should have to correct a file one error at a time."""
    error = error_of(FILE, [Problem("a", "", "is wrong", "fix it"), Problem("b", "1", "too", "")])
    assert error.message.splitlines() == [
        "configuration /etc/walsyncd/config.toml has 2 problems:",
        "  a: is wrong (hint: fix it)",
        "  b = 1: too",
    ]
    assert error.hint == ""


def test_keys_are_named_as_in_the_file_counted_from_one() -> None:
    """database[2] is the second [[database]]."""
    assert name_key(("database", 1, "path")) == "database[2].path"
    assert name_key(("storage", "url")) == "storage.url"
    assert name_key(("storage",)) == "storage"


def test_keys_from_the_environment_are_named_as_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who looks into the file would not find the value there."""
    monkeypatch.setenv("walsyncd_storage__url", "x")
    monkeypatch.setenv("WALSYNCD_DATABASE", "[]")
    assert name_key(("storage", "url")) == "environment walsyncd_storage__url"
    assert name_key(("database", 0, "path")) == "environment WALSYNCD_DATABASE: database[1].path"


def test_variables_of_unknown_sections_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic-settings ignores them. $WALSYNCD_CONFIG is not a section."""
    monkeypatch.setenv("WALSYNCD_STORGE__URL", "x")
    monkeypatch.setenv("WALSYNCD_CONFIG", "x")
    (problem,) = unknown_variables()
    assert (problem.key, problem.hint) == ("environment WALSYNCD_STORGE__URL", "did you mean storage?")


@pytest.mark.parametrize(
    ("content", "key", "message", "hint"),
    [
        ({"databse": []}, "databse", "there is no such key", "did you mean database?"),
        (
            {"retention": "7d"},
            "retention",
            "there is no such key",
            "it belongs in [defaults] or [[database]]",
        ),
        ({"daemon": {"retention": "7d"}}, "daemon.retention", "no such key", "it belongs in [defaults]"),
        (
            {"daemon": {"retenton": "7d"}},
            "daemon.retenton",
            "no such key",
            "did you mean retention, which belongs in [def",
        ),
        ({"daemon": {"upload_max": 1}}, "daemon.upload_max", "no such key", "did you mean uploads_max?"),
        ({"daemon": {"xyz": 1}}, "daemon.xyz", "no such key", "known are state_dir, spool_bytes_max"),
        ({"database": [{}]}, "database[1].path", "is missing", "path of a SQLite file"),
        ({"database": {"path": "/a"}}, "database", "must be a list of tables", "[[database]]"),
        ({"daemon": 3}, "daemon", "must be a section", "[daemon]"),
        ({"daemon": {"uploads_max": 0}}, "daemon.uploads_max", "must be at least 1", ""),
        ({"daemon": {"uploads_max": 1.5}}, "daemon.uploads_max", "must be a whole number", ""),
        ({"daemon": {"log_level": "loud"}}, "daemon.log_level", "must be 'debug', 'info'", ""),
        ({"storage": {"url": 3}}, "storage.url", "must be text in quotes", ""),
        ({"storage": {"url": ""}}, "storage.url", "must not be empty", ""),
        ({"storage": {}}, "storage.url", "is missing", 'url = "s3://bucket/prefix"'),
        ({"defaults": {"presence": "maybe"}}, "defaults.presence", "must be true or false", ""),
        ({"defaults": {"verify_interval": "never"}}, "defaults.verify_interval", "is not a duration", '"7d"'),
        ({"defaults": {"retention": "week"}}, "defaults.retention", "is not a duration", '"7d"'),
        ({"database": [{"path": "/a", "name": 3}]}, "database[1].name", "must be text in quotes", ""),
        ({"database": [{"path": "a.db"}]}, "database[1].path", "is a relative path", "from / on"),
    ],
)
def test_errors_name_the_key_and_the_way_out(content: dict[str, object], key: str, message: str, hint: str) -> None:
    """Each kind of mistake is described in the words of the file, not of the validator."""
    problem = _problem(**content)
    assert problem.key == key
    assert message in problem.message
    assert hint in problem.hint


def test_values_are_shown_but_not_secrets() -> None:
    """The wrong value is part of the message, unless it is a credential."""
    assert _problem(daemon={"log_level": "loud"}).value == "'loud'"
    assert _problem(storage={"url": "s3://bucket", "secret_access_key": 12345}).value == ""


@pytest.mark.parametrize(
    "content",
    [
        {"storage": "s3cret"},
        {"storage": ["s3cret"]},
        {"storage": [{"url": "s3://bucket", "secret_access_key": "s3cret"}]},
        {"storage": {"url": {"secret_access_key": "s3cret"}}},
        {"storage": {"url": "s3://bucket", "secret_access_key": ["s3cret"]}},
        {"daemon": [{"token": "s3cret"}]},
        {"database": {"secret_access_key": "s3cret"}},
        {"defaults": "s3cret"},
    ],
)
def test_what_is_wrong_as_a_whole_is_not_shown(content: dict[str, object]) -> None:
    """It may hold a secret, so only the value of a wrong key is printed."""
    with pytest.raises(ValidationError) as caught:
        ConfigFile(**{"storage": {"url": "s3://bucket"}, **content})  # type: ignore[arg-type]
    problems = [problem_of(details) for details in caught.value.errors(include_url=False)]
    assert problems
    assert "s3cret" not in f"{error_of(FILE, problems)}"


def test_credentials_in_a_url_are_not_shown() -> None:
    """The rest of the URL is shown."""
    problem = _problem(daemon={"uploads_max": "https://key:s3cret@store.example/x"})
    assert problem.value == "'https://…@store.example/x'"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://u:SE/CR@ET@store", "'http://…@store'"),
        ("u:SECRET@store:9000", "'…@store:9000'"),
        ("u:SE/CRET@store", "'…@store'"),
        ("http://store:9000", "'http://store:9000'"),
        ("/srv/a:b@c.db", "'/srv/a:b@c.db'"),
        (["/srv/x@y", "*.db"], "['/srv/x@y', '*.db']"),
    ],
)
def test_no_value_shows_the_user_of_a_url(value: object, shown: str) -> None:
    """This holds whatever the password contains, and without a scheme."""
    assert format_value(value) == shown
