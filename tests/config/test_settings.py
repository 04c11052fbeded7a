from walsyncd.config import DatabaseEntry, StorageSettings


def _entry(path: str) -> DatabaseEntry:
    return DatabaseEntry("database[1]", path, None, 1.0, 1.0, 1.0, presence=False)


def test_secrets_stay_out_of_the_repr() -> None:
    """A value that is printed in a log or a traceback does not reveal the keys."""
    keys = {"access_key_id": "AKIAX", "secret_access_key": "hunter2", "session_token": "tok3n"}
    settings = StorageSettings(url="s3://bucket", options=keys)
    assert not any(secret in repr(settings) for secret in keys.values())


def test_the_prefix_is_what_follows_the_bucket() -> None:
    """Only a bucket has a prefix."""
    assert StorageSettings(url="s3://bucket/hosts/web-1").prefix == "hosts/web-1"
    assert StorageSettings(url="s3://bucket").prefix == ""
    assert StorageSettings(url="file:///srv/replica").prefix == ""


def test_a_pattern_is_told_by_its_characters() -> None:
    """A path with any of * ? [ is a pattern."""
    assert [_entry(path).is_pattern for path in ("/a/b.db", "/a/*.db", "/a/b?.db", "/a/[bc].db")] == [
        False,
        True,
        True,
        True,
    ]
