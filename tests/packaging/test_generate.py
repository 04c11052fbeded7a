"""Tests of packaging/generate.py: what it makes is what is committed, and what it says is true."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from walsyncd.cli import COMMANDS
from walsyncd.config.schema import SECTIONS

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
MADE = (
    "man/walsyncd.8",
    "man/walsyncd.toml.5",
    "man/walsyncd-trust.7",
    "completions/walsyncd.bash",
    "completions/_walsyncd",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    runpy.run_path(str(PACKAGING / "generate.py"))["main"](folder)
    return folder


@pytest.mark.parametrize("name", MADE)
def test_what_is_committed_is_what_is_made(made: Path, name: str) -> None:
    """After a change of the command line or the example: python packaging/generate.py."""
    assert (PACKAGING / name).read_text() == (made / name).read_text(), "run: python packaging/generate.py"


def test_the_page_names_every_command(made: Path) -> None:
    """Each has a section of its own."""
    page = (made / "man/walsyncd.8").read_text()
    assert [name for name in COMMANDS if f".SS {name}\n" not in page] == []


def test_the_page_names_every_key(made: Path) -> None:
    """Each stands in the example's sections, or, for one database, among the defaults."""
    page = (made / "man/walsyncd.toml.5").read_text()
    keys = {name for section in SECTIONS.values() for name in section.model_fields}
    assert [key for key in sorted(keys) if f'.BR "{key}" ' not in page] == []


@pytest.mark.parametrize("name", ["walsyncd.8", "walsyncd.toml.5", "walsyncd-trust.7"])
def test_groff_has_no_complaint(made: Path, name: str) -> None:
    """No unknown request, no undefined string."""
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    shown = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-c", "-k", "-wall", str(made / "man" / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    assert "walsyncd" in shown.stdout


def test_bash_completes_commands_and_options(made: Path) -> None:
    """As a shell does it that has read the file."""
    script = f"""
        source {made}/completions/walsyncd.bash
        COMP_WORDS=(walsyncd restore --al) COMP_CWORD=2
        _shtab_walsyncd
        echo "${{COMPREPLY[@]}}"
    """
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "--allow-partial" in shown.stdout.split()


def test_the_example_is_toml() -> None:
    """Also with every default put in force."""
    tomllib.loads((ROOT / "config.example.toml").read_text())
