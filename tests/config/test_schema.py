import pytest
from pydantic import ValidationError

from walsyncd.config.schema import ConfigFile


def _parse(**content: object) -> ConfigFile:
    return ConfigFile(**{"storage": {"url": "s3://bucket"}, **content})  # type: ignore[arg-type]


def _error(**content: object) -> str:
    with pytest.raises(ValidationError) as caught:
        _parse(**content)
    return str(caught.value)


def test_everything_but_the_url_has_a_default() -> None:
    """The shortest file has only a url. The defaults are those of the documentation."""
    parsed = _parse()
    assert parsed.daemon.state_dir == "/var/lib/walsyncd"
    assert (parsed.daemon.spool_bytes_max, parsed.daemon.uploads_max) == (4 << 30, 8)
    assert (parsed.defaults.upload_interval, parsed.defaults.snapshot_interval) == (1.0, 86_400.0)
    assert (parsed.defaults.retention, parsed.defaults.presence) == (604_800.0, False)
    assert parsed.database == []


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """WALSYNCD_SECTION__KEY replaces one key and leaves the section's others."""
    monkeypatch.setenv("WALSYNCD_STORAGE__URL", "s3://other")
    monkeypatch.setenv("WALSYNCD_DAEMON__UPLOADS_MAX", "3")
    parsed = _parse(storage={"url": "s3://bucket", "region": "eu-central-1"})
    assert (parsed.storage.url, parsed.storage.region, parsed.daemon.uploads_max) == (
        "s3://other",
        "eu-central-1",
        3,
    )


def test_all_databases_can_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has no key of its own, so the variable holds JSON."""
    monkeypatch.setenv("WALSYNCD_DATABASE", '[{"path": "/a.db", "retention": "1d"}]')
    assert [(section.path, section.retention) for section in _parse().database] == [("/a.db", 86_400.0)]


@pytest.mark.parametrize("retention", ["0s", "5", 5, "40000d", True])
def test_durations_without_a_unit_or_sense_are_refused(retention: object) -> None:
    """A duration of zero, one of more than a century, and a bare number are refused."""
    assert "defaults.retention" in _error(defaults={"retention": retention})


def test_a_spool_that_holds_no_frame_is_refused() -> None:
    """The largest page has 64 KiB, and a spool must hold one frame of it."""
    assert "too small" in _error(daemon={"spool_bytes_max": "64KiB"})
    assert _parse(daemon={"spool_bytes_max": 1 << 20}).daemon.spool_bytes_max == 1 << 20


@pytest.mark.parametrize("section", ["storage", "daemon", "defaults"])
def test_keys_that_no_section_has_are_refused(section: str) -> None:
    """A misspelt key must not silently become the default."""
    assert f"{section}.nonsense" in _error(**{section: {"url": "s3://bucket", "nonsense": 1}})


def test_drills_are_off_unless_asked_for() -> None:
    """A duration turns them on, and "off" turns them off again for one database."""
    assert _parse().defaults.verify_interval == 0
    parsed = _parse(defaults={"verify_interval": "7d"}, database=[{"path": "/a", "verify_interval": "off"}])
    assert (parsed.defaults.verify_interval, parsed.database[0].verify_interval) == (604_800.0, 0.0)


def test_backpressure_can_be_asked_for() -> None:
    """Backpressure is off by default. A database inherits the keys that it leaves out."""
    assert (_parse().defaults.backpressure, _parse().defaults.wal_bytes_max) == (False, 256 << 20)
    assert _parse(defaults={"backpressure": True, "wal_bytes_max": "1GiB"}).defaults.wal_bytes_max == 1 << 30
    assert _parse(database=[{"path": "/a", "backpressure": True}]).database[0].backpressure
    assert _parse(defaults={"backpressure": True}, database=[{"path": "/a"}]).database[0].backpressure is None


def test_scrubs_come_daily_unless_they_are_off() -> None:
    """One database may have another interval."""
    assert _parse().defaults.scrub_interval == 86_400.0
    parsed = _parse(defaults={"scrub_interval": "off"}, database=[{"path": "/a", "scrub_interval": "7d"}])
    assert (parsed.defaults.scrub_interval, parsed.database[0].scrub_interval) == (0.0, 604_800.0)


def test_presence_can_be_asked_for() -> None:
    """Presence can be set for all databases or for one, whose own key wins."""
    assert _parse(defaults={"presence": True}).defaults.presence
    assert _parse(database=[{"path": "/a", "presence": True}]).database[0].presence
    assert _parse(defaults={"presence": True}, database=[{"path": "/a"}]).database[0].presence is None


@pytest.mark.parametrize("path", ["app.db", "", "~/app.db", "/a\0b"])
def test_paths_are_absolute(path: str) -> None:
    """Nobody knows the working directory of a daemon."""
    assert "database.0.path" in _error(database=[{"path": path}])
    assert "daemon.state_dir" in _error(daemon={"state_dir": path})


def test_an_endpoint_is_an_http_url() -> None:
    """Without a scheme the bare host name would be taken for one."""
    assert "https://" in _error(storage={"url": "s3://bucket", "endpoint_url": "minio:9000"})
