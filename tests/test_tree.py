"""Tests of the rules of the tree that a machine can check."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "walsyncd"
MODULES = sorted(PACKAGE.rglob("*.py"))
TEST_MODULES = sorted((ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# What each layer may import of walsyncd itself. Everything may import the package for its version.
LAYERS = {
    "errors": set[str](),
    "file_calls": {"errors"},
    "log": {"log", "errors"},
    "core": {"core", "errors"},
    "config": {"config", "core", "errors", "file_calls"},
    "adapters": {"adapters", "core", "errors", "file_calls", "log"},
    "engine": {"engine", "adapters", "core", "config", "errors", "file_calls", "log"},
    "demo": {"demo", "core", "errors"},
    "cli": {"cli", "demo", "engine", "adapters", "core", "config", "errors", "file_calls", "log"},
    "__main__": {"cli"},
    "__init__": set[str](),
}

# Modules for clock, files, network, threads, logs and processes, which the core may not use.
IMPURE = {
    "asyncio",
    "boto3",
    "botocore",
    "concurrent",
    "ctypes",
    "fcntl",
    "glob",
    "inotify_simple",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "pydantic",
    "pydantic_settings",
    "queue",
    "random",
    "rich",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
    "urllib3",
    "uuid",
}

# datetime's values are pure, and these calls ask the clock.
CLOCKS = {"now", "utcnow", "today"}

# Limits that tests change by name. All other limits are passed as values (``walsyncd.core.limits``, or a parameter).
PATCHED = {
    "PUT_SIZE_MAX": "a row of the journal knows by its size alone that it goes in parts, and 8 MiB a row are slow",
    "LOOK_S": "a command asks its mounts without being told for how long",
    "PROBE_S": "the same, in a process of its own",
    "HOLD_MS_MAX": "the child of backpressure is a process of its own",
    "SILENCE_MS": "the same",
    # These are no limits: where something is, and what it consists of.
    "MIGRATIONS": "an earlier or a later version of the journal",
    "SERVICE_FOLDER": "a folder",
    "MODULE": "another program",
}

TOP = {
    "pyproject.toml",
    "walsyncd",
    "packaging",
    "systemd",
    "tests",
    "config.example.toml",
    "README.md",
    "LICENSE",
}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _layer(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    """Return line and dotted name of everything that a file imports, inside functions and for typing too."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names if not node.level)


def _functions(file: Path) -> Iterator[tuple[str, int]]:
    """Return name and length in lines of each function, with its decorators and docstring."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield f"{_name(file)}:{first} {node.name}", (node.end_lineno or first) - first + 1


def test_layers_point_down() -> None:
    """Of cli, engine, adapters and core, each layer imports only itself and those below it, by absolute names."""
    wrong = []
    for file in MODULES:
        for line, name in _imports(file):
            target = name.split(".")[1] if name.startswith("walsyncd.") else ""
            is_up = (PACKAGE / target).exists() or (PACKAGE / f"{target}.py").exists()
            if name.startswith(".") or (target and is_up and target not in LAYERS[_layer(file)]):
                wrong.append(f"{_name(file)}:{line} imports {name}")
    assert wrong == []


def test_the_core_is_pure() -> None:
    """The core uses no clock, file, network, thread or log. It takes bytes and returns facts."""
    core = [file for file in MODULES if _layer(file) == "core"]
    wrong = [
        f"{_name(file)}:{line} imports {name}"
        for file in core
        for line, name in _imports(file)
        if name.split(".")[0] in IMPURE
    ]
    wrong += [
        f"{_name(file)}:{node.lineno} asks for {node.attr}"
        for file in core
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS
    ]
    wrong += [
        f"{_name(file)}:{node.lineno} calls open"
        for file in core
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "input"}
    ]
    assert wrong == []


def test_only_adapters_know_botocore() -> None:
    """Errors are translated where they enter."""
    wrong = [
        f"{_name(file)}:{line} imports {name}"
        for file in MODULES
        for line, name in _imports(file)
        if name.split(".")[0] in {"boto3", "botocore"} and _layer(file) != "adapters"
    ]
    assert wrong == []


def test_files_stay_readable() -> None:
    """Each file has fewer than 400 lines, tests included."""
    lengths = {_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES + TEST_MODULES}
    assert {name: lines for name, lines in lengths.items() if lines >= FILE_LINES_MAX} == {}


def test_functions_stay_readable() -> None:
    """Each function has fewer than 60 lines. A longer one does more than one thing."""
    lengths = dict(entry for file in MODULES for entry in _functions(file))
    assert {name: lines for name, lines in lengths.items() if lines >= FUNCTION_LINES_MAX} == {}


def test_every_module_has_its_test_file() -> None:
    """For example, walsyncd/core/sqlite/wal.py is tested in tests/core/sqlite/test_wal.py."""
    missing = []
    for file in MODULES:
        path = file.relative_to(PACKAGE)
        test = ROOT / "tests" / path.parent / f"test_{path.name}"
        if path.stem not in {"__init__", "__main__"} and not test.exists():
            missing.append(f"{_name(file)} has no {_name(test)}")
    assert missing == []


def test_only_commands_print() -> None:
    """Only the command line prints results. Everything else logs."""
    wrong = [
        f"{_name(file)}:{node.lineno}"
        for file in MODULES
        if _layer(file) != "cli"
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_top_of_the_tree_holds_only_what_belongs_there() -> None:
    """A newcomer sees the top first, so it is short."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top - TOP if not name.startswith(".")} == set()


def _patched_names(file: Path) -> Iterator[tuple[int, str, str]]:
    """Return line, module and name of each constant of the package that a test changes, also in a program that is a
    text.
    """
    modules: dict[str, str] = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("walsyncd."):
            modules |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            texts = [each.value if isinstance(each, ast.Constant) else "" for each in node.args[:2]]
            if len(texts) == 2 and isinstance(texts[0], str) and texts[0].startswith("walsyncd."):
                yield node.lineno, *texts[0].rpartition(".")[::2]
            elif len(texts) == 2 and isinstance(node.args[0], ast.Name) and node.args[0].id in modules:
                yield node.lineno, modules[node.args[0].id], str(texts[1])
        for target in node.targets if isinstance(node, ast.Assign) else []:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in modules:
                yield target.lineno, modules[target.value.id], target.attr


def test_limits_are_passed_and_not_patched() -> None:
    """A test that changes a constant by name stops working when somebody imports or renames that constant."""
    layers = ("walsyncd.core.", "walsyncd.adapters.", "walsyncd.engine.")
    found = [
        (f"{_name(file)}:{line} {module}", name)
        for file in TEST_MODULES
        for line, module, name in _patched_names(file)
        if module.startswith(layers) and name.isupper()
    ]
    assert [(where, name) for where, name in found if name not in PATCHED] == []
    assert {name for _, name in found} == set(PATCHED), "an exception that nobody needs any more"
