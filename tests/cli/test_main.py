import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from walsyncd import __version__, cli
from walsyncd.cli import COMMANDS, main, settings_from
from walsyncd.errors import NothingToRestoreError, TargetError, UsageError, WalsyncdError

# modules that take long to import and that no help text needs
HEAVY = {"boto3", "botocore", "numpy", "pydantic", "rich", "structlog", "sqlite3"}


class _Command:
    """A command's module that does what ``action`` does."""

    def __init__(self, outcome: int | BaseException) -> None:
        self._outcome = outcome
        self.args = argparse.Namespace()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true")

    def run(self, args: argparse.Namespace) -> int:
        self.args = args
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def _install(monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException) -> _Command:
    command = _Command(outcome)
    monkeypatch.setattr(cli, "_module", lambda _name: command)
    return command


def test_help_lists_every_command_with_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """One screen lists all commands."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in COMMANDS)
    assert "example:" in text
    assert "4  the target can't be reached" in text


def test_help_is_fast() -> None:
    """Neither --help nor a usage error imports what a replicating daemon needs."""
    script = (
        "import sys; from walsyncd.cli import main\n"
        "main(['--help']); main(['nonsense']); main(['check', '--help'])\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_commands_help_has_an_example_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example begins with the command itself. All but the demo have --config."""
    _install(monkeypatch, 0)
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example:\n  walsyncd {name}" in text
    assert "exit codes:" in text
    assert ("--config FILE" in text) == (name != "demo")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """--version goes to stdout like any result."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"walsyncd {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["chek"], "invalid choice: 'chek'"),
        (["check", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["check", "--config"], "expected one argument"),
        (["--nonsense", "check"], "--nonsense"),
    ],
)
def test_usage_errors_end_with_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are printed like all errors, with a hint to the help."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("walsyncd: ")
    assert message in captured.err
    assert "--help` shows" in captured.err


def test_a_command_gets_its_arguments_and_gives_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own arguments and the common ones arrive in one namespace."""
    command = _install(monkeypatch, 3)
    assert main(["status", "--config", "/a.toml", "--json"]) == 3
    assert command.args.config == Path("/a.toml")
    assert command.args.json is True
    assert command.args.command == "status"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WalsyncdError("read base: it broke", hint="try again"), 1),
        (UsageError("read base: it broke", hint="try again"), 2),
        (NothingToRestoreError("read base: it broke", hint="try again"), 3),
        (TargetError("read base: it broke", hint="try again"), 4),
    ],
)
def test_errors_are_said_once_with_their_hint(
    error: WalsyncdError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Message and hint are on stderr, and the exit code is that of the error."""
    _install(monkeypatch, error)
    assert main(["status"]) == code
    captured = capsys.readouterr()
    assert captured.err == "walsyncd: read base: it broke\n  hint: try again\n"
    assert captured.out == ""


def test_an_error_without_a_hint_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No empty hint is shown."""
    _install(monkeypatch, WalsyncdError("it broke"))
    main(["status"])
    assert capsys.readouterr().err == "walsyncd: it broke\n"


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Control-C ends with 130, as in shells."""
    _install(monkeypatch, KeyboardInterrupt())
    assert main(["status"]) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only expected errors are caught."""
    _install(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["status"])


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_is_no_traceback(lines: int) -> None:
    """``walsyncd ls | head -1`` ends quietly, whether the pipe breaks while printing or at the last flush."""
    script = (
        "import sys\nfrom walsyncd import cli\n"
        "class Command:\n"
        "    def add_arguments(self, parser): pass\n"
        f"    def run(self, args): sys.stdin.read(); print('line\\n' * {lines}); return 0\n"
        "cli._module = lambda name: Command()\n"
        "sys.exit(cli.main(['ls']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_settings_come_from_the_file_that_was_named(tmp_path: Path) -> None:
    """Every command calls settings_from first."""
    file = tmp_path / "config.toml"
    file.write_text('[storage]\nurl = "s3://bucket"\n')
    assert settings_from(argparse.Namespace(config=file)).storage.url == "s3://bucket"


def test_python_dash_m_is_the_same_program() -> None:
    """It is for installations without the script."""
    result = subprocess.run([sys.executable, "-m", "walsyncd", "nonsense"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("walsyncd: ")
