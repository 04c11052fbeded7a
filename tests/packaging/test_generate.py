"""Tests of packaging/generate.py: its output is what is committed, and what that says is true."""

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
PAGES = ("walsyncd.8", "walsyncd.toml.5", *(page.name for page in sorted((PACKAGING / "man").glob("*.7"))))
MADE = (*(f"man/{page}" for page in PAGES), "completions/walsyncd.bash", "completions/_walsyncd")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    runpy.run_path(str(PACKAGING / "generate.py"))["main"](folder)
    return folder


@pytest.mark.parametrize("name", MADE)
def test_what_is_committed_is_what_is_made(made: Path, name: str) -> None:
    """After a change of the command line or of the example, run: python packaging/generate.py."""
    assert (PACKAGING / name).read_text() == (made / name).read_text(), "run: python packaging/generate.py"


def test_the_page_names_every_command(made: Path) -> None:
    """Each command has a section of its own."""
    page = (made / "man/walsyncd.8").read_text()
    assert [name for name in COMMANDS if f".SS {name}\n" not in page] == []


def test_the_page_names_every_key(made: Path) -> None:
    """Each key is in the example's sections. Keys of one database may be among the defaults."""
    page = (made / "man/walsyncd.toml.5").read_text()
    keys = {name for section in SECTIONS.values() for name in section.model_fields}
    assert [key for key in sorted(keys) if f'.BR "{key}" ' not in page] == []


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_no_complaint(made: Path, name: str) -> None:
    """Groff reports no unknown request and no undefined string."""
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
    """This is tried in a shell that has read the file."""
    script = f"""
        source {made}/completions/walsyncd.bash
        COMP_WORDS=(walsyncd restore --al) COMP_CWORD=2
        _shtab_walsyncd
        echo "${{COMPREPLY[@]}}"
    """
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "--allow-partial" in shown.stdout.split()


def test_the_example_is_toml() -> None:
    """This holds also if every default is uncommented."""
    tomllib.loads((ROOT / "config.example.toml").read_text())


def test_every_page_is_part_of_the_package() -> None:
    """The wheel and the Debian package have every page."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "shared-data"
    ]
    missing = [page for page in PAGES if data.get(f"packaging/man/{page}") != f"share/man/man{page[-1]}/{page}"]
    assert missing == []
    assert "packaging/man/walsyncd-*.7" in (PACKAGING / "debian/rules").read_text()


def test_markdown_becomes_roff() -> None:
    """The pages need this: a line that begins with a dot is no request, and a backslash stays a backslash."""
    page = runpy.run_path(str(PACKAGING / "generate.py"))["_page"]
    text = (
        "# x(7): a thing\n\n## Part\n\n.dot `a-b` and **bold** [link](there)\n\n```sh\n.x \\y\n```\n\n"
        "- one\n  more\n- two\n\n1. first\n\n| a | b |\n|---|---|\n| c | d |\n"
    )
    assert list(page(text))[3:-3] == [
        '.SH "Part"',
        ".PP",
        "\\&.dot \\fBa\\-b\\fR and \\fBbold\\fR link",
        *(".PP", ".RS", ".EX", "\\&.x \\ey", ".EE", ".RE"),
        *(".IP \\(bu 2", "one more", ".IP \\(bu 2", "two"),
        *('.IP "1." 4', "first"),
        *(".TP", "c", "b: d"),
    ]
