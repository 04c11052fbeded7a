import os
from pathlib import Path

import pytest

from walsyncd.config import load, loading, storage_at
from walsyncd.errors import UsageError

MINIMAL = '[storage]\nurl = "s3://bucket/prefix/"\n'


def _write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def _refusal(folder: Path, text: str) -> UsageError:
    file = _write(folder, text)
    with pytest.raises(UsageError) as caught:
        load(file)
    assert str(file) in caught.value.message
    return caught.value


def test_the_example_is_a_valid_configuration() -> None:
    """config.example.toml loads as it is, and its databases take the defaults that they don't override."""
    settings = load(Path(__file__).parents[2] / "config.example.toml")
    assert settings.storage.url == "s3://my-bucket/hosts/web-1"
    assert [(entry.path, entry.upload_interval_s) for entry in settings.databases] == [
        ("/var/lib/app/app.db", 1.0),
        ("/srv/tenants/*/data.db", 10.0),
    ]


def test_the_examples_commented_keys_are_keys_with_their_defaults(tmp_path: Path) -> None:
    """Uncommenting a default of the example changes nothing: no comment has gone stale."""
    example = (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")
    optional = {
        "metrics_listen",
        "metrics_textfile",
        "heartbeat_url",
        "problem_url",
        "endpoint_url",
        "region",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "profile",
        "role_arn",
        "role_external_id",
        "ca_file",
        "storage_class",
        "encryption",
        "kms_key_id",
        "sse_c_key_file",
        "expire_after",
        "upload_bytes_per_second_max",
        "name",
    }
    lines = [
        line.removeprefix("# ")
        if line.startswith("# ")
        and line[2:].split(" = ")[0].isidentifier()
        and line[2:].split(" = ")[0] not in optional
        else line
        for line in example.splitlines()
    ]
    uncommented = load(_write(tmp_path, "\n".join(lines)))
    original = load(_write(tmp_path, example))
    assert "\n".join(lines).count("\n# ") < example.count("\n# ")
    assert uncommented == original


def test_databases_inherit_the_defaults(tmp_path: Path) -> None:
    """A key of [[database]] wins, then [defaults], then what is built in."""
    settings = load(
        _write(
            tmp_path,
            MINIMAL
            + '[defaults]\nretention = "30d"\n'
            + '[[database]]\npath = "/a.db"\n'
            + '[[database]]\npath = "/b.db"\nname = "b"\nretention = "1h"\nsnapshot_interval = "1h"\n',
        )
    )
    first, second = settings.databases
    assert (first.key, first.name, first.retention_s, first.upload_interval_s) == (
        "database[1]",
        None,
        2_592_000.0,
        1.0,
    )
    assert (second.key, second.name, second.retention_s) == ("database[2]", "b", 3600.0)
    assert settings.storage.url == "s3://bucket/prefix"
    assert settings.daemon.state_dir == Path("/var/lib/walsyncd")


def test_the_file_is_the_argument_then_the_variable_then_etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config wins over $WALSYNCD_CONFIG, which wins over /etc."""
    assert loading.find_file(None) == Path("/etc/walsyncd/config.toml")
    monkeypatch.setenv("WALSYNCD_CONFIG", str(_write(tmp_path, MINIMAL)))
    assert load(None).file == tmp_path / "config.toml"
    assert loading.find_file(Path("/other")) == Path("/other")


def test_a_missing_file_is_said_with_all_ways_out(tmp_path: Path) -> None:
    """The first error that a new user sees names the example, the option and the variable."""
    with pytest.raises(UsageError, match="does not exist") as caught:
        load(tmp_path / "absent.toml")
    assert all(word in caught.value.hint for word in ("config.example.toml", "--config", "$WALSYNCD_CONFIG"))


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    """The kernel's message is passed on with the path."""
    with pytest.raises(UsageError, match=f"read configuration {tmp_path}: Is a directory"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    """A file without read permission is not reported as absent."""
    file = _write(tmp_path, MINIMAL)
    file.chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        load(file)


def test_syntax_errors_name_the_line(tmp_path: Path) -> None:
    """TOML's own message has the line."""
    assert "line 2" in _refusal(tmp_path, "[storage]\nurl = s3://bucket\n").message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """TOML files are UTF-8."""
    file = tmp_path / "config.toml"
    file.write_bytes(b"[storage]\nurl = '\xff'\n")
    with pytest.raises(UsageError, match="not UTF-8 at byte 17"):
        load(file)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    """One run of check shows every mistake, each with its key and value."""
    error = _refusal(
        tmp_path,
        '[storage]\nulr = "x"\n[daemon]\nuploads_max = 0\n[[database]]\npath = "/a"\n[[database]]\npath = "b.db"\n',
    )
    for expected in (
        "4 problems",
        "storage.url: is missing",
        "storage.ulr: there is no such key (hint: did you mean url?)",
        "daemon.uploads_max = 0: must be at least 1",
        "database[2].path = 'b.db': is a relative path",
    ):
        assert expected in error.message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket/prefix", "is not an s3:// or file:// URL"),
        ("gs://bucket", "is not an s3:// or file:// URL"),
        ("s3://", "is not an s3://"),
        ("s3:///prefix", "names no bucket"),
        ("file:///", "names no bucket or folder"),
        ("file://srv/replica", "three slashes"),
        ("s3://bucket/a//b", "empty, . or .. segment"),
        ("file:///srv/../replica", "empty, . or .. segment"),
    ],
)
def test_urls_that_lead_nowhere_are_refused(tmp_path: Path, url: str, message: str) -> None:
    """They are refused before any request is made."""
    error = _refusal(tmp_path, f'[storage]\nurl = "{url}"\n')
    assert f"storage.url = '{url}'" in error.message
    assert message in error.message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('access_key_id = "a"', "storage.secret_access_key: is missing beside access_key_id"),
        ('session_token = "a"', "storage.access_key_id: is missing beside session_token"),
        (
            'access_key_id = "a"\nsecret_access_key = "b"\nprofile = "p"',
            "storage.profile = 'p': there are explicit keys",
        ),
    ],
)
def test_half_a_credential_is_refused(tmp_path: Path, keys: str, message: str) -> None:
    """boto3 would silently look elsewhere, and write with the rights of another user."""
    assert message in _refusal(tmp_path, MINIMAL + keys).message


def test_credentials_come_from_systemd_unless_they_are_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of LoadCredential= are read without the newline at their end."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "access_key_id").write_text("id\n")
    (tmp_path / "secret_access_key").write_text("secret\n")
    options = load(_write(tmp_path, MINIMAL)).storage.options
    assert (options["access_key_id"], options["secret_access_key"], options["session_token"]) == ("id", "secret", None)

    own = load(_write(tmp_path, MINIMAL + 'access_key_id = "own"\nsecret_access_key = "x"\n')).storage
    assert (own.options["access_key_id"], own.options["secret_access_key"]) == ("own", "x")
    assert load(_write(tmp_path, MINIMAL + 'profile = "p"\n')).storage.options["access_key_id"] is None


def test_half_a_credential_of_systemd_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id without a secret is a mistake in the unit."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "access_key_id").write_text("id\n")
    assert f"credential {tmp_path}/secret_access_key: is missing" in _refusal(tmp_path, MINIMAL).message


def test_without_any_keys_the_choice_is_left_to_boto3(tmp_path: Path) -> None:
    """No key is made up."""
    options = load(_write(tmp_path, MINIMAL)).storage.options
    assert [options[key] for key in ("access_key_id", "secret_access_key", "profile")] == [None, None, None]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('path = "/a/*"\nexclude = ["b"]', "database[1].exclude[1] = 'b': is a relative path"),
        ('path = "/a/*"\nexclude = ["/a/b", 7]', "database[1].exclude[2] = 7: must be text in quotes"),
        ('path = "/a.db"\nexclude = ["/a/*"]', "database[1].exclude = ['/a/*']: path is no pattern"),
        ('path = "/a/*/../b.db"', "database[1].path = '/a/*/../b.db': goes through .. after a wildcard"),
        ('path = "/a/*.db"\nname = "x"', "database[1].name = 'x': a pattern has no single name"),
        ('path = "/a.db"\nname = "/x"', "database[1].name = '/x'"),
        ('path = "/a.db"\nname = "20261122T105600Z-3f9c1a2b"', "database[1].name"),
        ('path = "/a/../b.db"', "database[1].path = '/a/../b.db'"),
        ('path = "/"', "database[1].path = '/'"),
    ],
)
def test_names_that_no_replica_can_have_are_refused(tmp_path: Path, entry: str, message: str) -> None:
    """They are refused before anything is written under them."""
    assert message in _refusal(tmp_path, f"{MINIMAL}[[database]]\n{entry}\n").message


def test_what_a_pattern_is_not_to_match(tmp_path: Path) -> None:
    """``exclude`` has patterns, and is empty by default."""
    file = tmp_path / "config.toml"
    file.write_text(f'{MINIMAL}[[database]]\npath = "/a/*.db"\nexclude = ["/a/x.db", "/a//test-*/"]\n')
    assert load(file).databases[0].exclude == ("/a/x.db", "/a/test-*")
    file.write_text(f'{MINIMAL}[[database]]\npath = "/a/*.db"\n')
    assert load(file).databases[0].exclude == ()


def test_names_are_limited_together_with_the_prefix(tmp_path: Path) -> None:
    """S3 limits the length of the whole key."""
    name = "/".join(["n" * 200] * 4)
    text = '[storage]\nurl = "s3://bucket/{}"\n[[database]]\npath = "/a.db"\nname = "{}"\n'
    load(_write(tmp_path, text.format("p", name)))
    assert "database[1].name" in _refusal(tmp_path, text.format("p" * 200, name)).message


def test_broken_json_in_the_environment_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for a whole section has to be JSON."""
    monkeypatch.setenv("WALSYNCD_DATABASE", "[{")
    with pytest.raises(UsageError, match='"database"'):
        load(_write(tmp_path, MINIMAL))


def test_the_environment_alone_completes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty file is enough for a container."""
    monkeypatch.setenv("WALSYNCD_STORAGE__URL", "file:///srv/replica")
    assert load(_write(tmp_path, "")).storage.url == "file:///srv/replica"


def test_an_address_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore by URL works on a machine that has nothing but credentials."""
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "absent.toml")
    monkeypatch.setenv("WALSYNCD_STORAGE__ENDPOINT_URL", "http://127.0.0.1:9000")
    storage = storage_at("s3://bucket/prefix/app/", None)
    assert (storage.url, storage.options["endpoint_url"]) == ("s3://bucket/prefix/app", "http://127.0.0.1:9000")


def test_an_address_takes_the_rest_from_the_configuration(tmp_path: Path) -> None:
    """The endpoint is that of [storage], the url the one that was asked for."""
    file = _write(tmp_path, MINIMAL + 'endpoint_url = "https://s3.example.com"\n')
    storage = storage_at("s3://other/app", file)
    assert (storage.url, storage.options["endpoint_url"]) == ("s3://other/app", "https://s3.example.com")


def test_an_address_with_a_file_that_was_asked_for_needs_it(tmp_path: Path) -> None:
    """A misspelt --config is not ignored."""
    with pytest.raises(UsageError, match="does not exist"):
        storage_at("s3://other/app", tmp_path / "absent.toml")


def test_a_bad_address_is_named(tmp_path: Path) -> None:
    """The error names it whether it comes from the file or the command line."""
    with pytest.raises(UsageError, match="'gs://other'"):
        storage_at("gs://other", _write(tmp_path, MINIMAL))
