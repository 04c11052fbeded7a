"""Tests of the demo's processes: they run at once, and each is stopped by its own pid, whatever happens."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from walsyncd.config import expand, load
from walsyncd.demo import stage as stage_module
from walsyncd.demo.stage import NAME, Stage
from walsyncd.errors import WalsyncdError


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def _processes(stage: Stage) -> list[subprocess.Popen[str] | subprocess.Popen[bytes]]:
    return [process for process in (stage._application, stage._daemon) if process is not None]


def test_the_configuration_is_one_that_walsyncd_takes(stage: Stage) -> None:
    """It has one database. Its state directory is in no folder that holds a database."""
    (spec,) = expand(load(stage.config))
    assert (spec.path, spec.name) == (stage.database, NAME)


def test_the_users_own_settings_have_no_part_in_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo ignores a bucket that the environment names."""
    monkeypatch.setenv("WALSYNCD_STORAGE__URL", "s3://production")
    monkeypatch.setenv("walsyncd_daemon__state_dir", "/absent")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/absent")
    assert stage.run("ls").splitlines()[1:] == []


def test_what_a_command_says_when_it_fails_is_in_the_error(stage: Stage) -> None:
    """The error has the exit code, too."""
    with pytest.raises(WalsyncdError, match=r"`walsyncd restore absent -o /absent/x` ended with 2: .*no database"):
        stage.run("restore", "absent", "-o", "/absent/x")


def test_an_application_does_as_it_is_told(stage: Stage) -> None:
    """The application writes until it is told to pause, and ends with its stdin."""
    stage.start_application()
    stage.tell("write")
    stage.wait_until(lambda: len(stage.diary()) >= 3, "three commits")
    stage.tell("pause")
    written = stage.diary()
    stage.end_application()
    assert stage.diary() == written
    assert not Path(f"{stage.database}-wal").exists()


def test_an_application_that_ended_is_an_error(stage: Stage) -> None:
    """The error has the last line that it printed."""
    stage.start_application()
    assert stage._application is not None
    stage._application.kill()
    stage._application.wait()
    with pytest.raises(WalsyncdError, match=r"the application (ended|did not write)"):
        stage.tell("write")


def test_a_daemon_that_ended_is_an_error_with_its_last_words(stage: Stage) -> None:
    """A caller that waits for something gets the error at once."""
    stage.config.write_text("nonsense")
    stage.start_daemon()
    with pytest.raises(WalsyncdError, match="walsyncd run ended with 2") as caught:
        stage.wait_until(lambda: False, "never")
    assert "config.toml" in caught.value.hint


def test_waiting_has_an_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what was awaited."""
    monkeypatch.setattr(stage_module, "WAIT_TIMEOUT_S", 0.0)
    with pytest.raises(WalsyncdError, match="still not: a base is stored"):
        stage.wait_until(lambda: False, "a base is stored")


def test_a_daemon_is_killed_and_stopped(stage: Stage) -> None:
    """A kill is counted. A stop waits until the daemon ended with 0, and a killed daemon is no error."""
    stage.start_daemon()
    stage.kill_daemon()
    stage.wait_until(lambda: True, "at once")
    assert stage.kills == 1
    stage.start_application()
    stage.tell("write")
    stage.start_daemon()
    stage.wait_until(lambda: stage.contents().bases > 0, "a base is stored")
    stage.stop_daemon()
    assert [process.poll() for process in _processes(stage)] == [None, 0]


def _begin_and_break(stage: Stage) -> None:
    with stage:
        stage.start_application()
        stage.start_daemon()
        assert [process.poll() for process in _processes(stage)] == [None, None]
        raise ZeroDivisionError


def test_leaving_ends_every_process(tmp_path: Path) -> None:
    """This holds also after an error."""
    stage = Stage(tmp_path)
    with pytest.raises(ZeroDivisionError):
        _begin_and_break(stage)
    assert len(_processes(stage)) == 2
    assert all(process.returncode is not None for process in _processes(stage))
