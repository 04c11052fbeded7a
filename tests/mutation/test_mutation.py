"""Tests that the suite notices if any rule of the proof is left out."""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.mutation.backpressure_mutants import BACKPRESSURE_MUTANTS
from tests.mutation.capture_mutants import CAPTURE_MUTANTS
from tests.mutation.clock_mutants import CLOCK_MUTANTS
from tests.mutation.content_mutants import CONTENT_MUTANTS
from tests.mutation.deferral_mutants import DEFERRAL_MUTANTS
from tests.mutation.doubt_mutants import DOUBT_MUTANTS
from tests.mutation.journal_mutants import JOURNAL_MUTANTS
from tests.mutation.mutants import MUTANTS as MUTANTS_OF_THE_PROOF
from tests.mutation.mutants import Mutant
from tests.mutation.path_mutants import PATH_MUTANTS
from tests.mutation.presence_mutants import PRESENCE_MUTANTS
from tests.mutation.read_ahead_mutants import READ_AHEAD_MUTANTS
from tests.mutation.rollback_mutants import ROLLBACK_MUTANTS
from tests.mutation.rule_mutants import RULE_MUTANTS
from tests.mutation.storage_mutants import STORAGE_MUTANTS

MUTANTS = (
    MUTANTS_OF_THE_PROOF
    + RULE_MUTANTS
    + STORAGE_MUTANTS
    + PRESENCE_MUTANTS
    + DOUBT_MUTANTS
    + CONTENT_MUTANTS
    + ROLLBACK_MUTANTS
    + PATH_MUTANTS
    + BACKPRESSURE_MUTANTS
    + JOURNAL_MUTANTS
    + DEFERRAL_MUTANTS
    + CAPTURE_MUTANTS
    + READ_AHEAD_MUTANTS
    + CLOCK_MUTANTS
)
ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1  # pytest's exit code; a mutant that can't be imported gives another

# All modules that the tests import are imported once. Each line has the arguments of a pytest that runs in a fork of
# this process, and writes the names of the failed tests into a file.
_RUNNER = """
import json, os, sys
import boto3, botocore.config, botocore.endpoint, botocore.parsers, hypothesis.stateful, hypothesis.strategies
import inotify_simple, numpy, pytest, sqlite3, structlog

NAMES = os.path.abspath("failed.txt")

class Failures:
    def pytest_runtest_logreport(self, report):
        if report.failed:
            with open(NAMES, "a") as file:
                print(report.nodeid, file=file)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = 70
        try:
            open(NAMES, "w").close()
            code = int(pytest.main(json.loads(line), [Failures()]))
            sys.stdout.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Tree:
    """A copy of the tree, to be broken, and a process that runs tests in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.noticed: set[str] = set()
        for name in ("walsyncd", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        # Compiled files are kept by the hash of their source, because a mutant may have the time and size of the file
        # that it replaces.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "walsyncd", quiet=1, invalidation_mode=by_hash)
        # The event that a test waits for may never happen in a mutant, so the test must fail in time.
        plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "WALSYNCD_TESTS_WAIT_S": "30"}
        self._runner = subprocess.Popen(
            [sys.executable, "-c", _RUNNER],
            cwd=folder,
            env={**os.environ, **plain},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def exit_code(self, asked: Iterable[str], *options: str) -> tuple[int, str]:
        """Return the exit code and the output of pytest over some tests of the tree."""
        assert self._runner.stdin is not None
        assert self._runner.stdout is not None
        # A time-out ends the fork with TESTS_FAILED. If a signal ends it, it may interrupt an instruction that has no
        # line (Python 3.11). Pytest can't report that: INTERNALERROR.
        plugins = ["-p", "pytest_timeout", "--timeout-method=thread", "-p", "no:cacheprovider"]
        where = [f"--rootdir={self.folder}", f"--basetemp={self.folder / 'tmp'}"]
        arguments = ["-x", "-q", *options, *plugins, *where, *(f"tests/{test}" for test in asked)]
        self._runner.stdin.write(json.dumps(arguments) + "\n")
        self._runner.stdin.flush()
        code = int(self._runner.stdout.readline())
        return code, (self.folder / "said.txt").read_text()

    def failed(self) -> list[str]:
        """Return the tests that failed last. There are none if a time-out ended them."""
        names = (self.folder / "failed.txt").read_text().splitlines()
        return [name.removeprefix("tests/") for name in names]

    def close(self) -> None:
        """End the process of the tree."""
        self._runner.communicate()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    tree = Tree(tmp_path_factory.mktemp("mutated"))
    yield tree
    tree.close()


def mutated(mutant: Mutant) -> str:
    """Return the broken source."""
    source = (ROOT / "walsyncd" / mutant.file).read_text()
    for old, new in mutant.edits:
        assert source.count(old) == 1, f"{mutant.file} has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    return source


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_breaks_is_there(mutant: Mutant) -> None:
    """The source to be replaced occurs exactly once, the mutant compiles and differs, and the tests that it names
    exist.
    """
    compile(mutated(mutant), mutant.file, "exec")
    for asked in mutant.asked:
        file, _, function = asked.partition("::")
        assert f"def {function.partition('[')[0]}" in (ROOT / "tests" / file).read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)  # an answer that comes too late would be taken for that of the next mutant
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_proof_is_noticed(tree: Tree, mutant: Mutant) -> None:
    """The tests fail, and not because the program does not start."""
    file = tree.folder / "walsyncd" / mutant.file
    source = file.read_text()
    file.write_text(mutated(mutant))
    try:
        # It is enough that they fail. To show where two databases differ, pytest would take minutes.
        code, said = tree.exit_code(mutant.asked, "--assert=plain", "--tb=native")
    finally:
        file.write_text(source)
    assert code == TESTS_FAILED, f"nobody noticed that {mutant.name}:\n{said}"
    tree.noticed.update(tree.failed() or mutant.asked)


@pytest.mark.slow
@pytest.mark.timeout(600)  # all tests of all mutants take more than a minute
def test_what_noticed_a_mutant_succeeds_without_it(tree: Tree) -> None:
    """The tests that failed above succeed in the unbroken copy, so they failed because of the mutant.

    Without mutants all of them are run.
    """
    every = {asked for mutant in MUTANTS for asked in mutant.asked}
    code, said = tree.exit_code(sorted(tree.noticed or every))
    assert code == 0, said
